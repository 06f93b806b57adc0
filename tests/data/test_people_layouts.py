"""One set of scenes in every layout: all readers agree, whoever wrote the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from afrcnn.core.errors import UserError
from afrcnn.data.layouts import find_layout, list_splits, open_dataset
from scenes import CLASSES, SCENES, WHOLE, WITH_SPLITS, WITHOUT_SPLITS, shown


@pytest.mark.parametrize("write", WITH_SPLITS, ids=lambda write: write.__name__)
def test_scenes_are_the_same_in_every_layout_with_splits(tmp_path: Path, write) -> None:
    write(tmp_path)
    train, valid = open_dataset(tmp_path, "trainval"), open_dataset(tmp_path, "test")
    assert train.classes == valid.classes == CLASSES
    assert shown(train) == SCENES["train"]
    assert shown(valid) == SCENES["valid"]
    assert len(set(train.ids)) == len(train.ids)
    assert sorted(list_splits(tmp_path)) == ["train", "val" if "val" in list_splits(tmp_path) else "valid"]


@pytest.mark.parametrize("write", WITHOUT_SPLITS, ids=lambda write: write.__name__)
def test_scenes_are_the_same_in_every_layout_without_splits(tmp_path: Path, write) -> None:
    write(tmp_path)
    assert list_splits(tmp_path) == ["trainval", "test"]
    train, test = open_dataset(tmp_path, "trainval"), open_dataset(tmp_path, "test")
    assert train.classes == test.classes == CLASSES
    assert shown(train) | shown(test) == WHOLE
    assert not shown(train).keys() & shown(test).keys()
    whole = find_layout(tmp_path).splits(tmp_path)
    assert shown(open_dataset(tmp_path, *whole)) == WHOLE


@pytest.mark.parametrize("write", (*WITH_SPLITS, *WITHOUT_SPLITS), ids=lambda write: write.__name__)
def test_what_a_mac_leaves_in_archives_and_other_hidden_files_change_nothing(tmp_path: Path, write) -> None:
    write(tmp_path)
    before = list_splits(tmp_path), shown(open_dataset(tmp_path, "trainval"))
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "__MACOSX").mkdir()
    assert (list_splits(tmp_path), shown(open_dataset(tmp_path, "trainval"))) == before


def test_a_folder_of_no_layout_is_told_all_that_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        open_dataset(tmp_path, "train")
    for words in (
        "ImageSets/Main",
        "instances_*.json",
        "_annotations.coco.json",
        "data.yaml",
        "annots/",
        "result.json",
    ):
        assert words in str(error.value)
