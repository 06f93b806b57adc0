"""The YOLO layout: a text file of boxes an image, in fractions of it, and the classes' names in one file.

Reference: Ultralytics' documentation of datasets for detection, whose reader is taken where others differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.data.annotations import AnnotatedImages
from afrcnn.data.faults import Faults, collected, readable
from afrcnn.data.folders import (
    WHOLE,
    image_ids,
    list_content,
    list_file,
    listed_splits,
    listed_subset,
    read_image_list,
    split_of,
    walk_images,
)
from afrcnn.data.image import image_suffixes, read_image_size
from afrcnn.data.voc_xml import VOC_FLAGS
from afrcnn.data.yolo_labels import label_line, read_labels, read_lines

_NAMES = ("classes.txt", "obj.names", "labels/classes.txt")
"""Files of the classes' names, one a line, where there is no YAML file."""


class YOLOLayout:
    """Datasets in YOLO layout, with boxes or polygons, of which the hull is the box.

    ``data.yaml`` names the classes and, in ``train``, ``val`` and ``test``, folders or lists of images. Without it,
    ``classes.txt`` names the classes, and folders called train, valid, test and the like make splits. Where there are
    none, the whole is one split, ``all``. The boxes of ``images/a.jpg`` are in ``labels/a.txt``, or beside the image
    where no folder is called images. An image without such a file shows no object.
    """

    name = "yolo"
    signature = "YOLO's (data.yaml, or images/ + labels/*.txt, or classes.txt)"
    linked = ("data.yaml", "data.yml", "labels", *(name for name in _NAMES if "/" not in name))

    def recognises(self, root: Path) -> bool:
        """Tell whether a folder has this layout."""
        if yaml_file(root):
            return True
        folders = ("labels", "labels/*", "*/labels", *(("", "*") if (root / _NAMES[0]).is_file() else ()))
        texts = (text for folder in folders for text in root.glob(f"{folder}/[!.]*.txt".lstrip("/")))
        return any(not text.name.startswith(("classes", "README", "notes")) for text in texts)

    def splits(self, root: Path) -> list[str]:
        """Return the splits of a dataset."""
        file = yaml_file(root)
        named = set(_native(_read(file) if file else {}))
        if named == {WHOLE}:
            named = {split_of(image) or WHOLE for image in _labelled_images(root)}
        return sorted(named | set(listed_splits(root)))

    def open(
        self, root: Path, split: str, classes: Sequence[str] | None = None, faults: Faults | None = None
    ) -> AnnotatedImages:
        """Read a split.

        Args:
            root: the folder.
            split: an entry of ``data.yaml``, a folder that is called so, ``all``, or a list of images,
                ``splits/<split>.txt``.
            classes: the names of the classes 1..K, among them all that are annotated; by default all that the dataset
                names, in its order. Where it names none, they are the names of its numbers, from 0.
            faults: where mistakes are noted, in place of raising the first.

        Raises:
            UserError: something in the folder is missing, malformed or contradictory; the message names it.
        """
        file, listed = yaml_file(root), split in listed_splits(root)
        content = _read(file) if file else {}
        names = _names(root, file, content, classes)
        if listed or split == WHOLE:
            splits = [self._images(root, name, file, content) for name in _native(content)]
            images = list(dict.fromkeys(image for images in splits for image in images))
        else:
            images = self._images(root, split, file, content)
        if not images:
            raise UserError("the split has no images", file=root, field=split, fix="see docs/data.md for YOLO's layout")
        rows, places = list[tuple[Any, ...]](), list[tuple[Path, str, str]]()
        files, labels, sizes = list[str](), list[str](), list[tuple[int, int]]()
        for image in images:
            with collected(faults, "missing images"), readable(faults):
                sizes.append(read_image_size(root / image, upright=True))
                files.append(image)
                labels.append(_label_file(root, image))
        for row, (name, size) in enumerate(zip(labels, sizes, strict=True)):
            with collected(faults, "malformed annotations"):
                label = root / name
                for number, box, line in read_labels(label, size, keypoints="kpt_shape" in content, faults=faults):
                    with collected(faults, "objects of an unknown class"):
                        if number not in names:
                            problem = f"no class has the number {number}"
                            fix = "correct the number, or name the class in data.yaml or classes.txt"
                            raise UserError(problem, file=label, field=f"line {line}", fix=fix)
                        rows.append((row, names[number], box))
                        places.append((label, f"line {line}", f"line {line}"))
        classes = list(names.values()) if classes is None else classes
        ids = image_ids(files)
        dataset = AnnotatedImages(root, classes, ids, files, labels, sizes, rows, {}, places.__getitem__, faults)
        dataset.folders = [Path(root, str(content.get("path") or ""))]
        dataset.annotated = any((root / label).is_file() for label in labels)
        return listed_subset(dataset, list_file(root, split)) if listed else dataset

    def split_file(self, root: Path, split: str) -> Path:
        """Return the file that makes a split."""
        return list_file(root, split)

    def split_content(self, dataset: AnnotatedImages, indices: Sequence[int]) -> str:
        """Return the file of a split of some images of a dataset."""
        return list_content(dataset, indices)

    def image_file(self, split: str, name: str) -> str:
        """Return the place of an image with some name, relative to the root."""
        return f"images/{split}/{name}"

    def write(
        self, root: Path, split: str, dataset: AnnotatedImages, files: Sequence[str], classes: Sequence[str]
    ) -> dict[str, int]:
        """Write the boxes of a split, and its line of ``data.yaml``; see ``afrcnn.data.convert``.

        Crowd regions, which are no objects, are left out.

        Args:
            root: the folder to write in.
            split: the split.
            dataset: the images.
            files: the images' files, relative to ``root``.
            classes: the names of all classes of the new dataset.

        Returns:
            What is lost, and how often.

        Raises:
            UserError: boxes are of an image as it is stored, though EXIF turns it; YOLO's readers do so.
        """
        numbers, lost = [classes.index(name) for name in dataset.classes], Counter[str]()
        for index, file in enumerate(files):
            target, size = dataset.target(index), dataset.image_size(index)
            if read_image_size(dataset.image_path(index), upright=True) != size:
                problem = "its boxes are of the pixels as they are stored, but EXIF turns them"
                fix = "turn the pixels and drop that tag, or convert to voc or coco, which tell the size"
                raise UserError(problem, file=dataset.image_path(index), fix=fix)
            crowds = target["iscrowd"].tolist() if "iscrowd" in target else [False] * len(target["labels"])
            lost["crowd regions, left out"] += sum(crowds)
            for key in VOC_FLAGS:
                lost[f"flags {key}"] += int(target[key].sum()) if key in target else 0
            objects = zip(target["labels"].tolist(), target["boxes"].tolist(), crowds, strict=True)
            lines = [label_line(numbers[label - 1], box, size) for label, box, crowd in objects if not crowd]
            with atomic_write(root / _label_file(root, file)) as stream:
                stream.write("".join(lines))
        described = root / "data.yaml"
        content = _read(described) if described.is_file() else {"path": ".", "names": dict(enumerate(classes))}
        key = {"trainval": "train", "valid": "val", "validation": "val"}.get(split, split)
        content[key if key in ("train", "val", "test") and key not in content else split] = f"images/{split}"
        with atomic_write(described) as stream:
            yaml.safe_dump(content, stream, sort_keys=False, allow_unicode=True)
        lost["masks and their areas"] = sum(dataset.object_counts().values()) if dataset.annotation_file else 0
        return lost

    def _images(self, root: Path, split: str, file: Path | None, content: Mapping[str, Any]) -> list[str]:
        """Return the images of a split, relative to the root, or absolute where the YAML file says so."""
        if file is None or not content.get(split):
            return [image for image in _labelled_images(root) if split in (WHOLE, split_of(image))]
        entries = content[split] if isinstance(content[split], list) else [content[split]]
        try:
            entries, path = list(map(_scalar, entries)), _scalar(content.get("path") or "")
        except TypeError as error:
            raise UserError("is not a path or a list of paths", file=file, field=split, fix="correct it") from error
        base = Path(root, path)
        bases = [folder for folder in dict.fromkeys((base, root)) if folder.is_dir()]
        images = []
        for entry in entries:
            place = _inside(entry, bases)
            if place is None:
                fix = f"correct it; it was looked for in {' and '.join(map(str, bases))}"
                raise UserError(f"{entry!r} is not there", file=file, field=split, fix=fix)
            if place.is_dir():
                images += [(place / image).as_posix() for image in walk_images(place)]
            elif place.suffix.lower() in image_suffixes():
                images.append(place.as_posix())
            else:
                for line in read_image_list(place):
                    image = _inside(line, [place.parent, *bases])
                    if image is None:
                        fix = "restore it or remove it from the list"
                        raise UserError("the image is missing", file=place.parent / line, field=str(place), fix=fix)
                    images.append(image.as_posix())
        start = f"{root.as_posix()}/"
        return list(dict.fromkeys(image.removeprefix(start) for image in images))


