"""Evaluation of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from afrcnn.run import Run

if TYPE_CHECKING:
    from afrcnn.evaluation.results import Results


def evaluate(
    run: Path | str,
    *,
    ensemble: Sequence[Path | str] = (),
    split: str | None = None,
    svd: tuple[int, int] | None = None,
    subsets: bool = False,
    lists: Sequence[Path | str] = (),
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
) -> Results:
    """Measure the average precision of a run.

    Detects objects in a split with the trained detector of the run. Shows VOC's AP by class, by 11 points and by area,
    and COCO's; writes results.json and the detections, as COCO's JSON and as the files of VOC's server.

    Args:
        run: folder that `afrcnn train` made.
        ensemble: runs whose detectors answer together with RUN's, by the mean over each proposal; asks for --out.
        split: split to detect in (default: the recipe's data.test_split).
        svd: truncate fc6 and fc7 to these ranks, for speed (in Fast R-CNN 1024 256).
        subsets: AP and recall by subset, too: occluded and unoccluded objects, by size, by VOC's flags, separated and
            occluded by COCO's masks.
        lists: on COCO's val2017, subsets of Zhan et al. 2022, too: separated_coco.pkl, occluded_coco.pkl.
        out: folder to write to (default: RUN).
        overrides: fields of the run's recipe to set differently, as ``["--data.root", "elsewhere"]``.

    Examples:
        afrcnn evaluate runs/VOC2007/vgg16_frcn-seed0
        afrcnn evaluate run --split val --out val --data.root elsewhere/VOC2007
        afrcnn evaluate runs/full --ensemble runs/ohem --out both
    """
    _ = Run(run, overrides).recipe  # refused before anything slow

    from afrcnn.evaluation.detect import evaluate_run

    return evaluate_run(run, overrides, split=split, ensemble=ensemble, svd=svd, out=out, subsets=subsets, lists=lists)


def show(results: Results, *, run: Path, out: Path | None = None) -> None:
    """Print the results, and where they are written."""
    from rich.console import Console

    from afrcnn.reporting.subset_table import subset_table
    from afrcnn.reporting.table import ap_table

    Console().print(ap_table(results))
    if results.subsets:
        Console().print(subset_table(results.subsets))
    written = Run(out or run)
    print(f"results:    {written.results_file}")
    print(f"detections: {written.detections}")
