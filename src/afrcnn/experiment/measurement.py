"""A comparison's runs, trained and measured: what is done is not repeated, and several processes share the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from torch import nn

from afrcnn.build import load_detector, open_split
from afrcnn.core.engine import build_fabric
from afrcnn.core.lock import claimed
from afrcnn.core.terminal import say
from afrcnn.data.target import DetectionDataset
from afrcnn.evaluation.detect import detect
from afrcnn.evaluation.formats import Detection, read_coco_results, write_coco_results
from afrcnn.evaluation.results import evaluate_detections, write_record
from afrcnn.evaluation.subsets import all_subsets
from afrcnn.experiment.plan import PlannedRun
from afrcnn.robustness.benchmark import StressedImages, measure
from afrcnn.robustness.stress_results import write_stress
from afrcnn.robustness.stresses import Occlusion
from afrcnn.run import Run

LEVELS = (0.2, 0.4, 0.6)
"""Fractions of every box that are hidden in the stress test of a comparison."""

STRESS_SEED = 0
"""Of the places that are hidden, and of what hides there."""


def make_runs(planned: Sequence[PlannedRun]) -> None:
    """Train and measure what is not done yet.

    What another process works on is left to it; at the end, this one waits for it, or, where it was stopped, goes on.

    Raises:
        UserError: a loss is not finite, or files are missing or wrong.
        Interrupted: Ctrl-C or SIGTERM came; a checkpoint is written first.
    """
    for wait in (False, True):
        for number, one in enumerate(planned, start=1):
            with unless_done(one.run, wait=wait) as claim:
                if claim:
                    say(f"run {number} of {len(planned)}: {one.run.folder.name}")
                    _make(one)


def _make(planned: PlannedRun) -> None:
    """Train and measure a run; train the start first, unless that is done."""
    # Here, since the tables of every command know comparisons, and the loop imports Fabric.
    from afrcnn.training.train import train_stages  # noqa: PLC0415

    if (start := planned.start) is not None and not start.run.weights_file.is_file():
        with claimed(start.run.folder, wait=True):
            if not start.run.weights_file.is_file():
                train_stages(start.recipe, start.run.folder)
                start.run.checkpoint_file.unlink(missing_ok=True)
    run = train_stages(planned.recipe, planned.run.folder)
    examine(run, load_detector(run, "all"))
    run.checkpoint_file.unlink(missing_ok=True)  # as large as two detectors


@contextmanager
def unless_done(run: Run, *, wait: bool = False) -> Iterator[bool]:
    """Claim a run for a block, and say whether it is this process that makes it: it is not done, nor another's.

    Args:
        run: the run.
        wait: whether to wait for another process that makes it.
    """
    if is_done(run):
        yield False
        return
    with claimed(run.folder, wait=wait) as claim:
        yield claim and not is_done(run)


def is_done(run: Run) -> bool:
    """Tell whether a run has its detections at all levels, and its results, which are written last."""
    if not (run.recipe_file.is_file() and run.stress_file.is_file() and run.results_file.is_file()):
        return False
    return all(detections_file(run, level).is_file() for level in (0.0, *LEVELS))


def examine(run: Run, detector: nn.Module) -> None:
    """Measure a trained run on its test split, clean and with hidden objects.

    Writes detections at all levels, and their AP, as ``afrcnn evaluate --subsets`` and ``afrcnn stress`` write it.

    Args:
        run: the run.
        detector: its detector, in evaluation mode.
    """
    recipe = run.recipe
    split = recipe.data.test_split
    dataset = open_split(recipe, split)
    fabric = build_fabric(**asdict(recipe.engine))
    detections: list[Detection] = []

    def find(images: StressedImages) -> Sequence[Detection]:
        detections.extend(detect(detector, images, fabric=fabric, workers=recipe.data.workers))
        return detections

    levels = (0.0, *LEVELS)
    stress = measure(find, dataset, [Occlusion("photo", levels=levels)], STRESS_SEED)
    for number, level in enumerate(levels):
        file = detections_file(run, level)
        write_coco_results(file, detections[number :: len(levels)], dataset.ids, dataset.category_ids)
    write_stress(run.stress_file, replace(stress, split=split))
    results = evaluate_detections(detections[:: len(levels)], dataset, subsets=all_subsets(dataset))
    write_record(run.results_file, replace(results, split=split))


def stored_detections(run: Run, dataset: DetectionDataset) -> Callable[[StressedImages], Sequence[Detection]]:
    """Return what answers as the detector of a measured run did, to the images of its measurement alone.

    Raises:
        UserError: detections are missing or damaged, or of other images.
    """
    levels = {
        level: read_coco_results(detections_file(run, level), dataset.ids, dataset.category_ids)
        for level in (0.0, *LEVELS)
    }
    return lambda images: [levels[change.level][change.index] for change in images.changes]


def detections_file(run: Run, level: float) -> Path:
    """Return the file of a run's detections at a level of occlusion, in COCO's format."""
    split = run.recipe.data.test_split
    return run.detections_file(f"{split}-occluded-{level:g}" if level else split)
