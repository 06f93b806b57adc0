"""The PASCAL VOC layout: one XML file of boxes an image, one list of ids a split.

Reference: Everingham et al., The PASCAL Visual Object Classes (VOC) Challenge, IJCV 2010, and its development kit.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import defusedxml.ElementTree
import numpy as np
import numpy.typing as npt

from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.data.annotations import AnnotatedImages, check_boxes
from afrcnn.data.image import read_image_size

_FLAGS = ("truncated", "occluded", "difficult")
_EXTRA = {"hidden": (0.0, 1.0), "bend": (-math.inf, math.inf)}
"""What generated scenes record beyond VOC's fields, and the range of each."""


@dataclass(frozen=True)
class VOCObject:
    """One object of an annotation.

    Attributes:
        name: the object's class.
        box: x1, y1, x2, y2 in pixels, half-open, from 0.
        difficult: VOC's flag: not counted in evaluation.
        truncated: VOC's flag: the object goes on beyond its box.
        occluded: VOC's flag: something hides a part of the object.
        hidden: the fraction of the object that others hide, in [0, 1]; None where unknown.
        bend: how far the object is bent, in degrees; None where unknown.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False
    truncated: bool = False
    occluded: bool = False
    hidden: float | None = None
    bend: float | None = None


@dataclass(frozen=True)
class VOCAnnotation:
    """What an annotation says of its image.

    Attributes:
        size: the image's height and width in pixels; None where the file does not say.
        objects: the objects, in the order of the file.
    """

    size: tuple[int, int] | None
    objects: tuple[VOCObject, ...]


def read_annotation(path: Path) -> VOCAnnotation:
    """Read one XML file; one that declares entities, which could fill the memory, is refused.

    Args:
        path: the file, ``Annotations/<id>.xml``.

    Returns:
        The annotation, with the boxes as they are written: neither checked nor clipped.

    Raises:
        UserError: the file is missing or malformed, lacks a field, or has one that is no number.
    """
    root = _parse(path)

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
            problem = f"{text!r} is not {kind}" if text else f"is missing, should be {kind}"
            raise UserError(problem, file=path, field=field, fix="correct the annotation")
        return value

    objects = []
    for n, element in enumerate(root.findall("object"), start=1):
        at = f"object[{n}]"
        name = (element.findtext("name") or "").strip()
        if not name:
            raise UserError("is missing", file=path, field=f"{at}/name", fix="name the object's class")
        # VOC's pixels count from 1 and include the last: [xmin, xmax] covers xmin - 1 to xmax.
        x1, y1 = (number(element, f"{at}/bndbox/{tag}") - 1 for tag in ("xmin", "ymin"))
        x2, y2 = (number(element, f"{at}/bndbox/{tag}") for tag in ("xmax", "ymax"))
        fields: dict[str, Any] = {flag: bool(number(element, f"{at}/{flag}", 0, 1, default="0")) for flag in _FLAGS}
        fields |= {
            tag: number(element, f"{at}/{tag}", low, high)
            for tag, (low, high) in _EXTRA.items()
            if element.find(tag) is not None
        }
        objects.append(VOCObject(name, (x1, y1, x2, y2), **fields))
    # Some tools write a size of 0 where they do not know it.
    height, width = (int(number(root, f"size/{tag}", 0, default="0")) for tag in ("height", "width"))
    return VOCAnnotation((height, width) if height and width else None, tuple(objects))


def _parse(path: Path) -> ElementTree.Element:
    try:
        root: ElementTree.Element = defusedxml.ElementTree.fromstring(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(
            "the annotation is missing", file=path, fix="restore it, or choose a split whose images are annotated"
        ) from error
    except defusedxml.DefusedXmlException as error:
        raise UserError("the XML declares entities", file=path, fix="remove them; annotations need none") from error
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"cannot be read as XML ({error})", file=path, fix="correct or replace the file") from error
    if root.tag != "annotation":
        raise UserError(
            f"the outermost element is <{root.tag}>", file=path, field="annotation", fix="write VOC's <annotation>"
        )
    return root


def write_annotation(path: Path, *, filename: str, height: int, width: int, objects: Sequence[VOCObject]) -> None:
    """Write the annotation of one image as VOC's XML, in VOC's 1-based inclusive pixels.

    What VOC has no field for, ``hidden`` and ``bend``, goes into elements of those names in ``<object>``,
    which readers of plain VOC pass over.

    Args:
        path: the XML file to write, ``Annotations/<id>.xml``.
        filename: the name of the image's file in ``JPEGImages``.
        height: the image's height in pixels.
        width: the image's width in pixels.
        objects: what the image shows; may be empty.

    Raises:
        UserError: the file cannot be written.
    """

    def add(parent: ElementTree.Element, tag: str, value: str | float) -> None:
        text = value if isinstance(value, str) else str(value).removesuffix(".0")
        ElementTree.SubElement(parent, tag).text = text

    root = ElementTree.Element("annotation")
    add(root, "filename", filename)
    size = ElementTree.SubElement(root, "size")
    add(size, "width", width)
    add(size, "height", height)
    add(size, "depth", 3)
    for item in objects:
        element = ElementTree.SubElement(root, "object")
        add(element, "name", item.name)
        for flag in _FLAGS:
            add(element, flag, int(getattr(item, flag)))
        for tag in _EXTRA:
            if (value := getattr(item, tag)) is not None:
                add(element, tag, value)
        x1, y1, x2, y2 = map(float, item.box)
        bndbox = ElementTree.SubElement(element, "bndbox")
        for tag, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
            add(bndbox, tag, value)
    ElementTree.indent(root, space="\t")
    with atomic_write(path) as file:
        file.write(ElementTree.tostring(root, encoding="unicode") + "\n")


class VOCDataset(AnnotatedImages):
    """A split of a dataset in PASCAL VOC layout, with any classes; a ``DetectionDataset``.

    The folder holds ``JPEGImages/<id>.jpg`` (or .jpeg, .png), ``Annotations/<id>.xml`` and
    ``ImageSets/Main/<split>.txt``, one id a line; the second column of VOC's lists by class is passed over.
    All annotations of the split are read and checked at once, so that a mistake shows before any work.

    Targets hold ``difficult``, ``truncated`` and ``occluded``, False where an annotation does not say, and
    ``hidden`` and ``bend`` (M, float32, NaN where unknown) if any object of the split has them. The parts of
    VOC's person layout are not objects.

    Args:
        root: the folder, e.g. ``VOCdevkit/VOC2007``.
        split: the name of a list in ``ImageSets/Main``, e.g. ``trainval``.
        classes: the names of the classes 1..K; by default those of all annotations of the folder, whatever
            the split, in alphabetical order. For VOC itself these are its 20 classes in its own order.

    Raises:
        UserError: something in the folder is missing, malformed or contradictory; the message names it.
    """

    def __init__(self, root: Path | str, split: str, classes: Sequence[str] | None = None) -> None:
        root = Path(root)
        ids = _read_split(root, split)
        annotations = {id_: read_annotation(root / "Annotations" / f"{id_}.xml") for id_ in ids}
        if classes is None:
            classes = _scan_classes(root, annotations)
        labels = {name: label for label, name in enumerate(classes, start=1)}
        if len(labels) < len(classes):
            raise UserError("a class is named twice", field="classes", fix="name each class once")

        files = _find_images(root, ids)
        sizes = [
            annotation.size or read_image_size(root / file)
            for annotation, file in zip(annotations.values(), files, strict=True)
        ]
        counts = [len(annotation.objects) for annotation in annotations.values()]
        objects = [item for annotation in annotations.values() for item in annotation.objects]
        sources = [(id_, n) for id_, count in zip(ids, counts, strict=True) for n in range(1, count + 1)]

        def locate(i: int, field: str = "bndbox") -> tuple[Path, str]:
            id_, n = sources[i]
            return root / "Annotations" / f"{id_}.xml", f"object[{n}]/{field}"

        for i, item in enumerate(objects):
            if item.name not in labels:
                file, field = locate(i, "name")
                raise UserError(
                    f"unknown class {item.name!r}",
                    file=file,
                    field=field,
                    fix=f"correct the name or add it to the classes ({', '.join(classes)})",
                )
        columns: dict[str, npt.NDArray[Any]] = {
            flag: np.array([getattr(item, flag) for item in objects], dtype=np.bool_) for flag in _FLAGS
        }
        for name in _EXTRA:
            values = np.array([getattr(item, name) for item in objects], dtype=np.float32)  # None becomes NaN
            if np.isfinite(values).any():
                columns[name] = values
        super().__init__(
            root,
            classes,
            ids,
            files=files,
            sizes=sizes,
            counts=counts,
            boxes=check_boxes([item.box for item in objects], np.repeat(sizes, counts, axis=0), locate),
            labels=[labels[item.name] for item in objects],
            columns=columns,
        )

    def annotation_path(self, index: int) -> Path:
        """Return the image's XML file."""
        return self.root / "Annotations" / f"{self.ids[index]}.xml"


