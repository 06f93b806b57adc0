"""COCO's ``trainval35k`` and ``minival``, made from the annotations of 2014 (section 5.1).

Bell et al. (Inside-Outside Net, CVPR 2016) set 5000 images of ``val2014`` aside to test on, ``minival``, and train on
all others, ``trainval35k``: those of ``train2014`` and the 35,504 that are left of ``val2014``. A published list names
minival's. COCO's split of 2017 is the same one: ``val2017`` has the images of minival and ``train2017`` those of
trainval35k, under the same ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.data.coco import AnnotationFile, COCOLayout

_LISTED = re.compile(r"(?:COCO_val2014_)?0*(\d+)(?:\.jpg)?")
"""A line of a list: an image's id, or its file's name, which ends in it."""


@dataclass(frozen=True)
class MinivalSplit:
    """One of the two splits.

    Attributes:
        name: ``trainval35k`` or ``minival``, as a recipe's ``data.train_split`` or ``data.test_split`` takes it.
        file: its annotations, ``annotations/instances_<name>.json``.
        images: the number of its images.
        objects: the number of annotations, crowd regions among them.
    """

    name: str
    file: Path
    images: int
    objects: int


def make_minival(root: Path | str, image_list: Path | str) -> tuple[MinivalSplit, MinivalSplit]:
    """Write the annotations of ``trainval35k`` and ``minival``, record by record as those of 2014 have them.

    What is there already under their names is replaced only by the same.

    Args:
        root: the folder with ``annotations/instances_train2014.json`` and ``instances_val2014.json``.
        image_list: the images of minival: a text file with an id or a file's name in each line, a JSON list of ids, or
            any file in COCO's format with these ``images``, as ``instances_val2017.json``.

    Returns:
        ``trainval35k`` and ``minival``.

    Raises:
        UserError: a file is missing or malformed; the list is empty, names an image twice, or one that is not of
            ``val2014``; the two years' files share an image or an annotation, or differ in their categories; or other
            splits have these names. Nothing is written then.
    """
    root, listed = Path(root), _read_list(Path(image_list))
    train, val = (_read_annotations(root, name) for name in ("train2014", "val2014"))
    fix = "give COCO's own files of 2014"
    for key in ("images", "annotations"):
        if both := train.records(key).keys() & val.records(key).keys():
            raise val.error(f"the id {min(both)} is also in {train.path.name}", key, fix)
    if train.records("categories") != val.records("categories"):
        raise val.error(f"differ from those in {train.path.name}", "categories", fix)
    of_val = val.records("images")
    if absent := [image for image in listed if image not in of_val]:
        problem = f"{len(absent)} of {len(listed)} images are not in {val.path}, {absent[0]} the first"
        problem += ", which is in train2014 and so in trainval35k" if absent[0] in train.records("images") else ""
        fix = "give the list of minival's images"
        raise UserError(problem, file=image_list, field=listed[absent[0]], fix=fix)

    splits, contents = [], []
    for name in ("trainval35k", "minival"):
        content = {**train.content, "images": [], "annotations": []}
        for source in (train, val):
            for key, field in (("images", "id"), ("annotations", "image_id")):
                records = source.content[key]
                content[key] += [item for item in records if (item[field] in listed) == (name == "minival")]
        file = COCOLayout().split_file(root, name)
        splits.append(MinivalSplit(name, file, len(content["images"]), len(content["annotations"])))
        contents.append(content)
    for split, content in zip(splits, contents, strict=True):
        if split.file.is_file() and not _holds(split.file, content):
            raise UserError("another split has this name", file=split.file, fix="move it away, or train and test on it")
    with ExitStack() as stack:  # both files are whole before either has its name
        files = [stack.enter_context(atomic_write(split.file)) for split in splits]
        for stream, content in zip(files, contents, strict=True):
            stream.writelines(_lines(content))
    return splits[0], splits[1]


def _read_annotations(root: Path, split: str) -> AnnotationFile:
    """Read a split's annotations, masks included, each of an image that the file has."""
    layout = COCOLayout()
    file = AnnotationFile(layout.split_file(root, split), layout.splits(root), masks=True)
    images = file.records("images")
    for id_, annotation in file.records("annotations").items():
        if file.get(annotation, "image_id", int, at := f"annotations[id={id_}]") not in images:
            raise file.error(f"no image has the id {annotation['image_id']}", f"{at}.image_id", "correct the id")
    return file


def _read_list(path: Path) -> dict[int, str]:
    """Return the ids that a list names, each with the place where it does.

    Raises:
        UserError: the file cannot be read or is empty, or an id is malformed or named twice.
    """
    fix = "write an image's id in each line, or name a file in COCO's format"
    try:
        text = path.read_text(encoding="utf-8-sig")
        content: Any = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot be read as a list of images ({error})", file=path, fix=fix) from error
    if path.suffix == ".json":
        records = content.get("images") if isinstance(content, dict) else content
        if not isinstance(records, list):
            raise UserError("is neither a list of ids nor in COCO's format", file=path, fix=fix)
        at = "images[{}].id" if isinstance(content, dict) else "[{}]"
        entries = [(at.format(n), item.get("id") if isinstance(item, dict) else item) for n, item in enumerate(records)]
    else:
        lines = ((f"line {number}", line.strip()) for number, line in enumerate(content, start=1))
        entries = [(place, line) for place, line in lines if line]
    listed: dict[int, str] = {}
    for place, entry in entries:
        matched = None if isinstance(entry, bool | float | None) else _LISTED.fullmatch(str(entry))
        if matched is None:
            raise UserError(f"{entry!r:.40} is not the id of an image", file=path, field=place, fix=fix)
        if (image := int(matched[1])) in listed:
            fix = "name each image once"
            raise UserError(
                f"the image {image} is named twice, first in {listed[image]}", file=path, field=place, fix=fix
            )
        listed[image] = place
    if not listed:
        raise UserError("names no images", file=path, fix=fix)
    return listed


def _lines(content: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a JSON object, one for each record of its lists: half a gigabyte is never held as text."""
    for number, (key, value) in enumerate(content.items()):
        name = f"{',' if number else '{'}{json.dumps(key)}: "
        if isinstance(value, list):
            yield f"{name}[\n"
            yield from (f"{json.dumps(item)}{',' if n < len(value) else ''}\n" for n, item in enumerate(value, start=1))
            yield "]\n"
        else:
            yield f"{name}{json.dumps(value)}\n"
    yield "}\n"


def _holds(path: Path, content: dict[str, Any]) -> bool:
    """Tell whether a file holds the very lines that would be written."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        return all(line == other for line, other in zip_longest(lines, _lines(content)))
