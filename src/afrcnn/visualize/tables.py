"""Tables for a terminal of 80 columns: average precision, subsets, errors, stress tests, proposals and splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from math import isnan

from rich.markup import escape
from rich.table import Table

from afrcnn.core.terminal import printable
from afrcnn.data.splits import OcclusionSplit
from afrcnn.evaluation.diagnosis import ErrorChange, Errors
from afrcnn.evaluation.error_kinds import KINDS
from afrcnn.evaluation.results import Results
from afrcnn.evaluation.subsets import SubsetResult
from afrcnn.evaluation.tide import TideErrors
from afrcnn.experiment.comparison import ComparedMethod, Comparison
from afrcnn.experiment.differences import Difference
from afrcnn.experiment.measurement import LEVELS
from afrcnn.proposals.recall import Recall
from afrcnn.robustness.stress_results import Curve
from afrcnn.visualize.figure import percent, signed

_Row = tuple[str | float, ...]
"""Texts, and fractions that are shown in percent."""


def ap_table(results: Results) -> Table:
    """Return a table of AP in percent: one class a row, then the mean, with COCO's numbers below."""
    title = f"{results.images} images, {results.detections} detections, AP in %"
    coco = "  ".join(f"{name} {percent(results.coco[name])}" for name in ("AP", "AP50", "AP75") if name in results.coco)
    metrics, objects = list(results.mean_ap), results.objects
    rows: list[_Row] = [
        (name, str(objects[name]), *(results.ap[metric][name] for metric in metrics)) for name in objects
    ]
    footer: _Row = ("mean", str(sum(objects.values())), *results.mean_ap.values())
    return _table(title, ("class", "objects", *metrics), rows, footer, f"COCO  {coco}")


