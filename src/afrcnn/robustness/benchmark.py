"""The stress benchmark: a detector on the same images, with their objects ever more occluded or bent.

Proposals and boxes are those of the clean images at every level. For a detector that is given its proposals, as
Fast R-CNN is, the test thus measures recognition, and not what becomes of proposals. To measure both, test a callable
that proposes anew: ``lambda images: [detect_image(detector, pixels) for ...]`` with
``afrcnn.commands.new_images.detect_image``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.ops import box_iou

from afrcnn.core.errors import UserError
from afrcnn.data.target import DetectionDataset, Target
from afrcnn.evaluation.detect import detect
from afrcnn.evaluation.formats import Detection
from afrcnn.evaluation.matching import Floats, Integers, match
from afrcnn.evaluation.results import evaluate_detections
from afrcnn.robustness.objects import objects_of
from afrcnn.robustness.occluders import Pieces
from afrcnn.robustness.occlusion import occluded_fractions
from afrcnn.robustness.stress_results import Curve, LevelResults, OccludedFraction, StressResults
from afrcnn.robustness.stresses import Change, Occlusion, Stress

_MATCHED = 0.5
"""IoU beyond which a detection is one of an object."""


def stress_test(
    detector: Callable[..., list[Detection]],
    dataset: DetectionDataset,
    stresses: Sequence[Stress] = (Occlusion(),),
    *,
    seed: int = 0,
    workers: int = 2,
) -> StressResults:
    """Measure any detector under stress.

    Args:
        detector: as a detector of torchvision. It is called with one image at a time, without gradients; all levels of
            an image follow each other. A module works on this machine's accelerator, and any other callable is called
            with what is on the CPU.
        dataset: the images, with the boxes of their objects.
        stresses: what is done to the objects.
        seed: of all that is drawn, 0 or more. The same seed gives the same pixels to every detector.
        workers: processes that read and change images.

    Raises:
        UserError: an image or annotation is missing or wrong, the seed is negative, the split is empty, or no
            piece of an image can occlude some object.
    """
    return measure(partial(detect, detector, workers=workers), dataset, stresses, seed)


class StressedImages(Dataset[tuple[Tensor, Target]]):
    """Images with occluded or bent objects. Targets stay as they are.

    Args:
        dataset: the images.
        pieces: what they are occluded by.
        changes: the images of the test.
        seed: of what is drawn.
    """

    def __init__(self, dataset: DetectionDataset, pieces: Pieces, changes: Sequence[Change], seed: int) -> None:
        self.dataset, self.pieces, self.changes, self.seed = dataset, pieces, changes, seed

    def __len__(self) -> int:
        return len(self.changes)

    def __getitem__(self, number: int) -> tuple[Tensor, Target]:
        change = self.changes[number]
        image, target = self.dataset[change.index]
        if change.stress is not None:
            image = change.stress.apply(image.as_subclass(Tensor), target, change, self.pieces, self.seed)
        return image, target


_Find = Callable[[StressedImages], Sequence[Detection]]
"""From changed images to the detections in each."""


def measure(find: _Find, dataset: DetectionDataset, stresses: Sequence[Stress], seed: int) -> StressResults:
    """Measure what detects objects in a whole dataset.

    Args:
        find: from changed images to the detections in each.
        dataset: the images with the boxes of their objects, and what else ``find`` needs in their targets.
        stresses: what is done to the objects.
        seed: of what is drawn.

    Raises:
        UserError: as of ``stress_test``.
    """
    if seed < 0:
        raise UserError(f"{seed} is out of range", field="seed", fix="choose 0 or more")
    if not len(dataset):
        raise UserError("the split has no images", file=dataset.root, fix="name another split")
    pieces, indices = Pieces(dataset), range(len(dataset))
    targets = [dataset.target(index) for index in indices]
    sizes = [dataset.image_size(index) for index in indices]
    objects = [objects_of(target, size) for target, size in zip(targets, sizes, strict=True)]

    def detections_of(changes: Sequence[Change]) -> Sequence[Detection]:
        return find(StressedImages(dataset, pieces, changes, seed))

    steps: list[tuple[Stress | None, float]] = [(None, 0.0)]
    steps += [(stress, level) for stress in stresses for level in sorted({*stress.levels} - {0})]
    anchors = [_anchors(detections_of, objects, *step) for step in steps]
    changes = [[Change(i, *step, anchors[n][i]) for i in indices] for n, step in enumerate(steps)]
    # An image's levels follow each other: a worker finds the pieces of images that it has decoded.
    detections = detections_of([*chain.from_iterable(zip(*changes, strict=True))])

    levels = []
    for number, (stress, level) in enumerate(steps):
        of_level, fractions = detections[number :: len(steps)], list[float]()
        if isinstance(stress, Occlusion):
            for target, size, (boxes, _), change in zip(targets, sizes, objects, changes[number], strict=True):
                fractions.extend(occluded_fractions(stress.lay(target, size, change, seed), boxes))
        matches = match(of_level, targets, dataset.classes)
        results = evaluate_detections(of_level, dataset, matches=matches)
        levels.append(LevelResults(level, results, matches.recall(), OccludedFraction.of(fractions)))
    curves = []
    for stress in stresses:
        of_stress = (level for level, step in zip(levels, steps, strict=True) if step[0] is stress)
        curves.append(Curve(stress.name, stress.unit, (levels[0], *of_stress)))
    return StressResults(seed, tuple(curves))


def _anchors(
    detections_of: Callable[[Sequence[Change]], Sequence[Detection]],
    objects: Sequence[tuple[Floats, Integers]],
    stress: Stress | None,
    level: float,
) -> list[Floats | None]:
    """Return for each image where occluders lie at a level: the worst places of the grid, or None for random ones.

    All objects of an image are occluded at the same place of the grid at once, and each takes its own worst one.
    """
    if not isinstance(stress, Occlusion) or stress.placement == "random":
        return [None] * len(objects)
    candidates, anchors = stress.candidates(), list[Floats | None]()
    places = [np.tile(candidate, (len(labels), 1)) for _, labels in objects for candidate in candidates]
    changes = [Change(number // len(candidates), stress, level, place) for number, place in enumerate(places)]
    detections = iter(detections_of(changes))
    for boxes, labels in objects:
        scores = np.stack([_true_class_scores(next(detections), boxes, labels) for _ in candidates])
        anchors.append(candidates[scores.argmin(axis=0)])
    return anchors


def _true_class_scores(detection: Detection, boxes: Floats, labels: Integers) -> Floats:
    """Return for each of M objects the best score of a detection of its class that overlaps it; 0 if there is none."""
    overlaps = box_iou(torch.from_numpy(boxes), detection["boxes"].double()).numpy()
    matched = (overlaps > _MATCHED) & (detection["labels"].numpy() == labels[:, None])
    return np.asarray(np.where(matched, detection["scores"].double().numpy(), 0).max(axis=1, initial=0))
