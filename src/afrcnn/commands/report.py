"""A report of runs as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from afrcnn.core.atomic import atomic_write


def report(
    runs: Sequence[Path | str],
    *,
    baseline: Path | str | None = None,
    out: Path | str = "report.html",
    overrides: Sequence[str] = (),
    trust: Sequence[str] = (),
) -> Path:
    """Write a report of runs: tables, figures, images and recipes in one HTML file that needs no other.

    Runs whose recipes differ in the seed alone are one method, of which mean and standard deviation are given. Results
    that a run lacks are named in the report, with the command that makes them. The same runs give the same bytes.

    Args:
        runs: folders of runs, of one set of classes and one test split.
        baseline: the run that the others are compared with; the first when None.
        out: the file to write.
        overrides: fields of the runs' recipes to set differently, as ``["--data.root", "elsewhere"]``.
        trust: modules whose adversaries may be imported, as ``["my_package"]``; a run's recipe names classes, and
            importing one runs its module's code. Of an adversary of another module, the report says that it is refused.

    Returns:
        The file.

    Raises:
        UserError: a run is missing, damaged or of other data than the first, or the file cannot be written.
    """
    from afrcnn.reporting.page import report_page

    page = report_page(runs, baseline, overrides, trust)
    with atomic_write(out) as file:
        file.write(page)
    return Path(out)
