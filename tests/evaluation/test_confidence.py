"""What a score says: against plain loops over thresholds and bins."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from afrcnn.evaluation.confidence import calibration, threshold_curve
from afrcnn.evaluation.matching import match
from reference import found, plain_outcomes, random_errors, truth

CLASSES = ["cat", "dog", "owl"]


def plain_detections(detections, targets):
    """Score and whether it is right, of each detection that counts; and the number of objects."""
    pairs = []
    for label in range(1, len(CLASSES) + 1):
        for (image, index), outcome in plain_outcomes(detections, targets, label, 0.5).items():
            if outcome != "ignored":
                pairs.append((float(detections[image]["scores"][index]), outcome == "hit"))
    return pairs, sum(int((~target["difficult"]).sum()) for target in targets)


@pytest.mark.parametrize("seed", range(8))
def test_precision_recall_and_f1_are_those_of_a_loop_over_thresholds(seed):
    detections, targets = random_errors(np.random.default_rng(seed), len(CLASSES))
    pairs, objects = plain_detections(detections, targets)
    curve = threshold_curve(match(detections, targets, CLASSES))
    thresholds = sorted({score for score, _ in pairs}, reverse=True)
    assert curve.scores.tolist() == thresholds
    best = (0.0, None)
    for index, threshold in enumerate(thresholds):
        shown = [right for score, right in pairs if score >= threshold]
        precision, recall = sum(shown) / len(shown), sum(shown) / objects
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        assert curve.precision[index] == pytest.approx(precision)
        assert curve.recall[index] == pytest.approx(recall)
        assert curve.f1[index] == pytest.approx(f1)
        best = max(best, (round(f1, 12), -index))
    assert -best[1] == curve.best


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("bins", "lowest"), [(10, 0.3), (4, 0.0)])
def test_calibration_is_that_of_a_loop_over_bins(seed, bins, lowest):
    rng = np.random.default_rng(seed)
    detections, targets = random_errors(rng, len(CLASSES))
    for image in detections:
        image["scores"] = torch.tensor(rng.choice([rng.random(), 0.3, 0.65, 1.0], len(image["scores"])))
    pairs, _ = plain_detections(detections, targets)
    measured = calibration(match(detections, targets, CLASSES), bins=bins, lowest=lowest)
    edges = measured.edges.tolist()
    assert edges[0] == lowest
    assert edges[-1] == 1
    error, total = 0.0, sum(score >= lowest for score, _ in pairs)
    for index, (low, high) in enumerate(pairwise(edges)):
        last = index == bins - 1
        inside = [(score, right) for score, right in pairs if low <= score < high or (last and score == 1)]
        assert measured.counts[index] == len(inside)
        if inside:
            confidence, precision = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            assert measured.confidence[index] == pytest.approx(confidence)
            assert measured.precision[index] == pytest.approx(precision)
            error += len(inside) / total * abs(precision - confidence)
        else:
            assert np.isnan(measured.confidence[index])
            assert np.isnan(measured.precision[index])
    assert measured.error == pytest.approx(error)


def test_scores_that_say_how_often_they_are_right_have_no_error():
    box, beside = [0, 0, 10, 10], [50, 50, 60, 60]
    images = [found([box if right else beside], [0.75]) for right in (True, True, True, False)]
    matches = match(images, [truth([box])] * 4, ["cat"])
    assert calibration(matches).error == pytest.approx(0)


def test_without_detections_or_objects_there_is_no_best_point_and_no_error():
    nothing = found([], [])
    empty = match([nothing], [truth([[0, 0, 9, 9]])], ["cat"])
    assert threshold_curve(empty).best is None
    assert np.isnan(calibration(empty).error)
    wrong = threshold_curve(match([found([[0, 0, 9, 9]], [0.5])], [truth([])], ["cat"]))
    assert wrong.best is None
    assert np.isnan(wrong.recall).all()
