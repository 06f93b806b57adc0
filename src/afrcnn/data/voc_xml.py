"""PASCAL VOC's annotations: one XML file of boxes an image, whatever folders the files lie in.

Reference: Everingham et al., The PASCAL Visual Object Classes (VOC) Challenge, IJCV 2010, and its development kit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
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
from afrcnn.data.faults import Faults, collected, readable
from afrcnn.data.image import read_image_size

VOC_FLAGS = ("truncated", "occluded", "difficult")
VOC_NUMBERS: dict[str, tuple[str, float, float]] = {
    "occlusion": ("hidden", 0.0, 1.0),
    "bend": ("bend", -math.inf, math.inf),
}
"""What generated scenes record beyond VOC's fields: the element that holds it, and its range."""

_NO, _YES = ("", "0", "no", "false", "unspecified"), ("yes", "true")
"""How tools write flags, besides numbers."""

_ENCODING = re.compile(rb"(\s*<\?xml[^>]*encoding\s*=\s*[\"'])([\w.-]+)")


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


def read_annotation(path: Path) -> tuple[tuple[int, int] | None, list[VOCObject]]:
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

    def flag(element: ElementTree.Element, tag: str, at: str) -> bool:
        text = (element.findtext(tag) or "").strip().lower()
        return text not in _NO and (text in _YES or text.isdigit() or bool(number(element, f"{at}/{tag}", 0, 1)))

    objects = []
    for n, element in enumerate(root.findall("object"), start=1):
        at = f"object[{n}]"
        name = (element.findtext("name") or "").strip()
        if not name:
            raise mistake("is missing", field=f"{at}/name", fix="name the object's class")
        if (boxes := len(element.findall("bndbox"))) > 1:
            raise mistake(f"is one of {boxes}", field=f"{at}/bndbox", fix="write an <object> for each box")
        # VOC's pixels count from 1 and include the last: [xmin, xmax] covers xmin - 1 to xmax.
        x1, y1 = (number(element, f"{at}/bndbox/{tag}") - 1 for tag in ("xmin", "ymin"))
        x2, y2 = (number(element, f"{at}/bndbox/{tag}") for tag in ("xmax", "ymax"))
        fields: dict[str, Any] = {tag: flag(element, tag, at) for tag in VOC_FLAGS}
        for key, (tag, low, high) in VOC_NUMBERS.items():
            if element.find(tag) is not None:
                fields[key] = number(element, f"{at}/{tag}", low, high)
        objects.append(VOCObject(name, (x1, y1, x2, y2), **fields))
    # Some tools write a size of 0 where they do not know it.
    height, width = (int(number(root, f"size/{tag}", 0, default="0")) for tag in ("height", "width"))
    return (height, width) if height and width else None, objects


def _parse(path: Path) -> ElementTree.Element:
    mistake = partial(UserError, file=path)
    try:
        content = path.read_bytes()
        if (declared := _ENCODING.match(content)) and declared[2].lower() not in (b"utf-8", b"utf-16"):
            # The parser knows few encodings; Python knows those of the tools that write others, as GB2312.
            text = content.decode(declared[2].decode("ascii"))
            root: ElementTree.Element = defusedxml.ElementTree.fromstring(text.partition("?>")[2].lstrip())
        else:
            root = defusedxml.ElementTree.fromstring(content)
    except FileNotFoundError as error:
        fix = "restore it, or choose a split whose images are annotated"
        raise mistake("the annotation is missing", fix=fix) from error
    except defusedxml.DefusedXmlException as error:
        raise mistake("the XML declares entities", fix="remove them; annotations need none") from error
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        fix = "correct or replace the file, saved as UTF-8"
        raise mistake(f"cannot be read as XML ({error})", fix=fix) from error
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
        add(element, name=item.name, **{flag: int(getattr(item, flag)) for flag in VOC_FLAGS})
        extra = {tag: getattr(item, key) for key, (tag, *_) in VOC_NUMBERS.items()}
        add(element, **{tag: value for tag, value in extra.items() if value is not None})
        x1, y1, x2, y2 = map(float, item.box)
        add(ElementTree.SubElement(element, "bndbox"), xmin=x1 + 1, ymin=y1 + 1, xmax=x2, ymax=y2)
    ElementTree.indent(root, space="\t")
    with atomic_write(path) as file:
        file.write(ElementTree.tostring(root, encoding="unicode") + "\n")


def read_pairs(
    root: Path,
    pairs: Mapping[str, tuple[str, str]],
    classes: Sequence[str] | None,
    further: Iterable[Path],
    annotated: bool,
    faults: Faults | None,
) -> AnnotatedImages:
    """Read images with an XML file of boxes for each.

    Args:
        root: the folder.
        pairs: by id, the file of the image and that of its annotation, relative to ``root``.
        classes: the names of the classes 1..K; by default those of these annotations and of ``further``.
        further: XML files that name classes, too; may be among the pairs'.
        annotated: whether the images have annotations at all.
        faults: where mistakes are noted, in place of raising the first.

    Raises:
        UserError: an annotation is missing or malformed, or as of ``AnnotatedImages``.
    """
    annotations = {}
    for id_, (image, file) in pairs.items():
        with collected(faults, "malformed annotations"):
            size, items = read_annotation(root / file) if annotated else (None, [])
            with collected(faults, "missing images"), readable(faults):
                annotations[id_] = size or read_image_size(root / image, upright=True), items
    objects = [(row, n, item) for row, (_, items) in enumerate(annotations.values()) for n, item in enumerate(items, 1)]
    if classes is None:
        read = {root / file for _, file in pairs.values()}
        names = {item.name for *_, item in objects}
        for path in further:
            if path not in read:
                with collected(faults, "malformed annotations"):
                    names |= {(item.findtext("name") or "").strip() for item in _parse(path).iterfind("object")} - {""}
        classes = sorted(names)
    ids, sizes = list(annotations), [size for size, _ in annotations.values()]
    files, annotation_files = ([pairs[id_][column] for id_ in ids] for column in range(2))

    def locate(i: int) -> tuple[Path, str, str]:
        row, n, _ = objects[i]
        return root / annotation_files[row], f"object[{n}]/name", f"object[{n}]/bndbox"

    recorded = [key for key in VOC_NUMBERS if {getattr(item, key) for *_, item in objects} - {None}]
    columns = dict.fromkeys(VOC_FLAGS, "?") | dict.fromkeys(recorded, "f4")  # None becomes NaN
    values = attrgetter("name", "box", *columns)
    rows = [(row, *values(item)) for row, _, item in objects]
    dataset = AnnotatedImages(root, classes, ids, files, annotation_files, sizes, rows, columns, locate, faults)
    dataset.annotated = annotated
    return dataset
