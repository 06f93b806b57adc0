"""The most confident false positives that a detector has and its baseline has not (the paper's Figure 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from afrcnn.evaluation.error_kinds import KINDS, error_kinds
from afrcnn.evaluation.matching import Matches, most_overlapped, overlaps


@dataclass(frozen=True)
class FalsePositive:
    """A detection where no object of its class is.

    Attributes:
        image: index of the image.
        name: the class that was detected.
        score: how confidently, in [0, 1].
        box: where: x1, y1, x2, y2 in pixels.
        baseline_score: the baseline's best score of that class there, in [0, 1]; 0 where it has no such detection.
        kind: the kind of error, of ``afrcnn.evaluation.error_kinds.KINDS``.
        object_name: the class of the object that the box overlaps most; None where it overlaps none.
        iou: by how much, in [0, 1].
    """

    image: int
    name: str
    score: float
    box: tuple[float, float, float, float]
    baseline_score: float
    kind: str
    object_name: str | None
    iou: float


def new_false_positives(
    matches: Matches, baseline: Matches, *, similar: Sequence[Sequence[str]] = (), score: float = 0.5
) -> list[FalsePositive]:
    """Find the false positives of a detector that its baseline does not have.

    A false positive is a detection that matches no object of its class, also none that the evaluation ignores. (Second
    detections of an object are therefore not among them.) The baseline has it, too, if a detection of the class, of at
    least ``score``, overlaps it by more than the IoU of a match.

    Args:
        matches: of the detector.
        baseline: of the baseline, on the same images.
        similar: sets of classes, any two of which are similar.
        score: the lowest score, in [0, 1], at which something counts as detected.

    Returns:
        The false positives, the most confident first; equal ones in the order of the images.

    Raises:
        ValueError: the two are not of the same images and classes.
    """
    if (matches.classes, matches.image_count) != (baseline.classes, baseline.image_count):
        raise ValueError("the baseline's matches are not of the same images and classes")
    kinds = error_kinds(matches, similar)
    wrong = np.flatnonzero((matches.matched < 0) & (matches.scores >= score))
    errors = matches.detections.select(wrong)
    box, detection, iou = overlaps(errors, baseline.detections)
    near, baseline_scores = iou > matches.iou_threshold, np.zeros(len(wrong))
    np.maximum.at(baseline_scores, box[near], baseline.scores[detection[near]])
    objects, ious = most_overlapped(overlaps(errors, matches.objects, any_class=True), len(wrong))
    return [
        FalsePositive(
            image=int(errors.images[i]),
            name=matches.classes[errors.labels[i] - 1],
            score=float(matches.scores[wrong[i]]),
            box=tuple(errors.boxes[i].tolist()),
            baseline_score=float(baseline_scores[i]),
            kind=KINDS[kinds[wrong[i]]],
            object_name=matches.classes[matches.objects.labels[objects[i]] - 1] if objects[i] >= 0 else None,
            iou=float(ious[i]),
        )
        for i in np.flatnonzero(baseline_scores < score)
    ]
