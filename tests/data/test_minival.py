"""COCO's trainval35k and minival: made from annotations of 2014, against sets counted by hand."""

import json

import numpy as np
import pytest
from PIL import Image

from afrcnn.cli import main
from afrcnn.core.errors import UserError
from afrcnn.data.layouts import list_splits, open_dataset
from afrcnn.data.minival import make_minival

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 17, "name": "cat"}, {"id": 90, "name": "toothbrush"}]
SIZE = (40, 60)


def name_of(year_split, image):
    return f"COCO_{year_split}_{image:012}.jpg"


def annotation_of(rng, id_, image):
    x, y = rng.integers(0, 20, 2).tolist()
    width, height = rng.integers(5, 20, 2).tolist()
    polygon = [x, y, x + width, y, x, y + height]
    return {
        "segmentation": [polygon] if rng.random() < 0.9 else {"counts": [3, 9], "size": list(SIZE)},
        "area": width * height / 2,
        "iscrowd": int(rng.random() < 0.1),
        "image_id": image,
        "bbox": [x, y, width, height],
        "category_id": int(rng.choice([1, 17, 90])),
        "id": id_,
    }


def write_coco(root, train, val, seed=0):
    """COCO's folders and annotations of 2014, with these ids of images in any order; objects in some of them."""
    rng = np.random.default_rng(seed)
    (root / "annotations").mkdir(parents=True)
    ids = iter(rng.permutation(10_000).tolist())
    for split, images in (("train2014", train), ("val2014", val)):
        (root / split).mkdir()
        records, annotations = [], []
        for image in images:
            records.append(
                {"license": 2, "file_name": name_of(split, image), "height": SIZE[0], "width": SIZE[1], "id": image}
            )
            pixels = np.full((*SIZE, 3), image % 251, dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / records[-1]["file_name"])
            annotations += [annotation_of(rng, next(ids), image) for _ in range(rng.integers(0, 4))]
        annotations = [annotations[index] for index in rng.permutation(len(annotations))]
        content = {
            "info": {"year": 2014, "description": "a b\u00e4r"},
            "images": records,
            "licenses": [{"id": 2, "name": "by"}],
        }
        content |= {"annotations": annotations, "categories": CATEGORIES}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def coco(tmp_path):
    return write_coco(tmp_path / "coco", [9, 3, 100, 581_929], [139, 42, 7, 20, 5])


def content_of(root, split):
    return json.loads((root / "annotations" / f"instances_{split}.json").read_text())


def write_list(tmp_path, images, form):
    """The list of images in one of the forms that are published, or that tools make."""
    if form in ("2017", "2014", "ids"):
        name = {"2017": "{:012}.jpg", "2014": "COCO_val2014_{:012}.jpg"}.get(form, "")
        records = [{"id": image, "file_name": name.format(image)} for image in images]
        (tmp_path / "list.json").write_text(
            json.dumps(images if form == "ids" else {"images": records, "annotations": []})
        )
        return tmp_path / "list.json"
    line = {
        "numbers": "{}",
        "stems": "COCO_val2014_{:012}",
        "files": "COCO_val2014_{:012}.jpg",
        "padded": "  {:012} \n",
    }
    (tmp_path / "list.txt").write_text("".join(f"{line[form].format(image)}\n" for image in images))
    return tmp_path / "list.txt"


@pytest.mark.parametrize("form", ["2017", "2014", "ids", "numbers", "stems", "files", "padded"])
def test_every_form_of_the_list_gives_minival_its_images_and_trainval35k_all_others(form, coco, tmp_path):
    trainval35k, minival = make_minival(coco, write_list(tmp_path, [5, 42], form))
    assert (trainval35k.name, minival.name) == ("trainval35k", "minival")
    assert open_dataset(coco, "minival").ids == ["42", "5"]
    assert open_dataset(coco, "trainval35k").ids == ["9", "3", "100", "581929", "139", "7", "20"]
    assert (trainval35k.images, minival.images) == (7, 2)


@pytest.mark.parametrize("seed", range(5))
def test_records_are_the_official_ones_each_in_one_of_the_two(seed, tmp_path):
    rng = np.random.default_rng(seed)
    ids = rng.permutation(600_000)[:60].tolist()
    root = write_coco(tmp_path / "coco", ids[:25], ids[25:], seed)
    chosen = {image for image in ids[25:] if rng.random() < 0.3}
    made = make_minival(root, write_list(tmp_path, [*chosen], "2017"))
    official = [content_of(root, split) for split in ("train2014", "val2014")]
    for split in made:
        expected = {"info": official[0]["info"], "images": [], "licenses": official[0]["licenses"], "annotations": []}
        for content in official:
            for image in content["images"]:
                if (image["id"] in chosen) == (split.name == "minival"):
                    expected["images"].append(image)
            for annotation in content["annotations"]:
                if (annotation["image_id"] in chosen) == (split.name == "minival"):
                    expected["annotations"].append(annotation)
        expected["categories"] = CATEGORIES
        assert content_of(root, split.name) == expected
        assert list(content_of(root, split.name)) == list(expected)
        assert (split.images, split.objects) == (len(expected["images"]), len(expected["annotations"]))


