"""Stress tests of methods: AP and recall by level, and what sums them up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isnan, nan

from afrcnn.reporting.comparison import compare
from afrcnn.reporting.elements import Picture, Section
from afrcnn.reporting.methods import Method, Number, ReportedRun, runs_of
from afrcnn.robustness.stress_results import Curve, LevelResults
from afrcnn.visualize.curves import Points, mean_curve
from afrcnn.visualize.robustness import METRIC

_QUANTITIES: dict[str, Callable[[LevelResults], float]] = {
    "Mean AP in %": lambda level: level.results.mean_ap[METRIC],
    "Mean recall in %": lambda level: level.mean_recall,
}
"""What is drawn by level, in [0, 1]; NaN where there are no objects."""


def by_stress(methods: Sequence[Method]) -> Section:
    """Return the summary of each stress, and curves of AP and recall over its levels."""
    runs = runs_of(methods)
    section = Section(commands=[run.command("stress") for run in runs if run.stress is None])
    units = {name: curve.unit for run in runs for name, curve in run.curves.items()}
    for name in units:
        numbers = {"mPC": _of(name, Curve.mpc), "rPC": _of(name, Curve.relative_performance)}
        section.tables.append(compare(name, methods, numbers, changes=numbers))
    for title, quantity in _QUANTITIES.items() if units else ():
        section.pictures[title] = []
        for name, unit in units.items():
            means = {
                method.name: mean_curve([_curve(run, name, quantity) for run in method.runs if run.stress])
                for method in methods
            }
            section.pictures[title].append(Picture.of_curves(means, unit, name, markers=True))
    return section


def _of(name: str, summary: Callable[[Curve], float]) -> Number:
    """Return what sums up a stress of a run."""
    return lambda run: summary(run.curves[name]) if name in run.curves else nan


def _curve(run: ReportedRun, name: str, quantity: Callable[[LevelResults], float]) -> Points:
    levels = run.curves[name].levels if name in run.curves else ()
    return [(float(level.level), 100 * quantity(level)) for level in levels if not isnan(quantity(level))]
