"""The COCO layout: one JSON file of boxes a split.

Reference: Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014, and its format of annotations.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Container, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.data.annotations import AnnotatedImages
from afrcnn.data.faults import ODD_AREAS, Faults, collected
from afrcnn.data.voc_xml import VOC_FLAGS, VOC_NUMBERS

_Record = dict[str, Any]

_ERRATA = {(918, 200365), (2206849, 550395)}
"""The (annotation, image) of the two boxes without area in the published instances_train2017.json and
its predecessors of 2014: known mistakes of a file that everyone uses, and that are passed over here."""


_PREFIXES = ("instances_", "image_info_")
"""Of files with annotations, and of those that name images alone."""


MADE_BY_MINIVAL = ("instances_trainval35k.json", "instances_minival.json")
"""What is not published, but made from the annotations of 2014."""
_MOST_PIXELS = 2 * 89_478_485
"""Of an image; no larger one is decoded (Pillow's bound)."""


class COCOLayout:
    """Datasets in COCO layout, with ``annotations/instances_<split>.json``.

    Images lie in ``<split>/``, where their ``file_name`` says from the folder on, or, as those of ``trainval35k`` and
    ``minival``, in ``train2014/`` or ``val2014/``. Masks are let go. Targets hold
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

    def image_folders(self, root: Path, split: str) -> list[Path]:
        """Return the folders that the images of a split may lie in; those of CVAT and others are the last."""
        names = (split, split.replace("test-dev", "test"), f"images/{split}", "images")
        return [root / name for name in names]

    def open(
        self, root: Path, split: str, classes: Sequence[str] | None = None, faults: Faults | None = None
    ) -> AnnotatedImages:
        """Read a split.

        Args:
            root: the folder.
            split: the split, e.g. ``train2017``.
            classes: the names of the classes 1..K, among them all that are annotated; by default all categories
                of the file, in the order of their ids, but for a heading that stands above all others.
            faults: where mistakes are noted, in place of raising the first.

        Raises:
            UserError: something in the folder is missing, malformed or contradictory; the message names it.
        """
        file = AnnotationFile(self.split_file(root, split), self.splits(root))
        images = file.records("images")
        if not images:
            raise file.error("the split is empty", "images", "list the images of the split")
        annotated = file.path.name.startswith(_PREFIXES[0]) or "annotations" in file.content
        categories, annotations = file.records("categories"), file.records("annotations") if annotated else {}
        names = {file.get(categories[id_], "name", str, f"categories[id={id_}]"): id_ for id_ in sorted(categories)}
        if len(names) < len(categories):
            raise file.error("two categories have the same name", "categories", "rename one")
        headings = _headings(categories.values()) if classes is None else set()
        classes = tuple(name for name in names if name not in headings) if classes is None else tuple(classes)
        if unknown := [name for name in classes if name not in names]:
            raise file.error(f"no category is named {unknown[0]!r}", "categories", f"choose of {', '.join(names)}")

        image_files = _find_images(root, self.image_folders(root, split), images, file, faults)
        known, images = set(images), {id_: images[id_] for id_ in image_files}
        sizes = [file.size(image, f"images[id={id_}]") for id_, image in images.items()]
        image_rows = {id_: row for row, id_ in enumerate(images)}
        rows = []
        for id_, annotation in annotations.items():
            with collected(faults, "malformed annotations"):
                if (row := file.object(id_, annotation, known, categories)) and row[0] in image_rows:
                    rows.append((image_rows[row[0]], *row[1:]))
                    if faults is not None and row[-1] != annotation.get("area", row[-1]):
                        problem = f"{annotation['area']:g} is not a positive number; its box's is taken"
                        faults.add(ODD_AREAS, file.error(problem, f"annotations[id={id_}].area"))

        ids, files = [str(id_) for id_ in images], list(image_files.values())
        annotation_files = [str(file.path.relative_to(root))] * len(images)
        flags = [flag for flag in VOC_FLAGS if any(flag in annotation for annotation in annotations.values())]
        rows = [(*row, *(annotations[row[3]].get(flag) in (1, "1") for flag in flags)) for row in rows]
        columns = {"annotation_id": "i8", "iscrowd": "?", "area": "f4"} | dict.fromkeys(flags, "?")

        def locate(i: int) -> tuple[Path, str, str]:
            at = f"annotations[id={rows[i][3]}]"
            return file.path, f"{at}.category_id", f"{at}.bbox"

        dataset = AnnotatedImages(root, classes, ids, files, annotation_files, sizes, rows, columns, locate, faults)
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

    def image_file(self, split: str, name: str) -> str:
        """Return the place of an image with some name, relative to the root."""
        return f"{split}/{name}"

    def write(
        self, root: Path, split: str, dataset: AnnotatedImages, files: Sequence[str], classes: Sequence[str]
    ) -> dict[str, int]:
        """Write the annotations of a split; see ``afrcnn.data.convert``.

        VOC's flags become further fields of annotations, which COCO's tools pass over and ``open`` reads.

        Args:
            root: the folder to write in.
            split: the split.
            dataset: the images.
            files: the images' files, relative to ``root``.
            classes: the names of all classes of the new dataset.

        Returns:
            What is lost, and how often.
        """
        ids = [int(id_) if id_.isdecimal() else 0 for id_ in dataset.ids]
        ids = ids if len(set(ids)) == len(ids) and 0 not in ids else list(range(1, len(ids) + 1))
        images, annotations, numbers = list[_Record](), list[_Record](), 0
        for index, (id_, file) in enumerate(zip(ids, files, strict=True)):
            target, (height, width) = dataset.target(index), dataset.image_size(index)
            images.append({"id": id_, "file_name": Path(file).name, "width": width, "height": height})
            flags = {key: target[key].tolist() for key in ("iscrowd", *VOC_FLAGS) if key in target}
            areas = target["area"].tolist() if "area" in target else None
            numbers += sum(key in target and int((~target[key].isnan()).sum()) for key in VOC_NUMBERS)
            for row, (label, box) in enumerate(zip(target["labels"].tolist(), target["boxes"].tolist(), strict=True)):
                x1, y1, x2, y2 = box
                category = classes.index(dataset.classes[label - 1]) + 1
                record: _Record = {"id": len(annotations) + 1, "image_id": id_, "category_id": category, "iscrowd": 0}
                record |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": areas[row] if areas else (x2 - x1) * (y2 - y1)}
                annotations.append(record | {key: int(values[row]) for key, values in flags.items()})
        categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
        with atomic_write(root / "annotations" / f"{_PREFIXES[0]}{split}.json") as stream:
            json.dump({"images": images, "annotations": annotations, "categories": categories}, stream)
        masks = len(annotations) if dataset.annotation_file else 0
        return {"masks": masks, "recorded occlusion and bend": numbers}


class AnnotationFile:
    """COCO's JSON file, whose fields are checked as they are read.

    Args:
        path: the file.
        splits: the splits that there are, for the message where the file is not one of theirs.
        masks: whether the masks, which fill most of it, are kept.

    Attributes:
        content: what it holds, by name.

    Raises:
        UserError: the file is missing or not a JSON object.
    """

    def __init__(self, path: Path, splits: Sequence[str], *, masks: bool = False) -> None:
        self.path = path
        if not path.is_file():
            choice = f"choose one of {', '.join(splits)}" if splits else ""
            choice = choice or "give the folder with annotations/instances_*.json"
            fix = "make it with `afrcnn minival`" if path.name in MADE_BY_MINIVAL and splits else choice
            raise UserError("the split is missing", file=path, fix=fix)

        def maskless(record: _Record) -> _Record:
            record.pop("segmentation", None)
            return record

        try:
            text = path.read_text(encoding="utf-8-sig")
            self.content: _Record = json.loads(text, object_hook=None if masks else maskless)
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

    def object(
        self, id_: int, annotation: _Record, images: Container[int], categories: Mapping[int, _Record]
    ) -> tuple[Any, ...] | None:
        """Return the id of an annotation's image, its class, box, id, crowd flag and area; None of known errata."""
        at = f"annotations[id={id_}]"
        image, category = (self.get(annotation, key, int, at) for key in ("image_id", "category_id"))
        if abs(id_) >= 2**63:
            raise self.error("is too large", f"{at}.id", "number annotations from 1")
        x, y, width, height = self.box(annotation, at)
        if (id_, image) in _ERRATA and width * height == 0:
            return None
        if image not in images:
            raise self.error(f"no image has the id {image}", f"{at}.image_id", "correct the id")
        if category not in categories:
            raise self.error(f"no category has the id {category}", f"{at}.category_id", "correct the id")
        if (crowd := annotation.get("iscrowd", 0)) not in (0, 1):
            raise self.error(f"{crowd!r:.40} is neither 0 nor 1", f"{at}.iscrowd", "write 0 or 1")
        area = self.get(annotation, "area", (int, float), at, default=width * height)
        # Tools write 0, -1 or NaN where they do not know it.
        area = area if math.isfinite(area) and area > 0 else width * height
        return image, categories[category]["name"], (x, y, x + width, y + height), id_, crowd, area

    def size(self, image: _Record, at: str) -> tuple[int, int]:
        """Return the height and width of an image in pixels."""
        height, width = (self.get(image, key, int, at) for key in ("height", "width"))
        if min(height, width) < 1 or height * width > _MOST_PIXELS:
            raise self.error(f"{width} x {height} is not a valid size", f"{at}.width", "correct the size")
        return height, width


def _headings(categories: Collection[_Record]) -> set[str]:
    """Return the name of a category that is none, but stands above all others, as Roboflow writes the project's."""
    above = {str(category.get("supercategory")) for category in categories}
    names = {category["name"] for category in categories if category.get("supercategory") == "none"}
    return names if len(names) == 1 and len(categories) > 1 and above == names | {"none"} else set()


def _short(value: Any) -> str:
    """Return the beginning of how Python writes a value."""
    try:
        return f"{value!r:.60}"
    except (ValueError, RecursionError):  # thousands of digits
        return f"a {type(value).__name__}"


def _find_images(
    root: Path, folders: Sequence[Path], images: dict[int, _Record], file: AnnotationFile, faults: Faults | None
) -> dict[int, str]:
    """Return the file of each image by its id, relative to the root."""
    folders = [folder for folder in folders if folder.is_dir()]
    # Listing the folders once spares asking the disk for each of 100,000 files.
    present = {path.name: folder for folder in reversed(folders) for path in folder.iterdir()}
    of_2014: dict[str, str] | None = None
    files = {}
    for id_, image in images.items():
        with collected(faults, "missing images"):
            field, name = f"images[id={id_}].file_name", file.get(image, "file_name", str, f"images[id={id_}]")
            name = name if name in present else name.replace("\\", "/")  # as tools on Windows write it
            path = PurePosixPath(name)
            leads_out = path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:/", name)
            if leads_out and path.name not in present:
                raise file.error(f"{name!r} leads out of the dataset", field, "name images inside, by relative paths")
            name = path.name if leads_out else name
            folder = present.get(name) or next((folder for folder in folders if (folder / name).is_file()), None)
            if folder is not None:
                files[id_] = f"{folder.relative_to(root).as_posix()}/{name}"
            elif (root / name).is_file():
                files[id_] = name
            elif name in (of_2014 := _images_of_2014(root) if of_2014 is None else of_2014):
                files[id_] = f"{of_2014[name]}/{name}"
            else:
                field, fix = f"{field} in {file.path}", "restore it, or remove it from the split"
                missing = (folders or [root])[0] / name
                raise UserError("the image is missing", file=missing, field=field, fix=fix)
    return files


def _images_of_2014(root: Path) -> dict[str, str]:
    """Return the folder of each of COCO's images of 2014, by the name of its file.

    Raises:
        UserError: both folders have a file of one name, as the published ones do not.
    """
    folders: dict[str, str] = {}
    for name in ("train2014", "val2014"):
        present = {image.name: name for image in (root / name).iterdir()} if (root / name).is_dir() else {}
        if both := folders.keys() & present.keys():
            problem, fix = "train2014 has an image of this name, too", "name it in the split with its folder"
            raise UserError(problem, file=root / name / min(both), fix=fix)
        folders |= present
    return folders
