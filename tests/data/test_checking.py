"""The check of a dataset: each fault is told with its count, and whether a training would stop at it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from afrcnn.cli import main
from afrcnn.core.errors import UserError
from afrcnn.core.image_warnings import ImageWarning, refusing
from afrcnn.data.checking import DatasetCheck, check_dataset
from afrcnn.data.inspection import require_readable
from afrcnn.data.layouts import dataset_of, list_splits, open_dataset
from damaged import cut, spoil
from scenes import (
    WITH_SPLITS,
    WITHOUT_SPLITS,
    coco_standard,
    labelimg,
    roboflow_voc,
    roboflow_yolo,
    voc_lists,
    write_text,
    xml,
)


def counts(result: DatasetCheck, consequence: str) -> dict[str, int]:
    return {f.kind: len(f.messages) for f in result.findings if f.consequence == consequence}


@pytest.mark.parametrize("write", (*WITH_SPLITS, *WITHOUT_SPLITS), ids=lambda write: write.__name__)
def test_nothing_would_stop_a_training_on_scenes_in_any_layout(tmp_path: Path, write) -> None:
    write(tmp_path)
    result = check_dataset(tmp_path)
    assert not result.stops
    assert sum("images" in words or "image" in words for words in result.splits.values()) == 2
    kinds = counts(result, "note")
    assert kinds.pop("classes with objects in one split alone", 1) >= 1
    assert not kinds


def spoil_xml(root: Path, name: str, text: str) -> None:
    write_text(root / f"Annotations/{name}.xml", text)


def box(x1: float, y1: float, x2: float, y2: float, name: str = "apple") -> str:
    return xml([(name, (x1, y1, x2, y2))])  # type: ignore[list-item]


def turn(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(path).save(path, exif=exif)


STOPPING: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda root: (root / "JPEGImages/a.jpg").unlink(), "missing images"),
    "outside": (lambda root: spoil_xml(root, "b", box(1, 1, 90, 20)), "boxes outside the image"),
    "inverted": (lambda root: spoil_xml(root, "b", box(30, 1, 9, 20)), "inverted boxes"),
    "no area": (lambda root: spoil_xml(root, "b", box(9, 1, 9, 20)), "boxes without area"),
    "relative": (lambda root: spoil_xml(root, "b", box(0.2 - 1, 0.1 - 1, 0.5, 0.75)), "boxes in relative units"),
    "broken": (lambda root: spoil_xml(root, "b", "<annotation>"), "malformed annotations"),
    "unnamed": (lambda root: spoil_xml(root, "b", box(1, 1, 9, 20, " ")), "malformed annotations"),
    "size": (
        lambda root: Image.new("RGB", (64, 40)).save(root / "JPEGImages/a.jpg"),
        "images of another size than their annotations say",
    ),
}


@pytest.mark.parametrize("fault", STOPPING)
def test_what_would_stop_a_training_is_counted_and_does(tmp_path: Path, fault: str) -> None:
    voc_lists(tmp_path)
    spoil, kind = STOPPING[fault]
    spoil(tmp_path)
    assert counts(check_dataset(tmp_path), "error") == {kind: 1}
    with pytest.raises(UserError):
        require_readable(open_dataset(tmp_path, "train"))


LEFT_OUT: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("text"),
    "empty": lambda path: path.write_bytes(b""),
    "spoiled": spoil,
    "part of a header": lambda path: path.write_bytes(path.read_bytes()[:100]),
}


@pytest.mark.parametrize("fault", LEFT_OUT)
@pytest.mark.parametrize("write", [voc_lists, roboflow_yolo, coco_standard], ids=lambda write: write.__name__)
def test_what_a_training_would_leave_out_is_told_and_warned_of(tmp_path: Path, write, fault: str) -> None:
    write(tmp_path)
    path = next(tmp_path.rglob("a.jpg"))
    LEFT_OUT[fault](path)
    result = check_dataset(tmp_path)
    assert counts(result, "left out") == {"unreadable images": 1}
    assert not counts(result, "error")
    assert (result.stops, result.leaves_out) == (False, True)
    assert main(["check", str(tmp_path)]) == 1
    if fault == "spoiled":
        return  # it looks whole, until it is decoded
    with pytest.warns(ImageWarning, match=r"a\.jpg: the image cannot be decoded") as warned:
        require_readable(open_dataset(tmp_path, "train"))
    assert [warning.message.left_out for warning in warned] == [True]
    with pytest.raises(UserError, match=r"unreadable|cannot be decoded"), refusing(strict=True):
        require_readable(open_dataset(tmp_path, "train"), strict=True)


def test_a_jpeg_that_ends_too_early_is_told_and_does_not_stop(tmp_path: Path) -> None:
    voc_lists(tmp_path)
    cut(tmp_path / "JPEGImages/a.jpg")
    result = check_dataset(tmp_path)
    kind = "JPEG files that end too early"
    assert counts(result, "note")[kind] == 1
    assert not result.stops and not result.leaves_out
    assert main(["check", str(tmp_path)]) == 0
    with pytest.warns(ImageWarning, match=r"a\.jpg: the image ends too early"):
        require_readable(open_dataset(tmp_path, "train"))
    with pytest.raises(UserError, match="1 JPEG files that end too early"):
        require_readable(open_dataset(tmp_path, "train"), strict=True)


def test_all_faults_are_told_at_once_with_examples_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    voc_lists(root)
    spoil_xml(root, "a", box(1, 1, 90, 20))
    spoil_xml(root, "b", "<annotation>")
    (root / "JPEGImages/c.jpg").write_bytes(b"nothing")
    assert main(["check", str(root)]) == 1
    shown = capsys.readouterr().out
    for words in (
        "error: 1 malformed annotations",
        "error: 1 boxes outside the image",
        "left out: 1 unreadable images",
        "Annotations/b.xml",
        "JPEGImages/c.jpg",
        "this would stop a training",
    ):
        assert words in shown
    with pytest.raises(UserError, match=r"of 1 image: 1 unreadable images; the first: .*c\.jpg.*afrcnn check"):
        require_readable(open_dataset(root, "valid", classes=["apple", "kiwi"]), strict=True)


def test_what_one_should_know_does_not_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voc_lists(tmp_path)
    shutil.copy(tmp_path / "JPEGImages/a.jpg", tmp_path / "JPEGImages/c.jpg")
    shutil.copy(tmp_path / "JPEGImages/a.jpg", tmp_path / "JPEGImages/empty.jpg")
    shutil.copy(tmp_path / "JPEGImages/b.jpg", tmp_path / "JPEGImages/unused.jpg")
    turn(tmp_path / "JPEGImages/b.jpg", 6)
    twice = ("Apples", (1, 1, 2, 2))
    spoil_xml(tmp_path, "empty", xml([twice, twice]))
    result = check_dataset(tmp_path)
    assert not result.stops
    notes = counts(result, "note")
    assert notes == {
        "images that EXIF turns": 1,
        "images that are there twice": 1,
        "images that are in two splits": 1,
        "classes under several spellings": 1,
        "classes with objects in one split alone": 2,
        "objects smaller than a cell (16 pixels, in images of 600)": 1,
        "objects that are annotated several times": 1,
        "images that no split has": 1,
    }
    assert main(["check", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "orientation 6; its boxes are of it as stored" in shown
    assert "'Apples' (2) and 'apple' (3)" in shown
    assert shown.splitlines()[-1] == "nothing would stop a training"


def test_faults_of_coco_and_yolo_are_collected_too(tmp_path: Path) -> None:
    coco_standard(tmp_path / "coco")
    file = tmp_path / "coco/annotations/instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [1, 2, 3]
    content["annotations"][1]["bbox"] = [60, 2, 30, 3]
    content["annotations"][2]["image_id"] = 77
    file.write_text(json.dumps(content))
    (tmp_path / "coco/train/b.jpg").unlink()
    assert counts(check_dataset(tmp_path / "coco"), "error") == {
        "missing images": 1,
        "malformed annotations": 2,
        "boxes outside the image": 1,
    }
    roboflow_yolo(tmp_path / "yolo")
    write_text(
        tmp_path / "yolo/train/labels/a.txt", "0 .5 .5 .2 .2\n7 .5 .5 .2 .2\n0 40 20 10 10\n0 1 2\nnan 0 0 1 1\n"
    )
    (tmp_path / "yolo/train/labels/empty.txt").unlink()
    result = check_dataset(tmp_path / "yolo")
    assert counts(result, "error") == {"malformed annotations": 3, "objects of an unknown class": 1}
    assert counts(result, "note")["images without a file of boxes, taken to show no object"] == 1


def test_pairs_without_an_image_are_told_and_images_without_xml_left_out(tmp_path: Path) -> None:
    labelimg(tmp_path)
    (tmp_path / "annots/empty.xml").unlink()
    assert counts(check_dataset(tmp_path), "note")["images that no split has"] == 1
    (tmp_path / "images/b.jpg").unlink()
    result = check_dataset(tmp_path)
    assert counts(result, "error") == {"missing images": 1}
    with pytest.raises(UserError, match=r"b\.xml: the image of this annotation is missing"):
        open_dataset(tmp_path, "trainval")


def test_a_dataset_that_cannot_be_opened_at_all_is_told(tmp_path: Path) -> None:
    roboflow_voc(tmp_path / "voc")
    write_text(tmp_path / "voc/splits/test.txt", "nothing.jpg\n")
    assert counts(check_dataset(tmp_path / "voc"), "error") == {"splits that cannot be opened": 1}
    assert "test" in list_splits(tmp_path / "voc")
    with pytest.raises(UserError, match="no such folder"):
        main(["check", str(tmp_path / "nowhere")]) == 2 and check_dataset(tmp_path / "nowhere")


def test_the_coverage_of_proposals_is_told(rectangles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(rectangles)]) == 0
    shown = capsys.readouterr().out
    assert "proposals trainval-fast: cover " in shown
    assert "trainval (voc): 6 images, 6 objects of 2 classes (blue, red)" in shown


def test_several_processes_tell_the_same_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    voc_lists(tmp_path / "data")
    images = tmp_path / "data/JPEGImages"
    shutil.copy(images / "a.jpg", images / "c.jpg")
    turn(images / "b.jpg", 6)
    spoil(images / "empty.jpg")
    monkeypatch.chdir(tmp_path)
    shown = []
    for jobs in ("1", "2"):
        assert main(["check", "data", "--jobs", jobs]) == 1
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert "  data/JPEGImages/empty.jpg: the image cannot be decoded" in shown[0]


def test_areas_that_are_not_positive_are_told_and_do_not_stop(tmp_path: Path) -> None:
    coco_standard(tmp_path)
    file = tmp_path / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    annotations = content["annotations"]
    for annotation, area in zip(annotations, (0, -1, math.nan, math.inf), strict=False):
        annotation["area"] = area
    file.write_text(json.dumps(content))
    result = check_dataset(tmp_path)
    assert counts(result, "note")["areas of objects that are not positive"] == min(len(annotations), 4)
    assert not result.stops and not result.leaves_out
    sides = annotations[0]["bbox"][2:]
    assert open_dataset(tmp_path, "train").target(0)["area"][0] == sides[0] * sides[1]


def test_links_and_dots_that_lead_out_of_a_dataset_are_refused_and_told(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "data", tmp_path / "private.jpg"
    voc_lists(root)
    (root / "JPEGImages/a.jpg").rename(elsewhere)
    (root / "JPEGImages/a.jpg").symlink_to("../../private.jpg")
    with pytest.raises(UserError, match=r"JPEGImages/a\.jpg: leads out of the dataset, to .*private\.jpg; copy it"):
        open_dataset(root, "train")
    result = check_dataset(root)
    assert counts(result, "error") == {"files outside the dataset": 1}
    assert "train (voc)" in result.splits["train"]


def test_a_link_in_the_dataset_s_own_folder_belongs_to_it(tmp_path: Path) -> None:
    root = tmp_path / "data"
    voc_lists(root)
    (root / "JPEGImages").rename(tmp_path / "disk")
    (root / "JPEGImages").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/a.jpg").rename(tmp_path / "disk/z")
    (tmp_path / "disk/a.jpg").symlink_to("z")  # a link within
    assert not check_dataset(root).stops
    assert len(open_dataset(root, "train"))


def test_linked_folders_that_lead_out_are_passed_over_and_told(tmp_path: Path) -> None:
    root = tmp_path / "data"
    labelimg(root)
    shutil.copytree(root / "images", tmp_path / "more")
    (root / "images/more").symlink_to(tmp_path / "more")
    kind = "links to folders outside the dataset, which are passed over"
    assert counts(check_dataset(root), "note")[kind] == 1


def test_a_dataset_can_be_named_by_its_yaml_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roboflow_yolo(tmp_path)
    assert main(["check", str(tmp_path)]) == 0
    shown = capsys.readouterr().out.splitlines()[1:]
    assert main(["check", str(tmp_path / "data.yaml")]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == shown
    assert dataset_of(tmp_path / "data.yaml") == (tmp_path, "yolo", [])


def test_a_dataset_can_be_named_by_a_file_of_coco(tmp_path: Path) -> None:
    coco_standard(tmp_path)
    assert dataset_of(tmp_path / "annotations/instances_train.json") == (tmp_path, "coco", ["train"])
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UserError, match=r"other\.json: does not describe a dataset; give"):
        dataset_of(tmp_path / "other.json")
    assert dataset_of(tmp_path) == (tmp_path, "auto", [])
