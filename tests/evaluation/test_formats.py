"""Files of detections are read back as they were, and malformed ones are named with their line."""

import json

import numpy as np
import pytest
import torch

from afrcnn.core.errors import UserError
from afrcnn.evaluation.formats import (
    read_coco_results,
    read_voc_results,
    write_coco_results,
    write_voc_results,
)

IDS = ["apple_1", "000012", "139", "a photograph, 2"]
CLASSES = ("cat", "traffic light", "nobody")
CATEGORIES = (17, 10, 90)


def random_detections(seed):
    rng = np.random.default_rng(seed)
    detections = []
    for _ in IDS:
        count = rng.integers(0, 6)
        corner = rng.uniform(0, 400, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0, 100, corner.shape)], axis=1).astype(np.float32)
        detections.append(
            {
                "boxes": torch.from_numpy(boxes),
                "labels": torch.from_numpy(rng.integers(1, 3, count)),
                "scores": torch.from_numpy(rng.uniform(size=count).astype(np.float32) ** 8),
            }
        )
    return detections


def assert_same(read, written, tolerance):
    assert len(read) == len(written)
    for ours, expected in zip(read, written, strict=True):
        assert (ours["boxes"].dtype, ours["labels"].dtype) == (torch.float32, torch.int64)
        assert torch.equal(ours["scores"], expected["scores"])
        assert torch.equal(ours["labels"], expected["labels"])
        assert ours["boxes"].shape == expected["boxes"].shape
        assert torch.allclose(ours["boxes"], expected["boxes"], rtol=0, atol=tolerance)


def by_class(detections):
    """The same detections, those of an image by class."""
    order = [torch.argsort(found["labels"], stable=True) for found in detections]
    return [{key: value[o] for key, value in found.items()} for o, found in zip(order, detections, strict=True)]


def test_coco_results_come_back_bit_by_bit(tmp_path):
    for seed in range(5):
        detections = random_detections(seed)
        write_coco_results(tmp_path / "new/results.json", detections, IDS, CATEGORIES)
        assert_same(read_coco_results(tmp_path / "new/results.json", IDS, CATEGORIES), detections, 0)


def test_voc_results_come_back_with_the_same_scores_and_boxes(tmp_path):
    for seed in range(5):
        detections = random_detections(seed)
        write_voc_results(tmp_path / "results/VOC2007/Main", detections, IDS, CLASSES, "test")
        read = read_voc_results(tmp_path / "results/VOC2007/Main", IDS, CLASSES, "test")
        assert_same(read, by_class(detections), 1e-5)


@pytest.mark.parametrize("prefix", ["comp3_", "", "comp10_"])
def test_files_of_any_competition_are_read_from_their_folder_or_by_one_of_them(tmp_path, prefix):
    detections = random_detections(0)
    write_voc_results(tmp_path, detections, IDS, CLASSES, "test")
    for file in list(tmp_path.iterdir()):
        file.rename(file.with_name(file.name.replace("comp4_", prefix)))
    assert_same(read_voc_results(tmp_path, IDS, CLASSES, "test"), by_class(detections), 1e-5)
    write_voc_results(tmp_path, random_detections(1), IDS, CLASSES, "test")
    with pytest.raises(UserError, match=r"holds both .*det_test_cat.txt and .*det_test_cat.txt; name a file"):
        read_voc_results(tmp_path, IDS, CLASSES, "test")
    file = tmp_path / f"{prefix}det_test_nobody.txt"
    assert_same(read_voc_results(file, IDS, CLASSES, "test"), by_class(detections), 1e-5)


def test_coco_results_hold_the_ids_categories_and_boxes_of_the_format(tmp_path):
    found = {
        "boxes": torch.tensor([[1.5, 2, 11.5, 22]]),
        "labels": torch.tensor([2]),
        "scores": torch.tensor([0.5]),
    }
    write_coco_results(tmp_path / "results.json", [found] * 4, IDS, CATEGORIES)
    records = json.loads((tmp_path / "results.json").read_text())
    assert [record["image_id"] for record in records] == ["apple_1", "000012", 139, "a photograph, 2"]
    assert records[0] == {"image_id": "apple_1", "category_id": 10, "bbox": [1.5, 2, 10, 20], "score": 0.5}


def test_no_detections_at_all_make_an_empty_list(tmp_path):
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    write_coco_results(tmp_path / "results.json", [empty] * 4, IDS, CATEGORIES)
    assert json.loads((tmp_path / "results.json").read_text()) == []
    assert_same(read_coco_results(tmp_path / "results.json", IDS, CATEGORIES), [empty] * 4, 0)


