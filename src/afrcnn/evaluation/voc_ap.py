"""Average precision as PASCAL VOC defines it (Everingham et al., IJCV 2010, section 4.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

Metric = Literal["11-point", "area"]

# The widely used Python port's thresholds, not k / 10: 3 * 0.1 is a bit more than 0.3, and whether a recall
# of exactly 3 / 10 reaches it moves the AP by up to 1 / 11.
RECALLS = np.arange(0, 1.1, 0.1)


@dataclass(frozen=True)
class VOCResult:
    """Average precision of each class, and the curves it comes from.

    The curves hold one point for each detection that counts, a hit or a miss, by falling score; detections
    of ignored objects are left out.

    Attributes:
        ap: AP in [0, 1] by class; NaN for a class without objects that count.
        objects: number of objects that count by class.
        recall: by class, the fraction of objects found up to each detection; NaN where there are none.
        precision: by class, the fraction of hits up to each detection.
        scores: by class, the score of each detection, falling.
    """

    ap: dict[str, float]
    objects: dict[str, int]
    recall: dict[str, Floats]
    precision: dict[str, Floats]
    scores: dict[str, Floats]

    @property
    def mean_ap(self) -> float:
        """Mean AP over the classes that have objects that count; NaN if none has."""
        defined = [ap for ap in self.ap.values() if not np.isnan(ap)]
        return float(np.mean(defined)) if defined else float("nan")


def voc_ap(
    detections: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    *,
    iou_threshold: float = 0.5,
    metric: Metric = "11-point",
    ignored: Sequence[torch.Tensor | Booleans] | None = None,
) -> VOCResult:
    """Compute the AP of each class in the order and with the rules of the VOC development kit.

    The detections of a class are taken by falling score over all images; equal scores keep the order in which
    they are given. Each goes to the object of its class and image that it overlaps most, the first one on
    ties. If their IoU exceeds the threshold, the detection is a hit, unless an earlier one hit the same
    object: then it is a miss. If the object is ignored, it is neither. All other detections are misses.

    Boxes are half-open ranges of pixels (see ``afrcnn.data.target.Target``), whose plain IoU is the kit's
    with its inclusive pixels. The threshold is strict (IoU > 0.5), as the kit's documentation and its Python
    port have it; its ``VOCevaldet.m`` also takes an IoU of exactly 0.5.

    Args:
        detections: one mapping an image, of tensors or arrays: ``boxes`` D x 4 (XYXY, pixels), ``labels`` D
            (1..K), ``scores`` D.
        targets: one mapping an image, in the same order, with ``boxes`` M x 4 and ``labels`` M.
        classes: names of the classes 1..K.
        iou_threshold: IoU in [0, 1] that a hit exceeds.
        metric: ``"11-point"``, mean precision at the recalls 0, 0.1, ..., 1 (VOC 2007), whose last bits are
            those of ``numpy.arange(0, 1.1, 0.1)``, as in the widely used Python port; or ``"area"``, the area
            under the curve (VOC 2010 on).
        ignored: for each image, M flags: objects whose detections are neither hits nor misses and that nobody
            has to find. By default the targets' ``difficult`` (VOC layout) or ``iscrowd`` (COCO layout), and
            no object where a target has neither.

    Returns:
        The AP and the curves. A class without objects that count has AP NaN and no part in the mean.

    Raises:
        ValueError: there are not as many targets as detections, or as many flags as objects.
    """
    result = VOCResult({}, {}, {}, {}, {})
    judged = judge(detections, targets, classes, iou_threshold=iou_threshold, ignored=ignored)
    for name, one in judged.items():
        hits, objects = np.cumsum(one.hit), int(one.objects.sum())
        recall = hits / objects if objects else np.full(len(hits), np.nan)
        precision = hits / np.arange(1, len(hits) + 1)
        result.ap[name] = average_precision(recall, precision, metric) if objects else float("nan")
        result.objects[name] = objects
        result.recall[name], result.precision[name] = recall, precision
        result.scores[name] = one.scores
    return result


@dataclass(frozen=True)
class Judged:
    """The detections of a class that count, by falling score, and the objects that they should have found.

    Attributes:
        hit: D, whether each is a hit; otherwise it is a miss.
        scores: D, falling.
        images: D, the index of each one's image.
        objects: for each image, the number of its objects that count.
    """

    hit: Booleans
    scores: Floats
    images: Integers
    objects: Integers


def judge(
    detections: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    *,
    iou_threshold: float = 0.5,
    ignored: Sequence[torch.Tensor | Booleans] | None = None,
) -> dict[str, Judged]:
    """Tell the hits from the misses, by class, with the arguments and the rules of ``voc_ap``."""
    if len(detections) != len(targets):
        raise ValueError(f"{len(detections)} images with detections but {len(targets)} with targets")
    if ignored is None:
        ignored = [ignored_by_default(target) for target in targets]
    boxes, labels, images = flatten(detections)
    scores = concatenate([image["scores"] for image in detections])
    by_score = np.argsort(-scores, kind="stable")
    boxes, labels, images, scores = boxes[by_score], labels[by_score], images[by_score], scores[by_score]
    object_boxes, object_labels, object_images = flatten(targets)
    object_ignored = concatenate(ignored).astype(bool)
    if len(object_ignored) != len(object_labels):
        raise ValueError(f"{len(object_ignored)} flags of ignored objects but {len(object_labels)} objects")

    judged = {}
    for label, name in enumerate(classes, start=1):
        mine, theirs = labels == label, object_labels == label
        matched = _match(boxes[mine], images[mine], object_boxes[theirs], object_images[theirs], iou_threshold)
        hit, counted = _judge(matched, object_ignored[theirs])
        objects = np.bincount(object_images[theirs & ~object_ignored], minlength=len(targets))
        judged[name] = Judged(hit[counted], scores[mine][counted], images[mine][counted], objects)
    return judged


def average_precision(recall: Floats, precision: Floats, metric: Metric) -> float:
    """Summarise a curve of precision over recall; both metrics take the best precision at a recall or beyond.

    Args:
        recall: D values in [0, 1], rising.
        precision: D values in [0, 1].
        metric: ``"11-point"`` or ``"area"``, as in ``voc_ap``.

    Returns:
        The average precision in [0, 1]; 0 without any point.
    """
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    if metric == "11-point":
        return float(envelope[np.searchsorted(recall, RECALLS)].mean())
    return float(np.diff(recall, prepend=0.0) @ envelope[:-1])


def _match(
    boxes: Floats, images: Integers, object_boxes: Floats, object_images: Integers, iou_threshold: float
) -> Integers:
    """Return for each of D detections of a class the object that it overlaps most, or -1 for none.

    ``images`` and ``object_images`` are the indices of their images; the latter rise.
    """
    start = np.searchsorted(object_images, images, side="left")
    count = np.searchsorted(object_images, images, side="right") - start
    detection = np.repeat(np.arange(len(images)), count)
    candidate = np.arange(len(detection)) + np.repeat(start - (np.cumsum(count) - count), count)
    iou = _paired_iou(boxes[detection], object_boxes[candidate])

    near = np.flatnonzero(iou > iou_threshold)
    near = near[np.lexsort((-iou[near], detection[near]))]  # stable: of equal overlaps the first object leads
    detection, first = np.unique(detection[near], return_index=True)
    matched = np.full(len(images), -1)
    matched[detection] = candidate[near[first]]
    return matched


def _judge(matched: Integers, ignored: Booleans) -> tuple[Booleans, Booleans]:
    """Return which of D detections, by falling score, are hits, and which count as a hit or a miss."""
    detection = np.flatnonzero(matched >= 0)
    _, first = np.unique(matched[detection], return_index=True)
    hit = np.zeros(len(matched), dtype=bool)
    hit[detection[first]] = True
    counted = np.ones(len(matched), dtype=bool)
    counted[detection[ignored[matched[detection]]]] = False
    return hit, counted


def _paired_iou(a: Floats, b: Floats) -> Floats:
    """Return the IoU of each of N boxes with its partner, N x 4 both."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    intersection = sides.clip(min=0).prod(axis=1)
    union = (a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - intersection
    iou: Floats = np.divide(intersection, union, out=np.zeros_like(union), where=intersection > 0)
    return iou


def ignored_by_default(target: Mapping[str, Any]) -> torch.Tensor:
    """Return M flags, bool: the objects that the target's own layout tells to ignore."""
    for flag in ("difficult", "iscrowd"):
        if flag in target:
            return torch.as_tensor(target[flag])
    return torch.zeros(len(target["labels"]), dtype=torch.bool)


def flatten(images: Sequence[Mapping[str, Any]]) -> tuple[Floats, Integers, Integers]:
    """Return all boxes (N x 4), their labels (N), and the indices of their images (N, rising)."""
    boxes = concatenate([image["boxes"] for image in images]).reshape(-1, 4)
    labels = concatenate([image["labels"] for image in images]).astype(np.int64)
    return boxes, labels, np.repeat(np.arange(len(images)), [len(image["labels"]) for image in images])


def concatenate(parts: Sequence[torch.Tensor | npt.NDArray[Any]]) -> Floats:
    """Join what may be tensors on any device or arrays, as doubles, in which the sides of boxes are exact."""
    flat = [torch.as_tensor(part).detach().cpu().reshape(-1).numpy() for part in parts]
    return np.concatenate([np.empty(0), *flat])
