"""The annotations of a split, held as a few arrays however many images there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchvision import tv_tensors

from afrcnn.core.errors import UserError
from afrcnn.data.image import read_image
from afrcnn.data.target import Target

_Locate = Callable[[int], tuple[Path, str, str]]

_TOLERANCE = 1.0
"""Pixels by which a box may stand out of its image. Published boxes do so by rounding, and tools that count
VOC's pixels from 0 do so by one; such boxes are clipped. What stands out further is a mistake."""


def _check_boxes(
    boxes: npt.NDArray[np.float64], sizes: npt.NDArray[np.int64], locate: _Locate
) -> npt.NDArray[np.float32]:
    """Return boxes (M x 4) clipped to their images (M x 2, height and width), and refuse those of no object."""
    limits = sizes[:, [1, 0, 1, 0]]  # M x 4
    clipped = np.clip(boxes, 0, limits).astype(np.float32)
    outside = ((boxes < -_TOLERANCE) | (boxes > limits + _TOLERANCE)).any(axis=1)
    # A box within the tolerance, but wholly beyond an edge, has nothing left in the image.
    outside |= _is_empty(clipped)
    for wrong, problem, fix in (
        (~np.isfinite(boxes).all(axis=1), "is not finite, in an image", "correct its numbers"),
        (_is_empty(boxes), "has no area, in an image", "correct the box or remove the object"),
        (outside, "lies outside the image", "correct the box or the size of the image"),
    ):
        if wrong.any():
            i = int(np.argmax(wrong))
            (x1, y1, x2, y2), (height, width), (file, _, field) = boxes[i], sizes[i], locate(i)
            box = f"the box from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g})"
            raise UserError(f"{box} {problem} of {width:g} x {height:g} pixels", file=file, field=field, fix=fix)
    return clipped


def _is_empty(boxes: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
    return np.asarray((boxes[:, 2:] <= boxes[:, :2]).any(axis=1))


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

    Attributes:
        category_ids: the ids of the classes in COCO's files; 1..K unless the layout sets others.
        annotation_file: COCO's JSON file; None in other layouts.
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
    ) -> None:
        self.root, self.classes, self.ids = root, tuple(classes), ids
        self.files, self.annotation_files = files, annotation_files
        self.category_ids = tuple(range(1, len(classes) + 1))
        self.annotation_file: Path | None = None
        self.annotated = True
        labels = {name: label for label, name in enumerate(classes, start=1)}
        if len(labels) < len(classes):
            raise UserError("a class is named twice", field="classes", fix="name each class once")
        for i, (_, name, *_) in enumerate(rows):
            if name not in labels:
                file, field, _ = locate(i)
                fix = f"correct the name or add it to the classes ({', '.join(classes)})"
                raise UserError(f"unknown class {name!r}", file=file, field=field, fix=fix)
        dtype = [("image", "i8"), ("labels", "i8"), ("boxes", "f8", 4), *columns.items()]
        table = np.array([(image, labels[name], *rest) for image, name, *rest in rows], dtype=dtype)
        self._sizes = np.array(sizes, dtype=np.int64)  # N x 2
        boxes = _check_boxes(table["boxes"], self._sizes[table["image"]], locate)
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
        image = read_image(path)
        if image.shape[1:] != (height, width):
            _, rows, columns = image.shape
            where = f"its annotation in {self.root / self.annotation_files[index]}"
            problem = f"the image is {columns} x {rows} pixels, but {where} says {width} x {height}"
            fix = "correct the size, or, where the two are swapped, turn the pixels as EXIF says and drop that tag"
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
