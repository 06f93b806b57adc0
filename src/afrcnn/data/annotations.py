"""The annotations of a split, held as a few arrays however many images there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchvision import tv_tensors

from afrcnn.core.errors import UserError
from afrcnn.data.faults import Faults, collected
from afrcnn.data.image import read_image
from afrcnn.data.target import Target

_Locate = Callable[[int], tuple[Path, str, str]]

_TOLERANCE = 1.0
"""Pixels by which a box may stand out of its image. Published boxes do so by rounding, and tools that count
VOC's pixels from 0 do so by one; such boxes are clipped. What stands out further is a mistake."""


def _check_boxes(
    boxes: npt.NDArray[np.float64],
    images: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    locate: _Locate,
    faults: Faults | None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return boxes (M x 4) clipped to their images, and which are right (M); of no object, one is refused or noted.

    Args:
        boxes: M x 4, as they are written.
        images: M: the row of each box's image.
        sizes: N x 2: height and width of each image.
        locate: as of ``AnnotatedImages``.
        faults: where wrong boxes are noted; the first is raised when None.
    """
    limits = sizes[images][:, [1, 0, 1, 0]]  # M x 4
    clipped = np.clip(boxes, 0, limits).astype(np.float32)
    outside = ((boxes < -_TOLERANCE) | (boxes > limits + _TOLERANCE)).any(axis=1)
    # A box within the tolerance, but wholly beyond an edge, has nothing left in the image.
    outside |= _is_empty(clipped)
    right = np.ones(len(boxes), dtype=bool)
    for kind, wrong, problem, fix in (
        ("boxes that are not finite", ~np.isfinite(boxes).all(axis=1), "is not finite,", "correct its numbers"),
        (
            "inverted boxes",
            (boxes[:, 2:] < boxes[:, :2]).any(axis=1),
            "has no area, its corners being in the wrong order,",
            "correct the box or remove the object",
        ),
        ("boxes without area", _is_empty(boxes), "has no area,", "correct the box or remove the object"),
        (
            "boxes in relative units",
            _is_relative(boxes, images, limits),
            "has the units of fractions of the image,",
            "write pixels",
        ),
        ("boxes outside the image", outside, "lies outside the image", "correct the box or the size of the image"),
    ):
        for i in np.flatnonzero(wrong & right).tolist():
            (x1, y1, x2, y2), (width, height, *_), (file, _, field) = boxes[i], limits[i], locate(i)
            place = "of" if problem.endswith("image") else "in an image of"
            problem_there = f"the box from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) {problem} {place}"
            with collected(faults, kind):
                raise UserError(f"{problem_there} {width:g} x {height:g} pixels", file=file, field=field, fix=fix)
        right &= ~wrong
    return clipped, right


def _is_relative(
    boxes: npt.NDArray[np.float64], images: npt.NDArray[np.int64], limits: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Return M flags: boxes that look like fractions of their image, as do all others there."""
    small = (boxes[:, 2:] <= 1).all(axis=1) & (boxes != np.round(boxes)).any(axis=1) & (limits[:, :2] > 2).all(axis=1)
    larger = np.bincount(images[~small], minlength=int(images.max(initial=0)) + 1)  # by image
    return np.asarray(small & (larger[images] == 0))


def _is_empty(boxes: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
    return np.asarray((boxes[:, 2:] <= boxes[:, :2]).any(axis=1))


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun, as ``1 image`` and ``2,000 images``."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


class AnnotatedImages:
    """A ``DetectionDataset`` over arrays: what every layout is once it has been read.

    The objects stand image by image in a few arrays, however many images there are: to hand them to
    data loading workers takes no time.

    Args:
        root: the folder that the dataset was read from.
        classes: the names of the classes 1..K.
        ids: the ids of the N images.
        files: each image's file, relative to ``root``.
        annotation_files: the file of each image's annotation, likewise.
        sizes: of each image, height and width in pixels.
        rows: of each of the M objects, in any order: the number of its image, from 0; the name of its
            class; its box, x1, y1, x2, y2 in pixels, half-open; and its columns.
        columns: what else a target holds of each object: the type of each column, as NumPy writes it,
            by its name.
        locate: gives the file of row i, and in it the fields of the class and of the box.
        faults: where mistakes are noted, in place of raising the first; their objects are left out.

    Attributes:
        category_ids: the ids of the classes in COCO's files; 1..K unless the layout sets others.
        annotation_file: COCO's JSON file; None in other layouts.
        split: the name of the split, set by who opens it, as is the name of its layout.
        folders: further folders that belong to the dataset, where its description names some.
        annotated: True unless the layout says that nothing tells where the objects are.

    Raises:
        UserError: a class is named twice or unknown; a box is not finite, has no area, or stands out of
            its image by more than a pixel.
    """

    def __init__(
        self,
        root: Path,
        classes: Sequence[str],
        ids: list[str],
        files: list[str],
        annotation_files: list[str],
        sizes: Sequence[tuple[int, int]],
        rows: Sequence[tuple[Any, ...]],
        columns: Mapping[str, str],
        locate: _Locate,
        faults: Faults | None = None,
    ) -> None:
        self.root, self.classes, self.ids = root, tuple(classes), ids
        self.files, self.annotation_files = files, annotation_files
        self.category_ids = tuple(range(1, len(classes) + 1))
        self.annotation_file: Path | None = None
        self.folders: Sequence[Path] = ()
        self.annotated = True
        self.split = self.layout = ""
        labels = {name: label for label, name in enumerate(classes, start=1)}
        if len(labels) < len(classes):
            raise UserError("a class is named twice", field="classes", fix="name each class once")
        for i, (_, name, *_) in enumerate(rows):
            if name not in labels:
                file, field, _ = locate(i)
                fix = f"correct the name or add it to the classes ({', '.join(classes)})"
                with collected(faults, "objects of an unknown class"):
                    raise UserError(f"unknown class {name!r}", file=file, field=field, fix=fix)
        dtype = [("image", "i8"), ("labels", "i8"), ("boxes", "f8", 4), *columns.items()]
        table = np.array([(image, labels.get(name, 0), *rest) for image, name, *rest in rows], dtype=dtype)
        self._sizes = np.array(sizes, dtype=np.int64).reshape(-1, 2)  # N x 2
        boxes, right = _check_boxes(table["boxes"], table["image"], self._sizes, locate, faults)
        right &= table["labels"] > 0
        table, boxes = table[right], boxes[right]
        order = np.argsort(table["image"], kind="stable")
        self._boxes = boxes[order]  # M x 4
        self._columns = {name: table[name][order] for name in ("labels", *columns)}  # each M
        self._ends = np.cumsum(np.bincount(table["image"], minlength=len(ids)))  # N: objects up to each image's last

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, Target]:
        """Return the image (3 x H x W, uint8, RGB) and its target.

        Raises:
            UserError: the image is missing or truncated, or its size is not the annotation's.
        """
        path, (height, width) = self.image_path(index), self.image_size(index)
        image = read_image(path, size=(height, width))
        if image.shape[1:] != (height, width):
            _, rows, columns = image.shape
            where = f"its annotation in {self.root / self.annotation_files[index]}"
            problem = f"the image is {columns} x {rows} pixels, but {where} says {width} x {height}"
            fix = "correct the size, or replace the image by the one that was annotated"
            raise UserError(problem, file=path, fix=fix)
        return image, self.target(index)

    def target(self, index: int) -> Target:
        """Return the target alone, without decoding the image."""
        index = range(len(self))[index]
        rows = slice(self._ends[index - 1] if index else 0, self._ends[index])
        boxes, size = torch.tensor(self._boxes[rows]), self.image_size(index)
        return {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
            **{name: torch.tensor(column[rows]) for name, column in self._columns.items()},
            "image_id": self.ids[index],
        }

    def image_path(self, index: int) -> Path:
        """Return the image's file."""
        return self.root / self.files[index]

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the image's height and width in pixels, without decoding it."""
        height, width = self._sizes[index].tolist()
        return height, width

    def object_counts(self) -> dict[str, int]:
        """Return the number of objects of each class, whatever their flags."""
        counts = np.bincount(self._columns["labels"], minlength=len(self.classes) + 1)
        return dict(zip(self.classes, counts[1:].tolist(), strict=True))

    def subset(self, indices: Sequence[int]) -> AnnotatedImages:
        """Return the images of some indices, in their order, as a dataset of the same classes."""
        starts = np.concatenate([[0], self._ends[:-1]])
        rows = np.concatenate([np.arange(0), *(np.arange(starts[index], self._ends[index]) for index in indices)])
        chosen = copy(self)
        for name in ("ids", "files", "annotation_files"):
            setattr(chosen, name, [getattr(self, name)[index] for index in indices])
        chosen._sizes, chosen._boxes = self._sizes[list(indices)].reshape(-1, 2), self._boxes[rows]
        chosen._columns = {name: column[rows] for name, column in self._columns.items()}
        chosen._ends = np.cumsum([self._ends[index] - starts[index] for index in indices], dtype=np.int64)
        return chosen

    def describe(self) -> str:
        """Return split, layout, images, objects and classes in a few words."""
        counts, images = self.object_counts(), count_of(len(self), "image")
        if not self.annotated:
            return f"{self.split} ({self.layout}): {images}, not annotated"
        names = ", ".join(self.classes[:6]) + (", ..." if self.classes[6:] else "")
        objects, classes = count_of(sum(counts.values()), "object"), count_of(len(counts), "class")
        return f"{self.split} ({self.layout}): {images}, {objects} of {classes} ({names})"
