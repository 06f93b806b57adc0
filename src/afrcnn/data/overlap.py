"""Which objects other labelled objects overlap, as far as boxes tell."""

from __future__ import annotations

import torch
from torch import Tensor

from afrcnn.data.target import Target

OVERLAP = 0.05
"""An object is overlapped if one other box covers more than this fraction of its own."""


def intersection_over_foreground(boxes: Tensor, regions: Tensor) -> Tensor:
    """Return the intersection over foreground (IoF): the fraction of the area of each box that each region covers.

    Args:
        boxes: N x 4, XYXY in pixels, half-open, with an area.
        regions: M x 4, likewise.

    Returns:
        N x M, in [0, 1].
    """
    top_left = torch.maximum(boxes[:, None, :2], regions[None, :, :2])  # N x M x 2
    bottom_right = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    return intersection / (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)[:, None]


def not_crowds(target: Target) -> Tensor:
    """Tell which of the M boxes of an image are objects, not COCO's crowd regions: M flags, bool."""
    count = len(target["boxes"])
    return ~target["iscrowd"] if "iscrowd" in target else torch.ones(count, dtype=torch.bool)


def overlapped(target: Target, overlap: float = OVERLAP) -> Tensor:
    """Tell which objects of an image another labelled object overlaps: those that may be occluded.

    An object is overlapped if the box of one other object, of whatever class, covers more than ``overlap`` of its own
    box's area. Which of the two is in front, boxes do not say: a card on a table and the table are both overlapped if
    both are labelled, unless the card covers too little of the table. COCO's crowd regions cover nobody, for where in
    them the objects are is unknown, and are not overlapped themselves.

    Args:
        target: the image's annotation, M objects.
        overlap: the fraction of a box's area, in [0, 1].

    Returns:
        M flags, bool.
    """
    boxes, objects = target["boxes"].as_subclass(Tensor).double(), not_crowds(target)
    iof = intersection_over_foreground(boxes, boxes).fill_diagonal_(0) * objects  # M x M
    return objects & (iof > overlap).any(dim=1)
