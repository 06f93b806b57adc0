"""The most confident false positives that a detector has and its baseline has not (the paper's Figure 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou


@dataclass(frozen=True)
class FalsePositive:
    """A detection where no object of its class is.

    Attributes:
        image: index of the image.
        name: the class that was detected.
        score: how confidently, in [0, 1].
        box: where: x1, y1, x2, y2 in pixels.
        baseline_score: the baseline's best score of that class there, in [0, 1]; 0 where it has no such detection.
        object_name: the class of the object that the box overlaps most; None where it overlaps none.
        iou: by how much, in [0, 1].
    """

    image: int
    name: str
    score: float
    box: tuple[float, float, float, float]
    baseline_score: float
    object_name: str | None
    iou: float


def new_false_positives(
    detections: Sequence[Mapping[str, Tensor]],
    baseline: Sequence[Mapping[str, Tensor]],
    targets: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    *,
    score: float = 0.5,
    iou: float = 0.5,
    limit: int | None = None,
) -> list[FalsePositive]:
    """Find the false positives of a detector that its baseline does not share.

    A false positive is a detection that overlaps no object of its class by more than ``iou``, also none that the
    evaluation ignores. (Second detections of an object are therefore not among them.) The baseline shares it if it has
    a detection of the class, of at least ``score``, that overlaps it by more than ``iou``.

    Args:
        detections: for each image ``boxes`` D x 4 (XYXY, pixels), ``labels`` D (1..K), ``scores`` D.
        baseline: the same of the baseline.
        targets: for each image ``boxes`` M x 4 and ``labels`` M.
        classes: names of the classes 1..K.
        score: the lowest score, in [0, 1], at which something counts as detected.
        iou: the overlap, in [0, 1], beyond which two boxes are of the same object.
        limit: how many are returned at most; all when None.

    Returns:
        The false positives, the most confident first; equal ones in the order of the images.

    Raises:
        ValueError: there are not as many images in all three.
    """
    found = []
    for image, (own, others, target) in enumerate(zip(detections, baseline, targets, strict=True)):
        for index in torch.nonzero(own["scores"] >= score).flatten().tolist():
            box, label = own["boxes"][index], own["labels"][index]
            overlaps = _overlaps(box, target["boxes"])
            if (overlaps[target["labels"] == label] > iou).any():
                continue
            there = (_overlaps(box, others["boxes"]) > iou) & (others["labels"] == label)
            baseline_score = float(others["scores"][there].max()) if there.any() else 0.0
            if baseline_score >= score:
                continue
            most = int(overlaps.argmax()) if len(overlaps) else None
            touches = most is not None and overlaps[most] > 0
            found.append(
                FalsePositive(
                    image,
                    classes[int(label) - 1],
                    float(own["scores"][index]),
                    tuple(box.tolist()),
                    baseline_score,
                    classes[int(target["labels"][most]) - 1] if touches else None,
                    float(overlaps[most]) if touches else 0.0,
                )
            )
    return sorted(found, key=lambda each: -each.score)[:limit]


def _overlaps(box: Tensor, boxes: Tensor) -> Tensor:
    """Return the IoU (N) of a box with each of N x 4."""
    overlaps: Tensor = box_iou(box[None].as_subclass(Tensor), boxes.as_subclass(Tensor).reshape(-1, 4))[0]
    return overlaps
