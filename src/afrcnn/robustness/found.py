"""Which objects detectors find, the more of them is hidden: the same images, the same places, every detector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import box_iou

from afrcnn.core.errors import UserError
from afrcnn.data.target import DetectionDataset
from afrcnn.evaluation.formats import Detection
from afrcnn.evaluation.matching import Floats, Integers
from afrcnn.robustness.benchmark import StressedImages
from afrcnn.robustness.objects import objects_of
from afrcnn.robustness.occluders import Pieces
from afrcnn.robustness.stresses import Change, Occlusion

_IOU = 0.5
"""With its object, that a detection exceeds which finds it; VOC's."""


@dataclass(frozen=True)
class FoundObjects:
    """What detectors find of an image's objects.

    Attributes:
        image: the index of the image in the split.
        boxes: M x 4, the objects, XYXY in pixels.
        labels: M, 1..K.
        scores: R x L x M, by detector and level: the best score, in [0, 1], of a detection of the object's class that
            overlaps it; 0 for none.
        lowest: the score from which on an object counts as found.
    """

    image: int
    boxes: Floats
    labels: Integers
    scores: Floats
    lowest: float

    @property
    def is_found(self) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """R x L x M, whether a detector finds an object at a level."""
        return np.asarray(self.scores >= self.lowest)

    @property
    def difference(self) -> int:
        """How many more objects the last detector finds than the first, in all levels together."""
        counts = self.is_found.sum(axis=(1, 2))
        return int(counts[-1] - counts[0])


def find_objects(
    detectors: Sequence[Callable[[StressedImages], Sequence[Detection]]],
    dataset: DetectionDataset,
    indices: Sequence[int],
    *,
    levels: Sequence[float] = (0.0, 0.2, 0.4, 0.6),
    score: float = 0.5,
    seed: int = 0,
) -> tuple[list[FoundObjects], StressedImages]:
    """Tell which objects detectors find in images whose objects are hidden by pieces of other images.

    Args:
        detectors: each from images to the detections in every one of them.
        dataset: the images with the boxes of their objects, and what the detectors need in their targets.
        indices: the images to look at.
        levels: the fractions of every box that are hidden, in [0, 1).
        score: the lowest score, in (0, 1], of a detection that finds an object.
        seed: of the places that are hidden; the same for every detector.

    Returns:
        The objects of each image, and the images that detectors saw: the levels of an image follow each other.

    Raises:
        UserError: an image is missing or damaged, a level or the score is out of range, or nothing can hide an object.
    """
    if not 0 < score <= 1:
        raise UserError(f"{score:g} is out of range", field="score", fix="choose from above 0 to 1")
    stress = Occlusion("photo", levels=tuple(levels))
    changes = [Change(index, stress if level else None, level) for index in indices for level in levels]
    images = StressedImages(dataset, Pieces(dataset), changes, seed)
    detections = [detect(images) for detect in detectors]
    made = []
    for number, index in enumerate(indices):
        boxes, labels = objects_of(dataset.target(index), dataset.image_size(index))
        rows = slice(number * len(levels), (number + 1) * len(levels))
        scores = [[_scores(detection, boxes, labels) for detection in of_run[rows]] for of_run in detections]
        made.append(FoundObjects(index, boxes, labels, np.array(scores), score))
    return made, images


def by_difference(objects: Sequence[FoundObjects], ids: Sequence[str]) -> list[FoundObjects]:
    """Return the images in the order in which they are shown: by how many objects one detector finds and not the other.

    That counts for and against each; of as many, the image with the smaller id comes first.

    Args:
        objects: the objects of each image.
        ids: the ids of all images, by index.
    """
    return sorted(objects, key=lambda image: (-abs(image.difference), ids[image.image]))


def _scores(detection: Detection, boxes: Floats, labels: Integers) -> Floats:
    """Return the best score (M) of a detection of each object's class that overlaps it; 0 where there is none.

    A detection finds one object, the one it overlaps most; of several detections of one, the best counts.
    """
    best = np.zeros(len(boxes))
    if not len(boxes) or not len(detection["scores"]):
        return best
    overlaps = box_iou(torch.from_numpy(boxes), detection["boxes"].double()).numpy()  # M x D
    overlaps = np.where(labels[:, None] == detection["labels"].numpy(), overlaps, 0)
    nearest = overlaps.argmax(axis=0)
    hits = np.flatnonzero(overlaps.max(axis=0) > _IOU)
    np.maximum.at(best, nearest[hits], detection["scores"].double().numpy()[hits])
    return best


def count_found(objects: Sequence[FoundObjects]) -> Integers:
    """Return how many objects each detector finds at each level, R x L."""
    return np.asarray(np.sum([image.is_found.sum(axis=2) for image in objects], axis=0), dtype=np.int64)
