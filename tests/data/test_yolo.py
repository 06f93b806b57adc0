"""YOLO layout: what its files may say, and that each mistake in them is named."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from afrcnn.core.errors import UserError
from afrcnn.data.layouts import list_splits, open_dataset
from scenes import CLASSES, WITH_SPLITS, roboflow_yolo, ultralytics, write_image, write_text, yolo_folders, yolo_lists


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One image of 32 x 64 in the whole, without labels yet."""
    write_image(tmp_path / "images/a.jpg")
    write_text(tmp_path / "classes.txt", "cat\ndog\n")
    write_text(tmp_path / "labels/a.txt", "")
    return tmp_path


def boxes(root: Path, text: str, split: str = "all") -> list[list[float]]:
    write_text(root / "labels/a.txt", text)
    return open_dataset(root, split).target(0)["boxes"].tolist()


def test_an_absent_or_empty_file_says_that_there_is_no_object(root: Path) -> None:
    assert boxes(root, "") == []
    assert boxes(root, "\n  \r\n") == []
    write_image(root / "images/b.jpg")
    dataset = open_dataset(root, "all")
    assert [len(dataset.target(index)["labels"]) for index in range(2)] == [0, 0]
    assert dataset.classes == ("cat", "dog")


def test_without_any_file_of_boxes_the_split_is_not_annotated(root: Path) -> None:
    (root / "labels/a.txt").unlink()
    assert not open_dataset(root, "all", "yolo").annotated


def test_polygons_give_their_hull_and_keypoints_are_passed_over(root: Path) -> None:
    assert boxes(root, "1 0.25 0.5 0.5 0.25 0.75 0.5 0.5 1.0\n") == [[16, 8, 48, 32]]
    write_text(root / "data.yaml", "train: images\nval: images\nnames: [cat, dog]\nkpt_shape: [2, 3]\n")
    assert boxes(root, "1 0.5 0.5 0.5 0.5 0.1 0.1 2 0.9 0.9 2\n", "train") == [[16, 8, 48, 24]]


def test_boxes_end_where_the_image_does(root: Path) -> None:
    assert boxes(root, "0 0.125 0.5 0.5 1\n1 0.5 0.5 1.0000001 1\n") == [[0, 0, 24, 32], [0, 0, 64, 32]]


def test_whole_numbers_byte_order_marks_and_ends_of_lines_of_other_systems(root: Path) -> None:
    (root / "labels/a.txt").write_bytes("\ufeff1.0 0.5 0.5 0.5 0.5\r\n".encode())
    dataset = open_dataset(root, "all")
    assert (dataset.target(0)["boxes"].tolist(), dataset.target(0)["labels"].tolist()) == ([[16, 8, 48, 24]], [2])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("2 .5 .5 .1 .1", "no class has the number 2; correct the number, or name the class"),
        ("-1 .5 .5 .1 .1", "is not a class and finite numbers"),
        ("0.5 .5 .5 .1 .1", "is not a class and finite numbers"),
        ("0 .5 .5 .1 nan", "is not a class and finite numbers"),
        ("cat .5 .5 .1 .1", "is not a line of numbers"),
        ("0 .5 .5 .1", "has 4 numbers; write 5"),
        ("0 .5 .5 .1 .1 .9", "has 6 numbers"),
        ("0 32 16 10 10", "32 is not a fraction of the image; divide pixels"),
        ("0 -.5 .5 .1 .1", "-0.5 is not a fraction of the image"),
        ("0 .5 .5 0 .1", "has no area"),
    ],
)
def test_a_mistake_in_a_line_is_named(root: Path, line: str, problem: str) -> None:
    with pytest.raises(UserError) as error:
        boxes(root, f"0 .5 .5 .1 .1\n{line}\n")
    assert problem in str(error.value)
    assert (error.value.file, error.value.field) == (root / "labels/a.txt", "line 2")


def test_two_images_of_one_name_have_two_ids_and_the_same_boxes(root: Path) -> None:
    write_image(root / "images/a.PNG")
    write_text(root / "labels/a.txt", "0 .5 .5 .5 .5\n")
    dataset = open_dataset(root, "all")
    assert len(set(dataset.ids)) == 2
    assert all(len(dataset.target(index)["labels"]) == 1 for index in range(2))


@pytest.mark.parametrize("names", ["[cat, dog]", "{0: cat, 1: dog}", "{'0': cat, '1': dog}"])
def test_names_are_a_list_or_a_mapping(root: Path, names: str) -> None:
    write_text(root / "data.yaml", f"train: images\nval: images\nnames: {names}\n")
    assert open_dataset(root, "train").classes == ("cat", "dog")


