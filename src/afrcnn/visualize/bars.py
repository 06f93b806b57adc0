"""Bars of how the AP of each class changes (the paper's Figure 5)."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from afrcnn.visualize.curves import SIZE, WIDTH, dress

BAR = 0.24
"""Inches that a class takes."""

GAIN, LOSS = "#3182c8", "#e0662f"


def draw_changes(changes: Mapping[str, float], title: str, limit: float) -> Figure:
    """Draw a bar for each class, the change written beside it.

    Args:
        changes: by class, the change of its AP in points (percent of AP).
        title: what changed.
        limit: the largest change, either way, that the axis has room for; figures of one limit can be compared.
    """
    height = BAR * (len(changes) + 1) + 0.75
    figure = Figure((WIDTH, height))
    axes = figure.add_axes((1.15 / WIDTH, 0.4 / height, (WIDTH - 1.3) / WIDTH, (height - 0.7) / height))
    values = list(changes.values())
    bars = axes.barh(range(len(values)), values, height=0.62, color=[GAIN if value >= 0 else LOSS for value in values])
    axes.bar_label(bars, [signed(value) for value in values], padding=3, size=SIZE - 1)
    axes.axvline(0, color="#808080", linewidth=0.8)
    axes.set_yticks(range(len(values)), [_short(name) for name in changes], parse_math=False)
    room = 1.45 * max(limit, 0.5)  # for the numbers beside the bars
    axes.set(xlim=(-room, room), ylim=(len(values) - 0.4, -0.6))
    axes.set_xlabel("change of AP in points", size=SIZE)
    axes.set_title(title, size=SIZE, loc="left", weight="bold", parse_math=False, x=-1.05 / (WIDTH - 1.3))
    dress(axes)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def signed(points: float) -> str:
    """Return a change as it is printed: one decimal, and its sign."""
    return f"{points:+z.1f}".replace("-", "\N{MINUS SIGN}")


def _short(name: str) -> str:
    """Return a name that fits beside the bars."""
    return name if len(name) <= 16 else f"{name[:15]}\N{HORIZONTAL ELLIPSIS}"
