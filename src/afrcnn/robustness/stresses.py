"""The two stresses, objects that are occluded and objects that are bent; their fields are the settings of a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from afrcnn.core.errors import UserError
from afrcnn.data.target import Target
from afrcnn.evaluation.matching import Floats, Integers
from afrcnn.robustness.bending import bend_content
from afrcnn.robustness.objects import boxes_in, objects_of
from afrcnn.robustness.occluders import Pieces
from afrcnn.robustness.occlusion import lay_occluders, pixels_inside

_Occluder = Literal["grey", "noise", "photo"]
_Placement = Literal["random", "worst"]
_Kind = Literal["rotation", "elastic"]

_GREY = 128
"""Of the grey occluder, in 0..255."""

_LARGEST = {"rotation": 180.0, "elastic": 0.25}
"""Strengths of bending beyond these mean nothing, or could not end within a box."""

_LEVELS = {"rotation": (0.0, 15.0, 30.0, 45.0, 60.0), "elastic": (0.0, 0.03, 0.06, 0.09, 0.12)}


@dataclass(frozen=True)
class Change:
    """An image of a test.

    Attributes:
        index: of the image in the split.
        stress: what is done to its objects; None for nothing.
        level: how much.
        anchors: M x 2, chosen places of occluders; random ones when None.
    """

    index: int
    stress: Stress | None = None
    level: float = 0.0
    anchors: Floats | None = None


@dataclass(frozen=True)
class Occlusion:
    """Every object is occluded by a fraction of its box's area (``lay_occluders`` says what that is in a crowd).

    Attributes:
        occluder: ``"grey"``; ``"noise"``, independent uniform values; or ``"photo"``, pieces of other images of
            the split that show none of the classes of the objects around.
        placement: ``"random"``, the same for every detector; or ``"worst"``: for each object and level, of all windows
            of the grid, the one with which the detector at hand gives the object's class the lowest score.
        grid: windows of ``"worst"`` along each side of a box.
        levels: fractions in [0, 1); 0 is always measured.
    """

    occluder: _Occluder = "photo"
    placement: _Placement = "random"
    grid: int = 3
    levels: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)

    unit: ClassVar[str] = "fraction of each box occluded"

    def __post_init__(self) -> None:
        _check(self.occluder, "occluder", get_args(_Occluder))
        _check(self.placement, "placement", get_args(_Placement))
        _check_levels(self.levels, np.nextafter(1, 0), "choose fractions from 0 to below 1")
        if self.grid < 1:
            raise UserError(f"{self.grid} is out of range", field="grid", fix="choose 1 or more")

    @property
    def name(self) -> str:
        """What is done to the objects."""
        return f"occluded by {'images' if self.occluder == 'photo' else self.occluder}, {self.placement} places"

    def candidates(self) -> Floats:
        """Return the anchors (grid * grid x 2) that ``"worst"`` tries for every object."""
        places = np.linspace(0, 1, self.grid) if self.grid > 1 else np.array([0.5])
        return np.array([(x, y) for y in places for x in places])

    def lay(self, target: Target, size: tuple[int, int], change: Change, seed: int) -> Integers:
        """Return which object's occluder covers each pixel of an image of a height and width (H x W)."""
        (boxes, rngs), anchors = _objects(target, size, seed), change.anchors
        if anchors is None:
            anchors = np.array([rng.random(2) for rng in rngs]).reshape(-1, 2)
        return lay_occluders(boxes, anchors, size, change.level)

    def apply(self, image: Tensor, target: Target, change: Change, pieces: Pieces, seed: int) -> Tensor:
        """Occlude the objects of an image.

        Args:
            image: 3 x H x W, uint8, RGB; it stays as it is.
            target: its annotation.
            change: the level, and perhaps the places.
            pieces: those of the whole split.
            seed: of places, noise and pieces.

        Returns:
            3 x H x W, uint8.
        """
        image, size = image.clone(), (image.shape[1], image.shape[2])
        owners = torch.from_numpy(self.lay(target, size, change, seed))
        every_box, labels = boxes_in(target, size), np.asarray(target["labels"])
        for number, (box, rng) in enumerate(zip(*_objects(target, size, seed), strict=True)):
            rng.random(2)  # the anchor
            pixels = (slice(None), *pixels_inside(box))
            mask = owners[pixels[1:]] == number
            if mask.any():
                shape = (mask.shape[0], mask.shape[1])
                touching = (np.minimum(every_box[:, 2:], box[2:]) > np.maximum(every_box[:, :2], box[:2])).all(axis=1)
                if self.occluder == "photo":
                    texture = pieces.choose(rng, change.index, set(labels[touching].tolist()), shape).read(shape)
                elif self.occluder == "noise":
                    texture = torch.from_numpy(rng.integers(0, 256, (3, *shape), dtype=np.uint8))
                else:
                    texture = torch.tensor(_GREY, dtype=torch.uint8)
                image[pixels] = torch.where(mask, texture, image[pixels])
        return image


@dataclass(frozen=True)
class Bending:
    """The content of every box is bent, and the box stays right (see ``bend_content``).

    Attributes:
        kind: ``"rotation"``, parts turn; ``"elastic"``, all of the object is warped.
        levels: strengths, of a rotation in degrees up to 180, of an elastic warp the largest displacement as a fraction
            of the box's shorter side, up to 1/4; 0 is always measured. (0, 15, 30, 45, 60) or
            (0, 0.03, 0.06, 0.09, 0.12) when empty.
    """

    kind: _Kind = "rotation"
    levels: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check(self.kind, "kind", get_args(_Kind))
        object.__setattr__(self, "levels", self.levels or _LEVELS[self.kind])
        _check_levels(self.levels, most := _LARGEST[self.kind], f"choose strengths from 0 to {most:g}")

    @property
    def name(self) -> str:
        """What is done to the objects."""
        return {"rotation": "parts turned", "elastic": "warped elastically"}[self.kind]

    @property
    def unit(self) -> str:
        """What the levels count."""
        return {"rotation": "degrees", "elastic": "fraction of each box's shorter side"}[self.kind]

    def apply(self, image: Tensor, target: Target, change: Change, pieces: Pieces, seed: int) -> Tensor:
        """Bend the objects of an image (3 x H x W, uint8, RGB); arguments as of ``Occlusion.apply``."""
        boxes, rngs = _objects(target, (image.shape[1], image.shape[2]), seed)
        return bend_content(image, boxes, self.kind, change.level, rngs)


Stress = Occlusion | Bending


def _objects(target: Target, size: tuple[int, int], seed: int) -> tuple[Floats, list[np.random.Generator]]:
    """Return the boxes (N x 4) of a target's objects, and the random generator of each.

    A generator depends on the seed, the image's id and the object's number alone: it is the same for every detector, in
    whatever process, at every level.
    """
    boxes, _ = objects_of(target, size)
    letters = target["image_id"].encode()
    return boxes, [np.random.default_rng([seed, number, *letters]) for number in range(len(boxes))]


def _check(value: str, field: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UserError(f"{value!r} is unknown", field=field, fix=f"choose one of {', '.join(choices)}")


def _check_levels(levels: Sequence[float], largest: float, fix: str) -> None:
    if not any(levels):
        raise UserError("has no level above 0", field="levels", fix=fix)
    for level in levels:
        if not 0 <= level <= largest:
            raise UserError(f"{level:g} is out of range", field="levels", fix=fix)
