"""Figures of what adversaries do to objects: heatmaps and masks over the photograph, angles, and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import ceil, radians, sqrt
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from afrcnn.adversaries.trace import Box, ObjectTrace, TraceStep

CONTEXT = 1.4
"""Side of the part of the photograph that is shown around a box, as a multiple of the box's longer side."""

PANEL, GAP, HEAD, FOOT = 1.6, 0.24, 0.42, 0.6
"""Inches: the side of a panel, the space between two, and the space above the first row and below the last."""

DOTS_PER_INCH = 200
TEXT, SMALL = 9, 7.5
"""Sizes of text in points."""

HEATMAP_OPACITY, MASK_OPACITY = 0.7, 0.85
"""Over the photograph."""

TITLES = {"asdn": "ASDN", "astn": "ASTN"}

Column = tuple[str, str | ScalarMappable, Callable[[Axes, NDArray[np.uint8], "ObjectTrace"], None]]
"""What stands above a column, what stands below it (a text, or a scale for a colour bar), and what draws a panel."""


def draw_masks(image: NDArray[np.uint8], objects: Sequence[ObjectTrace], left_out: int = 0) -> Figure:
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
    panels = _panels(objects[0].steps, scale, left_out)
    width = len(panels) * (PANEL + GAP) + GAP
    height = len(objects) * (PANEL + GAP) - GAP + HEAD + FOOT
    figure = Figure((width, height), dpi=DOTS_PER_INCH)
    for column, (title, note, draw) in enumerate(panels):
        left = GAP + column * (PANEL + GAP)
        figure.text((left + PANEL / 2) / width, 1 - 0.14 / height, title, size=TEXT, ha="center", va="center")
        for row, each in enumerate(objects):
            bottom = height - HEAD - PANEL - row * (PANEL + GAP)
            axes = figure.add_axes((left / width, bottom / height, PANEL / width, PANEL / height))
            axes.set_axis_off()
            draw(axes, image, each)
        if isinstance(note, ScalarMappable):
            bar = figure.add_axes((left / width, (FOOT - 0.26) / height, PANEL / width, 0.1 / height))
            figure.colorbar(note, bar, orientation="horizontal", alpha=HEATMAP_OPACITY).outline.set_visible(False)
            bar.tick_params(labelsize=SMALL, length=2, pad=2)
        else:
            figure.text(left / width, (FOOT - 0.16) / height, note, size=SMALL, va="top")
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


def rotation(degrees: float) -> NDArray[np.float64]:
    """Return the 2 x 2 matrix that turns (x right, y down) clockwise on the screen."""
    cos, sin = np.cos(radians(degrees)), np.sin(radians(degrees))
    return np.array([(cos, -sin), (sin, cos)])


def _panels(steps: Sequence[TraceStep], scale: ScalarMappable, left_out: int) -> list[Column]:
    """Return the columns of a figure."""
    further = f"{left_out} more detected,\nnot shown (--boxes)" if left_out else ""
    panels: list[Column] = [("photograph", further, _draw_photograph)]
    for index, step in enumerate(steps):
        title = _title(step)
        if step.heatmap is not None:
            panels.append((f"{title}: heatmap", scale, partial(_draw_heatmap, index, scale)))
        if step.mask is not None:
            panels.append((f"{title}: mask", "hidden cells are black", partial(_draw_mask, index)))
        if step.angles is not None:
            note = "one for each block of\nchannels; + is clockwise"
            panels.append((f"{title}: rotations", note, partial(_draw_angles, index)))
    return [*panels, ("score of the class", "of the box as it is drawn", _draw_scores)]


def _draw_photograph(axes: Axes, image: NDArray[np.uint8], each: ObjectTrace) -> None:
    _show(axes, image, each.box)
    axes.set_title(each.name, size=TEXT, loc="left", pad=2, weight="bold", parse_math=False)


def _draw_heatmap(index: int, scale: ScalarMappable, axes: Axes, image: NDArray[np.uint8], each: ObjectTrace) -> None:
    _show(axes, image, each.box, grey=True)
    _cover(axes, scale.to_rgba(np.array(each.steps[index].heatmap), alpha=HEATMAP_OPACITY), each.box)


def _draw_mask(index: int, axes: Axes, image: NDArray[np.uint8], each: ObjectTrace) -> None:
    _show(axes, image, each.box)
    hidden = np.array(each.steps[index].mask)[..., None]
    _cover(axes, hidden * np.array([0, 0, 0, MASK_OPACITY]), each.box)


def _draw_angles(index: int, axes: Axes, _: NDArray[np.uint8], each: ObjectTrace) -> None:
    """Draw for each block of channels a square as it was (dashed) and turned, with an arrow that was upright."""
    angles = each.steps[index].angles or []
    columns = ceil(sqrt(len(angles)))
    square = np.array([(-0.3, -0.3), (0.3, -0.3), (0.3, 0.3), (-0.3, 0.3)])
    for block, angle in enumerate(angles):
        centre = np.array([block % columns + 0.5, block // columns + 0.4])
        turn = rotation(angle)
        axes.add_patch(Polygon(centre + square, fill=False, color="0.5", linewidth=0.7, linestyle=(0, (3, 2))))
        axes.add_patch(Polygon(centre + square @ turn.T, facecolor="0.88", edgecolor="black", linewidth=1, zorder=0.5))
        tail, tip = centre - turn @ (0, -0.3), centre + turn @ (0, -0.3)
        axes.annotate("", tuple(tip), tuple(tail), arrowprops={"arrowstyle": "->", "shrinkA": 0, "shrinkB": 0})
        size = min(SMALL, 2.5 * SMALL / columns)
        axes.text(centre[0], centre[1] + 0.38, f"{angle:+z.1f}°", size=size, ha="center", va="top")
    axes.set(xlim=(0, columns), ylim=(columns, 0))


def _draw_scores(axes: Axes, _: NDArray[np.uint8], each: ObjectTrace) -> None:
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


def _cover(axes: Axes, cells: NDArray[np.float64], box: Box) -> None:
    """Lay cells (d x d x RGBA) over a box, with lines between them; what the axes show of the photograph stays."""
    limits = axes.get_xlim(), axes.get_ylim()
    (x1, y1, x2, y2), lines = box, np.linspace(0, 1, len(cells) + 1)[1:-1]
    axes.imshow(cells, extent=(x1, x2, y2, y1), interpolation="nearest")
    axes.hlines(y1 + (y2 - y1) * lines, x1, x2, color="white", alpha=0.5, linewidth=0.3)
    axes.vlines(x1 + (x2 - x1) * lines, y1, y2, color="white", alpha=0.5, linewidth=0.3)
    axes.set(xlim=limits[0], ylim=limits[1])


def _title(step: TraceStep) -> str:
    return TITLES.get(step.adversary, step.adversary.replace("_", " "))
