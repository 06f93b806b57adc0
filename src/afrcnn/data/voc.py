"""The PASCAL VOC layout: one XML file of boxes an image, one list of ids a split.

Reference: Everingham et al., The PASCAL Visual Object Classes (VOC) Challenge, IJCV 2010, and its development kit.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import defusedxml.ElementTree

from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.data.annotations import AnnotatedImages
from afrcnn.data.image import read_image_size

_LISTS = Path("ImageSets", "Main")
_LONGEST_ID = 200
"""Bytes; no file has a longer name, with its suffix."""
_FLAGS = ("truncated", "occluded", "difficult")
_EXTRA = {"occlusion": ("hidden", 0.0, 1.0), "bend": ("bend", -math.inf, math.inf)}
"""What generated scenes record beyond VOC's fields: the element that holds it, and its range."""


@dataclass(frozen=True)
class VOCObject:
    """One object of an annotation.

    Attributes:
        name: the object's class.
        box: x1, y1, x2, y2 in pixels, half-open, from 0.
        difficult: VOC's flag: not counted in evaluation.
        truncated: VOC's flag: the object goes on beyond its box.
        occluded: VOC's flag: something occludes a part of the object.
        occlusion: the fraction of the object that others occlude, in [0, 1]; None where unknown.
        bend: how far the object is bent, in degrees; None where unknown.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False
    truncated: bool = False
    occluded: bool = False
    occlusion: float | None = None
    bend: float | None = None


def _read_annotation(path: Path) -> tuple[tuple[int, int] | None, list[VOCObject]]:
    """Read one XML file; one that declares entities, which could fill the memory, is refused.

    Args:
        path: the file, ``Annotations/<id>.xml``.

    Returns:
        The image's height and width in pixels, None where the file does not say; and the objects, in the order of the
        file, with the boxes as they are written: neither checked nor clipped.

    Raises:
        UserError: the file is missing or malformed, lacks a field, or has one that is not a number.
    """
    root = _parse(path)
    mistake = partial(UserError, file=path, fix="correct the annotation")

    def number(
        element: ElementTree.Element, field: str, low: float = -math.inf, high: float = math.inf, default: str = ""
    ) -> float:
        text = (element.findtext(field.rpartition("]/")[2]) or default).strip()
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and low <= value <= high):
            kind = "a finite number" if math.isinf(high) else f"a number from {low:g} to {high:g}"
            raise mistake(f"{text!r} is not {kind}" if text else f"is missing, should be {kind}", field=field)
        return value

    objects = []
    for n, element in enumerate(root.findall("object"), start=1):
        at = f"object[{n}]"
        name = (element.findtext("name") or "").strip()
        if not name:
            raise mistake("is missing", field=f"{at}/name", fix="name the object's class")
        # VOC's pixels count from 1 and include the last: [xmin, xmax] covers xmin - 1 to xmax.
        x1, y1 = (number(element, f"{at}/bndbox/{tag}") - 1 for tag in ("xmin", "ymin"))
        x2, y2 = (number(element, f"{at}/bndbox/{tag}") for tag in ("xmax", "ymax"))
        fields: dict[str, Any] = {flag: bool(number(element, f"{at}/{flag}", 0, 1, default="0")) for flag in _FLAGS}
        for key, (tag, low, high) in _EXTRA.items():
            if element.find(tag) is not None:
                fields[key] = number(element, f"{at}/{tag}", low, high)
        objects.append(VOCObject(name, (x1, y1, x2, y2), **fields))
    # Some tools write a size of 0 where they do not know it.
    height, width = (int(number(root, f"size/{tag}", 0, 2**31 - 1, default="0")) for tag in ("height", "width"))
    return (height, width) if height and width else None, objects


def _parse(path: Path) -> ElementTree.Element:
    mistake = partial(UserError, file=path)
    try:
        root: ElementTree.Element = defusedxml.ElementTree.fromstring(path.read_bytes())
    except FileNotFoundError as error:
        fix = "restore it, or choose a split whose images are annotated"
        raise mistake("the annotation is missing", fix=fix) from error
    except defusedxml.DefusedXmlException as error:
        raise mistake("the XML declares entities", fix="remove them; annotations need none") from error
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise mistake(f"cannot be read as XML ({error})", fix="correct or replace the file") from error
    if root.tag != "annotation":
        raise mistake(f"the outermost element is <{root.tag}>", field="annotation", fix="write VOC's <annotation>")
    return root


def write_annotation(path: Path, *, filename: str, height: int, width: int, objects: Sequence[VOCObject]) -> None:
    """Write the annotation of one image as VOC's XML, in VOC's 1-based inclusive pixels.

    What VOC has no field for, ``occlusion`` and ``bend``, goes into the elements ``<hidden>`` and ``<bend>`` of
    ``<object>``, which readers of plain VOC pass over.

    Args:
        path: the XML file to write, ``Annotations/<id>.xml``.
        filename: the name of the image's file in ``JPEGImages``.
        height: the image's height in pixels.
        width: the image's width in pixels.
        objects: what the image shows; may be empty.

    Raises:
        UserError: the file cannot be written.
    """

    def add(parent: ElementTree.Element, **values: str | float) -> None:
        for tag, value in values.items():
            text = value if isinstance(value, str) else f"{value}".removesuffix(".0")
            ElementTree.SubElement(parent, tag).text = text

    root = ElementTree.Element("annotation")
    add(root, filename=filename)
    add(ElementTree.SubElement(root, "size"), width=width, height=height, depth=3)
    for item in objects:
        element = ElementTree.SubElement(root, "object")
        add(element, name=item.name, **{flag: int(getattr(item, flag)) for flag in _FLAGS})
        extra = {tag: getattr(item, key) for key, (tag, *_) in _EXTRA.items()}
        add(element, **{tag: value for tag, value in extra.items() if value is not None})
        x1, y1, x2, y2 = map(float, item.box)
        add(ElementTree.SubElement(element, "bndbox"), xmin=x1 + 1, ymin=y1 + 1, xmax=x2, ymax=y2)
    ElementTree.indent(root, space="\t")
    with atomic_write(path) as file:
        file.write(ElementTree.tostring(root, encoding="unicode") + "\n")


class VOCLayout:
    """Datasets in PASCAL VOC layout, with any classes.

    The folder holds ``JPEGImages/<id>.jpg`` (or .jpeg, .png), ``Annotations/<id>.xml`` and
    ``ImageSets/Main/<split>.txt``, one id a line; the second column of VOC's lists by class is passed over.
    All annotations of a split are read and checked at once, so that a mistake shows before any work. A split of which
    no image has one, as VOC 2012's test, is not ``annotated``; one of which some have none is refused.

    Targets hold ``difficult``, ``truncated`` and ``occluded``, False where an annotation does not say, and
    ``occlusion`` and ``bend`` (M, float32, NaN where unknown) if any object of the split has them. The parts of
    VOC's person layout are not objects.
    """

    name = "voc"
    signature = "PASCAL VOC's layout (ImageSets/Main/*.txt)"
    linked: tuple[str, ...] = ("Annotations",)

    def recognises(self, root: Path) -> bool:
        """Tell whether a folder has this layout; one of several years has it, too, and ``open`` says which to name."""
        return any(any(root.glob(pattern)) for pattern in ("ImageSets/Main", "*/ImageSets/Main"))

    def splits(self, root: Path) -> list[str]:
        """Return the splits of a dataset, VOC's lists of single classes (``dog_trainval``) left out."""
        names = {file.stem for file in (root / _LISTS).glob("*.txt")}
        return sorted(name for name in names if name.rpartition("_")[2] not in names - {name})

    def open(self, root: Path, split: str, classes: Sequence[str] | None = None) -> AnnotatedImages:
        """Read a split.

        Args:
            root: the folder, e.g. ``VOCdevkit/VOC2007``.
            split: the name of a list in ``ImageSets/Main``, e.g. ``trainval``.
            classes: the names of the classes 1..K; by default those of all annotations of the folder, whatever
                the split, in alphabetical order. For VOC itself these are its 20 classes in its own order.

        Raises:
            UserError: something in the folder is missing, malformed or contradictory; the message names it.
        """
        ids = self._read_list(root, split)
        annotation_files = [f"Annotations/{id_}.xml" for id_ in ids]
        annotated = any((root / file).is_file() for file in annotation_files)
        annotations = [_read_annotation(root / file) if annotated else (None, []) for file in annotation_files]
        objects = [(row, n, item) for row, (_, items) in enumerate(annotations) for n, item in enumerate(items, 1)]
        if classes is None:
            classes = sorted({item.name for *_, item in objects} | _scan_classes(root, set(ids)))
        files = _find_images(root, ids)
        sizes = [size or read_image_size(root / file) for (size, _), file in zip(annotations, files, strict=True)]

        def locate(i: int) -> tuple[Path, str, str]:
            row, n, _ = objects[i]
            return root / annotation_files[row], f"object[{n}]/name", f"object[{n}]/bndbox"

        recorded = [key for key in _EXTRA if {getattr(item, key) for *_, item in objects} - {None}]
        columns = dict.fromkeys(_FLAGS, "?") | dict.fromkeys(recorded, "f4")  # None becomes NaN
        values = attrgetter("name", "box", *columns)
        rows = [(row, *values(item)) for row, _, item in objects]
        dataset = AnnotatedImages(root, classes, ids, files, annotation_files, sizes, rows, columns, locate)
        dataset.annotated = annotated
        return dataset

    def split_file(self, root: Path, split: str) -> Path:
        """Return the file that makes a split."""
        return root / _LISTS / f"{split}.txt"

    def split_content(self, dataset: AnnotatedImages, indices: Sequence[int]) -> str:
        """Return the file of a split of some images of a dataset: the list of their ids."""
        return "".join(f"{dataset.ids[index]}\n" for index in indices)

    def _read_list(self, root: Path, split: str) -> list[str]:
        """Return the ids of a split, in the order of its list."""
        path = self.split_file(root, split)
        mistake = partial(UserError, file=path)
        if not path.parent.is_dir():
            years = sorted(folder.parent.name for folder in root.glob("*/ImageSets"))
            year = f"name the folder of one year, e.g. {root / years[0]}" if years else ""
            fix = year or "give the folder with ImageSets/Main"
            raise UserError("no dataset in PASCAL VOC layout (ImageSets/Main is missing)", file=root, fix=fix)
        if not path.is_file():
            splits = self.splits(root)
            fix = f"choose one of {', '.join(splits)}" if splits else "list the ids of its images in this file"
            raise mistake("the split is missing", fix=fix)
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise mistake(f"cannot be read ({error})", fix="save it as UTF-8 text") from error
        # A second column of lists by class says whether the image shows it: -1, 0 (difficult) or 1.
        ids = [re.sub(r"\s+(-1|0|1)$", "", line.strip()) for line in lines if line.strip()]
        if not ids:
            raise mistake("the split is empty", fix="list the ids of its images, one a line")
        if too_long := [id_ for id_ in ids if len(id_.encode()) > _LONGEST_ID]:
            raise mistake(
                f"{too_long[0]:.40}... is not the id of an image", fix="list the ids of its images, one a line"
            )
        [(id_, count)] = Counter(ids).most_common(1)
        if count > 1:
            raise mistake(f"the image {id_} is listed twice", fix="list each image once")
        return ids


def _scan_classes(root: Path, read: Collection[str]) -> set[str]:
    """Return the classes of the annotations of the folder, but for those of images that have been read."""
    paths = [path for path in (root / "Annotations").glob("*.xml") if path.stem not in read]
    names = {(item.findtext("name") or "").strip() for path in paths for item in _parse(path).iterfind("object")}
    return names - {""}


def _find_images(root: Path, ids: Sequence[str]) -> list[str]:
    """Return each image's file, relative to the root."""
    folder = root / "JPEGImages"
    # Sorted, so that of two files with one id the same is taken on every machine.
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    names = {file.stem: file.name for file in files if file.suffix.lower() in (".jpg", ".jpeg", ".png")}
    for id_ in ids:
        if id_ not in names:
            problem, fix = "the image is missing (as .jpg, .jpeg or .png)", "restore it or remove it from the split"
            raise UserError(problem, file=folder / f"{id_}.jpg", fix=fix)
    return [f"JPEGImages/{names[id_]}" for id_ in ids]
