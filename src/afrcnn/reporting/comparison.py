"""Methods side by side: AP, its change by class, stress tests, and the paper's numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from math import isnan, nan

from afrcnn.core.errors import UserError
from afrcnn.evaluation.results import COCO_METRIC
from afrcnn.evaluation.subsets import SubsetResult
from afrcnn.reporting.elements import Cell, Picture, Row, Section, Table
from afrcnn.reporting.methods import Method, Number, ReportedRun
from afrcnn.reporting.paper import PaperRow, paper_rows
from afrcnn.robustness.stress_results import Curve, LevelResults
from afrcnn.visualize.bars import draw_changes
from afrcnn.visualize.curves import Points, mean_curve
from afrcnn.visualize.figure import signed

_CLASSES_OF_A_TABLE = 20
"""Classes of a table at most, as in the paper's: more do not fit on paper."""

METRICS = {
    "11-point": "VOC's AP by 11 points",
    "area": "VOC's AP by area",
    COCO_METRIC: "COCOeval's AP at an IoU of 0.5",
}
"""The metrics by which AP is given, since the paper does not say which its own is, and what they are called."""

_BY_LEVEL: dict[str, Callable[[LevelResults, LevelResults], float]] = {
    "Mean AP in %": lambda level, _: level.results.mean_ap["11-point"],
    "AP kept, in % of the clean AP": lambda level, clean: _ratio(
        *(x.results.mean_ap["11-point"] for x in (level, clean))
    ),
    "Mean recall in %": lambda level, _: level.mean_recall,
}
"""What is drawn by level of a stress, of that level and the clean one, in [0, 1]; NaN where there are no objects."""


def summary(methods: Sequence[Method]) -> Section:
    """Return the means of all methods, their changes to the first, and the numbers of each run."""
    means = {f"mAP, {metric}": mean_ap(metric) for metric in METRICS}
    numbers = means | {f"COCO {name}": _coco(name) for name in ("AP", "AP75", "AR100")}  # its AP50 is a mean above
    section = Section()
    if any(run.results for run in _runs_of(methods)):
        section.tables.append(compare_methods("Methods", methods, numbers, changes=means))
    if section.tables and any(len(method.runs) > 1 for method in methods):
        rows = []
        for name, run in ((method.name, run) for method in methods for run in method.runs):
            seed = Cell(str(run.recipe.seed), value=run.recipe.seed)
            cells = [Cell.percent([number(run)]) for number in numbers.values()]
            rows.append(Row(str(run.folder), [name, seed, *cells]))
        section.more["Each run"] = Section([Table("Runs", ["run", "method", "seed", *numbers], rows)])
    for run in [run for run in _runs_of(methods) if run.results is None]:
        try:
            if run.detections_file(run.recipe.data.test_split).is_file():
                _ = run.test_split  # of images without annotations, detections are all that there is
            section.commands.append(run.command("evaluate"))
        except UserError as error:
            section.missing.append(f"{error}.")
    return section


def by_class(methods: Sequence[Method]) -> Section:
    """Return the AP of each class, beside the paper's rows where they are of the same test set."""
    section, first = Section(), methods[0].runs[0]
    if not any(run.results for run in _runs_of(methods)):
        return section
    beside = [row for row in _paper_rows_of(first) if set(row.ap) == set(first.classes)]
    for metric, title in METRICS.items():
        tables = section.more.setdefault(f"By {title}", Section()).tables if section.tables else section.tables
        for start in range(0, len(first.classes), _CLASSES_OF_A_TABLE):
            names = first.classes[start : start + _CLASSES_OF_A_TABLE]
            table = compare_methods(
                title, methods, {"mAP": mean_ap(metric)} | {name: _ap(metric, name) for name in names}
            )
            rows = list(table.rows)
            for row in beside:
                cells = [Cell.percent([value]) for value in (row.mean_ap, *(row.ap[name] for name in names))]
                rows.append(Row(f"{row.method}, {row.network} ({row.where})", cells, reference=True))
            tables.append(replace(table, rows=rows))
    return section


def by_subset(methods: Sequence[Method]) -> Section:
    """Return mean AP and recall on subsets of the objects."""
    runs = _runs_of(methods)
    section = Section(commands=[run.command("evaluate", "--subsets") for run in runs if not run.subsets])
    names = dict.fromkeys(name for run in runs for name in run.subsets)
    quantities: dict[str, Callable[[SubsetResult], float]] = {
        f"Mean AP of the subset, {METRICS['11-point']}": lambda subset: subset.mean_ap["11-point"],
        "Recall at any score": lambda subset: subset.recall,
    }
    for title, quantity in quantities.items() if names else ():
        section.tables.append(compare_methods(title, methods, {name: _of_subset(name, quantity) for name in names}))
    return section


def by_stress(methods: Sequence[Method]) -> Section:
    """Return the summary of each stress, and by its name curves of AP and recall over its levels."""
    runs = _runs_of(methods)
    section = Section(commands=[run.command("stress") for run in runs if run.stress is None])
    units = {name: curve.unit for run in runs for name, curve in run.curves.items()}
    for name, unit in units.items():
        numbers = {"mPC": _of_stress(name, Curve.mpc), "rPC": _of_stress(name, Curve.relative_performance)}
        section.tables.append(compare_methods(name.capitalize(), methods, numbers, changes=numbers))
        section.pictures[name] = []
        for title, quantity in _BY_LEVEL.items():
            curves = {
                method.name: mean_curve([_curve(run, name, quantity) for run in method.runs if run.stress])
                for method in methods
            }
            highest = max((y for curve in curves.values() for _, y in curve), default=0.0)
            ends = (None, 100.0 if highest <= 100 else None)
            section.pictures[name].append(Picture.of_curves(curves, unit, title, markers=True, ends=ends))
    return section