def test_voc_results_are_in_inclusive_pixels_from_1_with_a_file_for_every_class(tmp_path):
    found = {"boxes": torch.tensor([[0.0, 4, 10, 20]]), "labels": torch.tensor([2]), "scores": torch.tensor([0.25])}
    write_voc_results(tmp_path, [found], ["000012"], CLASSES, "test")
    assert (tmp_path / "comp4_det_test_traffic light.txt").read_text() == "000012 0.25 1 5 10 20\n"
    assert (tmp_path / "comp4_det_test_cat.txt").read_text() == ""
    assert (tmp_path / "comp4_det_test_nobody.txt").read_text() == ""


def test_a_class_and_a_split_cannot_choose_the_folder_of_their_file_and_are_read_again(tmp_path):
    classes, split = ["cat", "/../../dog", "a/b"], "folder/test"
    detections = [{"boxes": [[1.0, 2.0, 3.0, 4.0]], "labels": [3], "scores": [0.5]}]
    write_voc_results(tmp_path / "a", detections, ["x"], classes, split)
    assert {file.parent for file in tmp_path.rglob("*.txt")} == {tmp_path / "a"}
    assert (tmp_path / "a" / "comp4_det_folder%2Ftest_a%2Fb.txt").is_file()
    [again] = read_voc_results(tmp_path / "a", ["x"], classes, split)
    assert again["labels"].tolist() == [3] and again["boxes"].tolist() == [[1, 2, 3, 4]]


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: cannot be read"):
        read_coco_results(tmp_path / "none.json", IDS, CATEGORIES)
    with pytest.raises(UserError, match=r"comp4_det_test_cat\.txt: cannot be read"):
        read_voc_results(tmp_path, IDS, CLASSES, "test")


GOOD = {"image_id": "apple_1", "category_id": 17, "bbox": [0, 0, 1, 1], "score": 0.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "other"}, r"\[1\]\.image_id: the image 'other' is not in the dataset"),
        ({"image_id": ["apple_1"]}, r"\[1\]\.image_id: "),
        ({"category_id": 1}, r"\[1\]\.category_id: the category 1 "),
        ({"category_id": {}}, r"\[1\]\.category_id: "),
        ({"bbox": [0, 0, 1]}, r"\[1\]\.bbox: \[0, 0, 1\] is not a box"),
        ({"bbox": [0, 0, -1, 1]}, r"\[1\]\.bbox: "),
        ({"bbox": [0, 0, float("nan"), 1]}, r"\[1\]\.bbox: "),
        ({"bbox": ["0", 0, 1, 1]}, r"\[1\]\.bbox: "),
        ({"score": None}, r"\[1\]\.score: None is not a finite number"),
        ({"score": float("inf")}, r"\[1\]\.score: "),
        ({"score": 10**400}, r"\[1\]\.score: "),
    ],
)
def test_a_wrong_field_of_coco_results_is_named(tmp_path, change, message):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([GOOD, GOOD | change]))
    with pytest.raises(UserError, match=r"results\.json: " + message):
        read_coco_results(path, IDS, CATEGORIES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[\n{},\n{", "line 3: is not valid JSON"),
        ("{}", "is not a list"),
        ("[3]", r"\[0\]: is not a record"),
        ("[{}]", r"\[0\]\.image_id: is missing"),
        (b"\xff\xfe", "is not text"),
    ],
)
def test_a_malformed_file_of_coco_results_is_named(tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=r"results\.json: " + message):
        read_coco_results(path, IDS, CATEGORIES)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "is not a detection"),
        ("apple_1 0.5 1 1 2", "is not a detection"),
        ("apple_1 0.5 1 1 2 x", "is not a detection"),
        ("apple_1 nan 1 1 2 2", "a number is not finite"),
        ("apple_1 0.5 1 1 2 1e300", "a number is not finite"),
        ("apple_1 0.5 5 1 3 2", "the box ends before it begins"),
        ("other 0.5 1 1 2 2", "the image 'other' is not in the dataset"),
    ],
)
def test_a_wrong_line_of_voc_results_is_named(tmp_path, line, message):
    for name in CLASSES:
        (tmp_path / f"comp4_det_test_{name}.txt").write_text("")
    (tmp_path / "comp4_det_test_cat.txt").write_text(f"apple_1 0.5 1 1 2 2\n{line}\n")
    with pytest.raises(UserError, match=rf"comp4_det_test_cat\.txt: line 2: .*{message}"):
        read_voc_results(tmp_path, IDS, CLASSES, "test")


def test_a_failed_write_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "results.json"
    write_coco_results(path, random_detections(0), IDS, CATEGORIES)
    before = path.read_bytes()
    broken = [*random_detections(1)[:-1], {"boxes": torch.zeros(1, 4)}]
    with pytest.raises(KeyError):
        write_coco_results(path, broken, IDS, CATEGORIES)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
