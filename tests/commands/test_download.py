"""The command that gets published datasets."""

import hashlib
import json
import shlex
import shutil
import tarfile
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.io import savemat

import afrcnn
from afrcnn.cli import main
from afrcnn.core.errors import UserError
from afrcnn.data.archives import SOURCES
from afrcnn.data.layouts import open_dataset


@pytest.fixture
def publish(server, tmp_path, monkeypatch):
    """Puts a folder on the server as an archive of a dataset, in the place of the published one."""

    def publish(dataset, name, folder):
        source = SOURCES[dataset]
        archive = source.archives[name]
        path = tmp_path / archive.name
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as file:
                for entry in folder.rglob("*"):
                    file.write(entry, entry.relative_to(folder))
        else:
            with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as file:
                file.add(folder, ".")
        content = server.files[path.name] = path.read_bytes()
        checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
        small = replace(archive, url=f"{server.url}/{path.name}", checksum=checksum, size=archive.size and len(content))
        monkeypatch.setitem(SOURCES, dataset, replace(source, archives=source.archives | {name: small}))

    return publish


@pytest.fixture
def voc(publish, rectangles, tmp_path):
    """VOC 2007 as two archives of six and three images; returns a folder that holds the same, unpacked."""
    for split in ("trainval", "test"):
        root = tmp_path / split / "VOCdevkit/VOC2007"
        for place in (f"JPEGImages/{split}_*.jpg", f"Annotations/{split}_*.xml", f"ImageSets/Main/{split}.txt"):
            for file in rectangles.glob(place):
                target = root / file.relative_to(rectangles)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
        publish("voc2007", split, tmp_path / split)
        shutil.copytree(tmp_path / split, tmp_path / "whole", dirs_exist_ok=True)
    return tmp_path / "whole"


@pytest.fixture
def coco(publish, rectangles, tmp_path):
    """COCO 2017 as three archives, one image a split."""
    for name in ("train", "val"):
        folder = tmp_path / name / f"{name}2017"
        folder.mkdir(parents=True)
        shutil.copy(rectangles / "JPEGImages/test_0.jpg", folder / "1.jpg")
        publish("coco2017", name, tmp_path / name)
        content = {
            "images": [{"id": 1, "file_name": "1.jpg", "height": 64, "width": 64}],
            "categories": [{"id": 1, "name": "red"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20]}],
        }
        file = tmp_path / "jsons/annotations" / f"instances_{name}2017.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    publish("coco2017", "annotations", tmp_path / "jsons")


def test_voc_opens_with_all_splits_and_the_next_command_works(voc, tmp_path, capsys):
    assert main(["download", "voc2007", str(tmp_path / "my data")]) == 0
    root = tmp_path / "my data/VOCdevkit/VOC2007"
    assert [len(open_dataset(root, split)) for split in ("trainval", "test")] == [6, 3]
    first, following = capsys.readouterr().out.splitlines()
    assert first == f"dataset: {root}"
    words = shlex.split(following.removeprefix("next:"))
    assert words == ["afrcnn", "proposals", str(root), "--split", "trainval", "test"]
    assert main([*words[1:], "--jobs", "1"]) == 0


