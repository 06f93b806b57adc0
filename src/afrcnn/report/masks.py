"""Figures of what adversaries do to objects: heatmaps and masks over the photograph, angles, and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import ceil, cos, radians, sin, sqrt
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, Wedge
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from afrcnn.masks import Box, MaskedObject, Step

CONTEXT = 1.4
"""Side of the part of the photograph that is shown around a box, as a multiple of the box's longer side."""

PANEL, GAP, HEAD, FOOT = 1.6, 0.24, 0.42, 0.6
"""Inches: the side of a panel, the space between two, and the space above the first row and below the last."""

DOTS_PER_INCH = 200
TEXT, SMALL = 9, 7.5
"""Sizes of text in points."""

OPACITY = 0.7
"""Of a heatmap over the photograph."""

TITLES = {"asdn": "ASDN", "astn": "ASTN"}

Draw = Callable[[Axes, NDArray[np.uint8], "MaskedObject"], None]


def draw_masks(image: NDArray[np.uint8], objects: Sequence[MaskedObject], left_out: int = 0) -> Figure:
    """Draw a row for each object: the photograph, a panel for each thing that an adversary did, and the scores.

    Readable without colour: heatmaps rise evenly in lightness (viridis), hidden cells are black, and every angle and
    score is written out. Heatmaps share one scale, from 0 to the highest value in the figure.

    Args:
        image: H x W x 3, uint8, RGB.
        objects: the objects, which went through the same adversaries; where there are none, the photograph alone is
            drawn, and the figure says so.
        left_out: how many further objects there are; the figure says so.

    Returns:
        The figure, to be saved by ``savefig``.
    """
    if not objects:
        return _draw_nothing(image)
    heatmaps = [step.heatmap for each in objects for step in each.steps if step.heatmap is not None]
    scale = ScalarMappable(Normalize(0, np.max(heatmaps) if heatmaps else 1), "viridis")
    panels = _panels(objects[0].steps, scale)
    width = len(panels) * (PANEL + GAP) + GAP
    height = len(objects) * (PANEL + GAP) - GAP + HEAD + FOOT
    figure = Figure((width, height), dpi=DOTS_PER_INCH)
    for column, (title, draw) in enumerate(panels):
        left = GAP + column * (PANEL + GAP)
        figure.text((left + PANEL / 2) / width, 1 - 0.14 / height, title, size=TEXT, ha="center", va="center")
        for row, each in enumerate(objects):
            bottom = height - HEAD - PANEL - row * (PANEL + GAP)
            axes = figure.add_axes((left / width, bottom / height, PANEL / width, PANEL / height))
            axes.set_axis_off()
            draw(axes, image, each)
        if "heatmap" in title:
            bar = figure.add_axes((left / width, 0.34 / height, PANEL / width, 0.1 / height))
            figure.colorbar(scale, bar, orientation="horizontal", alpha=OPACITY).outline.set_visible(False)
            bar.tick_params(labelsize=SMALL, length=2, pad=2)
    if left_out:
        text = f"{left_out} more detected,\nnot shown (--boxes)"
        figure.text(GAP / width, 0.3 / height, text, size=SMALL, va="center")
    return figure


