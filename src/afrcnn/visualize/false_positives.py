"""Pictures of false positives: a box and what is around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from afrcnn.visualize.masks import view

SIDE = 220
"""Pixels of the longer side of a picture."""


def draw_false_positive(image: NDArray[np.uint8], box: tuple[float, float, float, float]) -> Image.Image:
    """Return a box and what is around it.

    Args:
        image: H x W x 3, uint8, RGB.
        box: x1, y1, x2, y2 in pixels.
    """
    left, top, right, bottom = view(box, image.shape[1], image.shape[0])
    scale = SIDE / max(right - left, bottom - top)
    size = (max(round((right - left) * scale), 1), max(round((bottom - top) * scale), 1))
    picture = Image.fromarray(image[top:bottom, left:right]).resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    x1, y1, x2, y2 = (round((side - start) * scale) for side, start in zip(box, (left, top, left, top), strict=True))
    for margin, colour in ((0, "black"), (1, "white"), (2, "black")):  # seen on any ground
        draw.rectangle(
            (x1 + margin, y1 + margin, max(x2 - margin, x1 + margin), max(y2 - margin, y1 + margin)), outline=colour
        )
    return picture
