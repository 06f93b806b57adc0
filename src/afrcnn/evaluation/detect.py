"""Detection over a split, and the evaluation of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from afrcnn.build import load_detector, open_split
from afrcnn.core.engine import build_fabric
from afrcnn.core.errors import UserError
from afrcnn.core.progress import progress
from afrcnn.data.target import Target
from afrcnn.detectors.ensemble import Ensemble
from afrcnn.detectors.rcnn import FastRCNN
from afrcnn.detectors.svd import truncate_head
from afrcnn.evaluation.formats import write_coco_results, write_voc_results
from afrcnn.evaluation.results import Results, evaluate, write_results
from afrcnn.evaluation.subsets import all_subsets
from afrcnn.recipe import EngineRecipe
from afrcnn.run import Run


class ProposedImages(Protocol):
    """As much of a dataset as detection needs: images, and targets that hold ``proposals``."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Return the image (3 x H x W, uint8, RGB) and its target."""


def detect(
    detector: FastRCNN | Ensemble,
    dataset: ProposedImages,
    *,
    engine: EngineRecipe | None = None,
    workers: int = 2,
) -> list[dict[str, Tensor]]:
    """Detect objects in all images of a dataset with proposals.

    Args:
        detector: a trained detector, or several that answer together.
        dataset: images whose targets hold ``proposals`` (see ``WithProposals``).
        engine: device and precision; one process is used.
        workers: processes that read images.

    Returns:
        For each image, in order, ``boxes`` (D x 4), ``labels`` (D) and ``scores`` (D), on the CPU.
    """
    fabric = build_fabric(replace(engine or EngineRecipe(), devices=1, nodes=1))
    model = fabric.setup(detector.eval())
    loader = fabric.setup_dataloaders(
        DataLoader(_Images(dataset), batch_size=None, num_workers=workers, generator=torch.Generator())
    )
    found = []
    with torch.inference_mode(), progress("detecting", len(dataset), "image") as report:
        for image, proposals in loader:
            (detection,) = model([image], [proposals])
            found.append({name: value.cpu() for name, value in detection.items()})
            report(len(found), "")
    return found


def evaluate_run(
    folder: Path | str,
    overrides: Sequence[str] = (),
    *,
    split: str | None = None,
    ensemble: Sequence[Path | str] = (),
    svd: tuple[int, int] | None = None,
    out: Path | str | None = None,
    subsets: bool = False,
    lists: Sequence[Path | str] = (),
) -> Results:
    """Detect with the trained detector of a run, and write detections and results.

    Writes ``results.json``, ``detections/<split>.json`` in COCO's format and, in ``detections/voc``, the text files
    that the VOC server takes.

    Args:
        folder: the run.
        overrides: fields of its recipe to set differently, as ``["--data.root", "elsewhere"]``.
        split: the split to evaluate on; the recipe's ``data.test_split`` when None.
        ensemble: further runs, whose detectors answer together with this one's (section 5.4); ``out`` is needed then.
        svd: the ranks that fc6 and fc7 are truncated to first, for speed (Fast R-CNN, section 3.1; there 1024 and 256).
        out: the folder to write to; the run's own when None.
        subsets: whether the results say, too, what the detections are worth on subsets of the objects.
        lists: published lists of more such subsets (``afrcnn.evaluation.occluded_coco.read_list``).

    Raises:
        UserError: a run is not finished, knows other classes than the first, or ``out`` is missing for an ensemble; the
            dataset, its proposals or a list are missing or wrong.
    """
    if ensemble and out is None:
        raise UserError("an ensemble is no run", field="out", fix="name a folder for its results")
    run = Run(folder, overrides)
    recipe = run.recipe
    split = split or recipe.data.test_split
    dataset = open_split(recipe, split)
    if not len(dataset):
        raise UserError("the split has no images", file=dataset.root, field=split, fix="name another split")
    parts = all_subsets(dataset.dataset, lists) if subsets or lists else {}
    members = [run, *(Run(other, overrides) for other in ensemble)]
    for other in members[1:]:
        if other.recipe.data.classes != recipe.data.classes:
            problem = f"knows other classes than {run.folder}"
            raise UserError(problem, file=other.folder, field="data.classes", fix="join runs of the same classes")
    detectors = [load_detector(member) for member in members]
    if svd is not None:
        for detector in detectors:
            truncate_head(detector.head, *svd)
    joined = Ensemble(detectors) if ensemble else detectors[0]
    detections = detect(joined, dataset, engine=recipe.engine, workers=recipe.data.workers)

    target = Run(out) if out is not None else run
    write_coco_results(target.detections / f"{split}.json", detections, dataset.ids, dataset.category_ids)
    write_voc_results(target.detections / "voc", detections, dataset.ids, dataset.classes, split)
    results = replace(evaluate(detections, dataset.dataset, subsets=parts), split=split)
    write_results(target.results_file, results)
    return results


class _Images(Dataset[tuple[Tensor, Tensor]]):
    """Images and their proposals, as plain tensors."""

    def __init__(self, dataset: ProposedImages) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, target = self.dataset[index]
        return image.as_subclass(Tensor), target["proposals"].as_subclass(Tensor)
