"""Matching of detections to objects by PASCAL VOC's rules: once for every metric.

Reference: Everingham et al., IJCV 2010, section 4.2, and the VOC development kit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]
Images = Sequence[Mapping[str, Any]]
"""Detections or targets: a mapping an image, of tensors or arrays."""

_Pairs = tuple[Integers, Integers, Floats]
"""Pairs of boxes that overlap, by the first box's index: both indices, and their IoU above 0."""


class _Boxes(NamedTuple):
    """The boxes of all images of a split, of its detections or of its objects.

    Attributes:
        boxes: N x 4, XYXY in pixels.
        labels: N, 1..K.
        images: N, the index of each box's image.
    """

    boxes: Floats
    labels: Integers
    images: Integers

    def select(self, index: Integers) -> _Boxes:
        """Return the boxes of some indices, in their order."""
        return _Boxes(self.boxes[index], self.labels[index], self.images[index])


@dataclass(frozen=True)
class Matches:
    """All detections of a split by falling score, all its objects by image, and which belong together.

    Attributes:
        classes: names of the classes 1..K.
        image_count: number of images.
        iou_threshold: IoU in [0, 1] that a match exceeds.
        detections: D of them.
        scores: D, falling.
        objects: M of them, by image.
        matched: D, the index of the object that each detection matches; -1 for none.
        hits: D, whether a detection is the first that matches its object.
        ignored: M, the objects that do not count: nobody has to find them, and what matches them is neither hit nor
            miss.
        pairs: the detections and objects of the same class and image that overlap.
    """

    classes: tuple[str, ...]
    image_count: int
    iou_threshold: float
    detections: _Boxes
    scores: Floats
    objects: _Boxes
    matched: Integers
    hits: Booleans
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

    def without(self, dropped: Booleans) -> Matches:
        """Return the same matches without some detections; no other one takes over what these match.

        Args:
            dropped: D flags.
        """
        kept, (detections, objects, iou) = ~dropped, self.pairs
        near, indices = kept[detections], np.cumsum(kept) - 1
        return replace(
            self,
            detections=self.detections.select(np.flatnonzero(kept)),
            scores=self.scores[kept],
            matched=self.matched[kept],
            hits=self.hits[kept],
            pairs=(indices[detections[near]], objects[near], iou[near]),
        )

    def at(self, iou_threshold: float) -> Matches:
        """Return the same detections and objects, matched anew by an IoU in [0, 1] that a match exceeds."""
        matched, hits = _assign(self.pairs, len(self.scores), iou_threshold)
        return replace(self, iou_threshold=iou_threshold, matched=matched, hits=hits)

    @property
    def counted(self) -> Booleans:
        """D flags: the detections that count, as hits or misses."""
        return ~np.append(self.ignored, False)[self.matched]  # object -1 counts

    def by_class(self) -> dict[str, tuple[Integers, Integers]]:
        """Return by class the indices of its detections that count, and of its objects that count."""
        counted = self.counted
        return {
            name: (
                np.flatnonzero((self.detections.labels == label) & counted),
                np.flatnonzero((self.objects.labels == label) & ~self.ignored),
            )
            for label, name in enumerate(self.classes, start=1)
        }

    def recall(self) -> dict[str, float]:
        """Return by class the fraction of objects that are hit; NaN for a class without objects that count."""
        return {
            name: int(self.hits[detections].sum()) / len(objects) if len(objects) else float("nan")
            for name, (detections, objects) in self.by_class().items()
        }


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
    boxes, objects = flatten(detections).select(order), flatten(targets)
    pairs = overlaps(boxes, objects)
    matched, hits = _assign(pairs, len(order), iou_threshold)
    ignored = concatenate([ignored_by_default(target) for target in targets]).astype(bool)
    split = tuple(classes), len(targets), iou_threshold
    return Matches(*split, boxes, scores[order], objects, matched, hits, ignored, pairs)


def _assign(pairs: _Pairs, count: int, iou_threshold: float) -> tuple[Integers, Booleans]:
    """Return for each of ``count`` detections the object that it matches, or -1, and whether it is a hit."""
    matched, iou = most_overlapped(pairs, count)
    matched[iou <= iou_threshold] = -1
    matching = np.flatnonzero(matched >= 0)
    hits = np.zeros(count, dtype=bool)
    hits[matching[np.unique(matched[matching], return_index=True)[1]]] = True
    return matched, hits


def overlaps(boxes: _Boxes, others: _Boxes, *, any_class: bool = False) -> _Pairs:
    """Return the pairs of a box and another one of the same image, and of the same class, that overlap.

    Args:
        boxes: N of them.
        others: M of them.
        any_class: take pairs of two classes, too.
    """
    stride = 1 + max(boxes.labels.max(initial=0), others.labels.max(initial=0))
    groups, other_groups = (side.images * stride + side.labels * (not any_class) for side in (boxes, others))
    order = np.argsort(other_groups, kind="stable")
    start, end = (np.searchsorted(other_groups[order], groups, side=side) for side in ("left", "right"))
    count = end - start
    first = np.repeat(np.arange(len(groups)), count)
    second = order[np.arange(len(first)) + np.repeat(start - (np.cumsum(count) - count), count)]
    a, b = boxes.boxes[first], others.boxes[second]
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
    nearest, ious = np.full(count, -1), np.zeros(count)
    nearest[boxes], ious[boxes] = second[order[best]], iou[order[best]]
    return nearest, ious


def ignored_by_default(target: Mapping[str, Any]) -> torch.Tensor:
    """Return M flags, bool: the objects that the target's own layout tells to ignore."""
    for flag in ("difficult", "iscrowd"):
        if flag in target:
            return torch.as_tensor(target[flag])
    return torch.zeros(len(target["labels"]), dtype=torch.bool)


def flatten(images: Images) -> _Boxes:
    """Return the boxes of all images, image by image."""
    boxes = concatenate([image["boxes"] for image in images]).reshape(-1, 4)
    labels = concatenate([image["labels"] for image in images]).astype(np.int64)
    return _Boxes(boxes, labels, np.repeat(np.arange(len(images)), [len(image["labels"]) for image in images]))


def concatenate(arrays: Sequence[torch.Tensor | npt.NDArray[Any]]) -> Floats:
    """Join what may be tensors on any device or arrays, as doubles, in which the sides of boxes are exact."""
    flat = [torch.as_tensor(array).detach().cpu().reshape(-1).numpy() for array in arrays]
    return np.concatenate([np.empty(0), *flat])
