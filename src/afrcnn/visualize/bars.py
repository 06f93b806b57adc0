"""Bars of how the AP of each class changes (the paper's Figure 5)."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from afrcnn.visualize.figure import INK, SIZE, STYLES, add_axes, dress, signed

_WIDTH, _BAR, _LEFT, _RIGHT, _BOTTOM, _TOP = 3.75, 0.24, 1.15, 0.15, 0.4, 0.3
"""Inches: the width of a figure, the height that a class takes, and what is around the axes."""

_GAIN, _LOSS = (style["color"] for style in STYLES[:2])


def draw_changes(changes: Mapping[str, float], title: str, limit: float) -> Figure:
    """Draw a bar for each class, the change written beside it.

    Args:
        changes: by class, the change of its AP in points (percent of AP).
        title: what changed.
        limit: the largest change, either way, that the axis has room for; figures of one limit can be compared.
    """
    width, height = _WIDTH - _LEFT - _RIGHT, _BAR * (len(changes) + 1) + 0.05
    figure = Figure((_WIDTH, _BOTTOM + height + _TOP))
    axes = add_axes(figure, _LEFT, _BOTTOM, width, height)
    values, rows = list(changes.values()), range(len(changes))
    bars = axes.barh(rows, values, height=0.62, color=[_GAIN if value >= 0 else _LOSS for value in values])
    axes.bar_label(bars, [signed(value) for value in values], padding=3, size=SIZE - 1)
    axes.axvline(0, color=INK, linewidth=0.8)
    names = [name if len(name) <= 16 else f"{name[:15]}\N{HORIZONTAL ELLIPSIS}" for name in changes]
    axes.set_yticks(rows, names, parse_math=False)
    room = 1.45 * max(limit, 0.5)  # for the numbers beside the bars
    axes.set(xlim=(-room, room), ylim=(len(values) - 0.4, -0.6))
    dress(axes, "change of AP in points", title, title_x=(0.1 - _LEFT) / width)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure
