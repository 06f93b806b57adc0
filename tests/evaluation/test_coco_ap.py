"""COCO's numbers against cases worked out by hand and against pycocotools."""

import math

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from afrcnn.data.layouts import open_dataset
from afrcnn.evaluation.coco_ap import _METRICS, coco_ap, evaluate_coco
from reference import found, truth


def test_perfect_detections_have_ap_1_and_sizes_without_objects_have_none():
    box = [[10, 10, 30, 30]]
    numbers = coco_ap([found(box, [0.9])], [truth(box)], ["cat"])
    assert tuple(numbers) == _METRICS
    for name in ("AP", "AP50", "AP75", "APs", "AR1", "AR10", "AR100", "ARs"):
        assert numbers[name] == pytest.approx(1)
    for name in ("APm", "APl", "ARm", "ARl"):
        assert math.isnan(numbers[name])


def test_an_iou_of_0_72_is_a_hit_at_five_of_the_ten_thresholds():
    numbers = coco_ap([found([[0, 0, 72, 100]], [0.9])], [truth([[0, 0, 100, 100]])], ["cat"])
    assert numbers["AP50"] == pytest.approx(1)
    assert numbers["AP75"] == 0
    assert numbers["AP"] == pytest.approx(0.5)
    assert numbers["AR100"] == pytest.approx(0.5)


def test_a_miss_before_the_hit_halves_the_ap():
    boxes = [[100, 100, 120, 120], [0, 0, 50, 50]]
    numbers = coco_ap([found(boxes, [0.9, 0.8])], [truth([[0, 0, 50, 50]])], ["cat"])
    assert numbers["AP"] == pytest.approx(0.5)
    assert numbers["AR1"] == 0
    assert numbers["AR10"] == pytest.approx(1)


def test_the_size_of_an_object_is_the_area_of_its_segmentation_where_there_is_one():
    box = [[0, 0, 50, 50]]
    by_box = coco_ap([found(box, [0.9])], [truth(box)], ["cat"])
    by_area = coco_ap([found(box, [0.9])], [truth(box, area=[900.0], iscrowd=[False])], ["cat"])
    assert math.isnan(by_box["APs"])
    assert by_box["APm"] == pytest.approx(1)
    assert by_area["APs"] == pytest.approx(1)
    assert math.isnan(by_area["APm"])


@pytest.mark.parametrize("flag", ["difficult", "iscrowd"])
def test_detections_in_an_ignored_object_count_neither_way(flag):
    objects = truth([[0, 0, 100, 100], [120, 120, 160, 160]], **{flag: [True, False]})
    boxes = [[0, 0, 20, 20], [30, 30, 50, 50], [120, 120, 160, 160]]
    assert coco_ap([found(boxes, [0.9, 0.8, 0.7])], [objects], ["cat"])["AP"] == pytest.approx(1)


def test_no_detections_have_ap_0_and_no_objects_have_none():
    assert coco_ap([found([], [])], [truth([[0, 0, 9, 9]])], ["cat"])["AP"] == 0
    assert all(math.isnan(number) for number in coco_ap([found([], [])], [truth([])], ["cat"]).values())


def test_nothing_is_printed(capfd):
    coco_ap([found([[0, 0, 9, 9]], [0.5])], [truth([[0, 0, 9, 9]])], ["cat"])
    assert capfd.readouterr() == ("", "")


def test_mismatched_images_are_refused():
    with pytest.raises(ValueError, match="1 images with detections but 0"):
        coco_ap([found([], [])], [], ["cat"])
    with pytest.raises(ValueError, match="1 images but 2 ids"):
        coco_ap([found([], [])], [truth([])], ["cat"], ["1", "2"])


