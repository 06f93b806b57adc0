"""Curves: how a quantity went over a training, or over the levels of a test."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from afrcnn.core.errors import UserError
from afrcnn.reporting.elements import Picture, drawing

Curve = list[tuple[float, float]]
"""Points x, y by rising x."""

WIDTH, AXES, LINE, FOOT = 3.75, 2.0, 0.19, 0.55
"""Inches: the width of a figure, the height of its axes, of a line of its legend, and of what is below its axes."""

SIZE = 9
"""Of letters, in points."""

INK = "#808080"
"""Of axes: seen on a light page and on a dark one."""

STYLES = [
    (colour, line, marker)
    for line in ("-", "--", ":")
    for colour, marker in zip(
        ("#3182c8", "#e0662f", "#2a9d78", "#c267a6", "#c2940a", "#7a6fd0"), ("o", "s", "^", "D", "v", "P"), strict=True
    )
]
"""Methods differ in colour, marker and, beyond six, line: each pair of them without colour, too."""

WORDY = 10
"""Points of a curve that are all put into words."""

POINTS = 150
"""Longer curves are averaged down to about as many points."""


def read_log(file: Path) -> dict[str, Curve]:
    """Read the numbers of a training's log by iteration.

    Args:
        file: ``log.csv`` of a run.

    Returns:
        A curve for each column of numbers; where a row says nothing of it, it has no point.

    Raises:
        UserError: the file cannot be read.
    """
    curves: dict[str, Curve] = {}
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                numbers = {name: number for name, text in row.items() if (number := _number(text)) is not None}
                iteration = numbers.pop("iteration", None)
                if iteration is not None:
                    for name, number in numbers.items():
                        curves.setdefault(name, []).append((iteration, number))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot be read ({error})", file=file, fix="name a run whose log.csv is whole") from error
    return curves


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Return the mean of curves at every x that all of them have."""
    by_x = [dict(curve) for curve in curves]
    common = [x for x in sorted(by_x[0]) if all(x in each for each in by_x)] if by_x else []
    return [(x, float(np.mean([each[x] for each in by_x]))) for x in common]


def thin(curve: Curve, points: int = POINTS) -> Curve:
    """Return a curve in which each point is the mean of as many neighbours as leave at most ``points``."""
    step = -(-len(curve) // points)
    parts = [curve[start : start + step] for start in range(0, len(curve), max(step, 1))]
    return [(float(np.mean([x for x, _ in part])), float(np.mean([y for _, y in part]))) for part in parts]


def curves_picture(
    curves: Mapping[str, Curve], order: Sequence[str], x: str, y: str, *, markers: bool = False
) -> Picture:
    """Return a figure of curves (see ``draw_curves``), those without points left out, and their numbers in words."""
    shown = {name: curve for name, curve in curves.items() if curve}
    words = []
    for name, curve in shown.items():
        if len(curve) <= WORDY:
            numbers = ", ".join(f"{value:.3g} at {place:g}" for place, value in curve)
        else:
            (low, low_at), (high, high_at) = (
                extreme((value, place) for place, value in curve) for extreme in (min, max)
            )
            numbers = (
                f"{curve[0][1]:.3g} at {curve[0][0]:g}, {curve[-1][1]:.3g} at {curve[-1][0]:g}, "
                f"lowest {low:.3g} at {low_at:g}, highest {high:.3g} at {high_at:g}"
            )
        words.append(f"{name}: {numbers}")
    return drawing(draw_curves(shown, order, x, y, markers=markers), f"{y}, by {x}. {'; '.join(words)}.")


def draw_curves(curves: Mapping[str, Curve], order: Sequence[str], x: str, y: str, *, markers: bool = False) -> Figure:
    """Draw curves of methods over each other.

    Args:
        curves: by method.
        order: all methods of the page; a method has the same line in every figure.
        x: what the horizontal axis shows, with its unit.
        y: what the vertical axis shows.
        markers: whether points are marked.
    """
    legend = LINE * len(curves) + 0.1
    height = AXES + FOOT + legend + 0.3
    figure = Figure((WIDTH, height))
    axes = figure.add_axes((0.55 / WIDTH, FOOT / height, (WIDTH - 0.7) / WIDTH, AXES / height))
    for name, curve in curves.items():
        colour, line, marker = STYLES[order.index(name) % len(STYLES)]
        columns = np.array(curve).reshape(-1, 2).T
        axes.plot(*columns, color=colour, linestyle=line, marker=marker if markers else "", markersize=4, label=name)
    axes.set_xlabel(x, size=SIZE)
    axes.set_title(y, size=SIZE, loc="left", pad=legend * 72 + 4, weight="bold", parse_math=False)
    dress(axes)
    drawn = axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), fontsize=SIZE, frameon=False, borderpad=0, labelspacing=0.25
    )
    for text in drawn.get_texts():
        text.set_parse_math(False)
    return figure


def dress(axes: Axes) -> None:
    """Give axes quiet lines and small letters."""
    axes.tick_params(labelsize=SIZE - 1, color=INK, length=3)
    axes.grid(color=INK, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(visible=side in {"left", "bottom"}, color=INK, linewidth=0.8)


def _number(text: object) -> float | None:
    try:
        number = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
