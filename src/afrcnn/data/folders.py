"""What lies in a dataset's folder where no file says so: images, their ids, the splits that folders or lists make."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from afrcnn.core.errors import UserError
from afrcnn.data.annotations import AnnotatedImages
from afrcnn.data.image import image_suffixes

WHOLE = "all"
"""The split of a dataset that has none."""

SPLITS = ("trainval", "train", "val", "valid", "validation", "test")
"""Names of folders that make splits."""

IMAGE_FOLDERS = ("images", "JPEGImages", "imgs", "img")
ANNOTATION_FOLDERS = ("Annotations", "annotations", "annots", "annot", "xmls", "xml", "labels")

_LISTS = "splits"
"""The folder of lists of images, one file a split, which `afrcnn split` writes where a layout has none of its own."""

_LEFT_OUT = (_LISTS, "proposals", "runs")
"""Folders of ours, which hold no images of the dataset."""


def walk(root: Path, suffixes: Collection[str]) -> list[str]:
    """Return the files with some suffixes, in lower case, in a folder and those in it; relative to it, sorted.

    Hidden files and folders, as archives made on a Mac have, are passed over, and so are links that lead out of the
    folder, but for those in the folder itself.
    """
    files = []
    for folder, inner, names in os.walk(root, followlinks=True):
        parent = PurePosixPath(Path(folder).relative_to(root).as_posix())
        top = not parent.parts
        inner[:] = sorted(
            name
            for name in inner
            if name[0] != "." and not (top and name in _LEFT_OUT) and (top or not Path(folder, name).is_symlink())
        )
        files += [
            (parent / name).as_posix()
            for name in names
            if name[0] != "." and PurePosixPath(name).suffix.lower() in suffixes
        ]
    return sorted(files)


def walk_images(root: Path) -> list[str]:
    """Return all images in a folder and those in it, relative to it, sorted."""
    return walk(root, image_suffixes())


def leading_out(root: Path, folders: Sequence[Path], files: Sequence[str]) -> list[int]:
    """Return the places in a list of files, relative to a dataset's folder, of those that lie outside the dataset.

    Links and ``..`` may lead there. What a link in the folder itself leads to, as ``images``, belongs to the dataset:
    ``afrcnn split --out`` makes such links, and people do to keep images on another disk.

    Args:
        root: the folder.
        folders: further folders that belong to the dataset.
        files: the files.
    """
    inside = [folder.resolve() for folder in (root, *folders)]
    inside += [path.resolve() for path in root.iterdir() if path.is_symlink()]

    def belongs(path: Path) -> bool:
        return any(path.is_relative_to(folder) for folder in inside)

    known, outside = dict[str, tuple[bool, set[str]]](), list[int]()
    for place, file in enumerate(files):
        parent, name = os.path.split(file)
        if parent not in known:  # listing a folder once spares asking the disk for each of 100,000 files
            folder = root / parent
            links = {entry.name for entry in os.scandir(folder) if entry.is_symlink()} if folder.is_dir() else set()
            known[parent] = belongs(folder.resolve()), links
        belonging, links = known[parent]
        if not (belongs((root / file).resolve()) if name in links else belonging):
            outside.append(place)
    return outside


def split_of(file: str) -> str | None:
    """Return the split that one of a file's folders names, as ``valid`` of ``valid/images/a.jpg``; None without one."""
    return next((name.lower() for name in PurePosixPath(file).parts[:-1] if name.lower() in SPLITS), None)


def image_ids(files: Sequence[str]) -> list[str]:
    """Return the ids of image files: their paths without suffix and without folders that are called images.

    Of files that differ in these alone, the ids keep the whole path.
    """
    ids = []
    for file in files:
        path = PurePosixPath(file)
        ids.append("/".join(name for name in path.with_suffix("").parts if name not in (*IMAGE_FOLDERS, "/")))
    counts = Counter(ids)
    return [file if counts[id_] > 1 else id_ for id_, file in zip(ids, files, strict=True)]


def list_file(root: Path, split: str) -> Path:
    """Return the file that lists the images of a split."""
    return root / _LISTS / f"{split}.txt"


def listed_splits(root: Path) -> list[str]:
    """Return the splits that have such a file."""
    return sorted(file.stem for file in (root / _LISTS).glob("[!.]*.txt"))


def list_content(dataset: AnnotatedImages, indices: Sequence[int]) -> str:
    """Return the file of a split of some images of a dataset: their files, one a line."""
    return "".join(f"{dataset.files[index]}\n" for index in indices)


def read_image_list(path: Path) -> list[str]:
    """Return the lines of a list that are not empty.

    Raises:
        UserError: it cannot be read, is empty, or has a line twice.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read ({error})", file=path, fix="save it as UTF-8 text") from error
    lines = [re.sub(r"^\./", "", line.replace("\\", "/")) for line in lines if line]
    if not lines:
        raise UserError("the split is empty", file=path, fix="list its images, one a line")
    [(line, count)] = Counter(lines).most_common(1)
    if count > 1:
        raise UserError(f"the image {line} is listed twice", file=path, fix="list each image once")
    return lines


def listed_subset(dataset: AnnotatedImages, path: Path) -> AnnotatedImages:
    """Return the images of a dataset that a list names, in its order.

    Raises:
        UserError: the list is at fault, or names another image.
    """
    rows = {file: row for row, file in enumerate(dataset.files)}
    lines = read_image_list(path)
    for line in lines:
        if line not in rows:
            raise UserError(f"lists {line}, which the dataset does not have", file=path, fix="remove the line")
    return dataset.subset([rows[line] for line in lines])
