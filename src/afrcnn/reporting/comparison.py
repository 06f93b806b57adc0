"""Methods side by side: tables of average precision, bars of its change by class, and the paper's numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from math import isnan, nan
from shlex import quote

import numpy as np

from afrcnn.evaluation.subsets import SubsetResult
from afrcnn.reporting.elements import NOTHING, Cell, Row, Section, Table, drawing
from afrcnn.reporting.methods import Method, ReportedRun
from afrcnn.reporting.paper import paper_rows, rows_beside
from afrcnn.visualize.bars import draw_changes, signed

CLASSES_OF_A_TABLE = 20
"""Classes of a table at most, as in the paper's: more do not fit on paper."""

METRICS = {"11-point": ("VOC's AP by 11 points", "VOC2007"), "area": ("VOC's AP by area", "VOC2012")}
"""By VOC's metric what it is called here, and the test set for which the paper's numbers are of that metric."""

COCO_NUMBERS = ("AP", "AP50", "AP75", "AR100")

Number = Callable[[ReportedRun], float]
"""A number of a run, in [0, 1]; NaN where it has none."""

ONE_METHOD = "there is one method alone; name runs of others, too."


def summary(methods: Sequence[Method]) -> Section:
    """Return the means of all methods, their changes to the first, and the numbers of each run."""
    means = {f"mAP, {metric}": mean_ap(metric) for metric in METRICS}
    numbers = means | {f"COCO {name}": _coco(name) for name in COCO_NUMBERS}
    runs = [(method.name, run) for method in methods for run in method.runs]
    single: dict[str, list[Cell]] = {
        "method": [Cell(name) for name, _ in runs],
        "seed": [Cell(str(run.recipe.seed), value=run.recipe.seed) for _, run in runs],
        **{head: [percent([number(run)]) for _, run in runs] for head, number in numbers.items()},
    }
    return Section(
        "Average precision",
        "In percent: the mean over the runs of a method, which differ in their seed alone, and below it the standard "
        "deviation. The best mean is bold. A change is that from the first method, run by run of the same seed.",
        [
            comparison("Methods", methods, numbers, changes=means),
            Table("Runs", ["run", *single], rows([str(run.run.folder) for _, run in runs], single)),
        ],
        commands=[f"afrcnn evaluate {quote(str(run.run.folder))}" for _, run in runs if run.results is None],
    )


def by_class(methods: Sequence[Method]) -> Section:
    """Return the AP of each class, beside the paper's rows where they are of the same test set."""
    section = Section("Average precision by class", "In percent, as above.")
    first = methods[0].runs[0]
    for metric, (title, test_set) in METRICS.items():
        beside = rows_beside(first.classes, test_set) if first.dataset == test_set else []
        for start in range(0, len(first.classes), CLASSES_OF_A_TABLE):
            some = first.classes[start : start + CLASSES_OF_A_TABLE]
            table = comparison(title, methods, {"mAP": mean_ap(metric)} | {name: _ap(metric, name) for name in some})
            paper = [
                Row(
                    f"{row.method}, {row.network} ({row.where})",
                    [percent([value]) for value in (row.mean_ap, *(row.ap[name] for name in some))],
                    reference=True,
                )
                for row in beside
            ]
            section.tables.append(replace(table, rows=[*table.rows, *paper]))
        if beside:
            section.text += f" Rows in italics are the paper's, on {test_set}; they take no part in what is bold."
    return section


def by_subset(methods: Sequence[Method]) -> Section:
    """Return mean AP and recall on subsets of the objects."""
    runs = [run for method in methods for run in method.runs]
    names = dict.fromkeys(name for run in runs if run.results is not None for name in run.results.subsets)
    section = Section(
        "Occlusion as it comes",
        "In percent, on subsets of the objects; the others are ignored, as the VOC kit ignores difficult ones.",
        commands=[
            f"afrcnn evaluate {quote(str(run.run.folder))} --subsets"
            for run in runs
            if run.results is None or not run.results.subsets
        ],
    )
    if names:
        mean_aps = {name: _of_subset(name, lambda subset: subset.mean_ap["11-point"]) for name in names}
        recalls = {name: _of_subset(name, lambda subset: subset.recall) for name in names}
        title = METRICS["11-point"][0]
        section.tables = [comparison(f"Mean AP of the subset, {title}", methods, mean_aps)]
        section.tables += [comparison("Recall at any score", methods, recalls)]
    return section


def changes_by_class(methods: Sequence[Method]) -> Section:
    """Return bars of the change of each class's AP (the paper's Figure 5)."""
    metric, baseline = "11-point", methods[0]
    section = Section(
        "Change by class",
        f"What each method gains and loses on each class against {baseline.name}: differences of the means, in points "
        f"of {METRICS[metric][0]}. The paper's Figure 5.",
    )
    if len(methods) == 1:
        section.missing.append(ONE_METHOD)
    changes: dict[str, dict[str, float]] = {}
    for method in methods[1:]:
        changes[method.name] = {
            name: 100 * float(np.mean(own) - np.mean(others))
            for name in baseline.runs[0].classes
            if (own := _values(method, _ap(metric, name))) and (others := _values(baseline, _ap(metric, name)))
        }
    limit = max((abs(value) for change in changes.values() for value in change.values()), default=0.0)
    for name, change in changes.items():
        if change:
            falling = sorted(change.items(), key=lambda item: -item[1])
            numbers = ", ".join(f"{each} {signed(value)}" for each, value in falling)
            alternative = f"Change of AP in points, {name} against {baseline.name}: {numbers}."
            section.pictures.setdefault("", []).append(drawing(draw_changes(change, name, limit), alternative))
        else:
            section.missing.append(f"{name} or {baseline.name} has not been evaluated (see above).")
    return section


