"""Which pixels occluders cover, so that every object is occluded by the asked fraction of its box.

The occluder of an object is a window of the shape of its box. It grows about an anchor: what is occluded of a lone
object at one tenth is occluded at two tenths, too. The occluded fraction of an object is the fraction of its box's area
that occluders cover, whomever they were laid for. So where boxes overlap, what occludes one object counts for the
other: the smaller is served first, within what the larger may lose, and then the window of the larger grows outside the
smaller's box until both have their fraction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from afrcnn.evaluation.matching import Booleans, Floats, Integers

_Pixels = tuple[slice, slice]
"""Rows and columns."""

_NOBODY = -1
"""The owner of pixels that no occluder covers."""


def lay_occluders(boxes: Floats, anchors: Floats, size: tuple[int, int], fraction: float) -> Integers:
    """Cover a fraction of every box, to the pixel.

    Only where several boxes overlap in each other can one end up with less; ``occluded_fractions`` tells. Of the 4581
    objects of two real datasets, one did.

    Args:
        boxes: M x 4, XYXY in pixels, inside the image.
        anchors: M x 2, in [0, 1]: where in its box (x, y) a window shrinks to. (0, 0) is the upper left corner, which
            the window then fills; windows at (1/2, 1/2) have the middle of the box in theirs.
        size: the image's height and width in pixels.
        fraction: that of each box's area to cover, in [0, 1].

    Returns:
        H x W: the index of the object whose occluder covers the pixel, or -1.
    """
    owners: Integers = np.full(size, _NOBODY)
    free = np.ones(size, dtype=bool)
    areas = _areas(boxes)
    order = np.argsort(areas, kind="stable")

    def missing(index: int) -> int:
        return max(round(float(fraction * areas[index]) - _covered_area(owners, boxes[index])), 0)

    for place, index in enumerate(order):
        inside = pixels_inside(boxes[index])
        scales = np.where(free[inside], _scales(owners[inside].shape, anchors[index]), np.inf)
        limits = [
            (pixels, missing(larger))
            for larger in order[place + 1 :]
            if (pixels := shared_pixels(inside, pixels_touched(boxes[larger])))
        ]
        owners[inside][_window(scales, missing(index), limits)] = index
        free[pixels_touched(boxes[index])] = False
    return owners


def occluded_fractions(owners: Integers, boxes: Floats) -> Floats:
    """Return the fraction of each box's area that is covered: M values in [0, 1].

    Args:
        owners: H x W, whose occluder covers each pixel, as of ``lay_occluders``.
        boxes: M x 4, XYXY in pixels; of a pixel on a box's rim, the part inside counts.
    """
    return np.array([_covered_area(owners, box) for box in boxes]) / _areas(boxes)


def _areas(boxes: Floats) -> Floats:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


def _covered_area(owners: Integers, box: Floats) -> float:
    """Return how much of a box is covered, in pixels."""
    pixels, (x1, y1, x2, y2) = pixels_touched(box), box
    rows, columns = (np.arange(side.start, side.stop) for side in pixels)
    heights = np.minimum(rows + 1, y2) - np.maximum(rows, y1)
    widths = np.minimum(columns + 1, x2) - np.maximum(columns, x1)
    return float(heights @ (owners[pixels] != _NOBODY) @ widths)


def pixels_touched(box: Floats) -> _Pixels:
    """Return the rows and columns of the pixels that a box has a part of."""
    x1, y1, x2, y2 = box
    return slice(int(y1), int(np.ceil(y2))), slice(int(x1), int(np.ceil(x2)))


def pixels_inside(box: Floats) -> _Pixels:
    """Return the rows and columns of the pixels that lie wholly in a box."""
    x1, y1, x2, y2 = box
    return slice(int(np.ceil(y1)), int(y2)), slice(int(np.ceil(x1)), int(x2))


def shared_pixels(pixels: _Pixels, near: _Pixels) -> _Pixels | None:
    """Return those of ``pixels`` that are also of ``near``, counted from the first of ``pixels``."""
    rows, columns = (
        slice(max(other.start - one.start, 0), min(other.stop, one.stop) - one.start)
        for one, other in zip(pixels, near, strict=True)
    )
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def _scales(shape: tuple[int, ...], anchor: Floats) -> Floats:
    """Return for each pixel of a box the scale, in (0, 1), at which the window about the anchor reaches its centre."""
    along = []
    for length, at in zip(shape, anchor[::-1], strict=True):
        place = (np.arange(length) + 0.5) / length
        before, after = max(at, np.finfo(float).tiny), max(1 - at, np.finfo(float).tiny)
        along.append(np.maximum((at - place) / before, (place - at) / after))
    return np.asarray(np.maximum.outer(*along))


def _window(scales: Floats, count: int, limits: Sequence[tuple[_Pixels, int]]) -> Booleans:
    """Return the window of ``count`` pixels, as a mask: those of lowest scale, but in each area no more than its limit.

    Pixels of infinite scale stay out; the window is smaller where there are not enough others.
    """
    window = _lowest(scales, count)
    while crowded := [(area, limit) for area, limit in limits if np.count_nonzero(window[area]) > limit]:
        area, limit = crowded[0]
        allowed = _lowest(np.where(window[area], scales[area], np.inf), limit)
        scales[area][~allowed] = np.inf  # the area has its limit, and gets no more
        window = _lowest(scales, count)
    return window


def _lowest(scales: Floats, count: int) -> Booleans:
    """Return a mask of the ``count`` lowest values; of equal ones, the first rows lead; infinite ones stay out."""
    count = min(count, int(np.isfinite(scales).sum()))
    if not count:
        return np.zeros(scales.shape, dtype=bool)
    last = np.partition(scales, count - 1, axis=None)[count - 1]
    lowest: Booleans = scales < last
    ties = np.flatnonzero(scales == last)[: count - np.count_nonzero(lowest)]
    lowest.ravel()[ties] = True
    return lowest
