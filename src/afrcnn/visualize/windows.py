"""Figures of the exhaustive search: every window that it hides, over the image, and the loss that is left."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from afrcnn.adversaries.trace import SearchTrace
from afrcnn.visualize.figure import DOTS_PER_INCH, add_axes
from afrcnn.visualize.masks import draw_nothing, show_box

_OBJECT, _WINDOW, _GAP, _NOTE = 1.6, 0.62, 0.1, 0.15
"""Inches: the sides of an object's panel and of a window's, the space between panels, and a line below a window."""

_SMALL = 6.5
"""Size of losses in points."""

_PIXELS = 160
"""Of an image, at most, on a side of a window's panel: as many as are printed."""


def draw_windows(image: NDArray[np.uint8], objects: Sequence[SearchTrace], left_out: int = 0) -> Figure:
    """Draw a block for each object: the object, and a panel for each window that was hidden, with the loss below.

    Windows stand as they lie in the object, row by row. The hardest, which becomes ASDN's target, has a frame and its
    loss in bold (the paper's Figure 3a).

    Args:
        image: H x W x 3, uint8, RGB.
        objects: the objects, searched with the same windows.
        left_out: how many further objects there are; the figure says so.

    Returns:
        The figure, to be saved by ``savefig``.
    """
    if not objects:
        return draw_nothing(image)
    columns = len({window[1] for window in objects[0].windows})
    rows = ceil(len(objects[0].windows) / columns)
    block = max(rows * (_WINDOW + _NOTE + _GAP), _OBJECT + 3 * _NOTE) + 0.2
    width = _OBJECT + columns * (_WINDOW + _GAP) + 3 * _GAP
    height = len(objects) * block + (0.25 if left_out else 0.05)
    figure = Figure((width, height), dpi=DOTS_PER_INCH)
    for number, traced in enumerate(objects):
        top = height - number * block - 0.2
        axes = add_axes(figure, _GAP, top - _OBJECT, _OBJECT, _OBJECT)
        axes.set_axis_off()
        show_box(image, traced.box, axes, name=traced.name)
        notes = f"loss {traced.loss:.2f}, nothing hidden\nloss {max(traced.losses):.2f}, hardest window hidden"
        figure.text(_GAP / width, (top - _OBJECT - 0.05) / height, notes, size=_SMALL, va="top")
        for place, loss in enumerate(traced.losses):
            left = _OBJECT + 2 * _GAP + place % columns * (_WINDOW + _GAP)
            bottom = top - _WINDOW - place // columns * (_WINDOW + _NOTE + _GAP)
            axes = add_axes(figure, left, bottom, _WINDOW, _WINDOW)
            _show_window(image, traced, traced.windows[place], axes)
            chosen = place == traced.hardest
            if chosen:
                axes.add_patch(
                    Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, linewidth=2.5, clip_on=False)
                )
            weight = "bold" if chosen else "normal"
            where = ((left + _WINDOW / 2) / width, (bottom - 0.02) / height)
            figure.text(*where, f"{loss:.2f}", size=_SMALL, weight=weight, ha="center", va="top")
    if left_out:
        note = f"{left_out} more detected, not shown (--boxes)"
        figure.text(_GAP / width, 0.06 / height, note, size=_SMALL)
    return figure


def _show_window(image: NDArray[np.uint8], traced: SearchTrace, window: tuple[int, int, int, int], axes: Axes) -> None:
    """Show an object alone, a window of its cells hidden; axes are in pixels of the image."""
    x1, y1, x2, y2 = traced.box
    left, top, right, bottom = floor(x1), floor(y1), ceil(x2), ceil(y2)
    crop = Image.fromarray(image[top:bottom, left:right])
    crop.thumbnail((_PIXELS, _PIXELS))
    axes.imshow(np.asarray(crop), extent=(left, right, bottom, top))
    axes.set_axis_off()
    axes.set_anchor("S")  # the loss stands right below
    row, column, height, width = window
    cell = (x2 - x1) / traced.size, (y2 - y1) / traced.size
    corner = (x1 + column * cell[0], y1 + row * cell[1])
    axes.add_patch(Rectangle(corner, width * cell[0], height * cell[1], facecolor="black", linewidth=0))
    axes.set(xlim=(left, right), ylim=(bottom, top))
