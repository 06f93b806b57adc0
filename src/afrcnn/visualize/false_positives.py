"""Pictures of false positives: a box and what is around it (the paper's Figure 6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from afrcnn.visualize.figure import view

_SIDE = 220
"""Pixels of the longer side of a picture."""


def draw_false_positive(image: NDArray[np.uint8], box: Sequence[float]) -> Image.Image:
    """Return a box and what is around it.

    Args:
        image: H x W x 3, uint8, RGB.
        box: x1, y1, x2, y2 in pixels.
    """
    left, top, right, bottom = view(box, image.shape[1], image.shape[0])
    scale = _SIDE / max(right - left, bottom - top)
    size = [max(round(side * scale), 1) for side in (right - left, bottom - top)]
    picture = Image.fromarray(image[top:bottom, left:right]).resize(size, Image.Resampling.LANCZOS)
    x1, y1, x2, y2 = (round((side - start) * scale) for side, start in zip(box, (left, top) * 2, strict=True))
    for inset, colour in enumerate(("black", "white", "black")):  # seen on any ground
        corner = x1 + inset, y1 + inset
        opposite = max(x2 - inset, corner[0]), max(y2 - inset, corner[1])
        ImageDraw.Draw(picture).rectangle((*corner, *opposite), outline=colour)
    return picture
