"""The recall of proposals on the screen."""

from __future__ import annotations

import math

from rich.table import Table

from afrcnn.proposals.recall import Recall


def recall_table(recall: Recall) -> Table:
    """Return a table of recall in percent: a row for each IoU, a column for each number of proposals.

    Args:
        recall: what ``afrcnn.proposals.recall.recall`` measured.
    """
    table = Table(
        title=f"recall in %, {recall.objects.sum()} objects",
        caption=f"{recall.proposals:.0f} proposals an image",
    )
    table.add_column("proposals", no_wrap=True)
    for count in recall.counts:
        table.add_column(str(count), justify="right", no_wrap=True)
    for iou, shares in zip(recall.ious, recall.overall.tolist(), strict=True):
        table.add_row(f"IoU >= {iou:g}", *("-" if math.isnan(share) else f"{100 * share:.1f}" for share in shares))
    return table
