"""The confusion matrix: against a plain loop over pairs of boxes."""

import numpy as np
import pytest
import torch

from afrcnn.evaluation.confusion import confusion_matrix
from afrcnn.evaluation.matching import match
from reference import found, plain_iou, random_errors, rows_of, truth

CLASSES = ["cat", "dog", "owl"]


def plain_confusion(detections, targets, lowest):
    """Image by image: take the pair with the highest IoU, count it, strike out both, until no pair overlaps enough."""
    matrix = np.zeros((len(CLASSES) + 1,) * 2, int)
    for detected, target in zip(detections, targets, strict=True):
        boxes = [row for row in rows_of(detected, "boxes", "labels", "scores") if row[2] >= lowest]
        boxes.sort(key=lambda row: -row[2])
        objects = rows_of(target, "boxes", "labels", "difficult")
        while True:
            pairs = [
                (-plain_iou(box[0], thing[0]), -box[2], i, j)
                for i, box in enumerate(boxes)
                for j, thing in enumerate(objects)
                if box and thing and not thing[2] and plain_iou(box[0], thing[0]) > 0.5
            ]
            if not pairs:
                break
            _, _, i, j = min(pairs)
            matrix[objects[j][1] - 1, boxes[i][1] - 1] += 1
            boxes[i] = objects[j] = None
        for _, label, ignored in filter(None, objects):
            matrix[label - 1, -1] += not ignored
        hard = [thing[0] for thing in objects if thing and thing[2]]
        for box, label, _ in filter(None, boxes):
            matrix[-1, label - 1] += not any(plain_iou(box, other) > 0.5 for other in hard)
        boxes, objects = [], []
    return matrix


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("lowest", [0.0, 0.4])
def test_it_counts_as_a_plain_loop_does(seed, lowest):
    detections, targets = random_errors(np.random.default_rng(seed), len(CLASSES))
    matrix = confusion_matrix(match(detections, targets, CLASSES), lowest)
    assert matrix.tolist() == plain_confusion(detections, targets, lowest).tolist()
    assert matrix[:-1].sum() == sum(int((~target["difficult"]).sum()) for target in targets)


def test_a_swap_of_two_classes_a_miss_and_a_ghost_each_have_their_cell():
    target = truth([[0, 0, 20, 20], [40, 0, 60, 20], [80, 0, 99, 20]], [1, 2, 3])
    detected = found([[0, 0, 20, 20], [40, 0, 60, 21], [200, 200, 220, 220]], [0.9, 0.8, 0.7], [1, 3, 2])
    expected = [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0]]
    assert confusion_matrix(match([detected], [target], CLASSES), 0.5).tolist() == expected


def test_nothing_is_counted_where_there_is_nothing():
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    assert not confusion_matrix(match([nothing], [nothing], CLASSES), 0.0).any()
