"""Conversion: what is written reads back the same, and what is lost is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from afrcnn.cli import main
from afrcnn.core.errors import UserError
from afrcnn.data.convert import convert_dataset
from afrcnn.data.layouts import find_layout, open_dataset
from afrcnn.data.voc_xml import VOCObject, write_annotation
from scenes import SCENES, WITH_SPLITS, WITHOUT_SPLITS, coco_standard, labelimg, roboflow_coco, roboflow_voc, shown


@pytest.mark.parametrize("to", ["voc", "coco", "yolo"])
@pytest.mark.parametrize("write", (*WITH_SPLITS, *WITHOUT_SPLITS), ids=lambda write: write.__name__)
def test_every_layout_converts_to_every_other(tmp_path: Path, write, to: str) -> None:
    write(tmp_path / "old")
    conversion = convert_dataset(tmp_path / "old", tmp_path / "new", to)
    assert find_layout(tmp_path / "new").name == to
    for split in ("trainval", "test"):
        old, new = (open_dataset(tmp_path / name, split) for name in ("old", "new"))
        assert new.classes == old.classes
        assert shown(new) == shown(old)
        assert [new.image_path(n).read_bytes() for n in range(len(new))] == [
            old.image_path(n).read_bytes() for n in range(len(old))
        ] or {new.image_path(n).read_bytes() for n in range(len(new))} == {
            old.image_path(n).read_bytes() for n in range(len(old))
        }
    assert set(conversion.lost) <= {"masks and their areas", "masks"}


@pytest.fixture
def flagged(tmp_path: Path) -> Path:
    """VOC with every flag, in one image."""
    root = tmp_path / "flagged"
    for name in ("JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    Image.new("RGB", (64, 32)).save(root / "JPEGImages/a.jpg")
    box = (1.0, 2.0, 30.5, 20.25)
    objects = [
        VOCObject("cat", box, difficult=True, occlusion=0.5),
        VOCObject("dog", box, truncated=True),
        VOCObject("cat", box, occluded=True, bend=-3.0),
    ]
    write_annotation(root / "Annotations/a.xml", filename="a.jpg", height=32, width=64, objects=objects)
    (root / "ImageSets/Main/trainval.txt").write_text("a\n")
    return root


def test_flags_are_kept_by_voc_and_coco_and_named_as_lost_by_yolo(flagged: Path, tmp_path: Path) -> None:
    old = open_dataset(flagged, "trainval").target(0)
    lost = {to: convert_dataset(flagged, tmp_path / to, to).lost for to in ("voc", "coco", "yolo")}
    for to in ("voc", "coco"):
        new = open_dataset(tmp_path / to, "trainval").target(0)
        for key in ("boxes", "labels", "difficult", "truncated", "occluded"):
            assert torch.equal(new[key], old[key]), key
    assert open_dataset(tmp_path / "voc", "trainval").target(0)["occlusion"][0] == 0.5
    assert lost["voc"] == {}
    assert lost["coco"] == {"recorded occlusion and bend": 2}
    assert lost["yolo"] == {"flags truncated": 1, "flags occluded": 1, "flags difficult": 1}
    assert torch.allclose(open_dataset(tmp_path / "yolo", "trainval").target(0)["boxes"], old["boxes"], atol=1e-5)


def test_crowds_are_kept_by_coco_difficult_in_voc_and_left_out_by_yolo(tmp_path: Path) -> None:
    coco_standard(tmp_path / "old")
    file = tmp_path / "old/annotations/instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0] |= {"iscrowd": 1, "area": 12.5}
    file.write_text(json.dumps(content))
    lost = {to: convert_dataset(tmp_path / "old", tmp_path / to, to).lost for to in ("voc", "coco", "yolo")}
    coco, voc, yolo = (open_dataset(tmp_path / to, "train").target(0) for to in ("coco", "voc", "yolo"))
    assert coco["iscrowd"].tolist() == [True, False]
    assert coco["area"].tolist() == [12.5, 50 * 16]
    assert voc["difficult"].tolist() == [True, False]
    assert yolo["labels"].tolist() == [1]
    assert lost["voc"]["crowd regions, written as difficult"] == 1
    assert lost["yolo"]["crowd regions, left out"] == 1


def test_images_of_one_name_stay_apart(tmp_path: Path) -> None:
    roboflow_voc(tmp_path / "old")
    for suffix in ("jpg", "xml"):
        (tmp_path / f"old/valid/c.{suffix}").rename(tmp_path / f"old/valid/a.{suffix}")
    convert_dataset(tmp_path / "old", tmp_path / "new", "voc")
    names = {path.name for path in (tmp_path / "new/JPEGImages").iterdir()}
    assert names == {"train_a.jpg", "valid_a.jpg", "b.jpg", "empty.jpg"}
    assert shown(open_dataset(tmp_path / "new", "valid")) == {"valid_a": SCENES["valid"]["c"]}


def test_a_failure_leaves_nothing_and_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    labelimg(tmp_path / "old")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").touch()
    with pytest.raises(UserError, match="is not empty"):
        convert_dataset(tmp_path / "old", tmp_path / "taken", "voc")

    def fail(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_dataset(tmp_path / "old", tmp_path / "new", "coco", progress=fail)
    assert {path.name for path in tmp_path.iterdir()} == {"old", "taken"}


def test_yolo_takes_no_image_that_its_readers_would_turn_against_its_boxes(tmp_path: Path) -> None:
    labelimg(tmp_path / "old")
    path, exif = tmp_path / "old/images/a.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)
    convert_dataset(tmp_path / "old", tmp_path / "coco", "coco")
    with pytest.raises(UserError, match=r"a\.jpg: its boxes are of the pixels as they are stored"):
        convert_dataset(tmp_path / "old", tmp_path / "yolo", "yolo")


def test_the_command_says_what_was_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roboflow_coco(tmp_path / "old")
    assert main(["convert", str(tmp_path / "old"), "--to", "yolo", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "valid (export): 1 image, 3 objects of 3 classes (apple, kiwi, pear)",
        "train (export): 3 images, 3 objects of 3 classes (apple, kiwi, pear)",
        "lost: 6 masks and their areas",
        f"dataset: {tmp_path / 'new'}",
        f"next:    afrcnn proposals {tmp_path / 'new'}",
    ]
