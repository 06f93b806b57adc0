"""PASCAL VOC layout: what is read, and that each mistake in it is named."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision import tv_tensors
from torchvision.transforms import v2

from afrcnn.core.errors import UserError
from afrcnn.data.voc import VOCLayout
from afrcnn.data.voc_xml import VOCObject, read_annotation, write_annotation

open_voc = VOCLayout().open

SIZE = "<size><width>40</width><height>30</height><depth>3</depth></size>"


def thing(name: str = "cat", box: tuple[object, ...] = (1, 1, 40, 30), more: str = "") -> str:
    corners = "".join(
        f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of 30 x 40, a cat and a dog in the first, nothing in the second."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / name).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for id_, objects in (("a", thing("cat", (11, 6, 20, 25)) + thing("dog", (1, 1, 40, 30))), ("b", "")):
        Image.fromarray(pixels).save(tmp_path / "JPEGImages" / f"{id_}.jpg")
        (tmp_path / "Annotations" / f"{id_}.xml").write_text(f"<annotation>{SIZE}{objects}</annotation>")
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\n")
    return tmp_path


def annotate(folder: Path, content: str) -> Path:
    path = folder / "Annotations" / "a.xml"
    path.write_text(f"<annotation>{content}</annotation>")
    return path


def test_inclusive_pixels_from_1_become_half_open_pixels_from_0(folder: Path) -> None:
    image, target = open_voc(folder, "train")[0]
    assert isinstance(image, tv_tensors.Image)
    assert image.shape == (3, 30, 40)
    assert image.dtype == torch.uint8
    assert isinstance(target["boxes"], tv_tensors.BoundingBoxes)
    assert target["boxes"].canvas_size == (30, 40)
    assert target["boxes"].dtype == torch.float32
    assert target["boxes"].tolist() == [[10, 5, 20, 25], [0, 0, 40, 30]]
    assert target["labels"].tolist() == [1, 2]
    assert target["labels"].dtype == torch.int64
    assert target["image_id"] == "a"


def test_an_image_without_objects_has_empty_boxes_and_labels(folder: Path) -> None:
    target = open_voc(folder, "train").target(1)
    assert target["boxes"].shape == (0, 4)
    for name, dtype in (("labels", torch.int64), ("difficult", torch.bool)):
        assert target[name].shape == (0,)
        assert target[name].dtype == dtype


def test_a_dataset_is_a_sequence(folder: Path) -> None:
    dataset = open_voc(folder, "train")
    assert [target["image_id"] for _, target in dataset] == dataset.ids == ["a", "b"]
    assert dataset.target(-2)["boxes"].tolist() == dataset.target(0)["boxes"].tolist()
    with pytest.raises(IndexError):
        dataset.target(2)


def test_flags_are_false_where_they_are_absent(folder: Path) -> None:
    flags = "<difficult>1</difficult><truncated>0</truncated><occluded>1</occluded>"
    annotate(folder, SIZE + thing() + thing(more=flags) + thing(more="<difficult/>"))
    target = open_voc(folder, "train").target(0)
    assert target["difficult"].tolist() == [False, True, False]
    assert target["truncated"].tolist() == [False, False, False]
    assert target["occluded"].tolist() == [False, True, False]


def test_parts_of_a_person_are_not_objects(folder: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>"
    annotate(folder, SIZE + thing("person", (5, 5, 9, 9), more=part))
    dataset = open_voc(folder, "train")
    assert dataset.classes == ("person",)
    assert dataset.target(0)["boxes"].tolist() == [[4, 4, 9, 9]]


def test_fractional_coordinates_are_kept(folder: Path) -> None:
    annotate(folder, SIZE + thing(box=("1.5", "2.25", "30.125", "20")))
    assert open_voc(folder, "train").target(0)["boxes"].tolist() == [[0.5, 1.25, 30.125, 20]]


def test_boxes_within_a_pixel_of_the_image_are_clipped(folder: Path) -> None:
    annotate(folder, SIZE + thing(box=(0, 0, 41, 31)))  # counted from 0, and rounded up
    assert open_voc(folder, "train").target(0)["boxes"].tolist() == [[0, 0, 40, 30]]


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>"])
def test_without_a_size_the_header_of_the_image_tells_it(folder: Path, size: str) -> None:
    annotate(folder, size + thing())
    assert open_voc(folder, "train").image_size(0) == (30, 40)


def test_classes_are_those_of_the_whole_folder_in_alphabetical_order(folder: Path) -> None:
    (folder / "Annotations" / "c.xml").write_text(f"<annotation>{SIZE}{thing('bee')}</annotation>")
    dataset = open_voc(folder, "train")
    assert dataset.classes == ("bee", "cat", "dog")
    assert dataset.target(0)["labels"].tolist() == [2, 3]


def test_given_classes_keep_their_order(folder: Path) -> None:
    assert open_voc(folder, "train", ["dog", "cow", "cat"]).target(0)["labels"].tolist() == [3, 1]


def test_the_second_column_of_lists_by_class_is_passed_over(folder: Path) -> None:
    (folder / "ImageSets/Main/cat_train.txt").write_text("a  1\nb -1\n")
    assert open_voc(folder, "cat_train").ids == ["a", "b"]


def test_ids_may_hold_spaces_and_dots(folder: Path) -> None:
    for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (folder / kind / f"a.{suffix}").rename(folder / kind / f"my cat.v2.{suffix}")
    (folder / "ImageSets/Main/train.txt").write_text("\ufeffmy cat.v2\r\n\r\n", encoding="utf-8")
    assert open_voc(folder, "train").image_path(0) == folder / "JPEGImages" / "my cat.v2.jpg"


@pytest.mark.parametrize("suffix", [".jpeg", ".png", ".JPG"])
def test_images_of_other_suffixes_are_found(folder: Path, suffix: str) -> None:
    path = folder / "JPEGImages" / "a.jpg"
    Image.open(path).save(path.with_suffix(".tmp"), "PNG")
    path.unlink()
    path.with_suffix(".tmp").rename(path.with_suffix(suffix))
    dataset = open_voc(folder, "train")
    assert dataset.image_path(0) == path.with_suffix(suffix)
    assert dataset[0][0].shape == (3, 30, 40)


def test_a_written_annotation_reads_back_the_same(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    objects = tuple(
        VOCObject(
            name=name,
            box=tuple(random.uniform(0, 400, 4).astype(np.float32).tolist()),
            difficult=bool(i % 2),
            truncated=bool(i // 2 % 2),
            occluded=bool(i // 4 % 2),
            occlusion=None if i == 3 else random.random(),
            bend=None if i == 5 else random.uniform(-90, 90),
        )
        for i, name in enumerate(["cat", "<dog & co>", "été", "a b", "1", "x"] * 3)
    )
    write_annotation(tmp_path / "new" / "a.xml", filename="a.jpg", height=480, width=640, objects=objects)
    size, read = read_annotation(tmp_path / "new" / "a.xml")
    assert size == (480, 640)
    assert [(o.name, o.difficult, o.truncated, o.occluded, o.occlusion, o.bend) for o in read] == [
        (o.name, o.difficult, o.truncated, o.occluded, o.occlusion, o.bend) for o in objects
    ]
    boxes = np.array([o.box for o in read], dtype=np.float32)
    assert np.array_equal(boxes, np.array([o.box for o in objects], dtype=np.float32))


def test_what_is_recorded_of_objects_is_in_the_target_and_nan_where_unknown(folder: Path) -> None:
    box = (1.0, 2.0, 30.0, 20.0)
    objects = [VOCObject("cat", box, occlusion=0.25, bend=-12.5), VOCObject("cat", box)]
    write_annotation(folder / "Annotations/a.xml", filename="a.jpg", height=30, width=40, objects=objects)
    dataset = open_voc(folder, "train")
    for name, value in (("occlusion", 0.25), ("bend", -12.5)):
        column = dataset.target(0)[name]
        assert column.dtype == torch.float32
        assert column[0] == value
        assert column[1].isnan()
        assert dataset.target(1)[name].shape == (0,)


def test_plain_annotations_have_neither_occlusion_nor_bend(folder: Path) -> None:
    assert not {"occlusion", "bend"} & open_voc(folder, "train").target(0).keys()


# Mistakes: each is one line that names the file, the field and the fix.

CORNERS = "<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>"


@pytest.mark.parametrize(
    ("content", "field", "problem"),
    [
        (thing(box=(1, 1, 50, 30)), "object[1]/bndbox", "outside the image of 40 x 30"),
        (thing() + thing(box=(-5, 1, 9, 9)), "object[2]/bndbox", "outside the image"),
        (thing(box=(41, 1, 41, 9)), "object[1]/bndbox", "outside the image"),
        (thing(box=(10, 1, 9, 9)), "object[1]/bndbox", "no area"),
        (thing(box=(1, 20, 9, 3)), "object[1]/bndbox", "no area"),
        (thing(box=("nan", 1, 9, 9)), "object[1]/bndbox/xmin", "'nan' is not a finite number"),
        (thing(box=(1, "inf", 9, 9)), "object[1]/bndbox/ymin", "'inf' is not"),
        (thing(box=(1, 1, "wide", 9)), "object[1]/bndbox/xmax", "'wide' is not"),
        (f"<object><name>cat</name><bndbox>{CORNERS}</bndbox></object>", "object[1]/bndbox/ymax", "missing"),
        ("<object><name>cat</name></object>", "object[1]/bndbox/xmin", "missing"),
        (thing(name=" "), "object[1]/name", "missing"),
        (thing(name="yak"), "object[1]/name", "unknown class 'yak'"),
        (thing(more="<difficult>maybe</difficult>"), "object[1]/difficult", "'maybe' is not a number from 0 to 1"),
        (thing(more="<hidden>1.5</hidden>"), "object[1]/hidden", "'1.5' is not a number from 0 to 1"),
        (thing(more="<bend>nan</bend>"), "object[1]/bend", "'nan' is not"),
    ],
)
def test_a_mistake_in_an_object_is_named(folder: Path, content: str, field: str, problem: str) -> None:
    path = annotate(folder, SIZE + content)
    with pytest.raises(UserError, match=re.escape(problem)) as error:
        open_voc(folder, "train", ["cat"])
    assert (error.value.file, error.value.field) == (path, field)
    assert error.value.fix
    assert "\n" not in str(error.value)


BOMB = b"""<!DOCTYPE annotation [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><annotation>&b;</annotation>"""
OUTSIDE = b"""<!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/hostname">]><annotation>&a;</annotation>"""


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"<annotation><object>", "cannot be read as XML"),
        (b"", "cannot be read as XML"),
        (b"<annotation>\xff\xfe\x80</annotation>", "cannot be read as XML"),
        (b"<?xml version='1.0' encoding='no-such'?><annotation/>", "cannot be read as XML"),
        (b"<html/>", "outermost element is <html>"),
        (BOMB, "declares entities"),
        (OUTSIDE, "declares entities"),
    ],
)
def test_a_malformed_or_hostile_annotation_is_named(folder: Path, content: bytes, problem: str) -> None:
    path = folder / "Annotations" / "a.xml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=problem) as error:
        open_voc(folder, "train")
    assert error.value.file == path
    assert error.value.fix


