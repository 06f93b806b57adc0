"""Detection in images that belong to no dataset: proposals made as those of a training, and boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from afrcnn.core.errors import UserError
from afrcnn.run import Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torchvision import tv_tensors

    from afrcnn.data.target import Target
    from afrcnn.data.video import Video
    from afrcnn.detectors.rcnn import FastRCNN
    from afrcnn.proposals.selective_search import Mode
    from afrcnn.recipe import Recipe

_LARGEST_SEARCHED = 640
"""Longer side in pixels from which on an image is searched in a smaller copy. Selective search is made for images of
VOC's and COCO's sizes (500 and 640); with those of a camera it takes minutes and gigabytes, and the detector resizes
them anyway."""


_MOST_PIXELS = 25_000_000
"""Pixels from which on an image is decoded at a fraction of its size: larger ones take gigabytes, and the detector
resizes them to less than a megapixel."""


def detect_image(
    detector: FastRCNN, image: NDArray[np.uint8], *, mode: Mode = "fast", limit: int = 2000
) -> dict[str, Tensor]:
    """Detect objects in one image, from its pixels to boxes.

    Args:
        detector: a trained detector in evaluation mode, as of ``load_detector``.
        image: H x W x 3, RGB, uint8 or floating point from 0 to 1.
        mode: of selective search, as in training.
        limit: how many proposals are used at most, best first.

    Returns:
        ``boxes`` (D x 4, float32, XYXY pixels of the image), ``labels`` (D, int64, 1..K) and ``scores`` (D, float32
        in [0, 1]), best first, on the detector's device.

    Raises:
        ValueError: the image is not as said above.
    """
    import torch

    from afrcnn.data.image import to_uint8

    image = to_uint8(image)
    device = next(detector.parameters()).device
    proposals = torch.from_numpy(_propose(image, mode)[:limit]).to(device)
    with torch.inference_mode():
        detections = detector([torch.from_numpy(image).permute(2, 0, 1).to(device)], [proposals])
    detection: dict[str, Tensor] = detections[0]
    return detection


def load_detector_at(run: Run, score: float, trust: Sequence[str] = ()) -> nn.Module:
    """Return the trained detector of a run, which drops no detection of a score or higher.

    Raises:
        UserError: the run is not finished, or the score is not in [0, 1].
    """
    if not 0 <= score <= 1:
        raise UserError(f"{score} is out of range", field="score", fix="choose from 0 to 1")
    threshold = min(score, run.recipe.detector.score_threshold)

    from afrcnn.build import load_detector

    overrides = [*run.overrides, f"--detector.score_threshold={threshold}"]
    return load_detector(Run(run.source, overrides), trust)


def detect_images(detector: nn.Module, paths: Sequence[Path], recipe: Recipe, score: float) -> list[dict[str, Tensor]]:
    """Detect objects in images, by proposals made as those that the detector was trained with.

    Args:
        detector: the trained detector.
        paths: the images.
        recipe: the run's, which says how proposals are made, and on what machine.
        score: the lowest score, in [0, 1], of what is returned.

    Returns:
        For each image ``boxes`` (D x 4, XYXY pixels), ``labels`` (D) and ``scores`` (D), best first, on the CPU.

    Raises:
        UserError: an image is damaged, or such proposals cannot be made.
    """
    from afrcnn.data.image import read_image_size

    detections = _detect(detector, _ProposedImages(paths, *_proposals(recipe)), recipe)
    for path, detection in zip(paths, detections, strict=True):
        if math.prod(read_image_size(path)) > _MOST_PIXELS:
            detection["boxes"] = detection["boxes"] * size_and_scale(path, read_upright(path))[1]
    return _above(detections, score)


def detect_frames(detector: nn.Module, video: Video, recipe: Recipe, score: float) -> list[dict[str, Tensor]]:
    """Detect objects in the frames of a video, as :func:`detect_images` does in images.

    Raises:
        UserError: as there; or a frame cannot be decoded.
    """
    return _above(_detect(detector, _ProposedFrames(video, *_proposals(recipe)), recipe), score)


def _detect(detector: nn.Module, images: _ProposedImages | _ProposedFrames, recipe: Recipe) -> list[dict[str, Tensor]]:
    from afrcnn.core.engine import build_fabric
    from afrcnn.evaluation.detect import detect

    fabric = build_fabric(recipe.engine.accelerator, precision=recipe.engine.precision)
    return detect(detector, cast(Any, images), fabric=fabric, workers=min(recipe.data.workers, len(images)))


def _above(detections: Sequence[dict[str, Tensor]], score: float) -> list[dict[str, Tensor]]:
    return [{name: value[item["scores"] >= score] for name, value in item.items()} for item in detections]


def _proposals(recipe: Recipe) -> tuple[Mode, int]:
    """Return how proposals are made, and how many are used of an image."""
    return proposal_mode(recipe), recipe.data.for_evaluation().proposals_per_image


def proposal_mode(recipe: Recipe) -> Mode:
    """Return how selective search makes proposals as those that a detector was trained with.

    Raises:
        UserError: they came from elsewhere.
    """
    from afrcnn.proposals.selective_search import Mode

    mode: Any = recipe.data.proposal_method
    if mode not in get_args(Mode):
        problem = f"{mode!r} proposals cannot be made for new images"
        raise UserError(problem, field="data.proposal_method", fix=f"choose one of {', '.join(get_args(Mode))}")
    return cast("Mode", mode)


class _ProposedImages:
    """Images that are searched for proposals when they are read: as much of a dataset as detection needs."""

    def __init__(self, paths: Sequence[Path], mode: Mode, limit: int) -> None:
        self.paths, self.mode, self.limit = paths, mode, limit

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        return _with_proposals(read_upright(self.paths[index]), self.mode, self.limit)


class _ProposedFrames:
    """The frames of a video, likewise."""

    def __init__(self, video: Video, mode: Mode, limit: int) -> None:
        self.video, self.mode, self.limit = video, mode, limit

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        import torch

        image = torch.from_numpy(self.video[index]).permute(2, 0, 1)
        return _with_proposals(image, self.mode, self.limit)


def _with_proposals(image: Tensor, mode: Mode, limit: int) -> tuple[Tensor, Target]:
    """Return an image (3 x H x W, uint8) and its proposals, the best ``limit``."""
    import torch

    proposals = _propose(image.permute(1, 2, 0).numpy(), mode)
    return image, {"proposals": torch.from_numpy(proposals[:limit])}


def read_upright(path: Path) -> tv_tensors.Image:
    """Return an image as its EXIF says it is to be seen, smaller if it is larger than ``_MOST_PIXELS``."""
    from afrcnn.data.image import read_image

    return read_image(path, upright=True, most_pixels=_MOST_PIXELS)


def size_and_scale(path: Path, image: tv_tensors.Image) -> tuple[tuple[int, int], Tensor]:
    """Return height and width of an image's file, upright, and the factors from boxes in what was read to those in it.

    Args:
        path: the file.
        image: what ``read_upright`` made of it.
    """
    import torch

    from afrcnn.data.image import read_image_size

    (height, width), (rows, columns) = read_image_size(path), image.shape[-2:]
    if (height > width) != (rows > columns):  # turned by EXIF
        height, width = width, height
    x, y = width / columns, height / rows
    return (height, width), torch.tensor([x, y, x, y])


def _propose(image: NDArray[np.uint8], mode: Mode) -> NDArray[np.float32]:
    """Return the proposals (P x 4) of an image of any size, in its pixels."""
    import cv2
    import numpy as np

    from afrcnn.proposals.selective_search import SelectiveSearch

    height, width = image.shape[:2]
    scale, search = _LARGEST_SEARCHED / max(height, width), SelectiveSearch(mode)
    if scale >= 1:
        return search(image)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    smaller = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    x, y = width / size[0], height / size[1]
    return search(smaller) * np.array([x, y, x, y], dtype=np.float32)
