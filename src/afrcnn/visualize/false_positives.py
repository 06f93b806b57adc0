"""Pictures of false positives: a box and what is around it (the paper's Figure 6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from afrcnn.evaluation.false_positives import FalsePositive
from afrcnn.visualize.figure import view

_SIDE = 220
"""Pixels of the longer side of a picture."""

_COLUMNS, _GAP, _LETTERS, _LINES = 4, 10, 13, 2
"""Of a sheet: its columns, and in pixels what is around pictures, the size of letters; lines below a picture."""


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


def draw_sheet(pictures: Sequence[Image.Image], errors: Sequence[FalsePositive]) -> Image.Image:
    """Return pictures of false positives side by side, with class, scores, kind and object below each.

    Args:
        pictures: one of each false positive, as of ``draw_false_positive``; at least one.
        errors: the false positives.
    """
    font = ImageFont.load_default(size=_LETTERS)
    line = sum(font.getmetrics())  # type: ignore[union-attr]
    cell = _SIDE + _GAP, _SIDE + _LINES * line + _GAP
    columns = min(_COLUMNS, len(pictures))
    sheet = Image.new("RGB", (columns * cell[0] + _GAP, -(-len(pictures) // columns) * cell[1] + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (picture, error) in enumerate(zip(pictures, errors, strict=True)):
        x, y = index % columns * cell[0] + _GAP, index // columns * cell[1] + _GAP
        sheet.paste(picture, (x + (_SIDE - picture.width) // 2, y + (_SIDE - picture.height) // 2))
        baseline = f"{error.baseline_score:.2f}" if error.baseline_score else "none"
        on = f": {error.object_name}, IoU {error.iou:.2f}" if error.object_name else ""
        text = f"{error.name} {error.score:.2f} (baseline {baseline})\n{error.kind}{on}"
        draw.multiline_text((x, y + _SIDE), text, font=font, fill="black", spacing=0)
    return sheet
