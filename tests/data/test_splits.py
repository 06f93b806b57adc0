"""Splits by occlusion: images whose objects are all unoccluded, and the others."""

import json

import numpy as np
import pytest
from PIL import Image

from afrcnn.core.errors import UserError
from afrcnn.data.layouts import open_dataset
from afrcnn.data.splits import split_by_occlusion
from afrcnn.data.voc_xml import VOCObject, write_annotation

APART = [("cat", (0, 0, 10, 10)), ("dog", (20, 20, 30, 30))]
PILE = [("cat", (0, 0, 10, 10)), ("dog", (5, 0, 15, 10))]


def write_voc(root, **images):
    for folder in ("JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for name, objects in images.items():
        Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
        write_annotation(
            root / "Annotations" / f"{name}.xml",
            filename=f"{name}.jpg",
            height=40,
            width=40,
            objects=[VOCObject(label, box) for label, box in objects],
        )
    (root / "ImageSets" / "Main" / "all.txt").write_text("".join(f"{name}\n" for name in images))
    return root


@pytest.fixture
def voc(tmp_path):
    return write_voc(tmp_path / "voc", c=PILE, a=APART, empty=[], b=PILE, d=APART[::-1])


@pytest.fixture
def coco(tmp_path):
    root = tmp_path / "coco"
    (root / "val").mkdir(parents=True)
    (root / "annotations").mkdir()
    content = {"info": {"year": 1}, "images": [], "annotations": [], "licenses": [{"id": 3}]}
    content["categories"] = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
    crowd = [("dog", (0, 0, 5, 5)), ("cat", (20, 20, 30, 30)), ("dog", (30, 30, 40, 40))]
    for image, objects in ((5, PILE), (2, APART), (9, crowd)):
        Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8)).save(root / "val" / f"{image}.jpg")
        content["images"].append({"id": image, "file_name": f"{image}.jpg", "width": 40, "height": 40, "license": 3})
        for label, (x1, y1, x2, y2) in objects:
            number = len(content["annotations"]) + 1
            content["annotations"].append(
                {
                    "id": number,
                    "image_id": image,
                    "category_id": {"cat": 7, "dog": 3}[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": int(objects is crowd and number == 5),
                    "area": 3,
                    "segmentation": [[x1, y1, x2, y1, x2, y2]],
                }
            )
    (root / "annotations" / "instances_val.json").write_text(json.dumps(content))
    return root


def everything(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_images_with_an_overlapped_object_go_to_the_occluded_split(voc):
    unoccluded, occluded = split_by_occlusion(voc, "all")
    assert open_dataset(voc, "unoccluded_all").ids == unoccluded.ids == ["a", "empty", "d"]
    assert open_dataset(voc, "occluded_all").ids == occluded.ids == ["c", "b"]
    assert (unoccluded.objects, unoccluded.overlapped) == ({"cat": 2, "dog": 2}, {"cat": 0, "dog": 0})
    assert (occluded.objects, occluded.overlapped) == ({"cat": 2, "dog": 2}, {"cat": 2, "dog": 2})


def test_the_same_again_writes_the_same_and_another_split_of_that_name_stays(voc):
    split_by_occlusion(voc, "all")
    before = everything(voc)
    split_by_occlusion(voc, "all")
    assert everything(voc) == before
    (voc / "ImageSets" / "Main" / "mine.txt").write_text("a\n")
    before = everything(voc)
    with pytest.raises(UserError, match=r"mine\.txt: another split has this name"):
        split_by_occlusion(voc, "all", names=("new", "mine"))
    assert everything(voc) == before


def test_the_limit_of_overlap_is_the_callers(voc):
    with pytest.raises(UserError, match="none in occluded_all"):
        split_by_occlusion(voc, "all", overlap=0.5)  # the pile covers just half of each
    assert split_by_occlusion(voc, "all", overlap=0.49)[1].ids == ["c", "b"]
    with pytest.raises(UserError, match="not a valid fraction"):
        split_by_occlusion(voc, "all", overlap=5)


def test_a_class_that_one_split_lacks_is_refused_and_nothing_written(tmp_path):
    root = write_voc(tmp_path / "voc", a=[*APART, ("owl", (31, 31, 39, 39))], b=PILE)
    before = everything(root)
    with pytest.raises(UserError, match=r"class owl are in images of unoccluded_all, none in occluded_all"):
        split_by_occlusion(root, "all", out=tmp_path / "new")
    assert everything(root) == before
    assert not (tmp_path / "new").exists()


def test_another_folder_gets_a_dataset_of_links_and_the_original_stays(voc, tmp_path):
    before = everything(voc)
    for _ in range(2):
        split_by_occlusion(voc, "all", out=tmp_path / "new")
    assert everything(voc) == before
    dataset = open_dataset(tmp_path / "new", "occluded_all")
    assert dataset.ids == ["c", "b"]
    image, target = dataset[0]
    assert image.shape == (3, 40, 40)
    assert target["boxes"].tolist() == [list(map(float, box)) for _, box in PILE]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_coco_splits_keep_all_that_the_file_says_and_crowds_are_not_unoccluded(coco, tmp_path, elsewhere):
    original = json.loads((coco / "annotations" / "instances_val.json").read_text())
    root = tmp_path / "new" if elsewhere else coco
    splits = split_by_occlusion(coco, "val", out=root)
    assert [new.ids for new in splits] == [["2"], ["5", "9"]]
    assert splits[1].objects == {"dog": 2, "cat": 2}  # without the crowd
    written = [json.loads(new.file.read_text()) for new in splits]
    for key in ("images", "annotations"):
        both = sorted((item for content in written for item in content[key]), key=lambda item: item["id"])
        for item in both:
            if key == "images":
                item["file_name"] = item["file_name"].removeprefix("val/")
        assert both == sorted(original[key], key=lambda item: item["id"])
    for content in written:
        assert all(content[key] == original[key] for key in ("info", "licenses", "categories"))
    for new in splits:
        dataset = open_dataset(root, new.name)
        assert dataset.ids == new.ids
        assert dataset.classes == ("dog", "cat")
        assert dataset[0][0].shape == (3, 40, 40)


def test_cards_have_both_splits(shared, tmp_path):
    unoccluded, occluded = split_by_occlusion(shared / "data" / "cards", "trainval", out=tmp_path / "cards")
    dataset = open_dataset(shared / "data" / "cards", "trainval")
    assert sorted(unoccluded.ids + occluded.ids) == sorted(dataset.ids)
    assert sum(unoccluded.overlapped.values()) == 0
    assert all(count > 0 for new in (unoccluded, occluded) for count in new.objects.values())
    assert len(open_dataset(tmp_path / "cards", "occluded_trainval")) == len(occluded.ids)