def _native(content: Mapping[str, Any]) -> list[str]:
    """Return the splits that a YAML file names, or else the whole."""
    return [name for name in ("train", "val", "test") if content.get(name)] or [WHOLE]


def yaml_file(root: Path) -> Path | None:
    """Return the YAML file of a dataset, one that names classes; data.yaml first."""
    files = sorted(root.glob("[!.]*.y*ml"), key=lambda path: (path.stem != "data", path))
    return next((file for file in files if file.stem == "data" or "names" in _read(file)), None)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"is not valid YAML ({error})", file=file, fix="correct the file") from error
    if not isinstance(content, dict):
        raise UserError("is not a mapping", file=file, fix="write names, train and val, as YOLO's data.yaml has")
    return content


def _names(root: Path, file: Path | None, content: Mapping[str, Any], classes: Sequence[str] | None) -> dict[int, str]:
    """Return the names of the classes by their numbers."""
    named = content.get("names")
    source = file
    if named is None:
        source = next((root / name for name in _NAMES if (root / name).is_file()), None)
        named = read_lines(source) if source else list(classes or ())
        while named and not named[-1].strip():
            named.pop()
    try:
        pairs = named.items() if isinstance(named, dict) else enumerate(named)
        names = {int(number): _scalar(name).strip() for number, name in pairs}
    except (TypeError, ValueError, OverflowError) as error:
        fix = "write a list, or a mapping of numbers to names"
        raise UserError("is not a list of names", file=source, field="names", fix=fix) from error
    if not names:
        fix = "name them in data.yaml, in classes.txt, or in data.classes of the recipe"
        raise UserError("the classes have no names", file=root, field="names", fix=fix)
    return dict(sorted(names.items()))


