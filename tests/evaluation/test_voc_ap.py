"""The vectorised AP against the development kit's definition, one detection and one object at a time."""

import numpy as np
import pytest
import torch

from afrcnn.evaluation.matching import match
from afrcnn.evaluation.voc_ap import _average_precision, voc_ap
from reference import plain_voc_ap

CLASSES = ("cat", "dog", "cow", "nobody")


def random_boxes(rng, count, fractional):
    corner = rng.integers(0, 8, (count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 7, (count, 2))], axis=1).astype(np.float32)
    return boxes + rng.uniform(0, 0.9, (count, 1)).astype(np.float32) if fractional else boxes


def random_case(rng):
    """A few images with few distinct boxes and scores: ties, duplicates and IoUs of exactly 1/2 abound."""
    fractional = rng.uniform() < 0.2
    tenths = rng.uniform() < 0.3  # as many objects of a class as make recalls exact tenths
    detections, targets = [], []
    for _ in range(rng.integers(1, 6)):
        count = 10 if tenths else rng.integers(0, 5)
        objects = random_boxes(rng, count, fractional)
        if count > 1 and rng.uniform() < 0.3:
            objects[1] = objects[0]  # the first of two equal overlaps
        labels = np.ones(count, int) if tenths else rng.integers(1, 4, count)
        difficult = np.zeros(count, bool) if tenths else rng.uniform(size=count) < 0.3
        found = random_boxes(rng, rng.integers(0, 9), fractional)
        found_labels = rng.integers(1, 5, len(found))
        if count:  # some on the objects, some of them twice
            copies = rng.integers(0, count, rng.integers(0, 12))
            shift = rng.integers(-1, 2, (len(copies), 4)) * (rng.uniform(size=(len(copies), 1)) < 0.5)
            on = objects[copies] + shift.astype(np.float32)
            on[:, 2:] = np.maximum(on[:, 2:], on[:, :2] + 1)
            found, found_labels = np.concatenate([found, on]), np.concatenate([found_labels, labels[copies]])
        scores = rng.choice(np.linspace(0.1, 1, rng.integers(2, 12)), len(found)).astype(np.float32)
        detections.append({"boxes": found, "labels": found_labels, "scores": scores})
        targets.append({"boxes": objects, "labels": labels, "difficult": difficult})
    return detections, targets


