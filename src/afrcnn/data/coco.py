"""The COCO layout: one JSON file of boxes a split.

Reference: Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014, and its format of annotations.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from afrcnn.core.errors import UserError
from afrcnn.data.annotations import AnnotatedImages, check_boxes

Record = dict[str, Any]

# The (annotation, image) of the two boxes without area in the published instances_train2017.json and its
# predecessors of 2014: known mistakes of a file that everyone uses as it is, and that are passed over here.
_ERRATA = {(918, 200365), (2206849, 550395)}


class COCODataset(AnnotatedImages):
    """A split of a dataset in COCO layout; a ``DetectionDataset``.

    The folder holds ``annotations/instances_<split>.json``, and the images in ``<split>/`` or where their
    ``file_name`` says from the folder on. Masks are not kept. Targets hold ``annotation_id``, and ``iscrowd`` and
    ``area``, where an annotation does not say, False and the area of its box.

    Args:
        root: the folder.
        split: the split, e.g. ``train2017``.
        classes: the names of the classes 1..K, among them all that are annotated; by default all categories
            of the file, in the order of their ids.

    Attributes:
        annotation_file: the JSON file.
        category_ids: COCO's id of each of the classes 1..K.

    Raises:
        UserError: something in the folder is missing, malformed or contradictory; the message names it.
    """

    def __init__(self, root: Path | str, split: str, classes: Sequence[str] | None = None) -> None:
        root = Path(root)
        self.annotation_file = path = root / "annotations" / f"instances_{split}.json"
        content = _read_json(path)
        images = _by_id(content, "images", path)
        if not images:
            raise UserError("the split is empty", file=path, field="images", fix="list the images of the split")
        categories = _by_id(content, "categories", path)
        annotations = _by_id(content, "annotations", path)
        del content

        classes, self.category_ids = _match_classes(categories, classes, path)
        labels = {category: label for label, category in enumerate(self.category_ids, start=1)}
        rows = {image: row for row, image in enumerate(images)}
        sizes = np.array([_size(image, path, f"images[id={id_}]") for id_, image in images.items()])
        ids, image_row, label, boxes, iscrowd, area = [], [], [], [], [], []
        for id_, annotation in annotations.items():
            at = f"annotations[id={id_}]"
            image = _get(annotation, "image_id", int, file=path, at=at)
            category = _get(annotation, "category_id", int, file=path, at=at)
            x, y, width, height = _box(annotation, path, at)
            if (id_, image) in _ERRATA and width * height == 0:
                continue
            if image not in rows:
                raise UserError(f"no image has the id {image}", file=path, field=f"{at}.image_id", fix="correct the id")
            if category not in labels:
                name = categories[category]["name"] if category in categories else None
                problem = f"unknown class {name!r}" if name else f"no category has the id {category}"
                fix = f"add it to the classes ({', '.join(classes)})" if name else "correct the id"
                raise UserError(problem, file=path, field=f"{at}.category_id", fix=fix)
            ids.append(id_)
            image_row.append(rows[image])
            label.append(labels[category])
            boxes.append((x, y, x + width, y + height))
            iscrowd.append(_iscrowd(annotation, path, at))
            area.append(_get(annotation, "area", (int, float), file=path, at=at, default=width * height))

        of_image = np.array(image_row, dtype=np.int64)
        order = np.argsort(of_image, kind="stable")
        super().__init__(
            root,
            classes,
            [str(id_) for id_ in images],
            files=_find_images(root, split, images, path),
            sizes=sizes,
            counts=np.bincount(of_image, minlength=len(images)),
            boxes=check_boxes(boxes, sizes[of_image], lambda i: (path, f"annotations[id={ids[i]}].bbox"))[order],
            labels=np.array(label, dtype=np.int64)[order],
            columns={
                "annotation_id": np.array(ids, dtype=np.int64)[order],
                "iscrowd": np.array(iscrowd, dtype=np.bool_)[order],
                "area": np.array(area, dtype=np.float32)[order],
            },
        )

    def annotation_path(self, index: int) -> Path:
        """Return the JSON file, which holds the annotations of all images."""
        return self.annotation_file


def _read_json(path: Path) -> Record:
    """Return the content of the file without the masks, which fill most of it."""
    if not path.is_file():
        prefix = "instances_"
        splits = sorted(file.stem.removeprefix(prefix) for file in path.parent.glob(f"{prefix}*.json"))
        fix = f"choose one of {', '.join(splits)}" if splits else "give the folder with annotations/instances_*.json"
        raise UserError("the split is missing", file=path, fix=fix)

    def without_masks(record: Record) -> Record:
        record.pop("segmentation", None)
        return record

    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_hook=without_masks)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot be read as JSON ({error})", file=path, fix="correct or replace the file") from error
    if not isinstance(content, dict):
        raise UserError("no object with images, annotations and categories", file=path, fix="give COCO's format")
    return content


def _get(
    record: Record, key: str, kind: type | tuple[type, ...], *, file: Path, at: str = "", default: Any = None
) -> Any:
    """Return a field of the record at a place in the file; it must be there and of the kind."""
    value = record.get(key, default)
    if not isinstance(value, kind) or isinstance(value, bool):
        problem = f"{value!r:.40} is of the wrong type" if key in record else "is missing"
        raise UserError(problem, file=file, field=f"{at}.{key}".lstrip("."), fix="correct the file")
    return value


def _by_id(content: Record, key: str, path: Path) -> dict[int, Record]:
    """Return a list of records by their ids, in the order of the file."""
    records: dict[int, Record] = {}
    for n, record in enumerate(_get(content, key, list, file=path)):
        if not isinstance(record, dict):
            raise UserError("is no object", file=path, field=f"{key}[{n}]", fix="correct the file")
        id_ = _get(record, "id", int, file=path, at=f"{key}[{n}]")
        if id_ in records:
            raise UserError(f"the id {id_} is given twice", file=path, field=f"{key}[{n}].id", fix="make ids unique")
        records[id_] = record
    return records


def _box(annotation: Record, path: Path, at: str) -> list[float]:
    """Return x, y, width, height of an annotation."""
    box: list[float] = _get(annotation, "bbox", list, file=path, at=at)
    if len(box) != 4 or not all(isinstance(value, int | float) for value in box):
        raise UserError(
            f"{box!r:.60} is not a list of four numbers", file=path, field=f"{at}.bbox", fix="write x, y, w, h"
        )
    return box


def _size(image: Record, path: Path, at: str) -> tuple[int, int]:
    """Return the height and width of an image in pixels."""
    height, width = (_get(image, key, int, file=path, at=at) for key in ("height", "width"))
    if min(height, width) < 1:
        raise UserError(f"{width} x {height} is no size", file=path, field=f"{at}.width", fix="correct the size")
    return height, width


def _iscrowd(annotation: Record, path: Path, at: str) -> bool:
    """Return whether an annotation is a region of many objects."""
    value = annotation.get("iscrowd", 0)
    if value not in (0, 1):
        raise UserError(f"{value!r:.40} is neither 0 nor 1", file=path, field=f"{at}.iscrowd", fix="write 0 or 1")
    return bool(value)


def _match_classes(
    categories: dict[int, Record], classes: Sequence[str] | None, path: Path
) -> tuple[Sequence[str], tuple[int, ...]]:
    """Return the classes and the ids of their categories."""
    ids = {_get(categories[id_], "name", str, file=path, at=f"categories[id={id_}]"): id_ for id_ in sorted(categories)}
    if len(ids) < len(categories):
        raise UserError("two categories have the same name", file=path, field="categories", fix="rename one")
    if classes is None:
        classes = tuple(ids)
    if len(set(classes)) < len(classes):
        raise UserError("a class is named twice", field="classes", fix="name each class once")
    for name in classes:
        if name not in ids:
            raise UserError(
                f"no category is named {name!r}", file=path, field="categories", fix=f"choose of {', '.join(ids)}"
            )
    return classes, tuple(ids[name] for name in classes)


def _find_images(root: Path, split: str, images: dict[int, Record], path: Path) -> list[str]:
    """Return each image's file, relative to the root."""
    folder = root / split
    present = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    files = []
    for id_, image in images.items():
        name = _get(image, "file_name", str, file=path, at=f"images[id={id_}]")
        # Listing the folder once spares asking the disk for each of 100,000 files.
        if name in present or (folder / name).is_file():
            files.append(f"{split}/{name}")
        elif (root / name).is_file():
            files.append(name)
        else:
            raise UserError(
                "the image is missing",
                file=folder / name,
                field=f"images[id={id_}].file_name in {path}",
                fix="restore it, or remove it from the split",
            )
    return files
