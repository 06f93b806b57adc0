"""Evaluation of a run, or of anybody's detections: AP and recall on a split."""

# ruff: noqa: PLC0415
from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afrcnn.core.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from afrcnn.evaluation.results import Results


def evaluate(
    run: Path | str | None = None,
    *,
    split: str | None = None,
    ensemble: Sequence[Path | str] = (),
    svd: tuple[int, int] | None = None,
    subsets: bool = False,
    lists: Sequence[Path | str] = (),
    out: Path | str | None = None,
    detections: Path | str | None = None,
    iou: float = 0.5,
    overrides: Sequence[str] = (),
) -> Results:
    """Detect with the trained detector of a run, or read detections from a file, and measure their AP.

    Of a run, writes ``results.json``, ``detections/<split>.json`` in COCO's format and, in ``detections/voc``, the text
    files that the VOC server takes. Of a file, writes ``results.json`` where ``out`` is given.

    Args:
        run: the run's folder.
        split: the split to evaluate on; ``data.test_split`` when None.
        ensemble: further runs, whose detectors answer together with this one's (section 5.4); ``out`` is needed then.
        svd: the ranks that fc6 and fc7 are truncated to first, for speed (Fast R-CNN, section 3.1; there 1024 and 256).
        subsets: whether to measure AP and recall on subsets of the objects, too.
        lists: published lists of more such subsets (``afrcnn.evaluation.occluded_coco.read_list``).
        out: the folder to write to; the run's own when None.
        detections: instead of a run, a file in COCO's results format, or a folder with the text files of the VOC
            server, or one of these. The dataset is that of ``data.root``; neither a recipe nor proposals are needed.
        iou: IoU in [0, 1) that a hit of VOC's AP exceeds.
        overrides: fields of the recipe to set differently, as ``["--data.root", "elsewhere"]``.

    Raises:
        UserError: a run is not finished, knows other classes than the first, or ``out`` is missing for an ensemble; the
            dataset, its proposals, the detections or a list are missing or wrong.
    """
    for wrong, at, problem, fix in (
        (bool(run) == bool(detections), "evaluate", "takes either a run or detections", "name RUN or --detections"),
        (not Path(detections or ".").exists(), detections, "no such file or folder", "name a file of detections"),
        (run and not Path(run, "recipe.yaml").is_file(), run, "is not a run folder", "name one of `afrcnn train`"),
        (detections and (ensemble or svd), "ensemble" if ensemble else "svd", "is of runs", "name RUN, not detections"),
        (ensemble and out is None, "out", "an ensemble is not a run", "name a folder for its results"),
        (not 0 <= iou < 1, "iou", f"{iou:g} is out of range", "choose from 0 to below 1"),
    ):
        if wrong:
            raise UserError(problem, field=str(at), fix=fix)
    source: Any = run or detections

    from afrcnn.core.engine import build_fabric
    from afrcnn.data import open_dataset
    from afrcnn.evaluation.detect import detect
    from afrcnn.evaluation.formats import read_coco_results, read_voc_results, write_coco_results, write_voc_results
    from afrcnn.evaluation.results import evaluate_detections, write_results
    from afrcnn.evaluation.subsets import all_subsets
    from afrcnn.recipe import load_recipe
    from afrcnn.run import Run, open_split

    recipe = Run(run).recipe(overrides) if run else load_recipe(os.devnull, overrides)
    data, split = recipe.data, split or recipe.data.test_split
    if not data.root:
        raise UserError("is not set", field="data.root", fix="name the dataset's folder: --data.root FOLDER")
    images = open_split(recipe, split) if run else None
    dataset = images.dataset if images else open_dataset(data.root, split, data.layout, data.classes)
    if not len(dataset):
        raise UserError("the split has no images", file=dataset.root, field=split, fix="name another split")
    members = all_subsets(dataset, lists) if subsets or lists else {}
    category_ids = getattr(dataset, "category_ids", range(1, len(dataset.classes) + 1))

    target = Run(out or source)
    if images:
        fabric = build_fabric(recipe.engine.accelerator, precision=recipe.engine.precision)
        found = detect(_detector([source, *ensemble], svd, overrides), images, fabric=fabric, workers=data.workers)
        write_coco_results(target.detections / f"{split}.json", found, dataset.ids, category_ids)
        write_voc_results(target.detections / "voc", found, dataset.ids, dataset.classes, split)
    elif Path(source).is_dir() or Path(source).suffix == ".txt":
        found = read_voc_results(source, dataset.ids, dataset.classes, split)
    else:
        found = read_coco_results(source, dataset.ids, category_ids)
    results = replace(evaluate_detections(found, dataset, iou_threshold=iou, subsets=members), split=split)
    if run or out:
        write_results(target.results_file, results)
    return results


def _detector(folders: Sequence[Path | str], svd: tuple[int, int] | None, overrides: Sequence[str]) -> nn.Module:
    """Return the detector of a run, or of several that answer together."""
    from afrcnn.detectors.ensemble import Ensemble
    from afrcnn.detectors.svd import truncate_head
    from afrcnn.run import Run

    first, *others = map(Run, folders)
    for other in others:
        if other.recipe(overrides).data.classes != first.recipe(overrides).data.classes:
            problem = f"knows other classes than {first.folder}"
            raise UserError(problem, file=other.folder, field="data.classes", fix="join runs of the same classes")
    detectors = [run.detector(overrides) for run in (first, *others)]
    if svd is not None:
        for detector in detectors:
            truncate_head(detector.head, *svd)
    return Ensemble(detectors) if others else detectors[0]