def test_images_and_targets_are_those_of_the_years_files_found_by_name_in_both_folders(coco, tmp_path):
    make_minival(coco, write_list(tmp_path, [5, 42], "2017"))
    official = [open_dataset(coco, split) for split in ("train2014", "val2014")]
    by_id = {images.ids[index]: (images, index) for images in official for index in range(len(images))}
    for split in ("trainval35k", "minival"):
        images = open_dataset(coco, split)
        assert images.classes == ("person", "cat", "toothbrush")
        assert images.category_ids == (1, 17, 90)
        for index, image_id in enumerate(images.ids):
            other, row = by_id[image_id]
            assert images.image_path(index) == other.image_path(row)
            (pixels, target), (expected_pixels, expected) = images[index], other[row]
            assert pixels.equal(expected_pixels)
            assert target.keys() == expected.keys()
            assert all(str(target[name]) == str(expected[name]) for name in expected)


def test_again_the_same_changes_nothing_and_another_list_is_refused(coco, tmp_path):
    make_minival(coco, write_list(tmp_path, [5, 42], "2017"))
    before = {file: file.read_bytes() for file in coco.rglob("*") if file.is_file()}
    make_minival(coco, write_list(tmp_path, [42, 5], "numbers"))
    assert {file: file.read_bytes() for file in coco.rglob("*") if file.is_file()} == before
    with pytest.raises(UserError, match=r"instances_trainval35k\.json: another split has this name"):
        make_minival(coco, write_list(tmp_path, [5], "numbers"))
    (coco / "annotations" / "instances_trainval35k.json").unlink()
    with pytest.raises(UserError, match=r"instances_minival\.json: another split has this name"):
        make_minival(coco, write_list(tmp_path, [5], "numbers"))
    assert not (coco / "annotations" / "instances_trainval35k.json").exists()


def changed(root, split, change):
    file = root / "annotations" / f"instances_{split}.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5\n42\n5\n", r"list\.txt: line 3: the image 5 is named twice, first in line 1; name each image once"),
        ("5\nCOCO_val2014_000000000005.jpg\n", r"line 2: the image 5 is named twice"),
        ("5\n77\n78\n", r"line 2: 2 of 3 images are not in .*instances_val2014\.json, 77 the first; give the list"),
        ("5\n\n9\n", r"line 3: 1 of 2 images are not in .*, 9 the first, which is in train2014 and so in trainval35k"),
        ("COCO_train2014_000000000009.jpg", "line 1: 'COCO_train2014_000000000009.jpg' is not the id of an image"),
        ("-5", "line 1: '-5' is not the id of an image"),
        ("5.0", "line 1: '5.0' is not the id"),
        ("five", "line 1: 'five' is not the id"),
        ("\n \n", r"list\.txt: names no images"),
        ("", r"list\.txt: names no images"),
    ],
)
def test_a_wrong_list_is_refused_by_line_and_nothing_is_written(text, message, coco, tmp_path):
    (tmp_path / "list.txt").write_text(text)
    before = sorted(coco.rglob("*"))
    with pytest.raises(UserError, match=message) as caught:
        make_minival(coco, tmp_path / "list.txt")
    assert "\n" not in str(caught.value)
    assert sorted(coco.rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"images": [{"id": 5}, {"id": 5}]}',
            r"images\[1\]\.id: the image 5 is named twice, first in images\[0\]\.id",
        ),
        ('{"images": [{"id": 5}, {"name": 7}]}', r"images\[1\]\.id: None is not the id of an image"),
        ("[5, true]", r"\[1\]: True is not the id of an image"),
        ("[5, 7.0]", r"\[1\]: 7\.0 is not the id"),
        ("[[5]]", r"\[0\]: \[5\] is not the id"),
        ('{"annotations": []}', "is neither a list of ids nor in COCO's format"),
        ("5", "is neither a list of ids nor in COCO's format"),
        ("{", "cannot be read as a list of images"),
        ("[" * 100_000, "cannot be read as a list of images"),
    ],
)
def test_a_wrong_json_list_is_refused_by_its_place(content, message, coco, tmp_path):
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(UserError, match=message):
        make_minival(coco, tmp_path / "list.json")
    with pytest.raises(UserError, match=r"none\.txt: cannot be read as a list of images"):
        make_minival(coco, tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda val: val["images"][0].update(id=100),
            r"val2014\.json: images: the id 100 is also in instances_train2014",
        ),
        (lambda val: val["images"].append(val["images"][0]), r"images\[5\]\.id: the id 139 is given twice"),
        (lambda val: val["annotations"].append({"id": 1, "image_id": 4}), "no image has the id 4"),
        (lambda val: val["annotations"].append({"id": 10_001}), r"annotations\[id=10001\]\.image_id: is missing"),
        (lambda val: val["categories"].pop(), r"categories: differ from those in instances_train2014\.json"),
        (lambda val: val.pop("images"), "images: is missing"),
    ],
)
def test_annotations_that_contradict_each_other_are_refused_by_field(change, message, coco, tmp_path):
    changed(coco, "val2014", lambda val: val["annotations"].clear() if "images[0]" in message else None)
    if "the id 100" in message:  # no annotation may name the image that changes its id
        changed(coco, "val2014", lambda val: val["annotations"].clear())
    changed(coco, "val2014", change)
    with pytest.raises(UserError, match=message):
        make_minival(coco, write_list(tmp_path, [5], "numbers"))
    assert not (coco / "annotations" / "instances_minival.json").exists()


