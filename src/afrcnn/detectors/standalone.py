"""Detect objects with an exported detector. Needs numpy, Pillow and onnxruntime, and nothing of afrcnn.

    python detect.py model.onnx IMAGE PROPOSALS.npy

PROPOSALS.npy holds the regions to look at: n x 4, x1, y1, x2, y2 in pixels of the image, as numpy.save writes them.
Prints a line for each detection: its class, score and box.
"""

import json
import sys
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def load_session(path: str) -> tuple[Any, dict[str, Any]]:
    """Return a session of the model and the settings in its metadata."""
    session = onnxruntime.InferenceSession(path)
    metadata = session.get_modelmeta().custom_metadata_map
    return session, {name: json.loads(value) for name, value in metadata.items()}


def detect_objects(session: Any, settings: dict[str, Any], image: Any, proposals: Any) -> tuple[Any, Any, Any]:
    """Return boxes (D x 4), labels (D, 1..K) and scores (D), best first, of an image (H x W x 3, uint8, RGB)."""
    height, width = image.shape[:2]
    factor = min(settings["short_side"] / min(height, width), settings["long_side"] / max(height, width))
    size = int(height * factor), int(width * factor)
    pixels = image.astype(np.float32) / 255
    if settings["bgr"]:
        pixels = pixels[:, :, ::-1]
    pixels = (pixels - np.asarray(settings["mean"], np.float32)) / np.asarray(settings["deviation"], np.float32)
    side = settings["multiple_of"]
    batch = np.zeros((1, 3, -(-size[0] // side) * side, -(-size[1] // side) * side), np.float32)
    batch[0, :, : size[0], : size[1]] = _resize(pixels, size).transpose(2, 0, 1)
    proposals = np.asarray(proposals, np.float32).reshape(-1, 4)
    if not len(proposals):
        return np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32)
    scales = np.asarray([size[1] / width, size[0] / height] * 2, np.float32)
    scores, boxes = session.run(["scores", "boxes"], {"image": batch, "proposals": proposals, "scales": scales})
    roi, label = np.nonzero(scores[:, 1:] > settings["score_threshold"])
    label = label + 1
    boxes = boxes[roi, label].clip(0, np.asarray([width, height] * 2, np.float32))
    scores = scores[roi, label]
    solid = (boxes[:, 2:] - boxes[:, :2] >= 0.01).all(axis=1)
    boxes, label, scores = boxes[solid], label[solid], scores[solid]
    kept = _suppress(boxes, label, scores, settings["nms_iou"])[: settings["detections_per_image"]]
    return boxes[kept], label[kept], scores[kept]


def _resize(image: Any, size: tuple[int, int]) -> Any:
    """Interpolate an image linearly between the centres of its pixels, rows and then columns."""
    for axis, length in enumerate(size):
        places = np.maximum((np.arange(length) + 0.5) * (image.shape[axis] / length) - 0.5, 0)
        low = np.minimum(places.astype(np.int64), image.shape[axis] - 1)
        weight = np.expand_dims((places - low).astype(np.float32), (1 - axis, 2))
        high = np.minimum(low + 1, image.shape[axis] - 1)
        image = image.take(low, axis) * (1 - weight) + image.take(high, axis) * weight
    return image


def _suppress(boxes: Any, labels: Any, scores: Any, limit: float) -> Any:
    """Return the indices, best first, of boxes that no better one of their class overlaps by an IoU above a limit."""
    left, kept = np.argsort(-scores, kind="stable"), []
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    while len(left):
        first, left = left[0], left[1:]
        kept.append(first)
        sides = np.minimum(boxes[left, 2:], boxes[first, 2:]) - np.maximum(boxes[left, :2], boxes[first, :2])
        shared = sides.clip(0).prod(axis=1)
        iou = shared / (areas[left] + areas[first] - shared)
        left = left[(iou <= limit) | (labels[left] != labels[first])]
    return np.array(kept, np.int64)


if __name__ == "__main__":
    model, picture, regions = sys.argv[1:]
    network, facts = load_session(model)
    opened = np.asarray(ImageOps.exif_transpose(Image.open(picture)).convert("RGB"))
    for place, kind, score in zip(
        *detect_objects(network, facts, opened, np.load(regions, allow_pickle=False)), strict=True
    ):
        print(facts["classes"][kind - 1], f"{score:.3f}", *(f"{side:.1f}" for side in place))