def test_coco_opens_and_the_next_command_names_the_splits_that_were_asked_for(coco, tmp_path, capsys):
    root = tmp_path / "coco"
    assert main(["download", "coco2017", str(root), "--parts", "val", "annotations"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"next:    afrcnn proposals {root} --split val2017"
    assert not (root / "train2017").exists()
    assert main(["download", "coco2017", str(root)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"next:    afrcnn proposals {root} --split train2017 val2017"
    assert [len(open_dataset(root, split)) for split in ("train2017", "val2017")] == [1, 1]


def test_published_proposals_are_imported_by_the_next_command(voc, publish, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "boxes/selective_search_data"
    folder.mkdir(parents=True)
    for split in ("trainval", "test"):
        ids = (voc / f"VOCdevkit/VOC2007/ImageSets/Main/{split}.txt").read_text().split()
        images, boxes = np.empty(len(ids), object), np.empty(len(ids), object)
        images[:], boxes[:] = ids, [np.array([[1, 1, 40, 40], [5, 5, 60, 60]], float)] * len(ids)
        savemat(folder / f"voc_2007_{split}.mat", {"images": images, "boxes": boxes})
    publish("selective-search", "proposals", tmp_path / "boxes")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["download", "voc2007", "."]) == 0
    assert main(["download", "selective-search", "."]) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("next:"))
    assert main(words[1:]) == 0
    assert "VOCdevkit/VOC2007/proposals/test-selective_search" in capsys.readouterr().out


@pytest.mark.parametrize("dataset", ["voc", "coco"])
def test_the_second_call_fetches_nothing(dataset, request, server, tmp_path):
    request.getfixturevalue(dataset)
    for _ in range(2):
        afrcnn.download({"voc": "voc2007", "coco": "coco2017"}[dataset], tmp_path / "data")
    assert len(server.requests) == {"voc": 2, "coco": 3}[dataset]


def test_an_image_that_was_lost_is_fetched_again(voc, server, tmp_path):
    root = afrcnn.download("voc2007", tmp_path / "data")
    (root / "JPEGImages/test_1.jpg").unlink()
    afrcnn.download("voc2007", tmp_path / "data")
    assert [name for name, _ in server.requests][2:] == ["VOCtest_06-Nov-2007.tar"]
    assert len(open_dataset(root, "test")) == 3


def test_a_dataset_that_was_unpacked_by_hand_is_not_fetched(voc, server):
    assert afrcnn.download("voc2007", voc) == voc / "VOCdevkit/VOC2007"
    assert server.requests == []


def test_an_archive_that_was_put_there_by_hand_is_not_fetched(voc, server, tmp_path):
    (tmp_path / "data").mkdir()
    for name, content in server.files.items():
        (tmp_path / "data" / name).write_bytes(content)
    root = afrcnn.download("voc2007", tmp_path / "data")
    assert len(open_dataset(root, "test")) == 3
    assert server.requests == []


def test_an_interrupted_download_goes_on(voc, server, tmp_path, capsys):
    server.break_after = 0
    part = tmp_path / "data/VOCtrainval_06-Nov-2007.tar.part"
    part.parent.mkdir()
    part.write_bytes(server.files["VOCtrainval_06-Nov-2007.tar"][:5000])
    assert main(["download", "voc2007", str(tmp_path / "data")]) == 2
    assert "broke off after 5.0 kB of" in capsys.readouterr().err
    assert [path.name for path in part.parent.iterdir()] == [part.name]
    server.break_after = None
    assert main(["download", "voc2007", str(tmp_path / "data")]) == 0
    assert server.requests[-2:] == [(part.name.removesuffix(".part"), 5000), ("VOCtest_06-Nov-2007.tar", 0)]


def test_a_part_that_was_named_twice_is_fetched_once(voc, server, tmp_path):
    afrcnn.download("voc2007", tmp_path / "data", parts=["test", "test"])
    assert len(server.requests) == 1


def test_a_mirror_serves_in_place_of_the_published_address(voc, server, tmp_path, monkeypatch):
    source = SOURCES["voc2007"]
    away = {name: replace(item, url=f"http://127.0.0.1:9/{item.name}") for name, item in source.archives.items()}
    monkeypatch.setitem(SOURCES, "voc2007", replace(source, archives=away))
    assert main(["download", "voc2007", str(tmp_path / "data"), "--mirror", f"{server.url}/voc"]) == 0


def test_the_disk_must_hold_all_parts_before_the_first_is_fetched(voc, server, tmp_path, monkeypatch, capsys):
    sizes = [archive.size for archive in SOURCES["voc2007"].archives.values()]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=sum(sizes) + max(sizes) - 1))
    assert main(["download", "voc2007", str(tmp_path / "data")]) == 2
    assert "to fetch and unpack voc2007 are needed, but" in capsys.readouterr().err
    assert server.requests == []


def test_an_unknown_part_is_refused_and_voc_2012_says_where_its_test_images_are(tmp_path):
    with pytest.raises(UserError, match=r"^parts: 'val' is not a part of voc2007; choose from trainval, test$"):
        afrcnn.download("voc2007", tmp_path / "data", parts=["val"])
    with pytest.raises(UserError, match=r"choose from trainval \(VOC 2012's test images are at .*, behind a login"):
        afrcnn.download("voc2012", tmp_path / "data", parts=["test"])
    assert not (tmp_path / "data").exists()


def test_voc_2012_says_where_its_test_images_are(voc, tmp_path, monkeypatch, capsys):
    archives = {"trainval": SOURCES["voc2007"].archives["trainval"]}
    monkeypatch.setitem(SOURCES, "voc2012", replace(SOURCES["voc2012"], archives=archives))
    assert main(["download", "voc2012", str(tmp_path / "data")]) == 0
    assert "note:    VOC 2012's test images are at the VOC evaluation server, behind a login" in capsys.readouterr().out


def test_a_folder_that_cannot_be_made_is_the_user_s_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/data: cannot be written"):
        afrcnn.download("voc2007", tmp_path / "file/data")


def test_a_call_that_goes_on_needs_less_space(voc, server, tmp_path, monkeypatch):
    archive = SOURCES["voc2007"].archives["test"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / archive.name).write_bytes(server.files[archive.name])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=archive.size))
    afrcnn.download("voc2007", tmp_path / "data", parts=["test"])
