"""AP and recall on subsets of the objects, against plain loops over detections and objects."""

import math

import numpy as np
import pytest
import torch

from afrcnn.core.errors import UserError
from afrcnn.data.voc_xml import VOCObject, write_annotation
from afrcnn.evaluation.matching import match
from afrcnn.evaluation.subsets import _confidently_recalled, all_subsets, subset_ap
from afrcnn.evaluation.voc_ap import voc_ap
from reference import found, plain_iou, plain_voc_ap, rows_of, truth

CLASSES = ("cat", "dog", "cow")


class Split(list):
    """Targets, as a dataset gives them."""

    annotation_file = None
    annotated = True

    def target(self, index):
        return self[index]


def random_boxes(rng, count):
    corner = rng.integers(0, 12, (count, 2))
    return np.hstack([corner, corner + rng.integers(2, 9, (count, 2))]).astype(np.float32)


def random_case(rng):
    """A few images of few distinct boxes and scores, with detections on and off the objects."""
    detections, targets = [], []
    for _ in range(rng.integers(1, 6)):
        boxes = random_boxes(rng, rng.integers(0, 6))
        near = boxes[rng.integers(0, len(boxes), 6)] if len(boxes) else boxes
        near = near + rng.integers(0, 2, near.shape) * (rng.random((len(near), 1)) < 0.5)
        all_found = np.concatenate([near, random_boxes(rng, 4)])
        labels = rng.integers(1, 4, len(all_found))
        detections.append(found(all_found, rng.integers(0, 11, len(all_found)) / 10, labels.tolist()))
        targets.append(
            truth(boxes, rng.integers(1, 4, len(boxes)).tolist(), difficult=(rng.random(len(boxes)) < 0.2).tolist())
        )
        targets[-1]["difficult"] = targets[-1]["difficult"].bool()
    return detections, targets


def test_ap_and_recall_on_a_subset_are_those_of_a_plain_loop():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        detections, targets = random_case(rng)
        members = [torch.from_numpy(rng.random(len(target["labels"])) < 0.5) for target in targets]
        result = subset_ap(match(detections, targets, CLASSES), members)
        plain = plain_voc_ap(detections, targets, CLASSES, ignored=[~flags for flags in members])
        assert result.objects == {name: numbers["objects"] for name, numbers in plain.items()}, seed
        for metric in ("11-point", "area"):
            expected = {name: numbers[metric] for name, numbers in plain.items()}
            assert result.ap[metric] == pytest.approx(expected, nan_ok=True), seed
            defined = [ap for ap in expected.values() if not math.isnan(ap)]
            mean = np.mean(defined) if defined else math.nan
            assert result.mean_ap[metric] == pytest.approx(mean, nan_ok=True), seed
        total, hits = (sum(numbers[key] for numbers in plain.values()) for key in ("objects", "found"))
        assert result.recall == pytest.approx(hits / total if total else math.nan, nan_ok=True), seed
        confident = sum(
            any(
                score >= 0.3 and other == label and plain_iou(box, rival) >= 0.75
                for rival, other, score in rows_of(detection, "boxes", "labels", "scores")
            )
            for detection, target, flags in zip(detections, targets, members, strict=True)
            for box, label, flag in rows_of(target | {"flags": flags}, "boxes", "labels", "flags")
            if flag
        )
        assert result.confident_recall == pytest.approx(confident / total if total else math.nan, nan_ok=True), seed


@pytest.mark.parametrize("metric", ["11-point", "area"])
def test_on_the_subset_of_all_objects_the_ap_is_the_ordinary_one_bit_for_bit(metric):
    for seed in range(20):
        detections, targets = random_case(np.random.default_rng(seed))
        matches = match(detections, targets, CLASSES)
        ordinary, result = voc_ap(matches, metric), subset_ap(matches, all_subsets(Split(targets))["all"])
        assert np.array_equal(list(result.ap[metric].values()), list(ordinary.ap.values()), equal_nan=True), seed
        assert np.array_equal(result.mean_ap[metric], ordinary.mean_ap, equal_nan=True), seed
        assert result.objects == ordinary.objects, seed


