"""What a split of a dataset put where, on the screen."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from afrcnn.data.splits import Part


def split_table(parts: Sequence[Part]) -> Table:
    """Return a table of the objects of each class in each part, and of how many of them others overlap.

    Args:
        parts: the parts of one dataset.
    """
    table = Table(title="objects, those that others overlap in brackets", show_footer=True)
    table.add_column("class", footer="all", overflow="fold", max_width=30)
    for part in parts:
        total = f"{sum(part.objects.values())} ({sum(part.overlapped.values())})"
        heading = f"{escape(part.name)}\n{len(part.ids)} images"
        table.add_column(heading, footer=total, justify="right", overflow="fold")
    for name in parts[0].objects:
        cells = (f"{part.objects[name]} ({part.overlapped[name]})" for part in parts)
        table.add_row(escape(name), *cells)
    return table