def reproduction_table(name: str, metrics: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table of the paper beside ours.

    Args:
        name: of the table.
        metrics: by which our numbers, and the differences, are.
        rows: method, network, our numbers, the paper's, and the differences, each in words.
    """
    table = Table("method", "network", title=f"{name}: mean AP in %", caption=f"by {', '.join(metrics)}")
    for head in ("ours", "paper", "difference"):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(*map(_shown, row))
    return table


def plan_table(costs: Sequence[tuple[str, int, float, float]]) -> Table:
    """Return a table of runs: their names, updates, hours that are left (NaN if unknown) and GB of disk."""
    caption = "hours by the rates in the logs there; without any, try --fraction 0.001 first"
    table = Table("run", title=f"{len(costs)} runs", caption=caption, show_footer=True)
    _, updates, hours, sizes = zip(*costs, strict=True)
    known = [value for value in hours if not isnan(value)]
    least = "" if len(known) == len(costs) else ">"  # where some are unknown, the sum is a bound
    total_hours = f"{least}{sum(known):.1f}" if known else "-"
    for head, total in {"iterations": f"{sum(updates):,}", "hours": total_hours, "GB": f"{sum(sizes):.1f}"}.items():
        table.add_column(head, total, justify="right")
    for name, iterations, time, size in costs:
        table.add_row(_shown(name), f"{iterations:,}", "-" if isnan(time) else f"{time:.2f}", f"{size:.1f}")
    return table


def subset_table(subsets: Mapping[str, SubsetResult]) -> Table:
    """Return a table in percent: a subset of the objects a row, with its mean AP and its recall.

    Args:
        subsets: the results by the subsets' names; at least one.
    """
    heading = ("objects that are", "objects", *next(iter(subsets.values())).mean_ap, "recall", "confident")
    rows: list[_Row] = [
        (name, str(sum(result.objects.values())), *result.mean_ap.values(), result.recall, result.confident_recall)
        for name, result in subsets.items()
    ]
    caption = "recall: at any score; confident: detected with a score of 0.3 and an IoU of 0.75"
    return _table("subsets of the objects, mean AP and recall in %", heading, rows, caption=caption)


def stress_table(curve: Curve) -> Table:
    """Return a table of AP, recall and what was occluded, in percent: a row for each level, the summary below.

    Args:
        curve: the results of one stress.
    """
    heading, rows = (curve.unit, "AP", "recall", "occluded, least to most"), []
    columns = len(heading) if any(level.occluded for level in curve.levels) else len(heading) - 1
    for level in curve.levels:
        occluded = f"{percent(level.occluded.lowest)} to {percent(level.occluded.highest)}" if level.occluded else ""
        row = (f"{level.level:g}", level.results.mean_ap["11-point"], level.mean_recall, occluded)
        rows.append(row[:columns])
    mpc, rpc = percent(curve.mpc()), percent(curve.relative_performance())
    caption = f"mPC {mpc}: the mean AP over levels above 0; rPC {rpc}% of the clean AP"
    return _table(curve.name, heading[:columns], rows, caption=caption)


def recall_table(recall: Recall) -> Table:
    """Return a table of recall in percent: a row for each IoU, a column for each number of proposals."""
    rows = [(f"IoU >= {iou:g}", *row) for iou, row in zip(recall.ious, recall.overall.tolist(), strict=True)]
    title, caption = f"recall in %, {recall.objects.sum()} objects", f"{recall.proposals:.0f} proposals an image"
    return _table(title, ("proposals", *map(str, recall.counts)), rows, caption=caption)


def found_table(counts: Mapping[str, Sequence[int]], levels: Sequence[float], objects: int, images: int) -> Table:
    """Return a table of runs: how many of the objects each finds at each level of occlusion.

    Args:
        counts: by run, the objects found at each level.
        levels: fractions of every box that are hidden.
        objects: how many objects there are.
        images: how many images they are in.
    """
    heading = ("run", *(f"{level:.0%} hidden" if level else "as they are" for level in levels))
    rows: list[_Row] = [(name, *map(str, row)) for name, row in counts.items()]
    return _table(f"objects found, of {objects} in {images} images", heading, rows)


def compared_tables(comparison: Comparison) -> list[Table]:
    """Return tables of mean APs by method: clean and hidden with intervals of the differences, by level, on subsets.

    Args:
        comparison: the methods, the baseline first.
    """
    baseline, dataset = comparison.baseline, comparison.dataset
    heading = ("method", "as they\nare", f"to {baseline.name}\n95% interval", "mean\nhidden", "to it\n95% interval")
    rows: list[_Row] = [
        (method.name, *(cell for name in ("clean", "mPC") for cell in _compared_cells(method, name)))
        for method in comparison.methods
    ]
    size = f"{comparison.images['clean']} test images, seeds: {comparison.seeds}"
    tables = [_table(f"{dataset}: mAP in %, {size}", heading, rows, caption="* leaves out zero")]
    levels = {f"{level:g}": f"{level:.0%}\nhidden" for level in LEVELS}
    subsets = {name: name.replace(" ", "\n") for name in comparison.images if name not in ("clean", "mPC", *levels)}
    for title, heads in (("by how much is hidden", levels), ("of objects that are", subsets)):
        cells = [(method.name, *(_compared_cell(method, name) for name in heads)) for method in comparison.methods]
        if heads:
            caption = "mAP, and the difference; * its 95% interval leaves out zero"
            tables.append(_table(title, ("method", *heads.values()), cells, caption=caption))
    return tables


def split_table(splits: Sequence[OcclusionSplit]) -> Table:
    """Return a table of the objects of each class in each split, and of how many of them others overlap.

    Args:
        splits: the splits of one dataset.
    """
    heading = ("class", *(f"{split.name}\n{len(split.ids)} images" for split in splits))
    names = splits[0].objects
    rows = [(name, *(f"{split.objects[name]} ({split.overlapped[name]})" for split in splits)) for name in names]
    footer = ("all", *(f"{sum(split.objects.values())} ({sum(split.overlapped.values())})" for split in splits))
    return _table("objects, those that others overlap in brackets", heading, rows, footer)


def error_tables(errors: Mapping[str, Errors], title: str) -> list[Table]:
    """Return two tables of false positives, a row a class or group: their kinds, and the AP without each kind, in %.

    Args:
        errors: the false positives by row.
        title: whose they are.
    """
    rows: list[_Row] = [(name, *_count_cells(of_row)) for name, of_row in errors.items()]
    aps: list[_Row] = [(name, *of_row.ap.values()) for name, of_row in errors.items()]
    counts = _table(f"{title}: most confident false positives, number and %", ("", "of", *KINDS), rows[:-1], rows[-1])
    names = [name.replace(" ", "\n") for name in next(iter(errors.values())).ap]
    caption = "without: if they were gone; placed right: if badly placed boxes were"
    return [counts, _table(f"{title}: AP by area in %", ("", *names), aps[:-1], aps[-1], caption)]


def change_table(row: str, errors: Sequence[Errors], changes: Mapping[str, ErrorChange]) -> Table:
    """Return a table of what differs from a baseline in a row of errors, in %.

    Args:
        row: the row.
        errors: its false positives, and the baseline's.
        changes: the differences by number, as of ``afrcnn.evaluation.diagnosis.error_changes``.
    """
    values = [of_run.fractions | of_run.ap for of_run in errors]
    rows: list[_Row] = []
    for name, change in changes.items():
        ends = "-" if isnan(change.low) else f"{_signed(change.low)} to {_signed(change.high)}"
        rows.append((name, *(of_run[name] for of_run in values), _signed(change.value), ends))
    caption = "95% interval of a bootstrap over images, paired"
    return _table(
        f"{row}: change to the baseline in %", ("", "run", "baseline", "change", "interval"), rows, caption=caption
    )


def tide_table(errors: Mapping[str, TideErrors]) -> Table:
    """Return a table of TIDE's six errors: of each run, how many there are and the AP that they cost, in %.

    Args:
        errors: by run; at least one.
    """
    heading = ("error", *(text for run in errors for text in (f"{run}\nnumber", "cost in AP")))
    columns = [(of_run.counts, of_run.gains) for of_run in errors.values()]
    rows: list[_Row] = [
        (name, *(cell for counts, gains in columns for cell in (str(counts[name]), gains[name])))
        for name in next(iter(errors.values())).counts
    ]
    aps = ", ".join(percent(of_run.ap) for of_run in errors.values())
    return _table("TIDE's errors", heading, rows, caption=f"COCO's AP at an IoU of 0.5: {aps}")


def _count_cells(errors: Errors) -> list[str]:
    """Return how many false positives there are, and of each kind the number and what it is of them in percent."""
    pairs = [(errors.counts[kind], errors.fractions[kind]) for kind in KINDS]
    return [str(sum(errors.counts.values())), *(f"{count} {percent(fraction):>5}" for count, fraction in pairs)]


def _compared_cells(method: ComparedMethod, name: str) -> tuple[str, str]:
    """Return the AP of a method, and its difference to the baseline with the interval below."""
    if (known := method.differences.get(name)) is None:
        return f"{method.mean(name):.1f}", ""
    low, high = known.interval
    return f"{method.mean(name):.1f}", f"{known.mean:+.1f}{_mark(known)}\n{low:+.1f} to {high:+.1f} "


def _compared_cell(method: ComparedMethod, name: str) -> str:
    """Return the AP of a method, and its difference to the baseline below."""
    known = method.differences.get(name)
    return f"{method.mean(name):.1f} " + (f"\n{known.mean:+.1f}{_mark(known)}" if known else "")


def _mark(known: Difference) -> str:
    return "*" if known.is_told else " "


def _signed(fraction: float) -> str:
    """Return a change in percent, with its sign; a dash for NaN."""
    return "-" if isnan(fraction) else signed(100 * fraction)


def _table(title: str, heading: Sequence[str], rows: Iterable[_Row], footer: _Row = (), caption: str = "") -> Table:
    """Return a table of names and, to the right, numbers; what is too wide for the terminal is folded.

    Texts stand as they are, brackets included; numbers are fractions, shown in percent.
    """
    table = Table(title=_shown(title), caption=caption, show_footer=bool(footer))
    for index, (head, foot) in enumerate(zip_longest(heading, footer, fillvalue="")):
        table.add_column(_shown(str(head)), _cell(foot), justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    return table


def _cell(value: str | float) -> str:
    return _shown(value) if isinstance(value, str) else percent(value)


def _shown(text: str) -> str:
    """Return a text as Rich prints it as it is: no markup, nothing that steers the terminal."""
    return escape(printable(text))