@pytest.mark.parametrize("shuffled", [False, True])
def test_random_scenes_agree_with_pycocotools_however_their_images_are_ordered(shuffled):
    """Scores have few values: which of two equal ones comes first, the order of the images decides."""
    rng = np.random.default_rng(0)
    classes = ["cat", "dog", "cow"]
    moved = 0
    for _ in range(10):
        detections, targets = [], []
        ids = rng.permutation(1000)[:8].tolist() if shuffled else range(1, 9)
        reference = {"images": [], "annotations": [], "info": {}}
        reference["categories"] = [{"id": i, "name": name} for i, name in enumerate(classes, 1)]
        results = []
        for image in ids:
            reference["images"].append({"id": image})
            corner = rng.integers(0, 60, (rng.integers(0, 6), 2))
            objects = np.concatenate([corner, corner + rng.integers(5, 130, corner.shape)], axis=1)
            labels = rng.integers(1, 4, len(objects))
            crowd = rng.uniform(size=len(objects)) < 0.2
            area = (objects[:, 2:] - objects[:, :2]).prod(axis=1) * 0.5
            copies = np.repeat(objects, 3, axis=0)
            boxes = copies + rng.integers(-4, 5, copies.shape)
            boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
            kinds = rng.integers(1, 4, len(boxes)) if rng.uniform() < 0.3 else np.repeat(labels, 3)
            scores = rng.integers(1, 4 if shuffled else 9, len(boxes)) / 8
            detections.append(found(boxes.tolist(), scores.tolist(), kinds.tolist()))
            targets.append(truth(objects.tolist(), labels.tolist(), iscrowd=crowd, area=area))
            for box, label, flag, size in zip(objects.tolist(), labels.tolist(), crowd, area, strict=True):
                bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                number = len(reference["annotations"]) + 1
                common = {"id": number, "image_id": image, "category_id": label, "bbox": bbox}
                reference["annotations"].append(common | {"iscrowd": int(flag), "area": float(size)})
            for box, label, score in zip(boxes.tolist(), kinds.tolist(), scores.tolist(), strict=True):
                bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                results.append({"image_id": image, "category_id": label, "bbox": bbox, "score": score})
        gold = COCO()
        gold.dataset = reference
        gold.createIndex()
        evaluation = COCOeval(gold, gold.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        expected = [value if value >= 0 else float("nan") for value in evaluation.stats]
        result = evaluate_coco(detections, targets, classes, [str(id_) for id_ in ids])
        numbers, by_class = result.numbers, evaluation.eval["precision"][0, :, :, 0, 2].mean(axis=0)
        by_class = [ap if ap >= 0 else math.nan for ap in by_class]
        assert list(result.ap50.values()) == pytest.approx(by_class, nan_ok=True)
        np.testing.assert_allclose(list(numbers.values()), expected, rtol=0, atol=1e-9, equal_nan=True)
        moved += coco_ap(detections, targets, classes)["AP"] != numbers["AP"]
    assert (moved > 5) == shuffled


def test_images_whose_ids_are_not_all_integers_keep_their_order():
    rng = np.random.default_rng(3)
    corner = rng.integers(0, 60, (8, 1, 2))
    boxes = np.concatenate([corner, corner + 30], axis=2)
    targets = [truth(box.tolist()) for box in boxes]
    detections = [found((box + np.array([4 * (n % 3), 0, 0, 0])).tolist(), [0.5]) for n, box in enumerate(boxes)]
    ids = ["9", "8", "7", "6", "5", "4", "3", "000001"]
    assert coco_ap(detections, targets, ["cat"], ids) == pytest.approx(
        coco_ap(detections, targets, ["cat"]), nan_ok=True, abs=0
    )


def test_the_annotations_of_real_photographs_as_detections_have_ap_1(shared):
    dataset = open_dataset(shared / "data/tiny_coco", "val2017")
    targets = [dataset.target(index) for index in range(len(dataset))]
    assert any(target["iscrowd"].any() for target in targets)
    detections = [target | {"scores": torch.full((len(target["labels"]),), 0.9)} for target in targets]
    numbers = coco_ap(detections, targets, dataset.classes)
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100"):
        assert numbers[name] == pytest.approx(1), name
