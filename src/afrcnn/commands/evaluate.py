"""Evaluation of a run, or of anybody's detections: AP and recall on a split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from afrcnn.core.errors import UserError
from afrcnn.recipe import EngineRecipe, load_recipe
from afrcnn.run import Run, dataset_root

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
    trust: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> Results | None:
    """Measure the average precision of a run, or of anybody's detections.

    Detects objects in a split with the trained detector of a run. Shows VOC's AP by class, by 11 points and by area,
    and COCO's; writes results.json and the detections, as COCO's JSON and as the files of VOC's server. Of detections
    in a file, shows the same, and writes results.json where --out is given. Of a test split whose annotations are not
    published, writes the detections alone; `afrcnn submit` makes the archive for the server that has them.

    An image that cannot be decoded has no detections, so that its objects count as missed. It is named at the end, and
    the exit status is 1; --data.strict true refuses it.

    Works on as many devices and nodes as the training did, or as --engine.devices and --engine.nodes say; the
    detections are the same on any number.

    Args:
        run: folder that `afrcnn train` made, or a file of weights from one.
        split: split to evaluate on (default: the recipe's data.test_split).
        ensemble: runs whose detectors answer together with RUN's, by the mean over each proposal; asks for --out.
        svd: truncate fc6 and fc7 to these ranks, for speed (in Fast R-CNN 1024 256).
        subsets: AP and recall by subset, too: overlapped and unoccluded objects, by size, by VOC's flags, separated and
            occluded by COCO's masks.
        lists: on COCO's val2017, subsets of Zhan et al. 2022, too: separated_coco.pkl, occluded_coco.pkl.
        out: folder to write to (default: RUN).
        detections: instead of RUN, a file in COCO's results format, or a folder with the text files of VOC's server;
            the dataset is that of --data.root, and neither a recipe nor proposals are needed.
        iou: IoU, from 0 to below 1, that a hit of VOC's AP exceeds.
        trust: modules that a detector of your own may be imported from.
        overrides: fields of the recipe to set differently, as ``["--data.root", "elsewhere"]``.

    Examples:
        afrcnn evaluate runs/VOC2007/vgg16_frcn-seed0
        afrcnn evaluate run --split val --out val --data.root elsewhere/VOC2007
        afrcnn evaluate runs/full --ensemble runs/ohem --out both
        afrcnn evaluate runs/coco/vgg16_full-seed0 --engine.devices 8
        afrcnn evaluate --detections results.json --data.root coco --split val2017

    Returns:
        The results, in every process; None where the split is not annotated. The first process writes them.

    Raises:
        UserError: a run is not finished, knows other classes than the first, or ``out`` is missing for an ensemble; the
            dataset, its proposals, the detections or a list are missing or wrong; AP of a file's detections, or
            subsets, are asked for where the split is not annotated.
    """
    for wrong, at, problem, fix in (
        (bool(run) == bool(detections), "evaluate", "takes either a run or detections", "name RUN or --detections"),
        (not Path(detections or ".").exists(), detections, "no such file or folder", "name a file of detections"),
        (detections and (ensemble or svd), "ensemble" if ensemble else "svd", "is of runs", "name RUN, not detections"),
        (ensemble and out is None, "out", "an ensemble is not a run", "name a folder for its results"),
        (not 0 <= iou < 1, "iou", f"{iou:g} is out of range", "choose from 0 to below 1"),
    ):
        if wrong:
            raise UserError(problem, field=str(at), fix=fix)
    runs = [Run(folder, overrides) for folder in (run, *ensemble) if folder]
    recipe = runs[0].recipe if runs else load_recipe(os.devnull, overrides)
    for other in runs:
        other.require_classes_of(runs[0], "join runs of the same classes")
        other.trained()
    dataset_root(recipe)  # refused before anything slow

    from afrcnn.build import open_images, open_split
    from afrcnn.core.engine import build_fabric, in_first_process
    from afrcnn.core.image_warnings import refusing
    from afrcnn.data.inspection import require_readable
    from afrcnn.data.target import require_annotations
    from afrcnn.evaluation.detect import detect
    from afrcnn.evaluation.formats import read_coco_results, read_voc_results, write_coco_results, write_voc_results
    from afrcnn.evaluation.results import evaluate_detections, write_record
    from afrcnn.evaluation.subsets import all_subsets

    # Detections of a file are read and measured by one process.
    fabric = build_fabric(**asdict(recipe.engine if runs else EngineRecipe("cpu")))
    fabric.launch()
    split = split or recipe.data.test_split
    with refusing(recipe.data.strict):
        images = open_split(recipe, split) if runs else open_images(recipe, split)
    if not len(images):
        raise UserError("the split has no images", file=images.root, field=split, fix="name another split")
    if detections or subsets or lists:
        require_annotations(images)
    members = all_subsets(images, lists) if subsets or lists else {}

    target = Run(out or run or "")
    if detections:
        if Path(detections).is_dir() or Path(detections).suffix == ".txt":
            detected = read_voc_results(detections, images.ids, images.classes, split)
        else:
            detected = read_coco_results(detections, images.ids, images.category_ids)
    else:
        in_first_process(fabric, partial(require_readable, images, strict=recipe.data.strict))
        with refusing(recipe.data.strict):
            detector, workers = _detector(runs, svd, trust), recipe.data.workers
            detected = detect(detector, images, fabric=fabric, workers=workers, leave_out=True)
        file, voc = target.detections_file(split), target.detections / "voc"
        in_first_process(fabric, partial(write_coco_results, file, detected, images.ids, images.category_ids))
        in_first_process(fabric, partial(write_voc_results, voc, detected, images.ids, images.classes, split))
    if not images.annotated:
        return None
    results = replace(evaluate_detections(detected, images, iou_threshold=iou, subsets=members), split=split)
    if run or out:
        in_first_process(fabric, partial(write_record, target.results_file, results))
    return results


def show(results: Results | None, *, run: Path | None = None, out: Path | None = None) -> None:
    """Print the AP by class and by subset, and where results and detections are."""
    from rich.console import Console

    from afrcnn.core.distributed import rank_and_size
    from afrcnn.core.terminal import say
    from afrcnn.visualize.tables import ap_table, subset_table

    if rank_and_size()[0]:  # of all processes, the first speaks
        return
    if results is None:
        print("AP:         none, since the images are not annotated; `afrcnn submit` makes an archive for the server")
    else:
        Console().print(ap_table(results))
        if results.subsets:
            Console().print(subset_table(results.subsets))
        if run or out:
            say(f"results:    {Run(out or run or '').results_file}")
    if run:
        say(f"detections: {Run(out or run).detections}")


def _detector(runs: Sequence[Run], svd: tuple[int, int] | None, trust: Sequence[str]) -> nn.Module:
    """Return the detector of a run, or of several that answer together."""
    from afrcnn.build import load_detector
    from afrcnn.detectors.ensemble import Ensemble
    from afrcnn.detectors.svd import truncate_detector

    detectors = [load_detector(run, trust) for run in runs]
    if svd is not None:
        for detector in detectors:
            truncate_detector(detector, *svd)
    return Ensemble(detectors) if len(detectors) > 1 else detectors[0]
