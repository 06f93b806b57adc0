"""Figures of what adversaries do to objects: heatmaps and masks over the image, angles, and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import ceil, radians, sqrt

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from numpy.typing import NDArray
from PIL import Image

from afrcnn.adversaries.trace import Box, ObjectTrace, TraceStep
from afrcnn.visualize.figure import DOTS_PER_INCH, SIZE, add_axes, view

_PANEL, _GAP, _HEAD, _FOOT = 1.6, 0.24, 0.42, 0.6
"""Inches: the side of a panel, the space between two, and the space above the first row and below the last."""

_SMALL = 7.5
"""Size of notes in points."""

_HEATMAP_OPACITY, _MASK_OPACITY = 0.7, 0.85
"""Over the image."""

_Image = NDArray[np.uint8]
_Cells = NDArray[np.float64]
_Panel = tuple[str, str | ScalarMappable, Callable[[Axes], None]]
"""What stands above a column, what stands below it (a text, or a scale for a colour bar), and what draws a panel."""


def draw_masks(image: _Image, objects: Sequence[ObjectTrace], left_out: int = 0) -> Figure:
    """Draw a row for each object: the image, a panel for each thing that an adversary did, and the scores.

    Readable without colour: heatmaps rise evenly in lightness (viridis), occluded cells are black, and every angle and
    score is written out. Heatmaps share one scale, from 0 to the highest value in the figure.

    Args:
        image: H x W x 3, uint8, RGB.
        objects: the objects, which went through the same adversaries; where there are none, the image alone is drawn,
            and the figure says so.
        left_out: how many further objects there are; the figure says so.

    Returns:
        The figure, to be saved by ``savefig``.
    """
    if not objects:
        return draw_nothing(image)
    heatmaps = [step.heatmap for item in objects for step in item.steps if step.heatmap is not None]
    scale = ScalarMappable(Normalize(0, np.max(heatmaps) if heatmaps else 1), "viridis")
    rows = [list(_panels(image, traced, scale, left_out)) for traced in objects]
    width = len(rows[0]) * (_PANEL + _GAP) + _GAP
    height = len(rows) * (_PANEL + _GAP) - _GAP + _HEAD + _FOOT
    figure = Figure((width, height), dpi=DOTS_PER_INCH)
    for column, (title, note, _) in enumerate(rows[0]):
        left = _GAP + column * (_PANEL + _GAP)
        figure.text((left + _PANEL / 2) / width, 1 - 0.14 / height, title, size=SIZE, ha="center", va="center")
        for row, panels in enumerate(rows):
            axes = add_axes(figure, left, height - _HEAD - _PANEL - row * (_PANEL + _GAP), _PANEL, _PANEL)
            axes.set_axis_off()
            panels[column][2](axes)
        if isinstance(note, ScalarMappable):
            bar = add_axes(figure, left, _FOOT - 0.26, _PANEL, 0.1)
            figure.colorbar(note, bar, orientation="horizontal", alpha=_HEATMAP_OPACITY).outline.set_visible(False)
            bar.tick_params(labelsize=_SMALL, length=2, pad=2)
        else:
            figure.text(left / width, (_FOOT - 0.16) / height, note, size=_SMALL, va="top")
    return figure


def _panels(image: _Image, traced: ObjectTrace, scale: ScalarMappable, left_out: int) -> Iterator[_Panel]:
    """Yield the panels of an object, from left to right."""
    grey = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
    further = f"{left_out} more detected,\nnot shown (--boxes)" if left_out else ""
    yield "image", further, partial(show_box, image, traced.box, name=traced.name)
    for step in traced.steps:
        title = _title(step)
        if step.heatmap is not None:
            cells = scale.to_rgba(np.array(step.heatmap), alpha=_HEATMAP_OPACITY)
            yield f"{title}: heatmap", scale, partial(show_box, grey, traced.box, cells=cells)
        if step.mask is not None:
            cells = np.array(step.mask)[..., None] * (0, 0, 0, _MASK_OPACITY)  # d x d x RGBA
            yield f"{title}: mask", "occluded cells are black", partial(show_box, image, traced.box, cells=cells)
        if step.angles is not None:
            note = "one for each block of\nchannels; + is clockwise"
            yield f"{title}: rotations", note, partial(_draw_angles, step.angles)
    scores = [("before", traced.score), *((f"after {_title(step)}", step.score) for step in traced.steps)]
    yield "score of the class", "of the box as it is drawn", partial(_draw_scores, scores)


def _draw_angles(angles: Sequence[float], axes: Axes) -> None:
    """Draw for each block of channels a square as it was (dashed) and rotated, with an arrow that was upright."""
    columns = ceil(sqrt(len(angles)))
    square = np.array([(-0.3, -0.3), (0.3, -0.3), (0.3, 0.3), (-0.3, 0.3)])
    for block, angle in enumerate(angles):
        centre = np.array([block % columns + 0.5, block // columns + 0.4])
        cos, sin = np.cos(radians(angle)), np.sin(radians(angle))
        turn = np.array([(cos, sin), (-sin, cos)])  # x right, y down: clockwise on the screen
        axes.add_patch(Polygon(centre + square, fill=False, color="0.5", linewidth=0.7, linestyle=(0, (3, 2))))
        axes.add_patch(Polygon(centre + square @ turn, facecolor="0.88", edgecolor="black", linewidth=1, zorder=0.5))
        tail, tip = centre + (0, 0.3) @ turn, centre + (0, -0.3) @ turn
        axes.annotate("", tuple(tip), tuple(tail), arrowprops={"arrowstyle": "->", "shrinkA": 0, "shrinkB": 0})
        size = min(_SMALL, 2.5 * _SMALL / columns)
        axes.text(centre[0], centre[1] + 0.38, f"{angle:+z.1f}°", size=size, ha="center", va="top")
    axes.set(xlim=(0, columns), ylim=(columns, 0))


def _draw_scores(scores: Sequence[tuple[str, float]], axes: Axes) -> None:
    """Draw a bar for each score, with its name."""
    for row, (name, score) in enumerate(scores):
        for length, colour in ((1, "0.9"), (score, "0.3")):
            axes.add_patch(Rectangle((0, row + 0.55), length, 0.25, color=colour, linewidth=0))
        axes.text(0, row + 0.45, name, size=_SMALL, va="bottom", parse_math=False)
        axes.text(1, row + 0.45, f"{score:.2f}", size=_SMALL, ha="right", va="bottom")
    axes.set(xlim=(0, 1), ylim=(max(len(scores), 3), 0))


def draw_nothing(image: _Image) -> Figure:
    """Draw an image in which nothing was detected."""
    figure = Figure((2 * _PANEL, 2 * _PANEL), dpi=DOTS_PER_INCH)
    axes = figure.add_axes((0.05, 0.05, 0.9, 0.85))
    axes.set_axis_off()
    axes.imshow(image)
    axes.set_title("nothing detected", size=SIZE)
    return figure


def show_box(image: _Image, box: Box, axes: Axes, *, name: str = "", cells: _Cells | None = None) -> None:
    """Show a box and what is around it; axes are in pixels of the image.

    Args:
        image: H x W x 3.
        box: the box.
        axes: where.
        name: what stands above.
        cells: d x d x 4 (RGBA), laid over the box with lines between them.
    """
    left, top, right, bottom = view(box, image.shape[1], image.shape[0])
    axes.imshow(image[top:bottom, left:right], extent=(left, right, bottom, top))
    axes.set_title(name, size=SIZE, loc="left", pad=2, weight="bold", parse_math=False)
    x1, y1, x2, y2 = box
    for colour, line in (("black", 2.0), ("white", 1.0)):  # seen on any ground
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=colour, linewidth=line, zorder=3))
    if cells is not None:
        axes.imshow(cells, extent=(x1, x2, y2, y1), interpolation="nearest")
        inner = np.linspace(0, 1, len(cells) + 1)[1:-1]
        axes.hlines(y1 + (y2 - y1) * inner, x1, x2, color="white", alpha=0.5, linewidth=0.3)
        axes.vlines(x1 + (x2 - x1) * inner, y1, y2, color="white", alpha=0.5, linewidth=0.3)
        axes.set(xlim=(left, right), ylim=(bottom, top))


def _title(step: TraceStep) -> str:
    return {"asdn": "ASDN", "astn": "ASTN"}.get(step.adversary, step.adversary.replace("_", " "))