def test_an_annotation_of_both_years_is_refused(coco, tmp_path):
    shared = {"id": 10_002, "image_id": 9}
    changed(coco, "train2014", lambda train: train["annotations"].append(shared))
    changed(coco, "val2014", lambda val: val["annotations"].append(shared | {"image_id": 5}))
    with pytest.raises(UserError, match="annotations: the id 10002 is also in instances_train2014"):
        make_minival(coco, write_list(tmp_path, [5], "numbers"))


def test_missing_annotations_are_named(coco, tmp_path):
    (coco / "annotations" / "instances_val2014.json").unlink()
    with pytest.raises(UserError, match=r"instances_val2014\.json: the split is missing; choose one of train2014"):
        make_minival(coco, write_list(tmp_path, [5], "numbers"))


def test_who_misses_minival_hears_of_the_command(coco):
    for split in ("trainval35k", "minival"):
        with pytest.raises(
            UserError, match=rf"instances_{split}\.json: the split is missing; make it with `afrcnn minival`"
        ):
            open_dataset(coco, split)


def test_published_annotations_of_minival_open_as_they_are(coco):
    # As Girshick published them: instances_minival2014.json, with the file names of val2014.
    content = content_of(coco, "val2014")
    content["images"] = [image for image in content["images"] if image["id"] in (5, 42)]
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] in (5, 42)]
    (coco / "annotations" / "instances_minival2014.json").write_text(json.dumps(content))
    images = open_dataset(coco, "minival2014")
    assert [images.image_path(index).parent.name for index in range(2)] == ["val2014"] * 2


def test_an_image_that_is_in_neither_folder_or_in_both_is_named(coco, tmp_path):
    make_minival(coco, write_list(tmp_path, [5, 42], "2017"))
    image = coco / "val2014" / name_of("val2014", 42)
    (coco / "train2014" / image.name).write_bytes(image.read_bytes())
    with pytest.raises(UserError, match=rf"{image.name}: train2014 has an image of this name, too"):
        open_dataset(coco, "minival")
    (coco / "train2014" / image.name).unlink()
    image.unlink()
    with pytest.raises(UserError, match=rf"{image.name}.*the image is missing"):
        open_dataset(coco, "minival")


def test_work_on_all_splits_takes_each_image_once(coco, tmp_path):
    assert list_splits(coco) == ["val2014", "train2014"]
    file = write_list(tmp_path, [5, 42], "2017")
    file.rename(coco / "annotations" / "instances_val2017.json")
    make_minival(coco, coco / "annotations" / "instances_val2017.json")
    assert list_splits(coco) == ["trainval35k", "minival"]


def test_the_command_shows_what_is_where_and_what_comes_next(coco, tmp_path, capsys):
    file = write_list(tmp_path, [5, 42], "2017")
    assert main(["minival", str(coco), str(file)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("trainval35k: 7 images, ") and shown[0].endswith("instances_trainval35k.json")
    assert shown[1].startswith("minival:     2 images, ")
    assert f"afrcnn proposals {coco} --split trainval35k minival" in shown[2]
    assert main(["minival", str(coco), str(tmp_path / "none")]) == 2
    assert "none: cannot be read as a list of images" in capsys.readouterr().err
    assert main(["minival", str(tmp_path / "nowhere"), str(file)]) == 2
