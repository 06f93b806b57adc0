"""What false positives cost: against AP computed anew on the detections that are left, in plain loops."""

import numpy as np
import pytest
import torch

from afrcnn.evaluation.bootstrap import resample
from afrcnn.evaluation.diagnosis import diagnose_errors, error_changes
from afrcnn.evaluation.error_kinds import KINDS, ClassGroups
from afrcnn.evaluation.matching import match
from reference import found, plain_error_kinds, plain_outcomes, plain_voc_ap, random_errors, truth

CLASSES = ["cat", "dog", "car", "owl"]
ALL = "all classes"
GROUPS = ClassGroups((("cat", "dog"), ("owl", "dog")), {"animals": ("cat", "dog", "owl")})
SIMILAR = {(1, 2), (2, 1), (2, 4), (4, 2)}


def keep(detections, kept):
    """The detections of all images that a function of image and index keeps."""
    rows = [[index for index in range(len(image["labels"])) if kept(n, index)] for n, image in enumerate(detections)]
    return [{name: value[row] for name, value in image.items()} for row, image in zip(rows, detections, strict=True)]


def plain_aps(detections, targets, threshold=0.5):
    return {name: result["area"] for name, result in plain_voc_ap(detections, targets, CLASSES, threshold).items()}


@pytest.mark.parametrize("seed", range(8))
def test_an_ap_without_a_kind_is_that_of_the_detections_that_are_left(seed):
    detections, targets = random_errors(np.random.default_rng(seed), len(CLASSES))
    errors = diagnose_errors(match(detections, targets, CLASSES), GROUPS).errors
    kinds = plain_error_kinds(detections, targets, len(CLASSES), SIMILAR)
    expected = {"AP": plain_aps(detections, targets)}
    for kind in KINDS:
        expected[f"without {kind}"] = plain_aps(keep(detections, lambda *at, kind=kind: kinds[at] != kind), targets)
    weak = np.nextafter(0.1, 0)
    outcomes = {k: v for label in range(1, 5) for k, v in plain_outcomes(detections, targets, label, weak).items()}
    placed = keep(detections, lambda *at: outcomes[at] != "second")
    expected["placed right"] = plain_aps(placed, targets, weak)
    for name, aps in expected.items():
        for row, members in ({row: [row] for row in CLASSES} | GROUPS.summaries | {ALL: CLASSES}).items():
            assert errors[row].ap[name] == pytest.approx(np.mean([aps[member] for member in members]), abs=1e-9), name


@pytest.mark.parametrize("top", [None, 0, 3, 1000])
def test_counts_are_of_the_most_confident_of_each_class_and_totals_of_all(top):
    detections, targets = random_errors(np.random.default_rng(5), len(CLASSES))
    errors = diagnose_errors(match(detections, targets, CLASSES), GROUPS, top).errors
    kinds = plain_error_kinds(detections, targets, len(CLASSES), SIMILAR)
    for label, name in enumerate(CLASSES, start=1):
        outcomes = plain_outcomes(detections, targets, label, 0.5)
        counted = [at for at, outcome in outcomes.items() if outcome != "ignored"]
        first = counted[: errors[name].objects if top is None else top]
        assert errors[name].top == len(first)
        assert errors[name].correct == sum(outcomes[at] == "hit" for at in first)
        assert errors[name].counts == {kind: sum(kinds[at] == kind for at in first) for kind in KINDS}
        assert errors[name].totals == {kind: sum(kinds[at] == kind for at in counted) for kind in KINDS}
        assert sum(errors[name].totals.values()) == sum(outcome in {"second", "miss"} for outcome in outcomes.values())
    for row, members in (GROUPS.summaries | {ALL: tuple(CLASSES)}).items():
        assert errors[row].counts == {kind: sum(errors[name].counts[kind] for name in members) for kind in KINDS}
        wrong = sum(errors[row].counts.values())
        assert errors[row].top == errors[row].correct + wrong
        shares = [errors[row].counts[kind] / wrong if wrong else np.nan for kind in KINDS]
        assert list(errors[row].fractions.values()) == pytest.approx(shares, nan_ok=True)


def test_a_perfect_detector_has_no_errors_and_a_class_without_objects_no_ap():
    target = truth([[0, 0, 50, 50], [60, 60, 90, 90]], [1, 2])
    errors = diagnose_errors(
        match([found([[0, 0, 50, 50], [60, 60, 90, 90]], [0.9, 0.8], [1, 2])], [target], CLASSES), GROUPS
    )
    assert errors.errors[ALL].counts == dict.fromkeys(KINDS, 0)
    assert np.isnan(list(errors.errors[ALL].fractions.values())).all()
    assert errors.errors["animals"].ap["AP"] == errors.errors["cat"].ap["placed right"] == 1
    assert np.isnan(errors.errors["car"].ap["AP"])


def test_a_badly_placed_box_is_worth_its_object_once_placed_right():
    target = truth([[0, 0, 50, 50]])
    poor = match([found([[0, 0, 50, 20], [0, 0, 50, 50]], [0.9, 0.8])], [target], CLASSES)
    ap = diagnose_errors(poor, GROUPS).errors["cat"].ap
    assert (ap["AP"], ap["without localisation"], ap["placed right"]) == (0.5, 1, 1)


def test_changes_are_those_of_splits_with_each_image_as_often():
    rng = np.random.default_rng(3)
    detections, targets = random_errors(rng, len(CLASSES))
    baseline, _ = random_errors(rng, len(CLASSES))
    for image in [*detections, *baseline]:  # equal scores would be ordered by image
        image["scores"] = torch.from_numpy(rng.random(len(image["scores"])))
    draws, top = resample(len(targets), 60, seed=2), 1000  # the most confident are all
    one, other = (diagnose_errors(match(each, targets, CLASSES), GROUPS, top) for each in (detections, baseline))
    changes = error_changes(one, other, draws)
    drawn = []
    for draw in draws:
        chosen = np.repeat(np.arange(len(targets)), draw)
        pair = [
            diagnose_errors(match([each[i] for i in chosen], [targets[i] for i in chosen], CLASSES), GROUPS, top)
            for each in (detections, baseline)
        ]
        numbers = [diagnosis.errors[ALL].fractions | diagnosis.errors[ALL].ap for diagnosis in pair]
        drawn.append([numbers[0][name] - numbers[1][name] for name in numbers[0]])
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
    for (name, change), bottom, top_end in zip(changes[ALL].items(), low, high, strict=True):
        now, before = (it.errors[ALL].fractions | it.errors[ALL].ap for it in (one, other))
        assert change.value == now[name] - before[name]
        assert (change.low, change.high) == pytest.approx((bottom, top_end), abs=1e-9), name
    assert list(changes) == [*CLASSES, "animals", ALL]


def test_a_detector_does_not_change_against_itself():
    detections, targets = random_errors(np.random.default_rng(0), len(CLASSES))
    one = diagnose_errors(match(detections, targets, CLASSES), GROUPS)
    changes = error_changes(one, one, resample(len(targets), 20))
    assert {tuple(change) for change in changes[ALL].values()} == {(0.0, 0.0, 0.0)}