def assert_same(ap, expected):
    assert list(ap) == list(expected)
    np.testing.assert_allclose(list(ap.values()), list(expected.values()), rtol=0, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("seed", range(4))
def test_thousands_of_random_cases_agree_with_the_plain_loop_of_the_development_kit(seed):
    rng = np.random.default_rng(seed)
    for _ in range(750):
        detections, targets = random_case(rng)
        threshold = float(rng.choice([0.5, 0.5, 0.25, 0.75, 0.0]))
        matches = match(detections, targets, CLASSES, threshold)
        plain = plain_voc_ap(detections, targets, CLASSES, threshold)
        for metric in ("11-point", "area"):
            result = voc_ap(matches, metric)
            expected = {name: numbers[metric] for name, numbers in plain.items()}
            assert_same(result.ap, expected)
            defined = [ap for ap in expected.values() if not np.isnan(ap)]
            mean = sum(defined) / len(defined) if defined else float("nan")
            assert result.mean_ap == pytest.approx(mean, nan_ok=True)


def test_recall_by_class_is_where_the_curve_ends():
    rng = np.random.default_rng(5)
    for _ in range(200):
        detections, targets = random_case(rng)
        recall = match(detections, targets, CLASSES).recall()
        for name, numbers in plain_voc_ap(detections, targets, CLASSES).items():
            objects, found = numbers["objects"], numbers["found"]
            expected = found / objects if objects else float("nan")
            assert recall[name] == pytest.approx(expected, nan_ok=True)


def test_flags_of_the_caller_replace_difficult():
    rng = np.random.default_rng(0)
    for _ in range(200):
        detections, targets = random_case(rng)
        ignored = [rng.uniform(size=len(target["labels"])) < 0.5 for target in targets]
        plain = plain_voc_ap(detections, targets, CLASSES, ignored=ignored)
        matches = match(detections, targets, CLASSES).subset([torch.from_numpy(~flags) for flags in ignored])
        assert_same(voc_ap(matches, "area").ap, {name: numbers["area"] for name, numbers in plain.items()})


def test_crowds_of_coco_are_ignored_and_targets_without_flags_count_in_full():
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    found = [{"boxes": box, "labels": torch.tensor([1]), "scores": torch.tensor([0.9])}] * 2
    plain = {"boxes": box, "labels": torch.tensor([1])}
    crowd = plain | {"iscrowd": torch.tensor([True])}
    result = voc_ap(match(found, [crowd, plain], ["cat"]))
    assert result.objects == {"cat": 1}
    assert len(result.scores["cat"]) == 1
    assert result.ap["cat"] == 1


def one_class(boxes, scores, objects, difficult=None):
    """One image of one class."""
    detections = [
        {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.ones(len(boxes), dtype=torch.int64),
            "scores": torch.tensor(scores, dtype=torch.float32),
        }
    ]
    targets = [
        {
            "boxes": torch.tensor(objects, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.ones(len(objects), dtype=torch.int64),
            "difficult": torch.tensor(difficult or [False] * len(objects), dtype=torch.bool),
        }
    ]
    return detections, targets


def test_an_iou_of_exactly_the_threshold_is_a_miss():
    half = one_class([[0, 0, 10, 5]], [0.9], [[0, 0, 10, 10]])
    assert voc_ap(match(*half, ["cat"])).ap["cat"] == 0
    assert voc_ap(match(*half, ["cat"], 0.499)).ap["cat"] == 1


def test_the_second_detection_of_an_object_is_a_miss():
    twice = one_class([[0, 0, 10, 10]] * 2, [0.5, 0.9], [[0, 0, 10, 10], [20, 20, 30, 30]])
    result = voc_ap(match(*twice, ["cat"]), "area")
    assert result.ap["cat"] == 0.5
    assert result.recall["cat"].tolist() == [0.5, 0.5]
    assert result.precision["cat"].tolist() == [1, 0.5]
    np.testing.assert_allclose(result.scores["cat"], [0.9, 0.5], rtol=1e-6)


def test_detections_of_a_difficult_object_are_neither_hits_nor_misses():
    detections, targets = one_class(
        [[0, 0, 10, 10]] * 3 + [[20, 20, 30, 30]],
        [0.9, 0.8, 0.7, 0.6],
        [[0, 0, 10, 10], [20, 20, 30, 30]],
        difficult=[True, False],
    )
    result = voc_ap(match(detections, targets, ["cat"]))
    assert result.ap["cat"] == pytest.approx(1)
    assert result.objects == {"cat": 1}
    assert result.precision["cat"].tolist() == [1]


@pytest.mark.parametrize(("found", "thresholds_reached"), [(1, 2), (2, 3), (3, 3), (5, 6), (6, 6), (7, 7), (10, 11)])
def test_recalls_of_exact_tenths_meet_the_last_bits_of_numpy_arange(found, thresholds_reached):
    objects = [[20 * i, 0, 20 * i + 10, 10] for i in range(10)]
    detections, targets = one_class(objects[:found], [0.9] * found, objects)
    assert voc_ap(match(detections, targets, ["cat"])).ap["cat"] == pytest.approx(thresholds_reached / 11)


def test_a_class_without_objects_has_no_ap_and_no_part_in_the_mean():
    detections, targets = one_class([[0, 0, 10, 10]], [0.9], [[0, 0, 10, 10]])
    detections[0]["labels"][:] = 2
    result = voc_ap(match(detections, targets, ["cat", "dog"]))
    assert result.ap["cat"] == 0
    assert np.isnan(result.ap["dog"])
    assert result.mean_ap == 0


@pytest.mark.parametrize("metric", ["11-point", "area"])
def test_nothing_at_all_has_no_ap(metric):
    assert np.isnan(voc_ap(match([], [], ["cat"]), metric).mean_ap)
    assert voc_ap(match(*one_class([], [], [[0, 0, 1, 1]]), ["cat"]), metric).mean_ap == 0


def test_the_area_is_that_under_the_falling_envelope():
    recall, precision = np.array([0.25, 0.25, 0.5, 0.75]), np.array([1.0, 0.5, 2 / 3, 0.75])
    assert _average_precision(recall, precision, "area") == pytest.approx(0.25 * 1 + 0.5 * 0.75)


def test_mismatched_images_or_flags_are_refused():
    detections, targets = one_class([[0, 0, 1, 1]], [0.5], [[0, 0, 1, 1]])
    with pytest.raises(ValueError, match="1 images with detections but 2"):
        match(detections, targets * 2, ["cat"])
    with pytest.raises(ValueError, match="2 flags"):
        match(detections, targets, ["cat"]).subset([torch.zeros(2, dtype=torch.bool)])