def changes_by_class(methods: Sequence[Method]) -> Section:
    """Return bars of the change of each class's AP by each metric (the paper's Figure 5)."""
    section = Section()
    for metric, title in METRICS.items():
        folded = section.more.setdefault(f"By {title}", Section()) if section.pictures else section
        _add_changes(folded, methods, metric, title)
    return section


def _add_changes(section: Section, methods: Sequence[Method], metric: str, title: str) -> None:
    """Add the bars of one metric to a section."""
    baseline = methods[0]
    numbers = {name: _ap(metric, name) for name in baseline.runs[0].classes}
    changes: dict[str, dict[str, float]] = {}
    for method in methods[1:]:
        differences = {name: 100 * (method.mean(ap) - baseline.mean(ap)) for name, ap in numbers.items()}
        changes[method.name] = {name: change for name, change in differences.items() if not isnan(change)}
    limit = max((abs(change) for by_name in changes.values() for change in by_name.values()), default=0.0)
    for name, by_name in changes.items():
        if by_name:
            falling = sorted(by_name.items(), key=lambda item: -item[1])
            text = ", ".join(f"{class_name} {signed(change)}" for class_name, change in falling)
            words = f"Change of {title} in points, {name} against {baseline.name}: {text}."
            picture = Picture.of_figure(draw_changes(by_name, name, limit), words)
            section.pictures.setdefault("", []).append(picture)


def paper_table(methods: Sequence[Method]) -> Section:
    """Return the paper's mean APs, for reference, where it has any of this test set."""
    if not (shown := _paper_rows_of(methods[0].runs[0])):
        return Section()
    plain = {(row.network, row.dataset): row.mean_ap for row in paper_rows() if row.method == "FRCN*"}
    rows = []
    for row in shown:
        change = Cell.percent([row.mean_ap - plain[row.network, row.dataset]], signed)
        rows.append(Row(row.method, [row.network, row.dataset, Cell.percent([row.mean_ap]), change, row.where]))
    return Section([Table("The paper", ["method", "network", "test set", "mAP", "change", "where"], rows)])


def _paper_rows_of(run: ReportedRun) -> list[PaperRow]:
    """Return the rows of the paper that were tested on what a run was."""
    tested_on = f"{run.dataset} {run.recipe.data.test_split}".casefold()
    return [row for row in paper_rows() if row.dataset.casefold() == tested_on]


def compare_methods(
    caption: str,
    methods: Sequence[Method],
    numbers: Mapping[str, Number],
    *,
    changes: Collection[str] = (),
    low: Collection[str] = (),
) -> Table:
    """Return a table of numbers by method, the best of each column in bold.

    Args:
        caption: what the table shows.
        methods: its rows.
        numbers: its columns.
        changes: those of them that are followed by their change from the first method, where there are others.
        low: those of them that are the better, the lower they are.
    """
    columns: dict[str, list[Cell]] = {}
    if any(len(method.runs) > 1 for method in methods):
        columns["runs"] = [Cell(str(len(method.runs)), value=len(method.runs)) for method in methods]
    for head, number in numbers.items():
        columns[head] = _best_in_bold(
            [Cell.percent(list(method.by_seed(number).values())) for method in methods], -1 if head in low else 1
        )
        if head in changes and len(methods) > 1:
            columns[f"change ({head})"] = [Cell(), *(_change(method, methods[0], number) for method in methods[1:])]
    rows = [Row(method.name, cells) for method, *cells in zip(methods, *columns.values(), strict=True)]
    return Table(caption, ["method", *columns], rows)


def _runs_of(methods: Sequence[Method]) -> list[ReportedRun]:
    return [run for method in methods for run in method.runs]


def _best_in_bold(column: Sequence[Cell], sign: int = 1) -> list[Cell]:
    """Mark the highest of a column, or the lowest, and what is printed like it; nothing where there is no choice."""
    known = [(sign * cell.value, cell.text) for cell in column if cell.value is not None]
    best = max(known)[1] if len(known) > 1 else None
    return [replace(cell, best=cell.text == best) for cell in column]


def _change(method: Method, baseline: Method, number: Number) -> Cell:
    """Return the change of a number: between runs of the same seed, or of the means where there are no such runs."""
    new, old = method.by_seed(number), baseline.by_seed(number)
    pairs = [new[seed] - old[seed] for seed in new if seed in old]
    return Cell.percent(pairs or [method.mean(number) - baseline.mean(number)], signed)


def mean_ap(metric: str) -> Number:
    """Return the mean AP of a run by a metric of ``METRICS``."""
    return lambda run: run.results.mean_ap.get(metric, nan) if run.results else nan


def _ap(metric: str, name: str) -> Number:
    """Return a class's AP, which files of earlier versions do not have by each metric."""
    return lambda run: run.results.ap.get(metric, {}).get(name, nan) if run.results else nan


def _coco(name: str) -> Number:
    return lambda run: run.results.coco.get(name, nan) if run.results else nan


def _of_subset(name: str, quantity: Callable[[SubsetResult], float]) -> Number:
    return lambda run: quantity(run.subsets[name]) if name in run.subsets else nan


def _of_stress(name: str, summary: Callable[[Curve], float]) -> Number:
    """Return what sums up a stress of a run."""
    return lambda run: summary(run.curves[name]) if name in run.curves else nan


def _curve(run: ReportedRun, name: str, quantity: Callable[[LevelResults, LevelResults], float]) -> Points:
    levels = run.curves[name].levels if name in run.curves else ()
    points = [(float(level.level), 100 * quantity(level, levels[0])) for level in levels]
    return [(x, y) for x, y in points if not isnan(y)]


def _ratio(ap: float, clean: float) -> float:
    return ap / clean if clean else nan
