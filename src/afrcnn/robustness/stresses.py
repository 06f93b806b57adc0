"""The two stresses, objects that are hidden and objects that are bent; their fields are the settings of a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from afrcnn.core.errors import UserError
from afrcnn.robustness.bending import Kind, bend
from afrcnn.robustness.image import Photograph
from afrcnn.robustness.occluders import GREY, choose_piece, noise
from afrcnn.robustness.occlusion import Owners, lay_occluders, pixels_inside

Occluder = Literal["grey", "noise", "photo"]
Placement = Literal["random", "worst"]
Anchors = NDArray[np.float64]

LARGEST = {"rotation": 180.0, "elastic": 0.25}
"""Strengths of bending beyond these mean nothing, or could not end within a box."""


@dataclass(frozen=True)
class Occlusion:
    """Every object is hidden by a share of its box's area (``lay_occluders`` says what that is where boxes overlap).

    Attributes:
        occluder: ``"grey"``; ``"noise"``, independent uniform values; or ``"photo"``, pieces of other photographs of
            the split that show none of the classes of the objects around.
        placement: ``"random"``, the same for every detector; or ``"worst"``: for each object and level, of all windows
            of the grid, the one with which the detector at hand gives the object's class the lowest score.
        grid: windows of ``"worst"`` along each side of a box.
        levels: shares in [0, 1); 0 is always measured.
    """

    occluder: Occluder = "photo"
    placement: Placement = "random"
    grid: int = 3
    levels: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)

    unit: ClassVar[str] = "share of each box hidden"

    def __post_init__(self) -> None:
        _check_choice(self.occluder, "occluder", get_args(Occluder))
        _check_choice(self.placement, "placement", get_args(Placement))
        if not self.levels:
            raise UserError("are none", field="levels", fix="name shares from 0 to below 1")
        _check_levels(self.levels, 1, "levels", "choose shares from 0 to below 1")
        if self.grid < 1:
            raise UserError(f"{self.grid} is out of range", field="grid", fix="choose 1 or more")

    @property
    def name(self) -> str:
        """What is done to the objects."""
        what = "photographs" if self.occluder == "photo" else self.occluder
        return f"hidden by {what}, {self.placement} places"

    def candidates(self) -> Anchors:
        """Return the anchors (grid * grid x 2) that ``"worst"`` tries for every object."""
        places = np.linspace(0, 1, self.grid) if self.grid > 1 else np.array([0.5])
        return np.array([(x, y) for y in places for x in places])

    def lay(self, photograph: Photograph, level: float, seed: int, anchors: Anchors | None = None) -> Owners:
        """Return which object's occluder covers each pixel (H x W).

        Args:
            photograph: with M objects.
            level: the share to hide.
            seed: of random places.
            anchors: M x 2, places to take instead of random ones.
        """
        if anchors is None:
            anchors = np.array([rng.random(2) for rng in photograph.chance(seed)]).reshape(-1, 2)
        return lay_occluders(photograph.objects, anchors, photograph.size, level)

    def apply(
        self,
        image: Tensor,
        photographs: Sequence[Photograph],
        index: int,
        level: float,
        seed: int,
        anchors: Anchors | None = None,
    ) -> Tensor:
        """Hide the objects of an image.

        Args:
            image: 3 x H x W, uint8, RGB; it stays as it is.
            photographs: of the whole split.
            index: which of them the image is.
            level: the share to hide.
            seed: of places, noise and pieces.
            anchors: as of ``lay``.

        Returns:
            3 x H x W, uint8.
        """
        photograph, image = photographs[index], image.clone()
        owners = torch.from_numpy(self.lay(photograph, level, seed, anchors))
        for number, (box, rng) in enumerate(zip(photograph.objects, photograph.chance(seed), strict=True)):
            rng.random(2)  # the anchor
            pixels = (slice(None), *pixels_inside(box))
            mask = owners[pixels[1:]] == number
            if mask.any():
                image[pixels] = torch.where(
                    mask, self._texture(rng, photographs, index, box, mask.shape), image[pixels]
                )
        return image

    def _texture(
        self,
        rng: np.random.Generator,
        photographs: Sequence[Photograph],
        index: int,
        box: NDArray[np.float64],
        shape: torch.Size,
    ) -> Tensor:
        """Return what an object's occluder shows: 3 x H x W of a box of this shape, or one grey for all."""
        size = (shape[0], shape[1])
        if self.occluder == "grey":
            return torch.tensor(GREY, dtype=torch.uint8)
        if self.occluder == "noise":
            return noise(rng, size)
        mine = photographs[index]
        touching = (np.minimum(mine.boxes[:, 2:], box[2:]) > np.maximum(mine.boxes[:, :2], box[:2])).all(axis=1)
        return choose_piece(rng, photographs, index, set(mine.labels[touching].tolist()), size).read(size)


@dataclass(frozen=True)
class Bending:
    """The content of every box is bent, and the box stays right (see ``bend``).

    Attributes:
        kind: ``"rotation"``, parts turn; ``"elastic"``, all of the object is warped.
        levels: strengths, of a rotation in degrees up to 180, of an elastic warp the largest displacement as a share of
            the box's shorter side, up to 1/4; 0 is always measured. (0, 15, 30, 45, 60) or (0, 0.03, 0.06, 0.09, 0.12)
            when empty.
    """

    kind: Kind = "rotation"
    levels: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_choice(self.kind, "kind", get_args(Kind))
        most = LARGEST[self.kind]
        _check_levels(self.levels, np.nextafter(most, np.inf), "levels", f"choose strengths from 0 to {most:g}")
        if not self.levels:
            default = (0.0, 15.0, 30.0, 45.0, 60.0) if self.kind == "rotation" else (0.0, 0.03, 0.06, 0.09, 0.12)
            object.__setattr__(self, "levels", default)

    @property
    def name(self) -> str:
        """What is done to the objects."""
        return "parts turned" if self.kind == "rotation" else "warped elastically"

    @property
    def unit(self) -> str:
        """What the levels count."""
        return "degrees" if self.kind == "rotation" else "share of each box's shorter side"

    def apply(self, image: Tensor, photographs: Sequence[Photograph], index: int, level: float, seed: int) -> Tensor:
        """Bend the objects of an image (3 x H x W, uint8, RGB); arguments as of ``Occlusion.apply``."""
        photograph = photographs[index]
        return bend(image, photograph.objects, self.kind, level, photograph.chance(seed))


Stress = Occlusion | Bending


def _check_choice(value: str, field: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UserError(f"{value!r} is unknown", field=field, fix=f"choose one of {', '.join(choices)}")


def _check_levels(levels: Sequence[float], end: float, field: str, fix: str) -> None:
    if levels and not any(levels):
        raise UserError("has no level above 0", field=field, fix=fix)
    for level in levels:
        if not 0 <= level < end:
            raise UserError(f"{level:g} is out of range", field=field, fix=fix)