def paper() -> Section:
    """Return the paper's mean APs, for reference."""
    facts = paper_rows()
    plain = {(row.network, row.dataset): row.mean_ap for row in facts if row.method == "FRCN*"}
    columns = {
        "network": [Cell(row.network) for row in facts],
        "test set": [Cell(row.dataset) for row in facts],
        "mAP": [percent([row.mean_ap]) for row in facts],
        "change": [points([row.mean_ap - plain[row.network, row.dataset]]) for row in facts],
        "where": [Cell(row.where) for row in facts],
    }
    text = (
        "For reference: mean AP in percent as the paper gives it (A-Fast-RCNN, CVPR 2017, arXiv:1704.03414). FRCN* is "
        "its own baseline, from which changes are counted. COCO's numbers are AP at IoU 0.5."
    )
    table = Table("The paper", ["method", *columns], rows([row.method for row in facts], columns))
    return Section("The paper's numbers", text, [table])


def comparison(
    caption: str, methods: Sequence[Method], numbers: Mapping[str, Number], *, changes: Collection[str] = ()
) -> Table:
    """Return a table of numbers by method, the best of each column in bold.

    Args:
        caption: what the table shows.
        methods: its rows.
        numbers: its columns.
        changes: those of them that are followed by their change from the first method, where there are others.
    """
    columns: dict[str, list[Cell]] = {}
    if any(len(method.runs) > 1 for method in methods):
        columns["runs"] = [Cell(str(len(method.runs)), value=len(method.runs)) for method in methods]
    for head, number in numbers.items():
        columns[head] = best_in_bold([percent(_values(method, number)) for method in methods])
        if head in changes and len(methods) > 1:
            columns[f"change ({head})"] = [NOTHING, *(_change(each, methods[0], number) for each in methods[1:])]
    return Table(caption, ["method", *columns], rows([method.name for method in methods], columns))


def percent(numbers: Sequence[float]) -> Cell:
    """Return the mean of numbers in [0, 1] in percent, and their standard deviation."""
    if not numbers or isnan(mean := 100 * float(np.mean(numbers))):
        return NOTHING
    return Cell(f"{mean:.1f}", _spread(numbers), mean)


def points(changes: Sequence[float]) -> Cell:
    """Return the mean of changes of numbers in [0, 1], in points, and their standard deviation."""
    mean = 100 * float(np.mean(changes))
    return Cell(signed(mean), _spread(changes), mean)


def best_in_bold(column: Sequence[Cell]) -> list[Cell]:
    """Mark the highest of a column, and what is printed like it; nothing where there is nothing to choose from."""
    known = [(cell.value, cell.text) for cell in column if cell.value is not None]
    best = max(known)[1] if len(known) > 1 else None
    return [replace(cell, best=cell.text == best) for cell in column]


def rows(names: Sequence[str], columns: Mapping[str, Sequence[Cell]]) -> list[Row]:
    """Return the rows of a table whose columns are given."""
    return [Row(name, cells) for name, *cells in zip(names, *columns.values(), strict=True)]


def _values(method: Method, number: Number) -> list[float]:
    """Return a number of the runs of a method that have it."""
    return list(_by_seed(method, number).values())


def _by_seed(method: Method, number: Number) -> dict[int, float]:
    found = {run.recipe.seed: number(run) for run in method.runs}
    return {seed: value for seed, value in found.items() if not isnan(value)}


def _change(method: Method, baseline: Method, number: Number) -> Cell:
    """Return the change of a number: between runs of the same seed, or of the means where there are no such runs."""
    own, others = _by_seed(method, number), _by_seed(baseline, number)
    if not own or not others:
        return NOTHING
    pairs = [own[seed] - others[seed] for seed in own if seed in others]
    return points(pairs or [float(np.mean(list(own.values())) - np.mean(list(others.values())))])


def mean_ap(metric: str) -> Number:
    """Return what gives VOC's mean AP of a run."""
    return lambda run: nan if run.results is None else run.results.mean_ap[metric]


def _ap(metric: str, name: str) -> Number:
    return lambda run: nan if run.results is None else run.results.ap[metric][name]


def _coco(name: str) -> Number:
    return lambda run: nan if run.results is None else run.results.coco[name]


def _of_subset(name: str, number: Callable[[SubsetResult], float]) -> Number:
    return lambda run: number(run.results.subsets[name]) if run.results and name in run.results.subsets else nan


def _spread(numbers: Sequence[float]) -> str:
    return f"± {100 * np.std(numbers, ddof=1):.1f}" if len(numbers) > 1 else ""