def test_subsets_divide_the_objects_that_count():
    target = truth(
        [[0, 0, 31, 33], [0, 20, 32, 52], [100, 0, 196, 96], [200, 0, 296, 95], [300, 0, 302, 2], [110, 10, 120, 20]],
        truncated=[False, False, True, False, False, False],
        occluded=[False] * 6,
        difficult=[False, False, False, False, True, False],
    )
    assert {
        name: torch.nonzero(flags).flatten().tolist() for name, (flags,) in all_subsets(Split([target])).items()
    } == {
        "all": [0, 1, 2, 3, 5],
        "overlapped": [0, 1, 5],  # 100 of 9216 pixels of object 2 are too few
        "unoccluded": [2, 3],
        "small": [0, 5],
        "medium": [1, 3],
        "large": [2],
        "truncated": [2],
        "not truncated": [0, 1, 3, 5],
        "difficult": [4],
    }


def test_the_size_of_cocos_objects_is_the_area_of_their_masks_and_crowds_are_nowhere():
    area, crowd = [1023.5, 1024.0, 9215.5, 9216.0, 10.0], [False] * 4 + [True]
    found = all_subsets(Split([truth([[i * 10, 0, i * 10 + 9, 9] for i in range(5)], area=area, iscrowd=crowd)]))
    assert {name: flags.tolist().index(True) for name, (flags,) in found.items() if int(flags.sum()) == 1} == {
        "small": 0,
        "large": 3,
    }
    assert not any(flags[4] for (flags,) in found.values())


def test_recall_by_confidence_takes_scores_and_overlaps_of_just_the_limits():
    target = truth([[0, 0, 100, 100], [200, 0, 300, 100], [0, 200, 100, 300]], [1, 1, 2])
    just = found([[0, 0, 75, 100], [200, 0, 274, 100], [0, 200, 100, 300]], [0.3, 0.9, 0.9])
    assert _confidently_recalled(match([just], [target], CLASSES)).tolist() == [True, False, False]
    faint = just | {"scores": torch.tensor([0.2999, 0.9, 0.9])}
    assert _confidently_recalled(match([faint], [target], CLASSES)).tolist() == [False, False, False]


def test_a_subset_without_objects_has_no_numbers():
    detections, targets = random_case(np.random.default_rng(0))
    nobody = [torch.zeros(len(target["labels"]), dtype=torch.bool) for target in targets]
    result = subset_ap(match(detections, targets, CLASSES), nobody)
    assert set(result.objects.values()) == {0}
    assert all(map(math.isnan, (*result.mean_ap.values(), result.recall, result.confident_recall)))


def test_flags_of_voc_annotations_make_subsets(tmp_path, rectangles):
    from afrcnn.data.layouts import open_dataset

    for folder in ("JPEGImages", "ImageSets"):
        (tmp_path / folder).symlink_to(rectangles / folder)
    for index in range(3):
        write_annotation(
            tmp_path / "Annotations" / f"test_{index}.xml",
            filename=f"test_{index}.jpg",
            height=64,
            width=64,
            objects=[VOCObject("red", (0, 0, 9, 9), occluded=index == 1, difficult=index == 2)],
        )
    dataset = open_dataset(tmp_path, "test")
    found = all_subsets(dataset)
    assert {name: [flags.tolist() for flags in found[name]] for name in ("occluded", "not occluded", "difficult")} == {
        "occluded": [[False], [True], [False]],
        "not occluded": [[True], [False], [False]],
        "difficult": [[False], [False], [True]],
    }
    assert "truncated" not in found
    with pytest.raises(UserError, match=r"list\.pkl: lists objects of COCO"):
        all_subsets(dataset, ["list.pkl"])
