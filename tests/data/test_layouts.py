"""Which layout a folder has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from afrcnn.core.errors import UserError
from afrcnn.data.layouts import find_layout, list_splits, open_dataset
from afrcnn.data.voc_xml import VOCObject, write_annotation


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "voc"
    (root / "JPEGImages").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    Image.new("RGB", (8, 6)).save(root / "JPEGImages" / "a.jpg")
    objects = [VOCObject("cat", (1, 2, 3, 4))]
    write_annotation(root / "Annotations" / "a.xml", filename="a.jpg", height=6, width=8, objects=objects)
    return root


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "train").mkdir()
    Image.new("RGB", (8, 6)).save(root / "train" / "a.jpg")
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 6, "width": 8}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 2, 2]}],
    }
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return root


def test_the_layout_is_found(voc: Path, coco: Path) -> None:
    datasets = open_dataset(voc, "train"), open_dataset(str(coco), "train")
    assert datasets[0].annotation_file is None
    assert datasets[1].annotation_file == coco / "annotations" / "instances_train.json"
    for dataset in datasets:
        assert dataset.classes == ("cat",)
        assert dataset[0][1]["boxes"].tolist() == [[1, 2, 3, 4]]


def test_classes_are_passed_on(voc: Path) -> None:
    assert open_dataset(voc, "train", classes=["dog", "cat"]).target(0)["labels"].tolist() == [2]


def test_a_folder_of_both_layouts_needs_the_layout_said(voc: Path, coco: Path) -> None:
    (coco / "annotations").rename(voc / "annotations")
    (coco / "train").rename(voc / "train")
    with pytest.raises(UserError, match=r"both of PASCAL VOC's layout .* say which"):
        open_dataset(voc, "train")
    assert open_dataset(voc, "train", "voc").annotation_file is None
    assert open_dataset(voc, "train", "coco").annotation_file is not None


def test_a_folder_of_neither_layout_is_told_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"looked for .*ImageSets/Main.*annotations/instances_\*\.json") as error:
        open_dataset(tmp_path, "train")
    assert error.value.file == tmp_path


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder") as error:
        open_dataset(tmp_path / "nowhere", "train")
    assert error.value.file == tmp_path / "nowhere"


def test_a_folder_of_several_years_says_which_to_name(voc: Path) -> None:
    with pytest.raises(UserError, match=re.escape(f"e.g. {voc}")):
        open_dataset(voc.parent, "train")


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_a_missing_split_lists_those_that_are_there(request: pytest.FixtureRequest, layout: str) -> None:
    with pytest.raises(UserError, match="the split is missing; choose one of train"):
        open_dataset(request.getfixturevalue(layout), "val")


def test_an_unknown_layout_is_refused(voc: Path) -> None:
    with pytest.raises(
        UserError, match="layout: unknown layout 'kitti'; choose auto, voc, pairs, coco, export or yolo"
    ):
        open_dataset(voc, "train", "kitti")


def test_each_layout_is_found_by_its_name(voc: Path) -> None:
    assert [find_layout(voc, name).name for name in ("voc", "coco")] == ["voc", "coco"]


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_every_dataset_has_the_ids_of_its_classes_in_cocos_files(request: pytest.FixtureRequest, layout: str) -> None:
    assert open_dataset(request.getfixturevalue(layout), "train").category_ids == (1,)


def test_the_listed_splits_hold_each_image_once(voc: Path, coco: Path) -> None:
    for name in ("test", "val", "cat_train", "cat_test"):
        (voc / "ImageSets" / "Main" / f"{name}.txt").write_text("a\n")
    assert list_splits(voc) == ["val", "train", "test"]
    (voc / "ImageSets" / "Main" / "trainval.txt").write_text("a\n")
    assert list_splits(voc) == ["trainval", "test"]
    assert list_splits(coco) == ["train"]
    (coco / "annotations" / "instances_val.json").write_text("{}")
    assert list_splits(coco, "coco") == ["val", "train"]


def test_a_folder_without_a_layout_has_no_splits_to_list(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="looked for PASCAL VOC's layout"):
        list_splits(tmp_path)