BOMB = "a: &a [x, x]\n" + "".join(f"{y}: &{y} [{', '.join([f'*{x}'] * 50)}]\n" for x, y in pairwise("abcdefghi"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("names: [cat\n", "is not valid YAML"),
        ("!!python/object/apply:os.system [touch hacked]\n", "is not valid YAML"),
        ("- cat\n", "is not a mapping"),
        ("names: 3\ntrain: images\n", "is not a list of names"),
        ("names: {cat: 0}\ntrain: images\n", "is not a list of names"),
        (BOMB + "names: *i\ntrain: images\n", "is not a list of names"),
        (BOMB + "names: [cat, dog]\ntrain: *i\n", "is not a path or a list of paths"),
        ("names: [cat]\ntrain: elsewhere\n", "'elsewhere' is not there; correct it; it was looked for in"),
        ("names: [cat]\ntrain: ../../../../../../etc\n", "is not there"),
    ],
)
def test_a_mistake_in_the_yaml_file_is_named_and_runs_no_code(root: Path, text: str, problem: str) -> None:
    write_text(root / "data.yaml", text)
    with pytest.raises(UserError) as error:
        open_dataset(root, "train", "yolo")
    assert problem in str(error.value)
    assert error.value.file == root / "data.yaml"
    assert not Path("hacked").exists()


def test_a_split_is_a_folder_a_list_or_several(tmp_path: Path) -> None:
    yolo_lists(tmp_path)
    write_text(tmp_path / "data.yaml", f"train: [train.txt, images/c.jpg]\nval: ''\nnames: {list(CLASSES)}\n")
    assert [Path(file).stem for file in open_dataset(tmp_path, "train").files] == ["a", "b", "empty", "c"]
    write_text(tmp_path / "train.txt", "images/absent.jpg\n")
    with pytest.raises(UserError, match=r"absent\.jpg.*the image is missing"):
        open_dataset(tmp_path, "train")


def test_an_absolute_path_is_followed_and_one_that_is_not_there_is_the_folder(tmp_path: Path) -> None:
    ultralytics(tmp_path / "data")
    file = tmp_path / "data/fruit.yaml"
    (tmp_path / "apart").mkdir()
    file.rename(tmp_path / "apart/fruit.yaml")
    assert len(open_dataset(tmp_path / "apart", "train")) == 3
    text = (tmp_path / "apart/fruit.yaml").read_text()
    file.write_text(text.replace(str(tmp_path / "data"), "/content/datasets/fruit"))
    assert len(open_dataset(tmp_path / "data", "train")) == 3


def test_another_dataset_next_door_is_not_taken_for_the_own_folder(tmp_path: Path) -> None:
    roboflow_yolo(tmp_path / "data")
    write_image(tmp_path / "train/images/stranger.jpg")
    assert len(open_dataset(tmp_path / "data", "train")) == 3


def test_classes_without_names_take_those_of_the_recipe(root: Path) -> None:
    (root / "classes.txt").unlink()
    write_text(root / "labels/a.txt", "1 .5 .5 .5 .5\n")
    with pytest.raises(UserError, match="the classes have no names"):
        open_dataset(root, "all")
    assert open_dataset(root, "all", classes=["cat", "dog"]).target(0)["labels"].tolist() == [2]


def test_images_that_exif_turns_are_upright_as_yolos_readers_have_them(root: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(root / "images/a.jpg").save(root / "images/a.jpg", exif=exif)
    write_text(root / "labels/a.txt", "0 0.5 0.5 1 0.5\n")
    image, target = open_dataset(root, "all")[0]
    assert image.shape == (3, 64, 32)
    assert target["boxes"].tolist() == [[0, 16, 32, 48]]


@pytest.mark.parametrize("write", [write for write in WITH_SPLITS if "yolo" in write.__name__ or write is ultralytics])
def test_all_splits_together_are_the_whole(tmp_path: Path, write) -> None:
    write(tmp_path)
    write_text(tmp_path / "splits/mine.txt", "")
    names = [file for split in list_splits(tmp_path) if split != "mine" for file in open_dataset(tmp_path, split).files]
    write_text(tmp_path / "splits/mine.txt", "".join(f"{name}\n" for name in names[::-1]))
    assert open_dataset(tmp_path, "mine").files == names[::-1]


def test_folders_may_differ_in_capitals(tmp_path: Path) -> None:
    yolo_folders(tmp_path)
    for name in ("images", "labels"):
        (tmp_path / name / "train").rename(tmp_path / name / "Train")
    assert len(open_dataset(tmp_path, "trainval")) == 3
