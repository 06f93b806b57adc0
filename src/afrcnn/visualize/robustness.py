"""Curves of stress tests: AP and recall over what was done to the objects."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from afrcnn.robustness.stress_results import StressResults
from afrcnn.visualize.figure import DOTS_PER_INCH, INK, SIZE, STYLES, add_axes, dress, legend_height, percent

_WIDTH, _AXES, _LEFT, _RIGHT, _BOTTOM, _TOP = 4.0, 2.4, 0.6, 0.2, 0.5, 0.35
"""Inches: the width of a panel, the height of its axes, and what is around them; the legend comes on top."""


def draw_stress(tests: Mapping[str, StressResults]) -> Figure:
    """Draw a panel for each stress: VOC's AP by 11 points (solid) and recall (dotted) of all detectors over its levels.

    Readable without colour: detectors differ in their markers, and the legend gives the mean AP over all levels above
    0 (mPC) and the fraction of the clean AP that this is (rPC), in percent.

    Args:
        tests: by the name of a detector, the results of its test.

    Returns:
        The figure, to be saved by ``savefig``.
    """
    units = {curve.name: curve.unit for test in tests.values() for curve in test.curves}
    legend = len(tests) + 1
    size = _WIDTH * len(units), _BOTTOM + _AXES + legend_height(legend) + _TOP
    figure = Figure(size, dpi=DOTS_PER_INCH)
    for panel, (name, unit) in enumerate(units.items()):
        axes = add_axes(figure, panel * _WIDTH + _LEFT, _BOTTOM, _WIDTH - _LEFT - _RIGHT, _AXES)
        for number, (detector, test) in enumerate(tests.items()):
            style = STYLES[number % len(STYLES)]
            for curve in (curve for curve in test.curves if curve.name == name):
                levels = [level.level for level in curve.levels]
                recall = [100 * level.mean_recall for level in curve.levels]
                ap = [100 * level.results.mean_ap["11-point"] for level in curve.levels]
                mpc, rpc = percent(curve.mpc()), percent(curve.relative_performance())
                label = f"{detector}: mPC {mpc}, rPC {rpc}%"
                axes.plot(levels, recall, **style | {"linestyle": ":"}, markersize=2, linewidth=1)
                axes.plot(levels, ap, **style, markersize=4, label=label)
        axes.plot([], [], color=INK, linestyle=":", linewidth=1, label="recall")
        axes.set(ylim=(0, 101))
        axes.set_ylabel("AP in %", size=SIZE)
        dress(axes, unit, name, legend=legend)
    return figure
