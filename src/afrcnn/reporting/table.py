"""Tables of average precision on the screen."""

from __future__ import annotations

import math

from rich.markup import escape
from rich.table import Table

from afrcnn.evaluation.results import Results


def ap_table(results: Results) -> Table:
    """Return a table of AP in percent: one class a row, then the mean, with COCO's numbers below.

    Args:
        results: the results of an evaluation.

    Returns:
        A table of at most 80 columns; long names of classes are folded.
    """
    table = Table(
        title=f"{results.images} images, {results.detections} detections, AP in %",
        caption="COCO  " + "  ".join(f"{name} {percent(results.coco[name])}" for name in ("AP", "AP50", "AP75")),
        show_footer=True,
    )
    table.add_column("class", footer="mean", overflow="fold", max_width=40)
    table.add_column("objects", footer=str(sum(results.objects.values())), justify="right", no_wrap=True)
    for metric, mean in results.mean_ap.items():
        table.add_column(metric, footer=percent(mean), justify="right", no_wrap=True)
    for name, objects in results.objects.items():
        table.add_row(escape(name), str(objects), *(percent(results.ap[metric][name]) for metric in results.mean_ap))
    return table


def percent(fraction: float) -> str:
    """Return a fraction in percent, with one decimal; a dash for NaN."""
    return "-" if math.isnan(fraction) else f"{100 * fraction:.1f}"
