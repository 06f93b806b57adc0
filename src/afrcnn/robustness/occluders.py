"""What occluders look like: grey, noise, or a piece of another photograph."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from afrcnn.core.errors import UserError
from afrcnn.data.image import read_image
from afrcnn.robustness.image import Photograph

GREY = 128
"""Of the grey occluder, in 0..255."""

SCALES = (1, 1 / 2, 1 / 4, 1 / 8)
"""Sizes of pieces relative to what they cover, in the order in which they are looked for; smaller ones are enlarged."""

DRAWS = 32
"""Pieces of each size that are looked at."""

MOST_SHOWN = 0.5
"""A piece shows at most this part of any object's box, if there is such a piece: the detector that found a whole object
there would be right, and counted wrong."""


@dataclass(frozen=True)
class Piece:
    """A part of a photograph: its file, and x1, y1, x2, y2 in whole pixels."""

    file: Path
    box: tuple[int, int, int, int]

    def read(self, size: tuple[int, int]) -> Tensor:
        """Return the piece (3 x H x W, uint8, RGB), enlarged to a height and width where it is smaller."""
        x1, y1, x2, y2 = self.box
        piece: Tensor = _read(self.file)[:, y1:y2, x1:x2]
        if piece.shape[1:] != size:
            piece = F.resize(piece, list(size), antialias=True).as_subclass(Tensor)
        return piece


def noise(rng: np.random.Generator, size: tuple[int, int]) -> Tensor:
    """Return independent, uniform values: 3 x H x W, uint8."""
    return torch.from_numpy(rng.integers(0, 256, (3, *size), dtype=np.uint8))


def choose_piece(
    rng: np.random.Generator,
    photographs: Sequence[Photograph],
    own: int,
    labels: Collection[int],
    size: tuple[int, int],
) -> Piece:
    """Choose a piece that shows no object of some classes.

    It is cut from another photograph that shows none. If there is no such photograph, as where all show blood cells, it
    is cut between them, and enlarged if need be.

    Args:
        rng: the source of all chance.
        photographs: to choose from.
        own: the index of the one that is not to be chosen.
        labels: of the classes.
        size: height and width in pixels of what is to be covered; the piece has the same shape, if its photograph has
            room for that.

    Raises:
        UserError: there is no such piece.
    """
    others = [photographs[index] for index in rng.permutation(len(photographs)) if index != own]
    without = (each for each in others if set(labels).isdisjoint(each.labels.tolist()))
    candidates = list(islice(without, DRAWS)) or others
    for scale in SCALES:
        pieces = []
        for photograph in islice(cycle(candidates), DRAWS):
            part = _random_part(rng, photograph.size, (scale * size[0], scale * size[1]))
            shown = _shown(photograph.boxes, part)
            if not shown[np.isin(photograph.labels, list(labels))].any():
                pieces.append((max(0.0, shown.max(initial=0.0) - MOST_SHOWN), Piece(photograph.file, part)))
        if pieces:
            return min(pieces, key=lambda piece: piece[0])[1]
    raise UserError(
        "no piece of another photograph is free of an object's class", field="occluder", fix="choose grey or noise"
    )


def _random_part(
    rng: np.random.Generator, within: tuple[int, int], size: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Return x1, y1, x2, y2 of a part with the shape of ``size``, or as much of it as fits into ``within``."""
    fit = min(1, within[0] / size[0], within[1] / size[1])
    height, width = (max(1, min(round(fit * side), most)) for side, most in zip(size, within, strict=True))
    x, y = int(rng.integers(within[1] - width + 1)), int(rng.integers(within[0] - height + 1))
    return x, y, x + width, y + height


def _shown(boxes: NDArray[np.float64], part: tuple[int, int, int, int]) -> NDArray[np.float64]:
    """Return which share of each box (M x 4) lies in a part of its image."""
    sides = np.minimum(boxes[:, 2:], part[2:]) - np.maximum(boxes[:, :2], part[:2])
    shares: NDArray[np.float64] = sides.clip(min=0).prod(axis=1) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return shares


@lru_cache(maxsize=16)
def _read(file: Path) -> Tensor:
    """Read an image; the occluders of one image at several levels come from the same few."""
    pixels: Tensor = read_image(file).as_subclass(Tensor)
    return pixels
