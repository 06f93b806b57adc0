"""The objects of an image as arrays."""

from __future__ import annotations

import numpy as np

from afrcnn.data.overlap import not_crowds
from afrcnn.data.target import Target
from afrcnn.evaluation.matching import Floats, Integers


def boxes_in(target: Target, size: tuple[int, int]) -> Floats:
    """Return all boxes of a target (M x 4, XYXY in pixels), inside its image of a height and width."""
    height, width = size
    return np.asarray(target["boxes"], dtype=np.float64).reshape(-1, 4).clip(0, (width, height, width, height))


def objects_of(target: Target, size: tuple[int, int]) -> tuple[Floats, Integers]:
    """Return the boxes (N x 4) and labels (N) of a target's objects; crowd regions are neither occluded nor bent."""
    objects = np.asarray(not_crowds(target))
    return boxes_in(target, size)[objects], np.asarray(target["labels"])[objects]
