"""The worth of detections on subsets of the objects, on the screen."""

from __future__ import annotations

from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from afrcnn.evaluation.subsets import SubsetResult
from afrcnn.reporting.table import percent


def subset_table(subsets: Mapping[str, SubsetResult]) -> Table:
    """Return a table in percent: a subset of the objects a row, with its mean AP and its recall.

    Args:
        subsets: the results by the subsets' names; at least one.

    Returns:
        A table of at most 80 columns; long names are folded.
    """
    table = Table(
        title="subsets of the objects, mean AP and recall in %",
        caption="recall: at any score; confident: found with a score of 0.3 and an IoU of 0.75",
    )
    table.add_column("objects that are", overflow="fold", max_width=26)
    metrics = list(next(iter(subsets.values())).mean_ap)
    for heading in ("objects", *metrics, "recall", "confident"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, result in subsets.items():
        numbers = (*(result.mean_ap[metric] for metric in metrics), result.recall, result.confident_recall)
        table.add_row(escape(name), str(sum(result.objects.values())), *map(percent, numbers))
    return table
