"""New false positives, against their definition in plain loops."""

import numpy as np
import pytest
import torch

from afrcnn.evaluation.false_positives import new_false_positives

CLASSES = ["a", "b"]


def iou(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared)


def rows(image, *names):
    return list(zip(*(image[name].tolist() for name in names), strict=True))


def boxes_of(rng, count):
    corners = rng.integers(0, 12, (count, 2))
    return torch.tensor(np.hstack([corners, corners + rng.integers(4, 14, (count, 2))]), dtype=torch.float32)


def image_of(rng, *, scores=True):
    count = int(rng.integers(0, 12))
    image = {"boxes": boxes_of(rng, count), "labels": torch.tensor(rng.integers(1, 3, count))}
    return image | ({"scores": torch.tensor(rng.random(count), dtype=torch.float32)} if scores else {})


@pytest.mark.parametrize("seed", range(5))
def test_they_are_as_defined(seed):
    rng = np.random.default_rng(seed)
    own, base = ([image_of(rng) for _ in range(12)] for _ in range(2))
    targets = [image_of(rng, scores=False) for _ in range(12)]
    expected = []
    for image in range(12):
        mine, theirs = (rows(each[image], "boxes", "labels", "scores") for each in (own, base))
        objects = rows(targets[image], "boxes", "labels")
        for box, label, score in mine:
            if score < 0.4 or any(iou(box, other) > 0.3 for other, its in objects if its == label):
                continue
            there = [s for other, its, s in theirs if its == label and iou(box, other) > 0.3]
            if max(there, default=0) < 0.4:
                overlap = max((iou(box, other) for other, _ in objects), default=0)
                expected.append((-score, image, tuple(box), label, max(there, default=0), overlap))
    found = new_false_positives(own, base, targets, CLASSES, score=0.4, iou=0.3)
    assert len(found) > 3
    actual = [(-e.score, e.image, e.box, CLASSES.index(e.name) + 1, e.baseline_score, e.iou) for e in found]
    for one, other in zip(sorted(actual), sorted(expected), strict=True):
        assert one[:4] == other[:4]
        assert one[4:] == pytest.approx(other[4:], abs=1e-6)
    scores = [each.score for each in found]
    assert scores == sorted(scores, reverse=True)
    assert new_false_positives(own, base, targets, CLASSES, score=0.4, iou=0.3, limit=2) == found[:2]
    for each in found:
        touched = {
            CLASSES[label - 1]
            for other, label in rows(targets[each.image], "boxes", "labels")
            if iou(each.box, other) == pytest.approx(each.iou, abs=1e-6)
        }
        assert each.object_name in touched if each.iou else each.object_name is None


def test_what_a_detector_shares_with_itself_is_not_new():
    rng = np.random.default_rng(1)
    own = [image_of(rng) for _ in range(6)]
    nothing = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 6
    assert new_false_positives(own, own, nothing, CLASSES) == []
