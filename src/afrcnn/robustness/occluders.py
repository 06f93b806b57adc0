"""Pieces of other images, which objects are occluded by."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from afrcnn.core.errors import UserError
from afrcnn.data.image import read_image
from afrcnn.data.overlap import intersection_over_foreground
from afrcnn.data.target import DetectionDataset
from afrcnn.robustness.objects import boxes_in

_SCALES = (1, 1 / 2, 1 / 4, 1 / 8)
"""Sizes of pieces relative to what they cover, in the order in which they are looked for; smaller ones are enlarged."""

_DRAWS = 32
"""Pieces of each size that are looked at."""

_MOST_SHOWN = 0.5
"""A piece shows at most this part of any object's box, if there is such a piece: the detector that found a whole object
there would be right, and counted wrong."""


_read = lru_cache(maxsize=16)(read_image)  # occluders of all levels come from the same few


@dataclass(frozen=True)
class _Piece:
    """A part of an image: its file, its height and width, and x1, y1, x2, y2 in whole pixels."""

    file: Path
    image_size: tuple[int, int]
    box: tuple[int, int, int, int]

    def read(self, size: tuple[int, int]) -> Tensor:
        """Return the piece (3 x H x W, uint8, RGB), enlarged to a height and width where it is smaller."""
        x1, y1, x2, y2 = self.box
        piece: Tensor = _read(self.file, size=self.image_size).as_subclass(Tensor)[:, y1:y2, x1:x2]
        if piece.shape[1:] != size:
            piece = F.resize(piece, list(size), antialias=True).as_subclass(Tensor)
        return piece


class Pieces:
    """The pieces of a dataset's images."""

    def __init__(self, dataset: DetectionDataset) -> None:
        self.dataset = dataset
        self.labels = [set(dataset.target(index)["labels"].tolist()) for index in range(len(dataset))]

    def choose(self, rng: np.random.Generator, image: int, labels: Collection[int], size: tuple[int, int]) -> _Piece:
        """Choose a piece that shows no object of some classes.

        It is cut from another image that shows none. If there is no such image, as where all show blood cells, it
        is cut between them, and enlarged if need be.

        Args:
            rng: the generator of all that is random.
            image: the index of the one that is not to be chosen.
            labels: of the classes.
            size: height and width in pixels of what is to be covered; the piece has the same shape, if its image has
                room for that.

        Raises:
            UserError: there is no such piece.
        """
        images = [index for index in rng.permutation(len(self.labels)).tolist() if index != image]
        without = (index for index in images if self.labels[index].isdisjoint(labels))
        candidates = list(islice(without, _DRAWS)) or images
        for scale in _SCALES:
            pieces = []
            for index in islice(cycle(candidates), _DRAWS):
                target, image_size = self.dataset.target(index), self.dataset.image_size(index)
                window = _random_window(rng, image_size, (scale * size[0], scale * size[1]))
                boxes = torch.from_numpy(boxes_in(target, image_size))
                shown = intersection_over_foreground(boxes, torch.tensor([window])).numpy()[:, 0]
                if not shown[np.isin(target["labels"], list(labels))].any():
                    excess = max(0.0, shown.max(initial=0.0) - _MOST_SHOWN)
                    pieces.append((excess, _Piece(self.dataset.image_path(index), image_size, window)))
            if pieces:
                return min(pieces, key=lambda piece: piece[0])[1]
        problem = "no piece of another image is free of an object's class"
        raise UserError(problem, field="occluder", fix="choose grey or noise")


def _random_window(
    rng: np.random.Generator, within: tuple[int, int], size: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Return x1, y1, x2, y2 of a window with the shape of ``size``, or as much of it as fits into ``within``."""
    fit = min(1, within[0] / size[0], within[1] / size[1])
    height, width = (max(1, min(round(fit * side), most)) for side, most in zip(size, within, strict=True))
    x, y = int(rng.integers(within[1] - width + 1)), int(rng.integers(within[0] - height + 1))
    return x, y, x + width, y + height
