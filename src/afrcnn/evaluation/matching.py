"""Matching of detections to objects by PASCAL VOC's rules: once for every metric.

Reference: Everingham et al., IJCV 2010, section 4.2, and the VOC development kit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]
Images = Sequence[Mapping[str, Any]]
"""Detections or targets: a mapping an image, of tensors or arrays."""

_Pairs = tuple[Integers, Integers, Floats]
"""_Pairs of boxes that overlap, by the first box's index: both indices, and their IoU above 0."""


@dataclass(frozen=True)
class Matches:
    """All detections of a split by falling score, all its objects by image, and which belong together.

    Attributes:
        classes: names of the classes 1..K.
        image_count: number of images.
        iou_threshold: IoU in [0, 1] that a match exceeds.
        boxes: D x 4, of the detections, XYXY in pixels.
        labels: D, 1..K.
        scores: D, falling.
        images: D, the index of each detection's image.
        objects: D, the index of the object that each detection matches; -1 for none.
        hits: D, whether a detection is the first that matches its object.
        object_boxes: M x 4.
        object_labels: M.
        object_images: M, rising.
        ignored: M, the objects that do not count: nobody has to find them, and what matches them is neither hit nor
            miss.
        pairs: the detections and objects of the same class and image that overlap.
    """

    classes: tuple[str, ...]
    image_count: int
    iou_threshold: float
    boxes: Floats
    labels: Integers
    scores: Floats
    images: Integers
    objects: Integers
    hits: Booleans
    object_boxes: Floats
    object_labels: Integers
    object_images: Integers
    ignored: Booleans
    pairs: _Pairs

    def subset(self, members: Sequence[torch.Tensor | Booleans]) -> Matches:
        """Return the same matches where only some objects count.

        Args:
            members: for each image, a flag for each of its objects: whether it counts.

        Raises:
            ValueError: there are not as many flags as objects.
        """
        ignored = ~concatenate(members).astype(bool)
        if len(ignored) != len(self.ignored):
            raise ValueError(f"{len(ignored)} flags but {len(self.ignored)} objects")
        return replace(self, ignored=ignored)

    def of_class(self, label: int) -> tuple[Integers, Integers]:
        """Return the indices of the detections of a class that count, and of its objects that count."""
        counts = ~np.append(self.ignored, False)[self.objects]  # object -1 counts
        objects = (self.object_labels == label) & ~self.ignored
        return np.flatnonzero((self.labels == label) & counts), np.flatnonzero(objects)


def match(detections: Images, targets: Images, classes: Sequence[str], iou_threshold: float = 0.5) -> Matches:
    """Match each detection with an object, in the order and with the rules of the VOC development kit.

    Detections are taken by falling score over all images; equal scores keep the order in which they are given. Each
    matches the object of its class and image that it overlaps most, the first one on ties, if their IoU exceeds the
    threshold. The first detection that matches an object is a hit, later ones are misses, as are detections that match
    none. What matches an ignored object is neither.

    Boxes are half-open ranges of pixels (see ``afrcnn.data.target.Target``), whose plain IoU is the kit's
    with its inclusive pixels. The threshold is strict (IoU > 0.5), as the kit's documentation and its Python
    port have it; its ``VOCevaldet.m`` also takes an IoU of exactly 0.5.

    Args:
        detections: one mapping an image, of tensors or arrays: ``boxes`` D x 4 (XYXY, pixels), ``labels`` D
            (1..K), ``scores`` D.
        targets: one mapping an image, in the same order, with ``boxes`` M x 4 and ``labels`` M. Ignored are the
            objects flagged ``difficult`` (VOC layout) or ``iscrowd`` (COCO layout).
        classes: names of the classes 1..K.
        iou_threshold: IoU in [0, 1] that a match exceeds.

    Raises:
        ValueError: there are not as many targets as detections.
    """
    if len(detections) != len(targets):
        raise ValueError(f"{len(detections)} images with detections but {len(targets)} with targets")
    scores = concatenate([image["scores"] for image in detections])
    order = np.argsort(-scores, kind="stable")
    boxes, labels, images = flatten(detections)
    boxes, labels, images = boxes[order], labels[order], images[order]
    object_boxes, object_labels, object_images = flatten(targets)

    stride = 1 + max(labels.max(initial=0), object_labels.max(initial=0))
    pairs = overlaps(boxes, images * stride + labels, object_boxes, object_images * stride + object_labels)
    objects, iou = most_overlapped(pairs, len(boxes))
    objects[iou <= iou_threshold] = -1
    matched = np.flatnonzero(objects >= 0)
    hits = np.zeros(len(boxes), dtype=bool)
    hits[matched[np.unique(objects[matched], return_index=True)[1]]] = True
    return Matches(
        classes=tuple(classes),
        image_count=len(targets),
        iou_threshold=iou_threshold,
        boxes=boxes,
        labels=labels,
        scores=scores[order],
        images=images,
        objects=objects,
        hits=hits,
        object_boxes=object_boxes,
        object_labels=object_labels,
        object_images=object_images,
        ignored=concatenate([ignored_by_default(target) for target in targets]).astype(bool),
        pairs=pairs,
    )


