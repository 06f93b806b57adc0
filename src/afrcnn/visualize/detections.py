"""Detections drawn over their image."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from afrcnn.data.image import to_uint8

_Colour = tuple[int, int, int]
_Rectangle = tuple[int, int, int, int]

_GOLDEN_ANGLE = 0.381966
"""Steps of this part of the circle of hues keep any number of classes apart (1 minus the golden section)."""


def draw_detections(image: NDArray[Any], detections: Mapping[str, Tensor], classes: Sequence[str]) -> Image.Image:
    """Draw boxes with the name of their class and their score.

    Lines and text grow with the image. A label stands above its box, or where that is taken or outside the image, at
    the nearest free place along the box's upper and lower side; where none is free, the better detection lies on top.

    Args:
        image: H x W x 3, RGB, uint8 or floating point from 0 to 1.
        detections: ``boxes`` D x 4 (XYXY, pixels), ``labels`` D (1..K) and ``scores`` D, as a detector returns them.
        classes: names of the classes 1..K.

    Returns:
        The picture, W x H, RGB; the array is left as it is.

    Raises:
        ValueError: the image is neither.
    """
    picture = Image.fromarray(to_uint8(image))
    draw = ImageDraw.Draw(picture)
    line = max(2, round(max(picture.size) / 300))
    font = ImageFont.load_default(size=max(11, round(max(picture.size) / 42)))
    # All labels are as high as the font's tallest letters, so that those side by side are in line.
    height = sum(font.getmetrics()) + line  # type: ignore[union-attr]
    columns = (detections[name].tolist() for name in ("scores", "labels", "boxes"))
    best_first = sorted(zip(*columns, strict=True), key=lambda detection: -detection[0])
    labels: list[tuple[_Rectangle, _Colour, str]] = []
    for score, label, box in best_first:
        text = f"{classes[label - 1]} {score:.2f}"
        size = round(draw.textlength(text, font)) + 2 * line + 2, height
        place = _place(size, box, picture.size, [taken for taken, *_ in labels])
        labels.append((place, _class_colour(label), text))
    for _, label, box in reversed(best_first):
        _outline(draw, box, _class_colour(label), line)
    for (x1, y1, x2, y2), colour, text in reversed(labels):
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=colour)
        draw.text((x1 + line + 1, (y1 + y2) / 2), text, font=font, fill=_text_colour(colour), anchor="lm")
    return picture


def _class_colour(label: int) -> _Colour:
    """Return the colour (8-bit RGB) of a class: saturated, and far from those of the classes before and after it."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + label * _GOLDEN_ANGLE) % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _text_colour(background: _Colour) -> _Colour:
    """Return black or white, whichever has the larger contrast with a background (WCAG 2.2, relative luminance)."""
    channels = np.array(background) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    return (255, 255, 255) if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else (0, 0, 0)


def _outline(draw: ImageDraw.ImageDraw, box: Sequence[float], colour: _Colour, line: int) -> None:
    """Draw a box's border inside the box, with a dark rim that sets it off from grounds of its own colour."""
    x1, y1, x2, y2 = map(round, box)
    inside = (x1, y1, max(x2 - 1, x1), max(y2 - 1, y1))
    draw.rectangle(inside, outline=(0, 0, 0), width=line + 1)
    draw.rectangle(inside, outline=colour, width=line)


def _place(size: tuple[int, int], box: Sequence[float], bounds: tuple[int, int], taken: list[_Rectangle]) -> _Rectangle:
    """Find a place for a label of a size (width, height) at a box, inside the bounds and on no other if possible."""
    (width, height), (x1, y1, x2, y2) = size, map(round, box)
    rows = (y1 - height, y1, y2 - height, y2)  # above and below the box, and inside at both sides
    corners = np.array([(x, y) for y in rows for x in (x1, x2 - width)])
    corners = corners.clip(0, np.maximum(np.subtract(bounds, size), 0))
    places = [(x, y, x + width, y + height) for x, y in corners.tolist()]
    return min(places, key=lambda place: sum(_overlap(place, label) for label in taken))


def _overlap(one: _Rectangle, other: _Rectangle) -> int:
    """Return the area of the intersection of two rectangles."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)
