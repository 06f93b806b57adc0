"""Bars of what kinds of errors the most confident false positives are (the pies of Hoiem et al., ECCV 2012)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from afrcnn.evaluation.diagnosis import Errors
from afrcnn.evaluation.error_kinds import KINDS
from afrcnn.visualize.figure import DOTS_PER_INCH, SIZE, STYLES, add_axes, dress, legend_height

_WIDTH, _BAR, _LEFT, _RIGHT, _BOTTOM, _TOP = 6.4, 0.26, 2.1, 0.2, 0.45, 0.1
"""Inches: the width of a figure, the height that a bar takes, and what is around the axes; the legend comes on top."""

_NARROW = 6
"""Percent below which a piece of a bar has no room for its number."""

_LETTERS = 24
"""Of a name at most."""


def draw_errors(errors: Mapping[str, Mapping[str, Errors]], rows: Sequence[str]) -> Figure:
    """Draw the fractions of the kinds in each row's false positives, one bar a run, their number beside its name.

    Args:
        errors: by the name of a run, its false positives by row; at least one.
        rows: the rows to draw.

    Returns:
        The figure, to be saved by ``savefig``.
    """
    bars = [(row, run) for row in rows for run in errors]
    places = [index + 0.6 * (index // len(errors)) * (len(errors) > 1) for index in range(len(bars))]
    height = _BAR * (places[-1] + 1.2)
    figure = Figure((_WIDTH, _BOTTOM + height + legend_height(1) + _TOP), dpi=DOTS_PER_INCH)
    axes = add_axes(figure, _LEFT, _BOTTOM, _WIDTH - _LEFT - _RIGHT, height)
    widths = 100 * np.nan_to_num([list(errors[run][row].fractions.values()) for row, run in bars])  # bars x 4
    starts = np.cumsum(widths, axis=1) - widths
    for kind, style, start, width in zip(KINDS, STYLES, starts.T, widths.T, strict=False):
        pieces = axes.barh(places, width, left=start, height=0.84, color=style["color"], label=kind)
        numbers = [f"{value:.0f}" if value >= _NARROW else "" for value in width]
        axes.bar_label(pieces, numbers, label_type="center", color="white", size=SIZE - 1, weight="bold")
    names = []
    for row, run in bars:
        name = row if len(errors) == 1 else f"{row}, {run}" if run == next(iter(errors)) else run
        name = name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"
        names.append(f"{name}  {sum(errors[run][row].counts.values())}")
    axes.set_yticks(places, names, parse_math=False)
    axes.set(xlim=(0, 100), ylim=(places[-1] + 0.6, -0.6))
    dress(axes, "% of the most confident false positives", "")
    axes.grid(visible=False, axis="y")
    shape: dict[str, Any] = {"fontsize": SIZE, "frameon": False, "handlelength": 1.0, "columnspacing": 1.2}
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(KINDS), borderpad=0, **shape)
    return figure
