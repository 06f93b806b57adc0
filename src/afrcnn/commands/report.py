"""A report of runs as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from afrcnn.core.atomic import atomic_write
from afrcnn.run import Run


def report(
    runs: Sequence[Path | str],
    out: Path | str = "report.html",
    *,
    baseline: Path | str | None = None,
    trust: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> Path:
    """Compare runs on one HTML page.

    Writes one HTML file that needs no other and no network: AP of all runs and by class beside the paper's, what
    changes by class, stress tests, what adversaries occlude and bend, new false positives, training curves, and
    recipes. Runs whose recipes differ in the seed alone are shown as one method, with mean and standard deviation.
    What a run lacks is omitted, and the page says which command makes it. The same runs give the same bytes.

    Args:
        runs: folders that `afrcnn train` made, of one set of classes and one test split.
        out: file to write.
        baseline: run that the others are compared with (default: the first).
        trust: modules that adversaries of your own may be imported from.
        overrides: fields of the runs' recipes to set differently, as ``["--data.root", "elsewhere"]``.

    Examples:
        afrcnn report runs/VOC2007/vgg16_*-seed0
        afrcnn report runs/cards/* --baseline runs/cards/frcn-seed0 --out cards.html

    Returns:
        The file.

    Raises:
        UserError: a run is missing, damaged or of other data than the first, or the file cannot be written.
    """
    for run in runs:
        _ = Run(run, overrides).recipe  # refused before anything slow

    from afrcnn.reporting.page import report_page

    page = report_page(runs, baseline, overrides, trust)
    with atomic_write(out) as file:
        file.write(page)
    return Path(out)


def show(file: Path) -> None:
    """Print where the page is."""
    from afrcnn.core.terminal import say

    say(f"report: {file}")
