"""Figures and pictures: the sizes, colours, lines and formats of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, isnan
from typing import Any

from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SIZE = 9
"""Of letters, in points."""

_LEGEND_LINE, _LEGEND_GAP = 0.165, 0.1
"""Inches: a line of a legend, and the space above a legend."""

INK = "#808080"
"""Of axes: seen on a light page and on a dark one."""

DOTS_PER_INCH = 200
"""Of figures that are saved as PNG."""

STYLES: list[dict[str, Any]] = list(
    cycler(linestyle=["-", "--", ":"])
    * cycler(color=["#3182c8", "#e0662f", "#2a9d78", "#c267a6", "#c2940a", "#7a6fd0"], marker=list("os^DvP"))
)
"""Methods differ in colour, marker and, beyond six, line: each pair of them without colour, too."""

_CONTEXT = 1.4
"""Side of the part of an image that is shown around a box, as a multiple of the box's longer side."""


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a place of a figure, in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def dress(axes: Axes, x: str, title: str, *, legend: int = 0, title_x: float = 0.0) -> None:
    """Give axes quiet lines, small letters, a title and, between both, a legend.

    Args:
        axes: with all their curves.
        x: what the horizontal axis shows, with its unit.
        title: what stands above the axes; no formula.
        legend: the number of lines of the legend, as high as ``legend_height`` says; 0 for none.
        title_x: where the title begins, in widths of the axes.
    """
    axes.tick_params(labelsize=SIZE - 1, color=INK, length=3)
    axes.grid(color=INK, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(visible=side in {"left", "bottom"}, color=INK, linewidth=0.8)
    axes.set_xlabel(x, size=SIZE)
    pad = 72 * legend_height(legend) + 4
    axes.set_title(title, size=SIZE, loc="left", weight="bold", pad=pad, x=title_x, parse_math=False)
    if legend:
        shape: dict[str, Any] = {"fontsize": SIZE, "frameon": False, "borderpad": 0, "labelspacing": 0.25}
        for text in axes.legend(loc="lower left", bbox_to_anchor=(0, 1), **shape).get_texts():
            text.set_parse_math(False)


def legend_height(lines: int) -> float:
    """Return the inches that a legend takes above axes."""
    return _LEGEND_LINE * lines + _LEGEND_GAP if lines else 0.0


def view(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """Return the part of an image that shows a box in its context: a square, as far as the image goes.

    Args:
        box: x1, y1, x2, y2 in pixels, inside the image.
        width: the image's width in pixels.
        height: its height.

    Returns:
        x1, y1, x2, y2 in whole pixels, around the box.
    """
    x1, y1, x2, y2 = box
    side = ceil(_CONTEXT * max(x2 - x1, y2 - y1)) + 2
    left = max(0, min(round((x1 + x2 - side) / 2), width - side))
    top = max(0, min(round((y1 + y2 - side) / 2), height - side))
    return left, top, min(left + side, width), min(top + side, height)


def percent(fraction: float) -> str:
    """Return a fraction in percent, with one decimal; a dash for NaN."""
    return "-" if isnan(fraction) else f"{100 * fraction:.1f}"


def signed(points: float) -> str:
    """Return a change as it is printed: one decimal, and its sign."""
    return f"{points:+z.1f}".replace("-", "\N{MINUS SIGN}")