def split(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "ImageSets/Main/train.txt").write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "file", "problem"),
    [
        (split(b"\n \n"), "ImageSets/Main/train.txt", "the split is empty"),
        (split(b"a\nb\na\n"), "ImageSets/Main/train.txt", "a is listed twice"),
        (split(b"\xe9t\xe9\n"), "ImageSets/Main/train.txt", "cannot be read.*UTF-8"),
        (split(b"a\nc\n"), "Annotations/c.xml", "the annotation is missing.*annotated"),
        (lambda folder: (folder / "JPEGImages/b.jpg").unlink(), "JPEGImages/b.jpg", "the image is missing"),
        (lambda folder: (folder / "ImageSets/Main/train.txt").rename(folder / "ImageSets/Main/val.txt"),
         "ImageSets/Main/train.txt", "the split is missing; choose one of val"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_folder_is_named(
    folder: Path, spoil: Callable[[Path], object], file: str, problem: str
) -> None:
    spoil(folder)
    with pytest.raises(UserError, match=problem) as error:
        open_voc(folder, "train")
    assert error.value.file == folder / file
    assert error.value.fix


def test_splits_by_class_are_not_offered(folder: Path) -> None:
    for name in ("val", "cat_train", "cat_val"):
        (folder / "ImageSets/Main" / f"{name}.txt").write_text("a 1\n")
    with pytest.raises(UserError, match=r"choose one of train, val$"):
        open_voc(folder, "test")


def test_a_folder_of_several_years_says_which_to_name(folder: Path) -> None:
    year = folder / "VOCdevkit" / "VOC2007"
    year.mkdir(parents=True)
    (folder / "ImageSets").rename(year / "ImageSets")
    with pytest.raises(UserError, match=re.escape(str(year))):
        open_voc(folder / "VOCdevkit", "train")


def test_a_class_given_twice_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="classes: a class is named twice"):
        open_voc(folder, "train", ["cat", "dog", "cat"])


def test_an_image_of_another_size_than_its_annotation_is_named_with_both_files(folder: Path) -> None:
    path = folder / "JPEGImages" / "a.jpg"
    Image.new("RGB", (30, 40)).save(path)
    with pytest.raises(UserError, match=r"30 x 40 pixels.*a\.xml says 40 x 30") as error:
        open_voc(folder, "train")[0]
    assert error.value.file == path


def test_targets_paths_and_sizes_do_not_read_the_image(folder: Path) -> None:
    path = folder / "JPEGImages" / "a.jpg"
    path.write_bytes(b"no image at all")
    dataset = open_voc(folder, "train")
    assert len(dataset.target(0)["boxes"]) == 2
    assert (dataset.image_path(0), dataset.image_size(0)) == (path, (30, 40))
    with pytest.raises(UserError, match="cannot be decoded"):
        dataset[0]


def test_changing_a_target_leaves_the_dataset_as_it_was(folder: Path) -> None:
    dataset = open_voc(folder, "train")
    target = dataset.target(0)
    target["boxes"].zero_()
    target["labels"].zero_()
    assert dataset.target(0)["boxes"].tolist() == [[10, 5, 20, 25], [0, 0, 40, 30]]
    assert dataset.target(0)["labels"].tolist() == [1, 2]


# Transforms move boxes: results by hand for the cat at (10, 5, 20, 25) and the dog at (0, 0, 40, 30) in 40 x 30.


def test_a_flip_moves_boxes(folder: Path) -> None:
    dataset = open_voc(folder, "train")
    image, target = v2.RandomHorizontalFlip(p=1)(*dataset[0])
    assert target["boxes"].tolist() == [[20, 5, 30, 25], [0, 0, 40, 30]]
    assert torch.equal(image, dataset[0][0].flip(-1))


def test_a_resize_moves_boxes(folder: Path) -> None:
    image, target = v2.Resize((60, 120))(*open_voc(folder, "train")[0])
    assert image.shape == (3, 60, 120)
    assert target["boxes"].tolist() == [[30, 10, 60, 50], [0, 0, 120, 60]]
    assert target["boxes"].canvas_size == (60, 120)


def test_a_crop_moves_boxes_and_drops_those_outside_with_their_labels(folder: Path) -> None:
    transform = v2.Compose([
        v2.Lambda(lambda image: v2.functional.crop(image, 4, 22, 20, 16), tv_tensors.Image, tv_tensors.BoundingBoxes),
        v2.SanitizeBoundingBoxes(labels_getter=lambda sample: (sample[1]["labels"], sample[1]["difficult"])),
    ])  # fmt: skip
    image, target = transform(*open_voc(folder, "train")[0])
    assert image.shape == (3, 20, 16)
    assert target["boxes"].tolist() == [[0, 0, 16, 20]]
    assert target["labels"].tolist() == [2]
    assert target["difficult"].tolist() == [False]


def test_a_dataset_survives_pickling_for_data_loading_workers(folder: Path) -> None:
    dataset = pickle.loads(pickle.dumps(open_voc(folder, "train")))
    image, target = dataset[0]
    assert torch.equal(image, open_voc(folder, "train")[0][0])
    assert target["boxes"].tolist() == [[10, 5, 20, 25], [0, 0, 40, 30]]


@pytest.mark.parametrize(("name", "split"), [("fruit", "trainval"), ("cards", "test"), ("bccd", "trainval")])
def test_real_annotations_are_read_whole(shared: Path, name: str, split: str) -> None:
    """Against an independent count of the tags by regular expressions."""
    root = shared / "data" / name
    ids = (root / "ImageSets/Main" / f"{split}.txt").read_text().split()
    dataset = open_voc(root, split)
    assert dataset.ids == ids
    names = set()
    for path in (root / "Annotations").glob("*.xml"):
        names |= set(re.findall(r"<object><name>([^<]+)</name>", path.read_text()))
    assert dataset.classes == tuple(sorted(names))
    pattern = r"<name>(.*?)</name>.*?<xmin>(.*?)</xmin><ymin>(.*?)</ymin><xmax>(.*?)</xmax><ymax>(.*?)</ymax>"
    for i, id_ in enumerate(ids):
        found = re.findall(pattern, (root / "Annotations" / f"{id_}.xml").read_text())
        target = dataset.target(i)
        assert [dataset.classes[label - 1] for label in target["labels"]] == [each[0] for each in found]
        boxes = torch.tensor([[float(value) for value in each[1:]] for each in found]).reshape(-1, 4)
        assert torch.equal(target["boxes"].as_subclass(torch.Tensor), boxes - torch.tensor([1.0, 1, 0, 0]))
    for i in range(0, len(ids), 37):
        reference = cv2.imread(str(dataset.image_path(i)), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        difference = dataset[i][0].permute(1, 2, 0).numpy().astype(int) - reference[..., ::-1]
        assert abs(difference).max() <= 4  # decoders may round differently


# Test sets whose annotations are not published.


def test_a_split_without_any_annotation_has_images_and_no_objects(folder: Path) -> None:
    for file in (folder / "Annotations").iterdir():
        file.unlink()
    dataset = open_voc(folder, "train", ["dog", "cat"])
    assert not dataset.annotated
    assert (dataset.classes, dataset.ids, dataset.image_size(1)) == (("dog", "cat"), ["a", "b"], (30, 40))
    image, target = dataset[0]
    assert image.shape == (3, 30, 40)
    assert target["boxes"].shape == (0, 4) and target["labels"].shape == (0,)
    assert open_voc(folder, "train").classes == ()
    (folder / "Annotations").rmdir()
    assert not open_voc(folder, "train").annotated


def test_the_annotations_of_other_splits_name_the_classes_of_one_without(folder: Path) -> None:
    (folder / "ImageSets/Main/test.txt").write_text("c\n")
    (folder / "JPEGImages/c.jpg").write_bytes((folder / "JPEGImages/a.jpg").read_bytes())
    dataset = open_voc(folder, "test")
    assert (dataset.annotated, dataset.classes) == (False, ("cat", "dog"))
    assert open_voc(folder, "train").annotated


def test_a_split_of_which_some_annotations_are_missing_is_refused(folder: Path) -> None:
    (folder / "Annotations/b.xml").unlink()
    with pytest.raises(UserError, match=r"b\.xml: the annotation is missing; restore it"):
        open_voc(folder, "train")


# What other tools and systems write.


def test_images_in_subfolders_are_found_by_their_ids(folder: Path) -> None:
    for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (folder / kind / "cam0").mkdir()
        (folder / kind / f"a.{suffix}").rename(folder / kind / "cam0" / f"00001.{suffix}")
    split(b"cam0/00001\nb\n")(folder)
    dataset = open_voc(folder, "train")
    assert dataset.ids == ["cam0/00001", "b"]
    assert dataset.image_path(0) == folder / "JPEGImages/cam0/00001.jpg"
    assert dataset.classes == ("cat", "dog")
    split(b"../JPEGImages/b\n")(folder)
    with pytest.raises(UserError, match="missing"):
        open_voc(folder, "train")


@pytest.mark.parametrize("suffix", [".webp", ".bmp", ".tif", ".TIFF", ".gif", ".WebP"])
def test_images_of_all_formats_are_found(folder: Path, suffix: str) -> None:
    path = folder / "JPEGImages" / "a.jpg"
    Image.open(path).save(path.with_suffix(suffix.lower()))
    path.with_suffix(suffix.lower()).rename(path.with_suffix(suffix))
    path.unlink()
    assert open_voc(folder, "train")[0][0].shape == (3, 30, 40)


@pytest.mark.parametrize("end", ["0", "1", "-1"])
def test_ids_that_end_as_a_flag_of_lists_by_class_stay_whole(folder: Path, end: str) -> None:
    for id_ in (f"a {end}", "a"):
        for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
            path = folder / kind / f"{id_}.{suffix}"
            if not path.exists():
                path.write_bytes((folder / kind / f"b.{suffix}").read_bytes())
    split(f"a {end}\nb\n".encode())(folder)
    assert open_voc(folder, "train").ids == [f"a {end}", "b"]


def test_lists_may_name_files(folder: Path) -> None:
    split(b"a.jpg\nb.jpg\n")(folder)
    dataset = open_voc(folder, "train")
    assert dataset.ids == ["a", "b"]
    assert len(dataset.target(0)["labels"]) == 2


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_are_one_in_either_form_of_unicode(folder: Path, listed: str, stored: str) -> None:
    for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (folder / kind / f"a.{suffix}").rename(folder / kind / f"{normalize(stored, 'été')}.{suffix}")
    split(normalize(listed, "été\nb\n").encode())(folder)
    assert len(open_voc(folder, "train").target(0)["labels"]) == 2


def test_hidden_files_of_archives_are_ignored(folder: Path) -> None:
    for name in ("Annotations/._a.xml", "JPEGImages/._a.jpg", "ImageSets/Main/._train.txt", "Annotations/.DS_Store"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    assert open_voc(folder, "train").classes == ("cat", "dog")
    assert VOCLayout().splits(folder) == ["train"]


@pytest.mark.parametrize("encoding", ["gb2312", "GBK", "shift_jis", "windows-1252", "UTF-16", "big5"])
def test_annotations_in_other_encodings_are_read(folder: Path, encoding: str) -> None:
    name = {"windows-1252": "été"}.get(encoding, "中")
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<annotation>{SIZE}{thing(name)}</annotation>'
    (folder / "Annotations/a.xml").write_bytes(text.encode(encoding))
    assert open_voc(folder, "train").classes == (name,)


def test_an_undeclared_encoding_is_told_with_its_likely_cause(folder: Path) -> None:
    text = f"<annotation>{SIZE}{thing('中')}</annotation>"
    (folder / "Annotations/a.xml").write_bytes(text.encode("gb2312"))
    with pytest.raises(UserError, match=r"cannot be read as XML.*saved as UTF-8"):
        open_voc(folder, "train")


def test_a_declared_encoding_hides_no_entities(folder: Path) -> None:
    text = '<?xml version="1.0" encoding="gb2312"?><!DOCTYPE annotation [<!ENTITY a "ha">]><annotation>&a;</annotation>'
    (folder / "Annotations/a.xml").write_bytes(text.encode("gb2312"))
    with pytest.raises(UserError, match="declares entities"):
        open_voc(folder, "train")


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("Unspecified", False),
        ("no", False),
        ("False", False),
        ("0.0", False),
        ("2", True),
        ("True", True),
        (" 1 ", True),
    ],
)
def test_flags_in_words_and_other_numbers_are_read(folder: Path, text: str, flag: bool) -> None:
    annotate(folder, SIZE + thing(more=f"<truncated>{text}</truncated><pose>Unspecified</pose>"))
    assert open_voc(folder, "train").target(0)["truncated"].tolist() == [flag]


def test_a_second_box_of_an_object_is_not_lost_in_silence(folder: Path) -> None:
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
    annotate(folder, SIZE + thing(more=box))
    with pytest.raises(UserError, match=r"object\[1\]/bndbox: is one of 2; write an <object> for each box"):
        open_voc(folder, "train")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("told", ["stored", "upright", "nothing"])
def test_boxes_lie_on_the_pixels_that_the_tool_showed(folder: Path, orientation: int, told: str) -> None:
    """A red rectangle stays in its box, whichever way the image was annotated, where its size tells."""
    pixels = np.zeros((30, 40, 3), dtype=np.uint8)
    pixels[4:14, 6:30] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(folder / "JPEGImages/a.png", exif=exif)
    (folder / "JPEGImages/a.jpg").unlink()
    upright = np.asarray(ImageOps.exif_transpose(Image.open(folder / "JPEGImages/a.png")))
    shown = pixels if told == "stored" and orientation >= 5 else upright
    rows, columns = np.where(shown[..., 0] > 0)
    box = (columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1)
    size = f"<size><width>{shown.shape[1]}</width><height>{shown.shape[0]}</height></size>"
    annotate(folder, ("" if told == "nothing" else size) + thing(box=box))
    image, target = open_voc(folder, "train")[0]
    x1, y1, x2, y2 = map(int, target["boxes"][0].tolist())
    inside = image[0, y1:y2, x1:x2]
    assert inside.min() == 255
    assert int((image[0] > 0).sum()) == inside.numel()
