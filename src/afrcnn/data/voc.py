"""The PASCAL VOC layout: one XML file of boxes an image, one list of ids a split."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

import torch

from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.data.annotations import AnnotatedImages
from afrcnn.data.faults import Faults, collected
from afrcnn.data.image import image_suffixes
from afrcnn.data.voc_xml import VOC_FLAGS, VOC_NUMBERS, VOCObject, read_annotation, read_pairs, write_annotation

_LISTS = Path("ImageSets", "Main")
_LONGEST_ID = 200
"""Bytes; no file has a longer name, with its suffix."""


class VOCLayout:
    """Datasets in PASCAL VOC layout, with any classes.

    The folder holds ``JPEGImages/<id>.jpg`` (or any other format, in subfolders, too), ``Annotations/<id>.xml`` and
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
        names = {file.stem for file in (root / _LISTS).glob("*.txt") if file.name[0] != "."}
        return sorted(name for name in names if name.rpartition("_")[2] not in names - {name})

    def open(
        self, root: Path, split: str, classes: Sequence[str] | None = None, faults: Faults | None = None
    ) -> AnnotatedImages:
        """Read a split.

        Args:
            root: the folder, e.g. ``VOCdevkit/VOC2007``.
            split: the name of a list in ``ImageSets/Main``, e.g. ``trainval``.
            classes: the names of the classes 1..K; by default those of all annotations of the folder, whatever
                the split, in alphabetical order. For VOC itself these are its 20 classes in its own order.
            faults: where mistakes are noted, in place of raising the first.

        Raises:
            UserError: something in the folder is missing, malformed or contradictory; the message names it.
        """
        listed = _find_files(root, "JPEGImages", self._read_list(root, split), image_suffixes())
        images = {
            id_.rpartition(".")[0]
            if image and normalize("NFC", image).endswith(f"/{normalize('NFC', id_)}")
            else id_: image
            for id_, image in listed.items()
        }
        if len(images) < len(listed):
            problem = "an image is listed twice, with its suffix and without"
            raise UserError(problem, file=self.split_file(root, split), fix="list each image once")
        annotations = _find_files(root, "Annotations", list(images), {".xml"})
        annotated = any(file is not None for file in annotations.values())
        pairs: dict[str, tuple[str, str]] = {}
        for id_, image in images.items():
            file = annotations[id_] or f"Annotations/{id_}.xml"
            with collected(faults, "missing images"):
                if image is None:
                    if annotated:
                        read_annotation(root / file)  # which may be missing, too, and is named first
                    problem = "the image is missing (as .jpg, .jpeg, .png or any other format)"
                    path = root / "JPEGImages" / f"{id_}.jpg"
                    raise UserError(problem, file=path, fix="restore it or remove it from the split")
                pairs[id_] = image, file
        further = [path for path in sorted((root / "Annotations").rglob("*.xml")) if path.name[0] != "."]
        return read_pairs(root, pairs, classes, further, annotated, faults)

    def split_file(self, root: Path, split: str) -> Path:
        """Return the file that makes a split."""
        return root / _LISTS / f"{split}.txt"

    def split_content(self, dataset: AnnotatedImages, indices: Sequence[int]) -> str:
        """Return the file of a split of some images of a dataset: the list of their ids."""
        return "".join(f"{dataset.ids[index]}\n" for index in indices)

    def image_file(self, split: str, name: str) -> str:
        """Return the place of an image with some name, relative to the root."""
        return f"JPEGImages/{name}"

    def write(
        self, root: Path, split: str, dataset: AnnotatedImages, files: Sequence[str], classes: Sequence[str]
    ) -> dict[str, int]:
        """Write the annotations and the list of a split; see ``afrcnn.data.convert``.

        Crowd regions are written as difficult objects, which are ignored as they are.

        Args:
            root: the folder to write in.
            split: the split.
            dataset: the images.
            files: the images' files, relative to ``root``.
            classes: the names of all classes of the new dataset; VOC's annotations name them one by one.

        Returns:
            What is lost, and how often.
        """
        crowds = 0
        for index, file in enumerate(files):
            target, (height, width) = dataset.target(index), dataset.image_size(index)
            crowd = target.get("iscrowd", torch.zeros(len(target["labels"]), dtype=torch.bool))
            crowds += int(crowd.sum())
            columns = {key: target[key].tolist() for key in (*VOC_FLAGS, *VOC_NUMBERS) if key in target}
            columns["difficult"] = (target.get("difficult", crowd) | crowd).tolist()
            objects = []
            for row, (label, box) in enumerate(zip(target["labels"].tolist(), target["boxes"].tolist(), strict=True)):
                values: dict[str, Any] = {key: column[row] for key, column in columns.items()}
                values = {key: None if math.isnan(value) else value for key, value in values.items()}
                objects.append(VOCObject(dataset.classes[label - 1], tuple(box), **values))
            path = root / "Annotations" / Path(file).with_suffix(".xml").name
            write_annotation(path, filename=Path(file).name, height=height, width=width, objects=objects)
        with atomic_write(self.split_file(root, split)) as stream:
            stream.write("".join(f"{Path(file).stem}\n" for file in files))
        masks = sum(dataset.object_counts().values()) if dataset.annotation_file else 0
        return {"crowd regions, written as difficult": crowds, "masks and their areas": masks}

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
        rows = [re.fullmatch(r"(.*?)(\s+(-1|0|1))?", line.strip()) for line in lines if line.strip()]
        by_class = all(row and row[2] for row in rows)
        ids = [row[1] if by_class else row[0] for row in rows if row]
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


def _find_files(root: Path, name: str, ids: Sequence[str], suffixes: Collection[str]) -> dict[str, str | None]:
    """Return the file of each id in a folder or its subfolders, relative to the root; None where there is none.

    An id is the name of a file with or without its suffix, in whichever form of Unicode.
    """
    names, stems = dict[str, str](), dict[str, str]()
    for parent in {PurePosixPath(id_).parent for id_ in ids}:
        inside = not parent.is_absolute() and ".." not in parent.parts
        folder = root / name / parent
        # Sorted, so that of two files with one id the same is taken on every machine; VOC's own formats come last.
        for path in sorted(folder.iterdir(), key=_by_format) if inside and folder.is_dir() else ():
            if path.suffix.lower() in suffixes and path.name[0] != ".":
                file = (parent / path.name).as_posix()
                names[normalize("NFC", file)] = f"{name}/{file}"
                stems[normalize("NFC", (parent / path.stem).as_posix())] = f"{name}/{file}"
    files = names | stems
    return {id_: files.get(normalize("NFC", id_)) for id_ in ids}


def _by_format(path: Path) -> tuple[bool, Path]:
    return path.suffix.lower() in (".jpg", ".jpeg", ".png"), path