def overlaps(boxes: Floats, groups: Integers, others: Floats, other_groups: Integers) -> _Pairs:
    """Return the pairs of a box and another one of the same group that overlap.

    Args:
        boxes: N x 4, XYXY in pixels.
        groups: N.
        others: M x 4.
        other_groups: M.
    """
    order = np.argsort(other_groups, kind="stable")
    start, end = (np.searchsorted(other_groups[order], groups, side=side) for side in ("left", "right"))
    count = end - start
    first = np.repeat(np.arange(len(boxes)), count)
    second = order[np.arange(len(first)) + np.repeat(start - (np.cumsum(count) - count), count)]
    a, b = boxes[first], others[second]
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    near = (sides > 0).all(axis=1)
    a, b, intersection = a[near], b[near], sides[near].prod(axis=1)
    union = (a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - intersection
    return first[near], second[near], intersection / union


def most_overlapped(pairs: _Pairs, count: int) -> tuple[Integers, Floats]:
    """Return for each of ``count`` boxes the other that it overlaps most, the first one on ties, and their IoU.

    Where a box overlaps none, these are -1 and 0.
    """
    first, second, iou = pairs
    order = np.lexsort((-iou, first))  # stable: of equal overlaps the first one leads
    boxes, best = np.unique(first[order], return_index=True)
    others, ious = np.full(count, -1), np.zeros(count)
    others[boxes], ious[boxes] = second[order[best]], iou[order[best]]
    return others, ious


def ignored_by_default(target: Mapping[str, Any]) -> torch.Tensor:
    """Return M flags, bool: the objects that the target's own layout tells to ignore."""
    for flag in ("difficult", "iscrowd"):
        if flag in target:
            return torch.as_tensor(target[flag])
    return torch.zeros(len(target["labels"]), dtype=torch.bool)


def flatten(images: Images) -> tuple[Floats, Integers, Integers]:
    """Return all boxes (N x 4), their labels (N), and the indices of their images (N, rising)."""
    boxes = concatenate([image["boxes"] for image in images]).reshape(-1, 4)
    labels = concatenate([image["labels"] for image in images]).astype(np.int64)
    return boxes, labels, np.repeat(np.arange(len(images)), [len(image["labels"]) for image in images])


def concatenate(parts: Sequence[torch.Tensor | npt.NDArray[Any]]) -> Floats:
    """Join what may be tensors on any device or arrays, as doubles, in which the sides of boxes are exact."""
    flat = [torch.as_tensor(part).detach().cpu().reshape(-1).numpy() for part in parts]
    return np.concatenate([np.empty(0), *flat])