def _scalar(value: object) -> str:
    """Return a value of a YAML file as text; nested ones, whose text can be endless where they repeat, are refused."""
    if not isinstance(value, str | int | float):
        raise TypeError("a list or a mapping in place of a name")
    return str(value)


def _inside(entry: str, bases: Sequence[Path]) -> Path | None:
    """Return what an entry names inside one of some folders; Roboflow's begin with ../ and mean the folder itself."""
    entry = entry.replace("\\", "/")
    shorter = PurePosixPath(entry)
    while shorter.parts[:1] == ("..",):
        shorter = PurePosixPath(*shorter.parts[1:])
    for base in bases:
        for name in dict.fromkeys((entry, str(shorter))):
            place = base / name
            if place.exists() and place.resolve().is_relative_to(base.resolve()):
                return base / place.resolve().relative_to(base.resolve()) if ".." in place.parts else place
    return None


def _labelled_images(root: Path) -> list[str]:
    """Return the images in folders called images, or all where there is no such folder."""
    images = walk_images(root)
    return [image for image in images if "images" in PurePosixPath(image).parts[:-1]] or images


def _label_file(root: Path, image: str) -> str:
    """Return the file of an image's boxes, which may be absent: in labels for images, or beside the image."""
    path = PurePosixPath(image).with_suffix(".txt")
    places = [at for at, name in enumerate(path.parts[:-1]) if name == "images"]
    if places:
        beside = PurePosixPath(*path.parts[: places[-1]], "labels", *path.parts[places[-1] + 1 :])
        if (root / beside).is_file() or not (root / path).is_file():
            return beside.as_posix()
    return path.as_posix()
