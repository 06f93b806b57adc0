"""The part of Fast R-CNN that is exported: from an image and its proposals to scores and boxes, tensors alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from afrcnn.detectors.rcnn import FastRCNN


class _ExportedDetector(nn.Module):
    """Backbone, RoI pooling, box head, predictor, softmax and decoding of a trained detector, for one image.

    Resizing and normalising come before it, thresholds and suppression after it. What takes part in training alone,
    adversaries among it, is not in it.

    Args:
        detector: the detector; it is put into evaluation mode.
    """

    def __init__(self, detector: FastRCNN) -> None:
        super().__init__()
        heads = detector.eval().roi_heads
        self.backbone, self.roi_pool, self.box_head, self.predictor, self.box_coder = (
            detector.backbone,
            heads.roi_pool,
            heads.box_head,
            heads.predictor,
            heads.box_coder,
        )

    def forward(self, image: Tensor, proposals: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
        """Score proposals and refine their boxes.

        Args:
            image: 1 x 3 x H x W, float32, resized, normalised, and padded to multiples of 32 pixels.
            proposals: n x 4, float32, XYXY pixels of the image as given; n is at least 1.
            scales: 4, float32, the factors (x, y, x, y) from pixels as given to those of ``image``.

        Returns:
            Class probabilities, n x (K + 1), of background and the classes 1..K; and for each of them a box,
            n x (K + 1) x 4, XYXY pixels of the image as given, not clipped to it.
        """
        pixels = self.roi_pool.last_pixel
        boxes = torch.cat([proposals[:, :2], proposals[:, 2:] - pixels], dim=1) if pixels else proposals
        pooled = self.roi_pool.pool(self.backbone(image), [boxes * scales])  # n x C x d x d
        logits, deltas = self.predictor(self.box_head(pooled))
        deltas = deltas.unflatten(1, (-1, 4))  # n x (K + 1) x 4
        return logits.softmax(dim=1), self.box_coder.decode(deltas, proposals[:, None])


def export_settings(detector: FastRCNN) -> dict[str, Any]:
    """Return what has to be known besides the graph: how images are resized and normalised, and what is dropped."""
    transform, heads = detector.transform, detector.roi_heads
    return {
        "short_side": transform.min_size[-1],
        "long_side": transform.max_size,
        "multiple_of": transform.size_divisible,
        "bgr": detector.reverses_channels,
        "mean": transform.image_mean,
        "deviation": transform.image_std,
        "score_threshold": heads.score_threshold,
        "nms_iou": heads.nms_iou,
        "detections_per_image": heads.detections_per_image,
    }


@torch.no_grad()
def export_program(detector: FastRCNN) -> torch.export.ExportedProgram:
    """Trace a detector on the CPU in float32, for images of any size and any number of proposals but none.

    The inputs and outputs are those of ``_ExportedDetector.forward``.
    """
    dynamic = torch.export.Dim.DYNAMIC
    image, proposals = torch.zeros(1, 3, 192, 256), torch.tensor([[0.0, 0.0, 60.0, 80.0]]).repeat(7, 1)
    return torch.export.export(
        _ExportedDetector(detector),
        (image, proposals, torch.ones(4)),
        dynamic_shapes={"image": {2: dynamic, 3: dynamic}, "proposals": {0: dynamic}, "scales": None},
    )


def onnx_bytes(program: torch.export.ExportedProgram, settings: Mapping[str, Any]) -> bytes:
    """Return what ``export_program`` traced as an ONNX file, with the settings, as JSON, in its metadata.

    Args:
        program: the trace; its file has the inputs ``image``, ``proposals``, ``scales`` and the outputs ``scores``,
            ``boxes``.
        settings: by name, what JSON can hold.
    """
    converted = torch.onnx.export(
        program,
        dynamo=True,
        input_names=["image", "proposals", "scales"],
        output_names=["scores", "boxes"],
        custom_translation_table={torch.ops.torchvision.roi_pool.default: _max_roi_pool},
        verbose=False,
    )
    assert converted is not None  # as the type says of the older way to export
    model = converted.model_proto
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del item.metadata_props[:]  # lines and paths of the code that was traced
    for name, value in settings.items():
        model.metadata_props.add(key=name, value=json.dumps(value))
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def _max_roi_pool(maps: Any, rois: Any, spatial_scale: float, pooled_height: int, pooled_width: int) -> tuple[Any, Any]:
    """Translate Fast R-CNN's RoI pooling into ONNX's operator of it; where the maxima are is not asked for."""
    from onnxscript import opset18  # noqa: PLC0415  an optional dependency

    pooled = opset18.MaxRoiPool(maps, rois, pooled_shape=[pooled_height, pooled_width], spatial_scale=spatial_scale)
    return pooled, opset18.Identity(pooled)
