"""The objects of an image as arrays, and the random generator of each."""

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


def generators_of(target: Target, count: int, seed: int) -> list[np.random.Generator]:
    """Return the random generator of each of an image's objects.

    It depends on the seed, the image's id and the object's number alone: it is the same for every detector, in
    whatever process, at every level.
    """
    return [np.random.default_rng([seed, number, *target["image_id"].encode()]) for number in range(count)]
