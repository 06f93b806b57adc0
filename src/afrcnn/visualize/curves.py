"""Curves of methods over each other: how a quantity went over a training, or over the levels of a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from afrcnn.visualize.figure import INK, STYLES, add_axes, dress, legend_height

Points = list[tuple[float, float]]
"""Points x, y by rising x."""

_WIDTH, _AXES, _LEFT, _RIGHT, _BOTTOM, _TOP = 3.75, 2.0, 0.55, 0.15, 0.55, 0.3
"""Inches: the width of a figure, the height of its axes, and what is around them; the legend comes on top."""

_POINTS = 150
"""Longer curves are averaged down to about as many points."""


def mean_curve(curves: Sequence[Points]) -> Points:
    """Return the mean of curves at every x that all of them have, long ones averaged down."""
    by_x = [dict(curve) for curve in curves]
    common = sorted(set.intersection(*map(set, by_x))) if by_x else []
    return _thin([(x, float(np.mean([curve[x] for curve in by_x]))) for x in common])


def _thin(curve: Points, points: int = _POINTS) -> Points:
    """Return a curve in which each point is the mean of as many neighbours as leave at most ``points``."""
    step = max(-(-len(curve) // points), 1)
    means = (np.mean(curve[start : start + step], axis=0) for start in range(0, len(curve), step))
    return [(float(x), float(y)) for x, y in means]


def draw_curves(
    curves: Mapping[str, Points],
    order: Sequence[str],
    x: str,
    y: str,
    *,
    markers: bool = False,
    ends: tuple[float | None, float | None] = (None, None),
    dots: Mapping[str, tuple[float, float]] | None = None,
    labels: Mapping[str, str] | None = None,
    slope: float | None = None,
) -> Figure:
    """Draw curves of methods over each other, on axes that begin at 0 unless something lies below.

    Args:
        curves: by method.
        order: all methods of the page; a method has the same line in every figure.
        x: what the horizontal axis shows, with its unit.
        y: what the vertical axis shows.
        markers: whether points are marked.
        ends: where the axes end, x and y; None for where the curves do.
        dots: by method, a point of its curve that is marked.
        labels: by method, what the legend says; its name otherwise.
        slope: of a line through the origin that is drawn for comparison; None for no line.
    """
    figure = Figure((_WIDTH, _BOTTOM + _AXES + legend_height(len(curves)) + _TOP))
    axes = add_axes(figure, _LEFT, _BOTTOM, _WIDTH - _LEFT - _RIGHT, _AXES)
    if slope is not None:
        axes.axline((0, 0), slope=slope, color=INK, linewidth=0.8, linestyle="--")
    for name, curve in curves.items():
        style = STYLES[order.index(name) % len(STYLES)]
        line = style | ({} if markers else {"marker": ""})
        axes.plot(*zip(*curve, strict=True), **line, markersize=4, clip_on=False, label=(labels or {}).get(name, name))
        if dots and name in dots:
            axes.plot(*dots[name], color=style["color"], marker=style["marker"], markersize=7, zorder=3)
    points = np.array([point for curve in curves.values() for point in curve]).reshape(-1, 2)
    for values, axis, end in zip(points.T, ("x", "y"), ends, strict=True):
        if len(values) and values.min() >= 0 and (end or values.max()) > 0:
            axes.set(**{f"{axis}lim": (0, None if end is None else 1.02 * end)})
    dress(axes, x, y, legend=len(curves))
    return figure
