"""The paper's tables, row by row: which recipes give a row, and our numbers beside the paper's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isnan, nan
from typing import NamedTuple

from afrcnn.evaluation.results import Results
from afrcnn.reporting.comparison import METRICS
from afrcnn.reporting.paper import PaperRow, paper_rows
from afrcnn.visualize.figure import percent, signed


class RowRun(NamedTuple):
    """A run that a row needs: the name of its recipe below ``configs``, and its seed."""

    recipe: str
    seed: int = 0

    @property
    def folder(self) -> str:
        """Its folder below that of all runs."""
        return f"{self.recipe}-seed{self.seed}"


class TableRow(NamedTuple):
    """A row of a table of the paper.

    Attributes:
        method: the method, in the paper's words.
        network: its backbone, likewise.
        dataset: what it is tested on, likewise.
        runs: the run, or those whose detectors answer together.
    """

    method: str
    network: str
    dataset: str
    runs: tuple[RowRun, ...]

    @property
    def name(self) -> str:
        """The name of its results."""
        return "+".join(run.folder for run in self.runs)

    @property
    def paper(self) -> PaperRow:
        """The row as the paper has it."""
        keys = ("method", "network", "dataset")
        return next(row for row in paper_rows() if all(getattr(row, key) == getattr(self, key) for key in keys))


def _rows(dataset: str, network: str, recipes: str, methods: Mapping[str, str]) -> list[TableRow]:
    return [TableRow(method, network, dataset, (RowRun(f"{recipes}_{recipe}"),)) for method, recipe in methods.items()]


_FULL = {"FRCN*": "frcn", "Ours (ASTN)": "astn", "Ours (ASDN)": "asdn", "Ours (full)": "full"}
_ENDS = {"FRCN*": "frcn", "Ours (full)": "full"}
_JITTER = {"random jittering of proposals": "jitter"}
_OURS, _OHEM = "voc12/vgg16_full", "voc12/vgg16_ohem"

TABLES: dict[str, list[TableRow]] = {
    "table1": [
        *_rows("VOC2007 test", "AlexNet", "voc07/alexnet", _FULL),
        *_rows("VOC2007 test", "VGG16", "voc07/vgg16", _FULL),
        *_rows("VOC2007 test", "ResNet-101", "voc07/resnet101", _ENDS),
    ],
    "table2": _rows(
        "VOC2007 test",
        "AlexNet",
        "voc07/alexnet",
        {
            "FRCN*": "frcn",
            "Ours (random dropout)": "random_dropout",
            "Ours (hard dropout)": "hard_dropout",
            "Ours (fixed ASDN)": "fixed_asdn",
            "Ours (ASDN)": "asdn",  # "joint learning" there
        },
    ),
    "table3": _rows("VOC2012 test", "VGG16", "voc12/vgg16", _ENDS),
    "section52": [
        *_rows("VOC2007 test", "AlexNet", "voc07/alexnet", _JITTER),
        *_rows("VOC2007 test", "VGG16", "voc07/vgg16", _JITTER),
    ],
    "coco": _rows("COCO minival", "VGG16", "coco/vgg16", _ENDS),
    "ohem": [
        *_rows("VOC2007 test", "VGG16", "voc07/vgg16", {"OHEM": "ohem"}),
        *_rows("VOC2012 test", "VGG16", "voc12/vgg16", {"OHEM": "ohem"}),
    ],
    "ensembles": [
        TableRow("ensemble: OHEM + ours", "VGG16", "VOC2012 test", (RowRun(_OHEM), RowRun(_OURS))),
        TableRow("ensemble: 2 x OHEM", "VGG16", "VOC2012 test", (RowRun(_OHEM), RowRun(_OHEM, 1))),
        TableRow("ensemble: 2 x ours", "VGG16", "VOC2012 test", (RowRun(_OURS), RowRun(_OURS, 1))),
    ],
}
"""By name, the rows of the paper's Tables 1 to 3 and of its sections 5.2.1, 5.3 and 5.4."""


def shown_row(row: TableRow, results: Results | None) -> tuple[str, str, str, str, str]:
    """Return a row in words: method, network, our mean AP by metric, the paper's, and the differences in points.

    A dash stands for what is not known. On COCO, the paper's number is AP at an IoU of 0.5.
    """
    means = {} if results is None else results.mean_ap
    values = [means.get(metric, nan) for metric in METRICS]
    differences = ["-" if isnan(value) else signed(100 * (value - row.paper.mean_ap)) for value in values]
    return row.method, row.network, " ".join(map(percent, values)), percent(row.paper.mean_ap), " ".join(differences)


def markdown(name: str, rows: Sequence[tuple[TableRow, Results | None]], note: str) -> Iterator[str]:
    """Yield the lines of a table in the paper's layout: by metric, its row, ours, and the difference, class by class.

    Args:
        name: of the table, as in ``TABLES``.
        rows: its rows, with our results where there are any.
        note: what stands below the heading.
    """
    yield from (f"# {name}", "", note, "")
    yield "The paper does not say by which metric its APs are; its Torch baseline prints the third."
    for metric in METRICS:
        classes = list(dict.fromkeys(cls for row, _ in rows for cls in row.paper.ap))
        heads = ["method", "network", "tested on", "", "mAP", *classes]
        yield from ("", f"## {metric}", "", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads))
        for row, results in rows:
            paper = [row.paper.mean_ap, *(row.paper.ap.get(cls, nan) for cls in classes)]
            by_class = results.ap.get(metric, {}) if results else {}
            mean = results.mean_ap.get(metric, nan) if results else nan
            ours = [mean, *(by_class.get(cls, nan) for cls in classes)]
            change = [value - other for value, other in zip(ours, paper, strict=True)]
            for kind, cells in (
                ("paper", map(percent, paper)),
                ("ours", map(percent, ours)),
                ("difference", ("-" if isnan(value) else signed(100 * value) for value in change)),
            ):
                yield f"| {row.method} | {row.network} | {row.dataset} | {kind} | {' | '.join(cells)} |"
    if lines := list(coco_lines(rows)):
        yield from ("", "## COCO's AP over IoUs, and AP50 on the same detections", "", *(f"- {line}" for line in lines))


def coco_lines(rows: Sequence[tuple[TableRow, Results | None]]) -> Iterator[str]:
    """Yield for each row on COCO its AP over IoUs and AP at 0.5, and the paper's (section 5.3), in percent."""
    for row, results in rows:
        if row.dataset.startswith("COCO"):
            ap, ap50 = (results.coco[name] if results else nan for name in ("AP", "AP50"))
            paper = f"the paper {percent(row.paper.coco_ap)} and {percent(row.paper.mean_ap)}"
            yield f"{row.method}: AP {percent(ap)} and AP50 {percent(ap50)}; {paper}"
