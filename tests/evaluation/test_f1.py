"""The score of best F1, against all thresholds tried one by one."""

import numpy as np
import pytest
import torch

from afrcnn.evaluation.f1 import score_of_best_f1
from afrcnn.evaluation.matching import match


def scene(rng, images=6):
    """Objects of two classes, some difficult, and detections of which some hit, with many equal scores."""
    detections, targets = [], []
    for _ in range(images):
        corners = torch.tensor(rng.uniform(0, 50, (4, 2)))
        boxes = torch.cat([corners, corners + 20], dim=1)
        labels = torch.tensor(rng.integers(1, 3, 4))
        targets.append({"boxes": boxes, "labels": labels, "difficult": torch.tensor(rng.random(4) < 0.2)})
        moved = torch.cat([boxes + torch.tensor(rng.normal(0, 3, (4, 4))), boxes[:2] + 15])
        scores = torch.tensor(np.round(rng.random(6), 1))
        detections.append({"boxes": moved, "labels": torch.cat([labels, labels[:2]]), "scores": scores})
    return detections, targets


@pytest.mark.parametrize("seed", range(8))
def test_no_other_threshold_has_a_higher_f1(seed):
    detections, targets = scene(np.random.default_rng(seed))
    objects = sum(int((~target["difficult"]).sum()) for target in targets)

    def f1(score):
        above = [{name: value[item["scores"] >= score] for name, value in item.items()} for item in detections]
        matches = match(above, targets, ["a", "b"])
        return 2 * matches.hits[matches.counted].sum() / (matches.counted.sum() + objects)

    thresholds = sorted({float(score) for item in detections for score in item["scores"]}, reverse=True)
    best = score_of_best_f1(match(detections, targets, ["a", "b"]))
    assert best == max(thresholds, key=f1)
    assert f1(best) > 0


def test_there_is_none_where_nothing_is_right():
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    target = {"boxes": torch.tensor([[0.0, 0, 9, 9]]), "labels": torch.tensor([1])}
    assert score_of_best_f1(match([nothing], [target], ["a"])) is None
    wrong = {"boxes": target["boxes"] + 50, "labels": target["labels"], "scores": torch.tensor([0.9])}
    assert score_of_best_f1(match([wrong], [target], ["a"])) is None
