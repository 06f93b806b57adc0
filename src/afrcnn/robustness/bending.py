"""Bent content: parts of an object turn, or all of it is warped, while every box stays right.

Every pixel is bent with the smallest box that it lies in. Nothing moves on the outline of any box, and ever less
towards it, so that content neither leaves a box nor enters one: objects go on filling their boxes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as F

from afrcnn.evaluation.matching import Booleans, Floats
from afrcnn.robustness.occlusion import pixels_touched, shared_pixels

_Floats = NDArray[np.float32]

_PARTS = 2
"""Parts along the shorter side of a box; along the longer, as many as make them about square. ASTN turns 2 x 2."""

_RIGID = 0.6
"""The fraction of a part's radius within which it turns as a whole; from there to its rim, the angle falls to 0."""

_CELLS = 4
"""Cells of the random displacements along the shorter side of a box, between which they are interpolated."""


def bend_content(
    image: Tensor, boxes: Floats, kind: str, strength: float, rngs: Sequence[np.random.Generator]
) -> Tensor:
    """Bend the content of every box.

    Args:
        image: 3 x H x W, uint8.
        boxes: M x 4, XYXY in pixels, inside the image.
        kind: ``"rotation"``: round parts of the object turn, each one way or the other, as blocks of its features do in
            ASTN (section 4.2.2); ``"elastic"``: it is warped by a smooth random field (Simard et al. 2003).
        strength: of a rotation the angle in degrees; of an elastic warp the largest displacement as a fraction of the
            shorter side of the box.
        rngs: the random generator of each object.

    Returns:
        3 x H x W, uint8: the same image outside of the boxes and on their outlines.
    """
    height, width = image.shape[1:]
    owners, flow = np.full((height, width), -1), np.zeros((height, width, 2), dtype=np.float32)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for index in np.argsort(-areas, kind="stable"):
        owners[pixels_touched(boxes[index])] = index
    for index, (box, rng) in enumerate(zip(boxes, rngs, strict=True)):
        pixels = pixels_touched(box)
        inside, distance = owners[pixels] == index, _distance_to_outlines(box, boxes)
        field = _turn(distance, inside, strength, rng) if kind == "rotation" else _warp(distance, strength, rng)
        flow[pixels][inside] = field[inside]
    displacement = torch.from_numpy(2 * flow / np.array([width, height], dtype=np.float32))
    return cast(Tensor, F.elastic(image, displacement[None]))


def _distance_to_outlines(box: Floats, boxes: Floats) -> _Floats:
    """Return the distance (h x w, in pixels) of a box's pixels to the nearest outline, its own or another box's.

    An outline is the outermost pixels of a box.
    """
    rows, columns = pixels_touched(box)
    y, x = np.ogrid[rows, columns]
    distance = np.full((y.size, x.size), np.inf, dtype=np.float32)
    near = [other for other in map(pixels_touched, boxes) if shared_pixels((rows, columns), other)]
    for other_rows, other_columns in near:
        # How far a pixel is beyond the box, along y and x; below 0 inside.
        down = np.maximum(other_rows.start - y, y - other_rows.stop + 1)
        right = np.maximum(other_columns.start - x, x - other_columns.stop + 1)
        inside = -np.maximum(down, right)
        outside = np.hypot(np.maximum(down, 0), np.maximum(right, 0))
        distance = np.minimum(distance, np.where(inside >= 0, inside, outside), dtype=np.float32)
    return distance


def _turn(distance: _Floats, inside: Booleans, degrees: float, rng: np.random.Generator) -> _Floats:
    """Return where the pixels of a box come from (h x w x 2, the way there in x and y) when its parts turn.

    A part is a disc that no outline crosses. Turning keeps each pixel's distance to the centre: none leaves its disc.
    """
    height, width = distance.shape
    side = min(height, width) / _PARTS
    rows, columns = (max(round(length / side), 1) for length in (height, width))
    signs = rng.choice((-1, 1), (rows, columns))
    field = np.zeros((height, width, 2), dtype=np.float32)
    for (row, column), sign in np.ndenumerate(signs):
        cy, cx = int((row + 0.5) * height / rows), int((column + 0.5) * width / columns)
        radius = min(float(distance[cy, cx]), side / 2)
        reach = int(radius)
        if not inside[cy, cx] or not reach:
            continue  # the part belongs to a smaller object, or is crossed by an outline
        y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
        # What is seen at a place comes from the place turned back.
        angle = -sign * math.radians(degrees) * _rise((1 - np.hypot(x, y) / radius) / (1 - _RIGID))
        cos, sin = np.cos(angle), np.sin(angle)
        turned = np.stack([cos * x - sin * y - x, sin * x + cos * y - y], axis=-1)
        field[cy - reach : cy + reach + 1, cx - reach : cx + reach + 1] += turned
    return field


def _warp(distance: _Floats, strength: float, rng: np.random.Generator) -> _Floats:
    """Return where the pixels of a box come from (h x w x 2, the way there in x and y) in an elastic warp."""
    height, width = distance.shape
    side = min(height, width)
    cells = (round(_CELLS * length / side) + 1 for length in (height, width))
    coarse = torch.from_numpy(rng.standard_normal((1, 2, *cells), dtype=np.float32))
    fine = functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)
    field = fine[0].permute(1, 2, 0).numpy()
    largest = strength * side
    field *= largest / max(float(np.linalg.norm(field, axis=2).max()), 1e-6)
    # So wide a margin keeps every displacement shorter than the way to the outline, without folds.
    return np.asarray(field * _rise(distance / max(2 * largest, 1e-6))[..., None])


def _rise(value: _Floats) -> _Floats:
    """Rise smoothly from 0 at 0 and below to 1 at 1 and above."""
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)