def _scan_classes(root: Path, read: Mapping[str, VOCAnnotation]) -> list[str]:
    """Return the classes of all annotations of the folder, of which some have been read, in order."""
    names = {item.name for annotation in read.values() for item in annotation.objects}
    for path in (root / "Annotations").glob("*.xml"):
        if path.stem not in read:
            names.update((element.findtext("name") or "").strip() for element in _parse(path).iterfind("object"))
    return sorted(names - {""})


def _read_split(root: Path, split: str) -> list[str]:
    """Return the ids of a split, in the order of its list."""
    lists = root / "ImageSets" / "Main"
    path = lists / f"{split}.txt"
    if not lists.is_dir():
        years = sorted(folder.parent.name for folder in root.glob("*/ImageSets"))
        fix = f"name the folder of one year, e.g. {root / years[0]}" if years else "give the folder with ImageSets/Main"
        raise UserError("no dataset in PASCAL VOC layout (ImageSets/Main is missing)", file=root, fix=fix)
    if not path.is_file():
        names = {file.stem for file in lists.glob("*.txt")}
        splits = sorted(name for name in names if name.rpartition("_")[2] not in names - {name})  # not by class
        fix = f"choose one of {', '.join(splits)}" if splits else "list the ids of its images in this file"
        raise UserError("the split is missing", file=path, fix=fix)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read ({error})", file=path, fix="save it as UTF-8 text") from error
    # Lists by class say in a second column whether the image shows the class: -1, 0 (difficult) or 1.
    ids = [re.sub(r"\s+(-1|0|1)$", "", line.strip()) for line in lines if line.strip()]
    if not ids:
        raise UserError("the split is empty", file=path, fix="list the ids of its images, one a line")
    twice = [id_ for id_, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(f"the image {twice[0]} is listed twice", file=path, fix="list each image once")
    return ids


def _find_images(root: Path, ids: Sequence[str]) -> list[str]:
    """Return each image's file, relative to the root."""
    folder = root / "JPEGImages"
    # Sorted, so that of two files with one id the same is taken on every machine.
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    names = {file.stem: file.name for file in files if file.suffix.lower() in (".jpg", ".jpeg", ".png")}
    for id_ in ids:
        if id_ not in names:
            raise UserError(
                "the image is missing (as .jpg, .jpeg or .png)",
                file=folder / f"{id_}.jpg",
                fix="restore it or remove it from the split",
            )
    return [f"JPEGImages/{names[id_]}" for id_ in ids]
