"""The PASCAL VOC layout: one XML file of boxes an image, one list of ids a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from afrcnn.atomic import atomic_write


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


def write_annotation(
    path: Path, *, filename: str, height: int, width: int, objects: Sequence[VOCObject]
) -> None:
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
        for flag in ("truncated", "occluded", "difficult"):
            add(element, flag, int(getattr(item, flag)))
        for tag, value in (("hidden", item.hidden), ("bend", item.bend)):
            if value is not None:
                add(element, tag, float(value))
        x1, y1, x2, y2 = map(float, item.box)
        bndbox = ElementTree.SubElement(element, "bndbox")
        for tag, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
            add(bndbox, tag, value)
    ElementTree.indent(root, space="\t")
    with atomic_write(path) as file:
        file.write(ElementTree.tostring(root, encoding="unicode") + "\n")
