"""The COCO layout: one JSON file of boxes a split.

Reference: Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014, and its format of annotations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from afrcnn.core.errors import UserError
from afrcnn.data.annotations import AnnotatedImages

_Record = dict[str, Any]

_ERRATA = {(918, 200365), (2206849, 550395)}
"""The (annotation, image) of the two boxes without area in the published instances_train2017.json and
its predecessors of 2014: known mistakes of a file that everyone uses, and that are passed over here."""


_PREFIXES = ("instances_", "image_info_")
"""Of files with annotations, and of those that name images alone."""


_MOST_PIXELS = 2 * 89_478_485
"""Of an image; no larger one is decoded (Pillow's bound)."""


class COCOLayout:
    """Datasets in COCO layout, with ``annotations/instances_<split>.json``.

    Images lie in ``<split>/`` or where their ``file_name`` says from the folder on. Masks are let go. Targets hold
    ``annotation_id``, and ``iscrowd`` and ``area``, where an annotation does not say, False and the area of its box.

    Of a test set there is only ``image_info_<split>.json``, without annotations: the split is not ``annotated``. The
    images of test-dev are some of those of the test set, and lie in its folder.
    """

    name = "coco"
    signature = "COCO's (annotations/instances_*.json or image_info_*.json)"
    linked: tuple[str, ...] = ()

    def recognises(self, root: Path) -> bool:
        """Tell whether a folder has this layout."""
        return bool(self.splits(root))

    def splits(self, root: Path) -> list[str]:
        """Return the splits of a dataset."""
        files = {prefix: root.glob(f"annotations/{prefix}*.json") for prefix in _PREFIXES}
        return sorted({file.stem.removeprefix(prefix) for prefix, of_prefix in files.items() for file in of_prefix})

    def open(self, root: Path, split: str, classes: Sequence[str] | None = None) -> AnnotatedImages:
        """Read a split.

        Args:
            root: the folder.
            split: the split, e.g. ``train2017``.
            classes: the names of the classes 1..K, among them all that are annotated; by default all categories
                of the file, in the order of their ids.

        Raises:
            UserError: something in the folder is missing, malformed or contradictory; the message names it.
        """
        file = _AnnotationFile(self.split_file(root, split), self.splits(root))
        images = file.records("images")
        if not images:
            raise file.error("the split is empty", "images", "list the images of the split")
        annotated = file.path.name.startswith(_PREFIXES[0]) or "annotations" in file.content
        categories, annotations = file.records("categories"), file.records("annotations") if annotated else {}
        names = {file.get(categories[id_], "name", str, f"categories[id={id_}]"): id_ for id_ in sorted(categories)}
        if len(names) < len(categories):
            raise file.error("two categories have the same name", "categories", "rename one")
        classes = tuple(names) if classes is None else tuple(classes)
        if unknown := [name for name in classes if name not in names]:
            raise file.error(f"no category is named {unknown[0]!r}", "categories", f"choose of {', '.join(names)}")

        sizes = [file.size(image, f"images[id={id_}]") for id_, image in images.items()]
        image_rows = {id_: row for row, id_ in enumerate(images)}
        rows = []
        for id_, annotation in annotations.items():
            at = f"annotations[id={id_}]"
            image, category = (file.get(annotation, key, int, at) for key in ("image_id", "category_id"))
            x, y, width, height = file.box(annotation, at)
            if (id_, image) in _ERRATA and width * height == 0:
                continue
            if image not in images:
                raise file.error(f"no image has the id {image}", f"{at}.image_id", "correct the id")
            if category not in categories:
                raise file.error(f"no category has the id {category}", f"{at}.category_id", "correct the id")
            if (crowd := annotation.get("iscrowd", 0)) not in (0, 1):
                raise file.error(f"{crowd!r:.40} is neither 0 nor 1", f"{at}.iscrowd", "write 0 or 1")
            area = file.get(annotation, "area", (int, float), at, default=width * height)
            name, box = categories[category]["name"], (x, y, x + width, y + height)
            rows.append((image_rows[image], name, box, id_, crowd, area))

        ids, files = [str(id_) for id_ in images], _find_images(root, split, images, file)
        annotation_files = [str(file.path.relative_to(root))] * len(images)
        columns = {"annotation_id": "i8", "iscrowd": "?", "area": "f4"}

        def locate(i: int) -> tuple[Path, str, str]:
            at = f"annotations[id={rows[i][3]}]"
            return file.path, f"{at}.category_id", f"{at}.bbox"

        dataset = AnnotatedImages(root, classes, ids, files, annotation_files, sizes, rows, columns, locate)
        dataset.annotation_file, dataset.category_ids = file.path, tuple(names[name] for name in classes)
        dataset.annotated = annotated
        return dataset

    def split_file(self, root: Path, split: str) -> Path:
        """Return the file that makes a split; without annotations where there is no other."""
        annotated, images_alone = (root / "annotations" / f"{prefix}{split}.json" for prefix in _PREFIXES)
        return images_alone if images_alone.is_file() and not annotated.is_file() else annotated

    def split_content(self, dataset: AnnotatedImages, indices: Sequence[int]) -> str:
        """Return the file of a split of some images of a dataset, with all that its file says, masks included."""
        assert dataset.annotation_file is not None
        content = json.loads(dataset.annotation_file.read_text(encoding="utf-8-sig"))
        # Images stay where they are; under any name of a split, a file is found from the folder on.
        files = {int(dataset.ids[index]): dataset.files[index] for index in indices}
        images, annotations = content["images"], content["annotations"]
        content["images"] = [image | {"file_name": files[image["id"]]} for image in images if image["id"] in files]
        content["annotations"] = [item for item in annotations if item["image_id"] in files]
        return json.dumps(content)


class _AnnotationFile:
    """COCO's JSON file, whose fields are checked as they are read; masks, which fill most of it, are let go."""

    def __init__(self, path: Path, splits: Sequence[str]) -> None:
        self.path = path
        if not path.is_file():
            choice = f"choose one of {', '.join(splits)}" if splits else ""
            fix = choice or "give the folder with annotations/instances_*.json"
            raise UserError("the split is missing", file=path, fix=fix)

        def maskless(record: _Record) -> _Record:
            record.pop("segmentation", None)
            return record

        try:
            self.content = json.loads(path.read_text(encoding="utf-8-sig"), object_hook=maskless)
        except (OSError, ValueError, RecursionError) as error:
            raise self.error(f"cannot be read as JSON ({error})", None, "correct or replace the file") from error
        if not isinstance(self.content, dict):
            raise self.error("no object with images, annotations and categories", None, "give COCO's format")

    def error(self, problem: str, field: str | None, fix: str = "correct the file") -> UserError:
        """Return the error of a mistake in the file."""
        return UserError(problem, file=self.path, field=field, fix=fix)

    def get(self, record: _Record, key: str, kind: type | tuple[type, ...], at: str = "", default: Any = None) -> Any:
        """Return a field of the record at a place in the file; it must be there and of the kind."""
        value = record.get(key, default)
        if not isinstance(value, kind) or isinstance(value, bool):
            problem = f"{_short(value)} is of the wrong type" if key in record else "is missing"
            raise self.error(problem, f"{at}.{key}".lstrip("."))
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise self.error(f"{_short(value)} is too large a number", f"{at}.{key}".lstrip("."))
        if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
            raise self.error(f"{value!a:.40} has half a character", f"{at}.{key}".lstrip("."), "write it as UTF-8")
        return value

    def records(self, key: str) -> dict[int, _Record]:
        """Return a list of records by their ids, in the order of the file."""
        records: dict[int, _Record] = {}
        for n, record in enumerate(self.get(self.content, key, list)):
            at = f"{key}[{n}]"
            if not isinstance(record, dict):
                raise self.error("is not an object", at)
            id_ = self.get(record, "id", int, at)
            if id_ in records:
                raise self.error(f"the id {id_} is given twice", f"{at}.id", "make ids unique")
            records[id_] = record
        return records

    def box(self, annotation: _Record, at: str) -> list[float]:
        """Return x, y, width, height of an annotation."""
        box: list[Any] = self.get(annotation, "bbox", list, at)
        numbers = [value for value in box if isinstance(value, float | int)]
        if not len(box) == len(numbers) == 4 or any(isinstance(value, int) and abs(value) >= 2**63 for value in box):
            raise self.error(f"{_short(box)} is not a list of four numbers", f"{at}.bbox", "write x, y, w, h")
        return box

    def size(self, image: _Record, at: str) -> tuple[int, int]:
        """Return the height and width of an image in pixels."""
        height, width = (self.get(image, key, int, at) for key in ("height", "width"))
        if min(height, width) < 1 or height * width > _MOST_PIXELS:
            raise self.error(f"{width} x {height} is not a valid size", f"{at}.width", "correct the size")
        return height, width


def _short(value: Any) -> str:
    """Return the beginning of how Python writes a value."""
    try:
        return f"{value!r:.60}"
    except (ValueError, RecursionError):  # thousands of digits
        return f"a {type(value).__name__}"


def _find_images(root: Path, split: str, images: dict[int, _Record], file: _AnnotationFile) -> list[str]:
    """Return each image's file, relative to the root."""
    folder = root / split
    if not folder.is_dir():
        folder = root / split.replace("test-dev", "test")
    present = {image.name for image in folder.iterdir()} if folder.is_dir() else set()
    files = []
    for id_, image in images.items():
        name = file.get(image, "file_name", str, f"images[id={id_}]")
        # Listing the folder once spares asking the disk for each of 100,000 files.
        if name in present or (folder / name).is_file():
            files.append(f"{folder.name}/{name}")
        elif (root / name).is_file():
            files.append(name)
        else:
            field, fix = f"images[id={id_}].file_name in {file.path}", "restore it, or remove it from the split"
            raise UserError("the image is missing", file=folder / name, field=field, fix=fix)
    return files
