"""The stress test: a detector on the same photographs, with their objects ever more hidden or bent.

Proposals and boxes are those of the clean photographs at every level. For a detector that is given its proposals, as
Fast R-CNN is, the test thus measures recognition, and not what becomes of proposals. To measure both, test a callable
that proposes anew: ``lambda images: [detect_image(detector, pixels) for ...]`` with
``afrcnn.commands.predict.detect_image``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.ops import box_iou
from torchvision.transforms.v2 import functional as F

from afrcnn.build import load_detector, open_split
from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.core.progress import progress
from afrcnn.data.target import DetectionDataset, Target
from afrcnn.evaluation.detect import detect
from afrcnn.evaluation.formats import Detection
from afrcnn.evaluation.results import evaluate
from afrcnn.evaluation.voc_ap import voc_ap
from afrcnn.robustness.image import Photograph, photographs_of
from afrcnn.robustness.occlusion import NOBODY, hidden_fractions
from afrcnn.robustness.stress_results import Curve, Hidden, LevelResults, StressResults, write_stress
from afrcnn.robustness.stresses import Anchors, Bending, Occlusion, Stress
from afrcnn.run import Run
from afrcnn.visualize.robustness import draw_stress

Detector = Callable[[list[Tensor]], list[dict[str, Tensor]]]
"""Torchvision's interface of detection: images, 3 x H x W, float32 in [0, 1], RGB, of any sizes, to a dictionary each
of ``boxes`` (D x 4, XYXY pixels), ``labels`` (D, 1..K) and ``scores`` (D)."""

Step = tuple[Stress | None, float]
"""What is done to all photographs, and how much."""

FOUND = 0.5
"""IoU beyond which a detection is one of an object."""


def stress_test(
    detector: Detector,
    dataset: DetectionDataset,
    stresses: Sequence[Stress] = (Occlusion(),),
    *,
    seed: int = 0,
    workers: int = 2,
) -> StressResults:
    """Measure any detector under stress.

    Args:
        detector: as a detector of torchvision in evaluation mode. It is called with one image at a time, on the CPU,
            without gradients; all levels of an image follow each other.
        dataset: the photographs, with the boxes of their objects.
        stresses: what is done to the objects.
        seed: of all that is drawn, 0 or more. The same seed gives the same pixels to every detector.
        workers: processes that read and change images.

    Raises:
        UserError: an image or annotation is missing or wrong, the seed is negative, the split is empty, or no
            piece of a photograph can hide some object.
    """

    def detect_all(images: StressedImages) -> list[Detection]:
        loader = DataLoader(_Pixels(images), batch_size=None, num_workers=workers, generator=torch.Generator())
        found: list[Detection] = []
        with torch.inference_mode(), progress("detecting", len(images), "image") as report:
            for image in loader:
                (detection,) = detector([F.to_dtype(image, torch.float32, scale=True)])
                found.append({name: detection[name].cpu() for name in ("boxes", "labels", "scores")})
                report(len(found), "")
        return found

    return measure(detect_all, dataset, dataset, stresses, seed)


def stress_run(
    folder: Path | str,
    overrides: Sequence[str] = (),
    stresses: Sequence[Stress] = (Occlusion(),),
    *,
    split: str | None = None,
    seed: int = 0,
    out: Path | str | None = None,
) -> StressResults:
    """Measure the trained detector of a run under stress, and write ``stress.json`` and its curves, ``stress.png``.

    Args:
        folder: the run.
        overrides: fields of its recipe to set differently, as ``["--data.root", "elsewhere"]``.
        stresses: what is done to the objects.
        split: the split to test on; the recipe's ``data.test_split`` when None.
        seed: as of ``stress_test``; not the recipe's, so that runs of all seeds see the same pixels.
        out: the folder to write to; the run's own when None.

    Raises:
        UserError: the run is not finished, its dataset or proposals are missing or wrong, or as of ``stress_test``.
    """
    run = Run(folder, overrides)
    recipe = run.recipe
    split = split or recipe.data.test_split
    dataset = open_split(recipe, split)
    find = partial(detect, load_detector(run), engine=recipe.engine, workers=recipe.data.workers)
    results = replace(measure(find, dataset, dataset.dataset, stresses, seed), split=split)
    out = run.folder if out is None else Path(out)
    with atomic_write(out / "stress.png", "wb") as file:
        draw_stress({run.folder.resolve().name: results}).savefig(file, format="png")
    write_stress(out / "stress.json", results)
    return results


@dataclass(frozen=True)
class Change:
    """An image of a test.

    Attributes:
        index: of its photograph in the split.
        stress: what is done to its objects; None for nothing.
        level: how much.
        anchors: M x 2, chosen places of occluders; random ones when None.
    """

    index: int
    stress: Stress | None = None
    level: float = 0.0
    anchors: Anchors | None = None


class StressedImages:
    """Photographs with hidden or bent objects: as much of a dataset as detection needs. Targets stay as they are.

    Args:
        dataset: the photographs.
        photographs: what is known of all of them.
        changes: the images.
        seed: of what is drawn.
    """

    def __init__(
        self, dataset: DetectionDataset, photographs: Sequence[Photograph], changes: Sequence[Change], seed: int
    ) -> None:
        self.dataset, self.photographs, self.changes, self.seed = dataset, photographs, changes, seed

    def __len__(self) -> int:
        return len(self.changes)

    def __getitem__(self, number: int) -> tuple[Tensor, Target]:
        change = self.changes[number]
        image, target = self.dataset[change.index]
        pixels, rest = image.as_subclass(Tensor), (self.photographs, change.index, change.level, self.seed)
        match change.stress:
            case Occlusion():
                return change.stress.apply(pixels, *rest, change.anchors), target
            case Bending():
                return change.stress.apply(pixels, *rest), target
        return image, target


def measure(
    find: Callable[[StressedImages], Sequence[Detection]],
    images: DetectionDataset,
    dataset: DetectionDataset,
    stresses: Sequence[Stress],
    seed: int,
) -> StressResults:
    """Measure what detects objects in a whole dataset.

    Args:
        find: from changed images to the detections in each.
        images: the photographs with all that ``find`` needs in their targets, as proposals.
        dataset: the same photographs with the boxes of their objects.
        stresses: what is done to the objects.
        seed: of what is drawn.

    Raises:
        UserError: as of ``stress_test``.
    """
    if seed < 0:
        raise UserError(f"{seed} is out of range", field="seed", fix="choose 0 or more")
    if not len(dataset):
        raise UserError("the split has no images", file=dataset.root, fix="name another split")
    photographs = photographs_of(dataset)

    def detections(changes: Sequence[Change]) -> Sequence[Detection]:
        return find(StressedImages(images, photographs, changes, seed))

    clean: Step = (None, 0.0)
    steps = [clean, *((stress, level) for stress in stresses for level in sorted(set(stress.levels) - {0}))]
    places = {step: _places(detections, photographs, *step) for step in steps}
    # All levels of an image follow each other, so that a worker finds the pieces of photographs that it has decoded.
    changes = [Change(index, *step, places[step][index]) for index in range(len(photographs)) for step in steps]
    found = detections(changes)

    targets = [dataset.target(index) for index in range(len(dataset))]
    levels = {}
    for number, step in enumerate(steps):
        mine = found[number :: len(steps)]
        curves = voc_ap(mine, targets, dataset.classes)
        recall = {
            name: float(curves.recall[name][-1]) if len(curves.recall[name]) else 0.0 if objects else math.nan
            for name, objects in curves.objects.items()
        }
        hidden = _hidden(photographs, *step, places[step], seed)
        levels[step] = LevelResults(step[1], evaluate(mine, dataset), recall, hidden)
    return StressResults(
        seed,
        tuple(
            Curve(stress.name, stress.unit, (levels[clean], *(levels[step] for step in steps if step[0] is stress)))
            for stress in stresses
        ),
    )


def _places(
    detections: Callable[[Sequence[Change]], Sequence[Detection]],
    photographs: Sequence[Photograph],
    stress: Stress | None,
    level: float,
) -> list[Anchors | None]:
    """Return for each photograph where occluders lie at a level: the worst of the grid, or None for random places.

    All objects of a photograph are hidden at the same place of the grid at once, and each takes its own worst one.
    """
    if not isinstance(stress, Occlusion) or stress.placement == "random":
        return [None] * len(photographs)
    candidates = stress.candidates()
    found = detections(
        [
            Change(index, stress, level, np.tile(candidate, (len(photograph.objects), 1)))
            for index, photograph in enumerate(photographs)
            for candidate in candidates
        ]
    )
    places: list[Anchors | None] = []
    for index, photograph in enumerate(photographs):
        mine = found[index * len(candidates) : (index + 1) * len(candidates)]
        scores = np.stack([true_class_scores(each, photograph) for each in mine])
        places.append(candidates[scores.argmin(axis=0)])
    return places


def true_class_scores(detection: Detection, photograph: Photograph) -> NDArray[np.float64]:
    """Return for each object the best score of a detection of its class that overlaps it; 0 if there is none."""
    overlaps = box_iou(torch.from_numpy(photograph.objects), detection["boxes"].double()).numpy()
    found = (overlaps > FOUND) & (detection["labels"].numpy() == photograph.object_labels[:, None])
    scores: NDArray[np.float64] = np.where(found, detection["scores"].double().numpy(), 0).max(axis=1, initial=0)
    return scores


def _hidden(
    photographs: Sequence[Photograph], stress: Stress | None, level: float, places: Sequence[Anchors | None], seed: int
) -> Hidden | None:
    """Measure which share of the objects occluders cover at a level."""
    if not isinstance(stress, Occlusion):
        return None
    fractions = np.concatenate(
        [
            hidden_fractions(stress.lay(photograph, level, seed, anchors) != NOBODY, photograph.objects)
            for photograph, anchors in zip(photographs, places, strict=True)
        ]
    )
    if not len(fractions):
        return None
    return Hidden(float(fractions.mean()), float(fractions.min()), float(fractions.max()))


class _Pixels(Dataset[Tensor]):
    """Images alone."""

    def __init__(self, images: StressedImages) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> Tensor:
        return self.images[number][0].as_subclass(Tensor)
