"""Stress tests of methods: AP and recall by level, and what sums them up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isnan, nan
from shlex import quote

from afrcnn.reporting.comparison import Number, comparison
from afrcnn.reporting.elements import Section
from afrcnn.reporting.methods import Method, ReportedRun
from afrcnn.robustness.stress_results import Curve as Stressed
from afrcnn.robustness.stress_results import LevelResults
from afrcnn.visualize.curves import Curve, curves_picture, mean_curve

QUANTITIES: dict[str, Callable[[LevelResults], float]] = {
    "Mean AP": lambda level: level.results.mean_ap["11-point"],
    "Mean recall": lambda level: level.mean_recall,
}
"""What is drawn by level, in [0, 1]; NaN where there are no objects."""


def stress(methods: Sequence[Method]) -> Section:
    """Return the summary of each stress, and curves of AP and recall over its levels."""
    runs = [run for method in methods for run in method.runs]
    section = Section(
        "Under stress",
        "In percent: VOC's mean AP by 11 points over all levels but the clean one, and the share that this is of the "
        "clean AP. Curves are means over the runs of a method.",
        commands=[f"afrcnn stress {quote(str(run.run.folder))}" for run in runs if run.stress is None],
    )
    units = {each.name: each.unit for run in runs if run.stress is not None for each in run.stress.curves}
    for name in units:
        numbers = {"mean AP": _of(name, Stressed.mpc), "kept": _of(name, Stressed.relative_performance)}
        section.tables.append(comparison(name, methods, numbers, changes=numbers))
    for quantity, value in QUANTITIES.items():
        for name, unit in units.items():
            curves = {
                method.name: mean_curve([_curve(run, name, value) for run in method.runs if run.stress])
                for method in methods
            }
            picture = curves_picture(curves, [method.name for method in methods], unit, name, markers=True)
            section.pictures.setdefault(f"{quantity} in %", []).append(picture)
    return section


def _find(run: ReportedRun, name: str) -> Stressed | None:
    return next((each for each in (run.stress.curves if run.stress else ()) if each.name == name), None)


def _of(name: str, number: Callable[[Stressed], float]) -> Number:
    """Return what sums up a stress of a run."""
    return lambda run: nan if (found := _find(run, name)) is None else number(found)


def _curve(run: ReportedRun, name: str, value: Callable[[LevelResults], float]) -> Curve:
    found = _find(run, name)
    points = [(float(each.level), 100 * value(each)) for each in found.levels] if found else []
    return [(level, percent) for level, percent in points if not isnan(percent)]
