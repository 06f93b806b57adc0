"""The objects of two splits by class, on the screen."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from afrcnn.data.splits import OcclusionSplit


def split_table(splits: Sequence[OcclusionSplit]) -> Table:
    """Return a table of the objects of each class in each split, and of how many of them others overlap.

    Args:
        splits: the splits of one dataset.
    """
    table = Table(title="objects, those that others overlap in brackets", show_footer=True)
    table.add_column("class", footer="all", overflow="fold", max_width=30)
    for split in splits:
        total = f"{sum(split.objects.values())} ({sum(split.overlapped.values())})"
        heading = f"{escape(split.name)}\n{len(split.ids)} images"
        table.add_column(heading, footer=total, justify="right", overflow="fold")
    for name in splits[0].objects:
        cells = (f"{split.objects[name]} ({split.overlapped[name]})" for split in splits)
        table.add_row(escape(name), *cells)
    return table
