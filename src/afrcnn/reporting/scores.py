"""What scores say: precision, recall and F1 by threshold, calibration, and which classes are taken for which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isnan, nan
from typing import Any

import numpy as np

from afrcnn.core.errors import UserError
from afrcnn.evaluation.confidence import ThresholdCurve, calibration, threshold_curve
from afrcnn.evaluation.confusion import confusion_matrix
from afrcnn.evaluation.matching import Floats, Integers, Matches
from afrcnn.reporting.comparison import compare_methods
from afrcnn.reporting.elements import Cell, Picture, Row, Section, Table
from afrcnn.reporting.methods import Method, Number, ReportedRun
from afrcnn.visualize.curves import Points

_CLASSES = 20
"""Of a confusion matrix at most; of more, the most frequent confusions are listed."""

_POINTS = 200
"""Of a curve at most."""


def by_score(methods: Sequence[Method]) -> Section:
    """Return precision-recall and F1-confidence curves with their best points, calibration, and these as numbers."""
    section, matches = _known(methods)
    if not matches:
        return section
    curves = {name: threshold_curve(of_run) for name, of_run in matches.items()}
    best = {name: curve.best for name, curve in curves.items() if curve.best is not None}
    order = [method.name for method in methods]

    def chart(columns: Mapping[str, Sequence[Floats]], x: str, y: str, x_end: float, **options: Any) -> Picture:
        points = {name: np.stack(of_method, axis=1) for name, of_method in columns.items()}
        dots = {name: tuple(points[name][at].tolist()) for name, at in best.items()}
        lines = {name: _thinned(points[name]) if name in points else [] for name in order}
        return Picture.of_curves(lines, x, y, ends=(x_end, 100.0), dots=dots, **options)

    precision = {name: (100 * curve.recall, 100 * curve.precision) for name, curve in curves.items()}
    f1 = {name: (curve.scores, 100 * curve.f1) for name, curve in curves.items()}
    labels = {
        name: f"{name}: {100 * curves[name].f1[at]:.1f} at {curves[name].scores[at]:.2f}" for name, at in best.items()
    }
    section.pictures[""] = [
        chart(precision, "recall in %", "Precision in %", 100),
        chart(f1, "lowest score that is shown", "F1 in %", 1, labels=labels),
        *_calibration_chart({name: matches.get(name) for name in order}),
    ]
    section.tables.append(_table(methods))
    return section


def _calibration_chart(matches: Mapping[str, Matches | None]) -> list[Picture]:
    """Return the fraction of correct detections by their score, where there are detections that count."""
    lines: dict[str, Points] = {name: [] for name in matches}
    labels = {}
    for name, of_run in matches.items():
        if of_run is not None:
            if isnan((bins := calibration(of_run)).error):
                continue
            labels[name] = f"{name}: error {100 * bins.error:.1f}"
            pairs = zip(bins.confidence.tolist(), (100 * bins.precision).tolist(), strict=True)
            lines[name] = [(confidence, precision) for confidence, precision in pairs if not isnan(confidence)]
    shape: dict[str, Any] = {"markers": True, "ends": (1.0, 100.0), "slope": 100.0}
    return [Picture.of_curves(lines, "score", "Correct detections in %", labels=labels, **shape)] if labels else []


def confusions(methods: Sequence[Method], first: Method) -> Section:
    """Return the confusion matrix of each method's first run, where its F1 is highest; all but one folded away.

    Args:
        methods: the methods.
        first: the one that is shown at once.
    """
    section, matches = _known(methods)
    section = Section()  # what is missing is said where scores are
    for name in sorted(matches, key=lambda name: name != first.name):
        curve = threshold_curve(matches[name])
        if curve.best is None:
            continue
        lowest = float(curve.scores[curve.best])
        matrix = confusion_matrix(matches[name], lowest)
        caption, classes = f"{name}, detections with a score of at least {lowest:.2f}", matches[name].classes
        table = (_matrix if len(classes) <= _CLASSES else _most_frequent)(caption, matrix, classes)
        (section.more.setdefault(name, Section()) if section.tables else section).tables.append(table)
    return section


def _known(methods: Sequence[Method]) -> tuple[Section, dict[str, Matches]]:
    """Return the detections of the first runs of methods, where they are known, and a section of what is missing."""
    section, known = Section(), {}
    for method in methods:
        try:
            if (matches := method.runs[0].matches) is not None:
                known[method.name] = matches
        except UserError as error:
            section.missing.append(f"{error}.")
    return section, known


def _table(methods: Sequence[Method]) -> Table:
    """Return the best points and the calibration of methods, the means of their runs."""
    numbers: dict[str, Number] = {
        "F1": lambda run: _at_best(run, lambda curve: curve.f1),
        "precision there": lambda run: _at_best(run, lambda curve: curve.precision),
        "recall there": lambda run: _at_best(run, lambda curve: curve.recall),
        "calibration error": lambda run: calibration(matches).error if (matches := _matches(run)) else nan,
    }
    return compare_methods("The highest F1, and calibration, in percent", methods, numbers, low=["calibration error"])


def _matches(run: ReportedRun) -> Matches | None:
    """Return the matches of a run; None also where they cannot be known, which is said elsewhere."""
    try:
        return run.matches
    except UserError:
        return None


def _at_best(run: ReportedRun, column: Callable[[ThresholdCurve], Floats]) -> float:
    """Return a number of a run where its F1 is highest; NaN where there is none."""
    if (matches := _matches(run)) is None:
        return nan
    curve = threshold_curve(matches)
    return nan if curve.best is None else float(column(curve)[curve.best])


def _matrix(caption: str, matrix: Integers, classes: Sequence[str]) -> Table:
    """Return a confusion matrix as a table; a cell's colour is as strong as it is a part of its row."""
    rows = []
    for index, (name, counts) in enumerate(zip([*classes, "background"], matrix.tolist(), strict=True)):
        total = max(sum(counts), 1)
        cells = []
        for column, count in enumerate(counts):
            shade = round(count / total, 3)
            right = index == column < len(classes)
            text = str(count) if count else "\N{MIDDLE DOT}"
            cells.append(Cell(text, value=count, right=shade if right else 0.0, wrong=0.0 if right else shade))
        if index == len(classes):
            cells[-1] = Cell("")  # nothing seen where there is nothing
        rows.append(Row(name, cells))
    return Table(caption, ["object", *classes, "missed"], rows)


def _most_frequent(caption: str, matrix: Integers, classes: Sequence[str]) -> Table:
    """Return the most frequent confusions of two classes as a table."""
    wrong = matrix[:-1, :-1] * (1 - np.eye(len(classes), dtype=np.int64))
    rows = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:_CLASSES].tolist():
        true, detected = divmod(place, len(classes))
        if count := int(wrong[true, detected]):
            fraction = Cell.percent([count / matrix[true].sum()])
            rows.append(Row(classes[true], [classes[detected], Cell(str(count), value=count), fraction]))
    return Table(f"{caption}: the most frequent confusions", ["object", "detected as", "times", "% of its class"], rows)


def _thinned(points: Floats) -> Points:
    """Return points, T x 2, by rising or falling x, or of many the first ones at an even choice of x, and both ends."""
    if len(points) > _POINTS:
        x = points[:, 0] if points[-1, 0] >= points[0, 0] else -points[:, 0]
        firsts = np.searchsorted(x, np.linspace(x[0], x[-1], _POINTS))
        points = points[np.unique([0, *firsts.tolist(), len(points) - 1])]
    return [(x, y) for x, y in points.tolist()]
