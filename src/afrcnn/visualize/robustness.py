"""Stress tests on the screen and as figures: AP and recall over what was done to the objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from rich.table import Table

from afrcnn.reporting.table import percent
from afrcnn.visualize.curves import INK, SIZE, STYLES, dress

if TYPE_CHECKING:
    from afrcnn.evaluation.voc_ap import Metric
    from afrcnn.robustness.stress_results import Curve, StressResults

METRIC: Metric = "11-point"
"""VOC's metric that is shown, the paper's; ``stress.json`` has both."""

WIDTH, AXES, LINE = 4.0, 2.4, 0.18
"""Inches: the width of a panel, the height of its axes, and of a line of its legend."""

LEFT, RIGHT, BOTTOM, TOP = 0.6, 0.2, 0.5, 0.35
"""Inches around the axes."""

DOTS_PER_INCH = 200


def stress_table(curve: Curve) -> Table:
    """Return a table of AP, recall and what was hidden, in percent: a row for each level, the summary below.

    Args:
        curve: the results of one stress.
    """
    mean, kept = percent(curve.mpc(METRIC)), percent(curve.relative_performance(METRIC))
    table = Table(title=curve.name, caption=f"mean AP over levels above 0: {mean}, {kept}% of the clean AP")
    hides = any(each.occluded for each in curve.levels)
    for column in (curve.unit, "AP", "recall", *(["hidden, least to most"] if hides else [])):
        table.add_column(column, justify="right")
    for each in curve.levels:
        cells = [f"{each.level:g}", percent(each.results.mean_ap[METRIC]), percent(each.mean_recall)]
        if each.occluded:
            cells.append(f"{percent(each.occluded.lowest)} to {percent(each.occluded.highest)}")
        table.add_row(*cells)
    return table


def draw_stress(tests: Mapping[str, StressResults]) -> Figure:
    """Draw a panel for each stress, with the AP (solid) and the recall (dotted) of every detector over its levels.

    Readable without colour: detectors differ in their markers, and the legend says the mean AP over all levels above
    0, and which share of the clean AP that is.

    Args:
        tests: by the name of a detector, the results of its test.

    Returns:
        The figure, to be saved by ``savefig``.
    """
    units = {curve.name: curve.unit for test in tests.values() for curve in test.curves}
    legend = LINE * (len(tests) + 1)
    width, height = WIDTH * len(units), BOTTOM + AXES + legend + TOP
    figure = Figure((width, height), dpi=DOTS_PER_INCH)
    for panel, (name, unit) in enumerate(units.items()):
        left = panel * WIDTH + LEFT
        axes = figure.add_axes((left / width, BOTTOM / height, (WIDTH - LEFT - RIGHT) / width, AXES / height))
        for number, (detector, test) in enumerate(tests.items()):
            colour, line, marker = STYLES[number % len(STYLES)]
            for curve in (curve for curve in test.curves if curve.name == name):
                levels = [each.level for each in curve.levels]
                recall = [100 * each.mean_recall for each in curve.levels]
                ap = [100 * each.results.mean_ap[METRIC] for each in curve.levels]
                mean, kept = percent(curve.mpc(METRIC)), percent(curve.relative_performance(METRIC))
                label = f"{detector}: mean AP {mean}, keeps {kept}%"
                axes.plot(levels, recall, color=colour, linestyle=":", marker=marker, markersize=2, linewidth=1)
                axes.plot(levels, ap, color=colour, linestyle=line, marker=marker, markersize=4, label=label)
        axes.plot([], [], color=INK, linestyle=":", linewidth=1, label="recall")
        axes.set(ylim=(0, 101))
        axes.set_xlabel(unit, size=SIZE)
        axes.set_ylabel("AP in %", size=SIZE)
        axes.set_title(name, size=SIZE, loc="left", pad=72 * legend + 8, weight="bold", parse_math=False)
        dress(axes)
        drawn = axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), fontsize=SIZE - 1, frameon=False, borderpad=0, labelspacing=0.25
        )
        for text in drawn.get_texts():
            text.set_parse_math(False)
    return figure
