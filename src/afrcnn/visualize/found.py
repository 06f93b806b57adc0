"""Found and missed: an image with its objects ever more hidden, a row for each detector."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from afrcnn.robustness.found import FoundObjects

_FOUND, _MISSED = (37, 110, 255), (230, 80, 20)
"""Blue and orange: apart for every kind of colour vision. A dashed line and a word say missed without colour, too."""

_LETTERS, _GAP = 15, 8
"""Pixels: the size of letters, and what is between pictures."""


def draw_found(
    images: Sequence[NDArray[np.uint8]],
    objects: FoundObjects,
    detectors: Sequence[str],
    levels: Sequence[float],
    *,
    width: int = 320,
) -> Image.Image:
    """Draw what each detector finds and misses: levels side by side, detectors below each other.

    Args:
        images: the image at each level, H x W x 3, uint8, RGB.
        objects: what is found of its objects.
        detectors: names of the detectors, R.
        levels: fractions of every box that are hidden, L.
        width: of a picture, in pixels.

    Returns:
        The strip, with the levels above and the name of a detector above its row.
    """
    font = ImageFont.load_default(size=_LETTERS)
    line = sum(font.getmetrics()) + 4  # type: ignore[union-attr]
    scale = width / images[0].shape[1]
    height = ceil(images[0].shape[0] * scale)
    row = line + height + _GAP
    size = (len(levels) * (width + _GAP) + _GAP, line + _GAP + len(detectors) * row + _GAP)
    strip = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(strip)
    for column, (level, pixels) in enumerate(zip(levels, images, strict=True)):
        x = _GAP + column * (width + _GAP)
        draw.text((x, _GAP // 2), f"{level:.0%} hidden" if level else "as it is", font=font, fill="black")
        resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
        for number, name in enumerate(detectors):
            y = line + _GAP + number * row
            seen = objects.is_found[number, column]
            heading = f"{name}: " * (column == 0) + f"{seen.sum()} of {len(seen)} found"
            draw.text((x, y), heading, font=font, fill="black")
            picture = resized.copy()
            for box, score, is_found in zip(objects.boxes, objects.scores[number, column], seen, strict=True):
                _mark(ImageDraw.Draw(picture), [scale * side for side in box.tolist()], score, bool(is_found), font)
            strip.paste(picture, (x, y + line))
    return strip


def _mark(
    draw: ImageDraw.ImageDraw,
    box: Sequence[float],
    score: float,
    is_found: bool,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Draw an object: found with a whole line and its score, missed with a dashed line and the word."""
    x1, y1, x2, y2 = (round(side) for side in box)
    x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)
    colour = _FOUND if is_found else _MISSED
    if is_found:
        draw.rectangle((x1, y1, x2, y2), outline="white", width=5)
        draw.rectangle((x1 + 1, y1 + 1, max(x2 - 1, x1 + 1), max(y2 - 1, y1 + 1)), outline=colour, width=3)
    else:
        for start, end in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
            _dash(draw, start, end, colour)
    text = f"{score:.2f}" if is_found else "missed"
    width, height = draw.textlength(text, font) + 6, sum(font.getmetrics())  # type: ignore[union-attr]
    top = y1 if y1 + height <= y2 else max(y1 - height, 0)
    draw.rectangle((x1, top, x1 + width, top + height), fill=colour)
    draw.text((x1 + 3, top), text, font=font, fill="white")


def _dash(
    draw: ImageDraw.ImageDraw, start: tuple[int, int], end: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    """Draw a dashed line, coloured on white."""
    draw.line((*start, *end), fill="white", width=3)
    length = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    for first in range(0, length, 12):
        ends = [
            tuple(a + (b - a) * place / max(length, 1) for a, b in zip(start, end, strict=True))
            for place in (first, min(first + 7, length))
        ]
        draw.line((*ends[0], *ends[1]), fill=colour, width=3)
