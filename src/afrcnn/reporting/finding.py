"""The finding of a report: one sentence of what was measured, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan

import numpy as np

from afrcnn.core.errors import UserError
from afrcnn.evaluation.bootstrap import interval, resample, resampled_ap
from afrcnn.evaluation.matching import Floats
from afrcnn.evaluation.voc_ap import Metric
from afrcnn.reporting.comparison import mean_ap
from afrcnn.reporting.methods import Method, ReportedRun
from afrcnn.robustness.stress_results import Curve
from afrcnn.robustness.stresses import Occlusion
from afrcnn.visualize.figure import percent, signed

_METRIC: Metric = "11-point"
_DRAWINGS = 1000
"""Of the bootstrap."""

_HALF_HIDDEN = (0.2, 0.6)
"""The lowest and the highest fraction of an object that is hidden, where the AP that a detector keeps is measured."""


@dataclass(frozen=True)
class Headline:
    """What a report says first.

    Attributes:
        sentence: the finding; empty where nothing has been measured.
        notes: how it was measured, in sentences.
        best: the method that is compared with the first: the one with the highest AP of all others.
        stress: the name of the stress that objects are hidden by; empty where there is none.
    """

    sentence: str
    notes: tuple[str, ...]
    best: Method
    stress: str


def find(methods: Sequence[Method]) -> Headline:
    """Return what a report finds: the AP of a lone method, or the difference of the best to the first.

    Both have the 95% interval of a bootstrap over the images of the test split, of two methods paired: both are
    measured on the same drawings. The AP of a method is the mean of its runs.
    """
    first = methods[0]
    best = max(methods[1:] or methods, key=lambda method: (not isnan(_ap(method)), _ap(method)))
    stress, levels = _occlusion([*first.runs, *best.runs])
    if isnan(_ap(first)) or isnan(_ap(best)):
        return Headline("", (), best, stress)
    notes = ["AP is VOC's mean AP by 11 points at an IoU of 0.5, in percent."]
    if len(methods) > 2:
        notes.append(f"Of the {len(methods) - 1} methods compared with {first.name}, {best.name} has the highest AP.")
    try:
        drawn = _drawn(best) if best is first else _drawn(best) - _drawn(first)
        ends = tuple(100 * end for end in interval(drawn))
        paired = "" if best is first else "paired "
        notes.append(f"The interval is that of a {paired}bootstrap over images, {_DRAWINGS} drawings.")
    except UserError as error:
        ends = ()
        notes.append(f"There is no interval: {error}.")
    kept = [method.mean(lambda run: _kept(run, stress, levels)) for method in (first, best)]
    hidden = ""
    if levels and not any(map(isnan, kept)):
        hidden = f"with {100 * levels[0]:.0f} to {100 * levels[-1]:.0f}% of every object hidden"
        fractions = ", ".join(f"{level:g}" for level in levels)
        notes.append(f"Hidden: {stress}; the mean AP over the fractions {fractions}.")
    of_runs = f", the mean of {len(best.runs)} runs," if len(best.runs) > 1 else ""
    reaches = f"{best.name}{of_runs} reaches an AP of {percent(_ap(best))} on {first.runs[0].dataset}"
    if best is first:
        within = f" (95% interval {ends[0]:.1f} to {ends[1]:.1f})" if ends else ""
        sentence = reaches + within + (f" and keeps {kept[0]:.0%} of it {hidden}" if hidden else "")
    else:
        difference = 100 * (_ap(best) - _ap(first))
        sentence = f"{reaches}, {abs(difference):.1f} points {'above' if difference >= 0 else 'below'} {first.name}"
        if ends:
            chance = ", which may be chance" if ends[0] <= 0 <= ends[1] else ""
            sentence += f" (95% interval {signed(ends[0])} to {signed(ends[1])}{chance})"
        sentence += f", and {hidden} keeps {kept[1]:.0%} of it ({first.name}: {kept[0]:.0%})" if hidden else ""
    return Headline(f"{sentence}.", tuple(notes), best, stress)


def _ap(method: Method) -> float:
    return method.mean(mean_ap(_METRIC))


def _drawn(method: Method) -> Floats:
    """Return the AP of a method on each drawing of the images, the mean of its runs.

    Raises:
        UserError: its detections are missing or damaged, or the dataset is not at hand.
    """
    aps = []
    for run in method.runs:
        if run.results is None:
            continue
        if (matches := run.matches) is None:
            file = run.detections_file(run.recipe.data.test_split)
            raise UserError("is missing", file=file, fix=f"run `{run.command('evaluate')}`")
        aps.append(resampled_ap(matches, resample(matches.image_count, _DRAWINGS), _METRIC))
    return np.asarray(np.mean(aps, axis=0))


def _occlusion(runs: Sequence[ReportedRun]) -> tuple[str, list[float]]:
    """Return the first stress that all runs have by which objects are hidden, and its levels that count."""
    for name, curve in runs[0].curves.items():
        if curve.unit == Occlusion.unit and all(name in run.curves for run in runs):
            levels = set.intersection(*({level.level for level in run.curves[name].levels} for run in runs))
            if chosen := sorted(level for level in levels if _HALF_HIDDEN[0] <= level <= _HALF_HIDDEN[1]):
                return name, chosen
    return "", []


def _kept(run: ReportedRun, stress: str, levels: Sequence[float]) -> float:
    """Return the fraction of its clean AP that a run keeps at some levels; NaN where that is not known."""
    if stress not in run.curves:
        return nan
    curve: Curve = run.curves[stress]
    chosen = tuple(level for level in curve.levels if level.level in levels)
    return Curve(curve.name, curve.unit, (curve.levels[0], *chosen)).relative_performance(_METRIC)