def view(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """Return the part of an image that shows a box in its context: a square, as far as the image goes.

    Args:
        box: x1, y1, x2, y2 in pixels, inside the image.
        width: the image's width in pixels.
        height: its height.

    Returns:
        x1, y1, x2, y2 in whole pixels, around the box.
    """
    x1, y1, x2, y2 = box
    side = ceil(CONTEXT * max(x2 - x1, y2 - y1)) + 2

    def along(low: float, high: float, size: int) -> tuple[int, int]:
        first = max(0, min(round((low + high - side) / 2), size - side))
        return first, min(first + side, size)

    (left, right), (top, bottom) = along(x1, x2, width), along(y1, y2, height)
    return left, top, right, bottom


def _panels(steps: Sequence[Step], scale: ScalarMappable) -> list[tuple[str, Draw]]:
    """Return the columns of a figure: titles, and functions that draw their panels."""
    panels: list[tuple[str, Draw]] = [("photograph", _draw_photograph)]
    for index, step in enumerate(steps):
        title = _title(step)
        if step.heatmap is not None:
            panels.append((f"{title}: heatmap", partial(_draw_heatmap, index, scale)))
        if step.mask is not None:
            panels.append((f"{title}: mask", partial(_draw_mask, index)))
        if step.angles is not None:
            panels.append((f"{title}: rotations", partial(_draw_angles, index)))
    return [*panels, ("score of the class", _draw_scores)]


def _draw_photograph(axes: Axes, image: NDArray[np.uint8], each: MaskedObject) -> None:
    _show(axes, image, each.box)
    axes.set_title(each.name, size=TEXT, loc="left", pad=2, weight="bold", parse_math=False)


def _draw_heatmap(index: int, scale: ScalarMappable, axes: Axes, image: NDArray[np.uint8], each: MaskedObject) -> None:
    _show(axes, image, each.box, grey=True)
    heatmap = np.array(each.steps[index].heatmap)
    _cover(axes, heatmap, each.box, cmap=scale.cmap, norm=scale.norm, alpha=OPACITY)


def _draw_mask(index: int, axes: Axes, image: NDArray[np.uint8], each: MaskedObject) -> None:
    _show(axes, image, each.box)
    hidden = np.array(each.steps[index].mask)
    _cover(axes, hidden, each.box, cmap=ListedColormap(["black"]), alpha=0.85 * hidden)


def _draw_angles(index: int, axes: Axes, _: NDArray[np.uint8], each: MaskedObject) -> None:
    """Draw a dial for each block of channels: how far what pointed upwards is turned."""
    angles = each.steps[index].angles or []
    columns = ceil(sqrt(len(angles)))
    for block, angle in enumerate(angles):
        x, y = block % columns + 0.5, block // columns + 0.85
        turned = radians(angle)
        axes.add_patch(Wedge((x, y), 0.7, *sorted((-90, -90 + angle)), color="0.8", linewidth=0))
        axes.plot((x, x), (y, y - 0.7), color="0.5", linewidth=0.8, linestyle=(0, (2, 2)))
        axes.annotate(
            "", (x + 0.75 * sin(turned), y - 0.75 * cos(turned)), (x, y), arrowprops={"arrowstyle": "-|>", "shrinkA": 0}
        )
        size = min(TEXT, 2 * TEXT / columns)
        axes.text(x, y + 0.06, f"{angle:+.1f}°", size=size, ha="center", va="top")
    axes.set(xlim=(0, columns), ylim=(columns + 0.1, 0), aspect="equal")


def _draw_scores(axes: Axes, _: NDArray[np.uint8], each: MaskedObject) -> None:
    """Draw a bar for the score before any adversary, and one after each."""
    rows = [("before", each.score), *((f"after {_title(step)}", step.score) for step in each.steps)]
    for row, (name, score) in enumerate(rows):
        axes.add_patch(Rectangle((0, row + 0.55), 1, 0.25, color="0.9", linewidth=0))
        axes.add_patch(Rectangle((0, row + 0.55), score, 0.25, color="0.3", linewidth=0))
        axes.text(0, row + 0.45, name, size=SMALL, va="bottom", parse_math=False)
        axes.text(1, row + 0.45, f"{score:.2f}", size=SMALL, ha="right", va="bottom")
    axes.set(xlim=(0, 1), ylim=(max(len(rows), 3), 0))


def _draw_nothing(image: NDArray[np.uint8]) -> Figure:
    """Draw a photograph in which nothing was detected."""
    height, width = image.shape[:2]
    figure = Figure((2 * PANEL, 2 * PANEL), dpi=DOTS_PER_INCH)
    axes = figure.add_axes((0.05, 0.05, 0.9, 0.85))
    axes.set_axis_off()
    axes.imshow(image, extent=(0, width, height, 0))
    axes.set_title("nothing detected", size=TEXT)
    return figure


def _show(axes: Axes, image: NDArray[np.uint8], box: Box, *, grey: bool = False) -> None:
    """Show a box and what is around it; axes are in pixels of the image."""
    left, top, right, bottom = view(box, image.shape[1], image.shape[0])
    part = image[top:bottom, left:right]
    if grey:
        part = np.asarray(Image.fromarray(part).convert("L").convert("RGB"))
    axes.imshow(part, extent=(left, right, bottom, top))
    corner, size = box[:2], (box[2] - box[0], box[3] - box[1])
    for colour, line in (("black", 2.0), ("white", 1.0)):  # seen on any ground
        axes.add_patch(Rectangle(corner, *size, fill=False, color=colour, linewidth=line, zorder=3))


def _cover(axes: Axes, cells: NDArray[np.generic], box: Box, **kwargs: object) -> None:
    """Lay d x d cells over a box; the view of the axes stays."""
    limits = axes.get_xlim(), axes.get_ylim()
    x1, y1, x2, y2 = box
    axes.imshow(cells, extent=(x1, x2, y2, y1), interpolation="nearest", zorder=2, **kwargs)
    axes.set(xlim=limits[0], ylim=limits[1])


def _title(step: Step) -> str:
    return TITLES.get(step.adversary, step.adversary.replace("_", " "))
