"""New false positives, against their definition in plain loops."""

import numpy as np
import pytest
import torch

from afrcnn.evaluation.false_positives import new_false_positives
from afrcnn.evaluation.matching import match
from reference import plain_iou, rows_of

CLASSES = ["a", "b"]


def boxes_of(rng, count):
    corners = rng.integers(0, 12, (count, 2))
    return torch.tensor(np.hstack([corners, corners + rng.integers(4, 14, (count, 2))]), dtype=torch.float32)


def image_of(rng, *, scores=True, empty=False):
    count = 0 if empty else int(rng.integers(0, 12))
    image = {"boxes": boxes_of(rng, count), "labels": torch.tensor(rng.integers(1, 3, count))}
    return image | ({"scores": torch.tensor(rng.random(count), dtype=torch.float32)} if scores else {})


@pytest.mark.parametrize("seed", range(5))
def test_they_are_as_defined(seed):
    rng = np.random.default_rng(seed)
    detections, baseline = ([image_of(rng) for _ in range(12)] for _ in range(2))
    targets = [image_of(rng, scores=False) for _ in range(12)]
    expected = []
    for image in range(12):
        found, known = (rows_of(each[image], "boxes", "labels", "scores") for each in (detections, baseline))
        objects = rows_of(targets[image], "boxes", "labels")
        for box, label, score in found:
            if score < 0.4 or any(plain_iou(box, other) > 0.3 for other, its in objects if its == label):
                continue
            there = [s for other, its, s in known if its == label and plain_iou(box, other) > 0.3]
            if max(there, default=0) < 0.4:
                overlap = max((plain_iou(box, other) for other, _ in objects), default=0)
                expected.append((-score, image, tuple(box), label, max(there, default=0), overlap))
    matches, of_baseline = (match(each, targets, CLASSES, 0.3) for each in (detections, baseline))
    new = new_false_positives(matches, of_baseline, score=0.4)
    assert len(new) > 3
    actual = [(-e.score, e.image, e.box, CLASSES.index(e.name) + 1, e.baseline_score, e.iou) for e in new]
    for one, other in zip(sorted(actual), sorted(expected), strict=True):
        assert one[:4] == other[:4]
        assert one[4:] == pytest.approx(other[4:], abs=1e-6)
    scores = [error.score for error in new]
    assert scores == sorted(scores, reverse=True)
    for error in new:
        touched = {
            CLASSES[label - 1]
            for other, label in rows_of(targets[error.image], "boxes", "labels")
            if plain_iou(error.box, other) == pytest.approx(error.iou, abs=1e-6)
        }
        assert error.object_name in touched if error.iou else error.object_name is None


def test_what_a_detector_shares_with_itself_is_not_new():
    rng = np.random.default_rng(1)
    detections = [image_of(rng) for _ in range(6)]
    nothing = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 6
    matches = match(detections, nothing, CLASSES)
    assert len(new_false_positives(matches, match([image_of(rng, empty=True)] * 6, nothing, CLASSES))) > 0
    assert new_false_positives(matches, matches) == []


def test_a_baseline_on_other_images_is_refused():
    nothing = match([], [], CLASSES)
    with pytest.raises(ValueError, match="same images"):
        new_false_positives(match([], [], ["a"]), nothing)
