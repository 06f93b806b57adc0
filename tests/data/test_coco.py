"""COCO layout: what is read, and that each mistake in it is named."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from afrcnn.core.errors import UserError
from afrcnn.data.coco import COCOLayout
from afrcnn.data.layouts import list_splits

open_coco = COCOLayout().open

Content = dict[str, list[dict[str, Any]]]


def content() -> Content:
    """Three images of 30 x 40; the objects are not in the images' order, the categories not in their ids'."""
    polygon = [[10.0, 5.0, 20.0, 5.0, 20.0, 25.0]]
    return {
        "images": [{"id": id_, "file_name": f"{id_:012d}.jpg", "height": 30, "width": 40} for id_ in (7, 3, 9)],
        "categories": [{"id": 18, "name": "dog"}, {"id": 5, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 18, "bbox": [0, 0, 40, 30], "area": 900.5, "iscrowd": 1},
            {"id": 2, "image_id": 7, "category_id": 5, "bbox": [10, 5, 10, 20], "area": 100, "segmentation": polygon},
            {"id": 4, "image_id": 9, "category_id": 5, "bbox": [1.5, 2.25, 4.5, 6], "iscrowd": 0},
        ],
    }


def write(root: Path, what: object) -> Path:
    path = root / "annotations" / "instances_val.json"
    path.write_text(json.dumps(what))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val").mkdir()
    write(tmp_path, content())
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for image in content()["images"]:
        Image.fromarray(pixels).save(tmp_path / "val" / image["file_name"])
    return tmp_path


def test_boxes_go_to_their_images_as_corners(folder: Path) -> None:
    dataset = open_coco(folder, "val")
    assert dataset.ids == ["7", "3", "9"]
    assert [dataset.target(i)["boxes"].tolist() for i in range(3)] == [
        [[10, 5, 20, 25]],
        [],
        [[0, 0, 40, 30], [1.5, 2.25, 6, 8.25]],
    ]
    image, target = dataset[2]
    assert isinstance(image, tv_tensors.Image)
    assert image.shape == (3, 30, 40)
    assert isinstance(target["boxes"], tv_tensors.BoundingBoxes)
    assert target["boxes"].dtype == torch.float32
    assert target["boxes"].canvas_size == (30, 40)
    assert target["image_id"] == "9"


def test_labels_count_the_categories_in_the_order_of_their_ids(folder: Path) -> None:
    dataset = open_coco(folder, "val")
    assert dataset.classes == ("cat", "dog")
    assert dataset.category_ids == (5, 18)
    assert dataset.target(2)["labels"].tolist() == [2, 1]
    assert dataset.target(2)["labels"].dtype == torch.int64


def test_given_classes_keep_their_order(folder: Path) -> None:
    dataset = open_coco(folder, "val", ["dog", "cat"])
    assert dataset.category_ids == (18, 5)
    assert dataset.target(2)["labels"].tolist() == [1, 2]


def test_crowds_are_flagged_and_areas_are_of_the_mask_or_else_of_the_box(folder: Path) -> None:
    dataset = open_coco(folder, "val")
    assert dataset.target(2)["iscrowd"].tolist() == [True, False]
    assert dataset.target(2)["annotation_id"].tolist() == [1, 4]
    assert dataset.target(2)["area"].tolist() == [900.5, 27]
    assert dataset.target(0)["iscrowd"].tolist() == [False]
    assert dataset.target(0)["area"].tolist() == [100]


def test_an_image_without_objects_has_empty_fields(folder: Path) -> None:
    target = open_coco(folder, "val").target(1)
    assert target["boxes"].shape == (0, 4)
    for name, dtype in (("labels", torch.int64), ("iscrowd", torch.bool), ("area", torch.float32)):
        assert target[name].shape == (0,)
        assert target[name].dtype == dtype


def test_a_split_without_any_object_is_read(folder: Path) -> None:
    write(folder, content() | {"annotations": []})
    dataset = open_coco(folder, "val")
    assert [len(dataset.target(i)["boxes"]) for i in range(3)] == [0, 0, 0]


def test_boxes_within_a_pixel_of_the_image_are_clipped(folder: Path) -> None:
    what = content()
    what["annotations"][0]["bbox"] = [-0.25, -1, 41.25, 31.5]
    write(folder, what)
    assert open_coco(folder, "val").target(2)["boxes"][0].tolist() == [0, 0, 40, 30]


def test_the_boxes_without_area_in_the_published_files_are_passed_over(folder: Path) -> None:
    what = content()
    what["images"].append({"id": 200365, "file_name": "000000000003.jpg", "height": 30, "width": 40})
    what["annotations"].append({"id": 918, "image_id": 200365, "category_id": 5, "bbox": [29.65, 8.33, 1.03, 0.0]})
    write(folder, what)
    assert open_coco(folder, "val").target(3)["boxes"].shape == (0, 4)


@pytest.mark.parametrize("file_name", ["elsewhere/x.jpg", "val/part/x.jpg", "part/x.jpg"])
def test_images_are_found_from_the_folder_or_from_the_split_on(folder: Path, file_name: str) -> None:
    path = folder / ("val" if file_name == "part/x.jpg" else "") / file_name
    path.parent.mkdir(parents=True)
    (folder / "val" / "000000000003.jpg").rename(path)
    what = content()
    what["images"][1]["file_name"] = file_name
    write(folder, what)
    dataset = open_coco(folder, "val")
    assert dataset.image_path(1) == path
    assert dataset[1][0].shape == (3, 30, 40)


def test_the_annotation_file_is_told(folder: Path) -> None:
    assert open_coco(folder, "val").annotation_file == folder / "annotations" / "instances_val.json"


# Mistakes: each is one line that names the file, the field and the fix.


def change(where: str, row: int, **fields: object) -> Callable[[Content], object]:
    return lambda what: what[where][row].update(fields)


def drop(where: str, row: int, key: str) -> Callable[[Content], object]:
    return lambda what: what[where][row].pop(key)


@pytest.mark.parametrize(
    ("spoil", "field", "problem"),
    [
        (change("annotations", 1, bbox=[10, 5, 0, 20]), "annotations[id=2].bbox", "no area"),
        (change("annotations", 1, bbox=[10, 5, 5, -2]), "annotations[id=2].bbox", "no area"),
        (change("annotations", 1, bbox=[30, 5, 12, 20]), "annotations[id=2].bbox", "outside the image of 40 x 30"),
        (change("annotations", 1, bbox=[-3, 5, 12, 20]), "annotations[id=2].bbox", "outside the image"),
        (change("annotations", 1, bbox=[float("nan"), 5, 1, 2]), "annotations[id=2].bbox", "not finite"),
        (change("annotations", 1, bbox=[1, 5, float("inf"), 2]), "annotations[id=2].bbox", "not finite"),
        (change("annotations", 1, bbox=[1, 5, 2]), "annotations[id=2].bbox", "not a list of four numbers"),
        (change("annotations", 1, bbox=[1, 5, "2", None]), "annotations[id=2].bbox", "not a list of four numbers"),
        (change("annotations", 1, bbox=None), "annotations[id=2].bbox", "wrong type"),
        (change("annotations", 1, image_id=8), "annotations[id=2].image_id", "no image has the id 8"),
        (change("annotations", 1, image_id="7"), "annotations[id=2].image_id", "'7' is of the wrong type"),
        (change("annotations", 1, category_id=6), "annotations[id=2].category_id", "no category has the id 6"),
        (change("annotations", 1, iscrowd="no"), "annotations[id=2].iscrowd", "neither 0 nor 1"),
        (change("annotations", 1, area="big"), "annotations[id=2].area", "wrong type"),
        (change("annotations", 1, id=1), "annotations[1].id", "the id 1 is given twice"),
        (change("images", 1, id=7), "images[1].id", "the id 7 is given twice"),
        (change("images", 1, width=0), "images[id=3].width", "0 x 30 is not a valid size"),
        (change("categories", 1, id=18), "categories[1].id", "the id 18 is given twice"),
        (change("categories", 1, name="dog"), "categories", "two categories have the same name"),
        *((drop("annotations", 1, key), f"annotations[{at}].{key}", "is missing")
          for key, at in (("id", 1), ("bbox", "id=2"), ("image_id", "id=2"), ("category_id", "id=2"))),
        *((drop("images", 1, key), f"images[{at}].{key}", "is missing")
          for key, at in (("id", 1), ("height", "id=3"), ("width", "id=3"), ("file_name", "id=3"))),
        *((drop("categories", 1, key), f"categories[{at}].{key}", "is missing")
          for key, at in (("id", 1), ("name", "id=5"))),
        *((lambda what, key=key: what.pop(key), key, "is missing") for key in ("images", "annotations", "categories")),
        (lambda what: what["images"].append(3), "images[3]", "is not an object"),
        (lambda what: what["images"].clear(), "images", "the split is empty"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_annotations_is_named(
    folder: Path, spoil: Callable[[Content], object], field: str, problem: str
) -> None:
    what = content()
    spoil(what)
    path = write(folder, what)
    with pytest.raises(UserError, match=re.escape(problem)) as error:
        open_coco(folder, "val")
    assert (error.value.file, error.value.field) == (path, field)
    assert error.value.fix
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", [b"", b'{"images": [', b"\xff\xfe\x80", b"[" * 100_000, b"[]", b"3"])
def test_malformed_json_is_named(folder: Path, text: bytes) -> None:
    path = folder / "annotations" / "instances_val.json"
    path.write_bytes(text)
    with pytest.raises(UserError, match=r"cannot be read as JSON|no object with images") as error:
        open_coco(folder, "val")
    assert error.value.file == path
    assert error.value.fix


def test_a_missing_split_lists_those_that_are_there(folder: Path) -> None:
    (folder / "annotations" / "instances_train.json").write_text("{}")
    with pytest.raises(UserError, match=r"instances_test\.json: the split is missing; choose one of train, val$"):
        open_coco(folder, "test")


def test_a_missing_image_is_named(folder: Path) -> None:
    path = folder / "val" / "000000000003.jpg"
    path.unlink()
    with pytest.raises(UserError, match=r"images\[id=3\]\.file_name.*the image is missing") as error:
        open_coco(folder, "val")
    assert error.value.file == path


def test_annotated_categories_must_be_among_the_given_classes(folder: Path) -> None:
    with pytest.raises(UserError, match="unknown class 'dog'") as error:
        open_coco(folder, "val", ["cat"])
    assert error.value.field == "annotations[id=1].category_id"


def test_given_classes_must_be_categories_and_differ(folder: Path) -> None:
    with pytest.raises(UserError, match="no category is named 'yak'; choose of cat, dog"):
        open_coco(folder, "val", ["cat", "dog", "yak"])
    with pytest.raises(UserError, match="classes: a class is named twice"):
        open_coco(folder, "val", ["cat", "dog", "cat"])


def test_an_image_of_another_size_than_its_annotation_is_named_with_both_files(folder: Path) -> None:
    path = folder / "val" / "000000000003.jpg"
    Image.new("RGB", (40, 31)).save(path)
    with pytest.raises(UserError, match=r"40 x 31 pixels.*instances_val\.json says 40 x 30") as error:
        open_coco(folder, "val")[1]
    assert error.value.file == path


def test_targets_paths_and_sizes_do_not_read_the_image(folder: Path) -> None:
    path = folder / "val" / "000000000007.jpg"
    path.write_bytes(b"no image at all")
    dataset = open_coco(folder, "val")
    assert len(dataset.target(0)["boxes"]) == 1
    assert (dataset.image_path(0), dataset.image_size(0)) == (path, (30, 40))


def test_transforms_move_boxes(folder: Path) -> None:
    dataset = open_coco(folder, "val")
    image, target = v2.Compose([v2.RandomHorizontalFlip(p=1), v2.Resize((60, 120))])(*dataset[0])
    assert image.shape == (3, 60, 120)
    assert target["boxes"].tolist() == [[60, 10, 90, 50]]


def test_a_dataset_survives_pickling_for_data_loading_workers(folder: Path) -> None:
    dataset = pickle.loads(pickle.dumps(open_coco(folder, "val")))
    assert dataset.category_ids == (5, 18)
    assert dataset[2][1]["boxes"].tolist() == [[0, 0, 40, 30], [1.5, 2.25, 6, 8.25]]


def test_the_content_of_the_file_is_let_go(folder: Path) -> None:
    """What remains of an object is some tens of bytes, its mask not among them."""
    what = content()
    row = what["annotations"][1] | {"segmentation": [[1.5] * 500]}
    what["annotations"] = [row | {"id": id_} for id_ in range(2000)]
    write(folder, what)
    assert len(pickle.dumps(open_coco(folder, "val"))) < 50 * 2000


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_real_annotations_are_read_whole(shared: Path, split: str) -> None:
    """Against the file itself, image by image."""
    root = shared / "data" / "tiny_coco"
    dataset = open_coco(root, split)
    what = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
    assert len(dataset.classes) == 80
    assert dataset.category_ids[-1] == 90
    names = {category["id"]: category["name"] for category in what["categories"]}
    crowds = 0
    for i, image in enumerate(what["images"]):
        rows = [row for row in what["annotations"] if row["image_id"] == image["id"]]
        target = dataset.target(i)
        assert target["image_id"] == str(image["id"])
        assert [dataset.classes[label - 1] for label in target["labels"]] == [names[row["category_id"]] for row in rows]
        corners = np.array([row["bbox"] for row in rows]).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        assert np.allclose(target["boxes"].numpy(), corners, rtol=0, atol=1e-4)
        assert np.allclose(target["area"].numpy(), [row["area"] for row in rows])
        crowds += int(target["iscrowd"].sum())
        if i % 10 == 0:
            assert dataset[i][0].shape == (3, image["height"], image["width"])
    assert crowds == sum(row["iscrowd"] for row in what["annotations"]) > 0


# Test sets whose annotations are not published.


def without_annotations(folder: Path, split: str = "test") -> Path:
    info = {key: value for key, value in content().items() if key != "annotations"}
    path = folder / "annotations" / f"image_info_{split}.json"
    path.write_text(json.dumps(info))
    return path


def test_a_split_of_images_alone_has_no_objects_and_the_ids_of_its_categories(folder: Path) -> None:
    path = without_annotations(folder)
    (folder / "val").rename(folder / "test")
    dataset = open_coco(folder, "test", ["dog", "cat"])
    assert not dataset.annotated
    assert (dataset.ids, dataset.category_ids, dataset.annotation_file) == (["7", "3", "9"], (18, 5), path)
    image, target = dataset[2]
    assert image.shape == (3, 30, 40)
    assert target["boxes"].shape == (0, 4)
    assert COCOLayout().splits(folder) == ["test", "val"]


def test_the_images_of_test_dev_lie_in_the_folder_of_the_test_set(folder: Path) -> None:
    without_annotations(folder, "test-dev2017")
    (folder / "val").rename(folder / "test2017")
    dataset = open_coco(folder, "test-dev2017")
    assert dataset.image_path(0) == folder / "test2017" / "000000000007.jpg"
    without_annotations(folder, "test2017")
    assert list_splits(folder) == ["val", "test2017"]


def test_a_folder_of_images_alone_has_this_layout(folder: Path) -> None:
    (folder / "annotations/instances_val.json").unlink()
    assert not COCOLayout().recognises(folder)
    without_annotations(folder)
    assert COCOLayout().recognises(folder)


def test_annotations_come_before_a_file_of_images_alone_and_must_be_in_it(folder: Path) -> None:
    without_annotations(folder, "val")
    assert open_coco(folder, "val").annotated
    write(folder, {key: value for key, value in content().items() if key != "annotations"})
    with pytest.raises(UserError, match=r"instances_val\.json: annotations: is missing"):
        open_coco(folder, "val")


# What other tools write.


@pytest.mark.parametrize("area", [0, -1, float("nan"), float("inf"), -float("inf")])
def test_an_area_that_is_none_becomes_the_boxs(folder: Path, area: float) -> None:
    what = content()
    what["annotations"][1]["area"] = area
    write(folder, what)
    assert open_coco(folder, "val").target(0)["area"].tolist() == [200]


@pytest.mark.parametrize("name", ["/etc/x.jpg", "../x.jpg", "part/../../x.jpg", "C:/data/x.jpg", "..\\x.jpg"])
def test_an_image_outside_the_dataset_is_refused_when_it_is_opened(folder: Path, name: str) -> None:
    Image.new("RGB", (40, 30)).save(folder.parent / "x.jpg")
    what = content()
    what["images"][1]["file_name"] = name
    path = write(folder, what)
    with pytest.raises(UserError, match="leads out of the dataset") as error:
        open_coco(folder, "val")
    assert (error.value.file, error.value.field) == (path, "images[id=3].file_name")


@pytest.mark.parametrize("prefix", ["/home/someone/upload/", "C:\\Users\\me\\", "..\\..\\"])
def test_a_path_of_another_machine_means_the_image_of_that_name(folder: Path, prefix: str) -> None:
    what = content()
    what["images"][1]["file_name"] = prefix + what["images"][1]["file_name"]
    write(folder, what)
    assert open_coco(folder, "val").image_path(1) == folder / "val/000000000003.jpg"


@pytest.mark.parametrize("place", ["images/val", "images"])
def test_images_may_lie_in_a_folder_called_images(folder: Path, place: str) -> None:
    (folder / "images").mkdir()
    (folder / "val").rename(folder / "images/val")
    if place == "images":
        for path in (folder / "images/val").iterdir():
            path.rename(folder / "images" / path.name)
        (folder / "images/val").rmdir()
    assert open_coco(folder, "val").image_path(0) == folder / place / "000000000007.jpg"


def test_flags_of_voc_in_further_fields_are_read(folder: Path) -> None:
    what = content()
    what["annotations"][1]["difficult"] = 1
    write(folder, what)
    dataset = open_coco(folder, "val")
    assert dataset.target(0)["difficult"].tolist() == [True]
    assert dataset.target(2)["difficult"].tolist() == [False, False]
    assert "truncated" not in dataset.target(0)


def test_a_category_above_all_others_is_no_class(folder: Path) -> None:
    what = content()
    what["categories"] = [category | {"supercategory": "pets"} for category in what["categories"]]
    what["categories"].append({"id": 0, "name": "pets", "supercategory": "none"})
    write(folder, what)
    assert open_coco(folder, "val").classes == ("cat", "dog")
    what["categories"][-1]["supercategory"] = "animals"
    write(folder, what)
    assert open_coco(folder, "val").classes == ("pets", "cat", "dog")
