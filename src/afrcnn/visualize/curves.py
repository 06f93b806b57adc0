"""Curves of methods over each other: how a quantity went over a training, or over the levels of a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from afrcnn.visualize.figure import STYLES, add_axes, dress, legend_height

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


def draw_curves(curves: Mapping[str, Points], order: Sequence[str], x: str, y: str, *, markers: bool = False) -> Figure:
    """Draw curves of methods over each other.

    Args:
        curves: by method.
        order: all methods of the page; a method has the same line in every figure.
        x: what the horizontal axis shows, with its unit.
        y: what the vertical axis shows.
        markers: whether points are marked.
    """
    figure = Figure((_WIDTH, _BOTTOM + _AXES + legend_height(len(curves)) + _TOP))
    axes = add_axes(figure, _LEFT, _BOTTOM, _WIDTH - _LEFT - _RIGHT, _AXES)
    for name, curve in curves.items():
        style = STYLES[order.index(name) % len(STYLES)] | ({} if markers else {"marker": ""})
        axes.plot(*zip(*curve, strict=True), **style, markersize=4, label=name)
    dress(axes, x, y, legend=len(curves))
    return figure
