"""The annotations of a split, held as a few arrays however many images there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchvision import tv_tensors

from afrcnn.core.errors import UserError
from afrcnn.data.image import read_image
from afrcnn.data.target import Target

_TOLERANCE = 1.0
"""Pixels by which a box may stand out of its image. Published boxes do so by rounding, and tools that count
VOC's pixels from 0 do so by one; such boxes are clipped. What stands out further is a mistake."""


def check_boxes(
    boxes: npt.ArrayLike, sizes: npt.ArrayLike, locate: Callable[[int], tuple[Path, str]]
) -> npt.NDArray[np.float32]:
    """Refuse boxes that no object can have, and clip the others to their images.

    Args:
        boxes: M x 4, x1, y1, x2, y2 in pixels, half-open, from 0.
        sizes: M x 2, the height and width of each box's image in pixels.
        locate: gives the file and the field that box i came from.

    Returns:
        The boxes, M x 4, float32, inside their images and with an area.

    Raises:
        UserError: a box is not finite, has no area, or stands out of its image by more than a pixel.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    height, width = np.asarray(sizes, dtype=np.float64).reshape(-1, 2).T
    limits = np.stack([width, height, width, height], axis=1)  # M x 4
    clipped = np.clip(boxes, 0, limits).astype(np.float32)

    outside = ((boxes < -_TOLERANCE) | (boxes > limits + _TOLERANCE)).any(axis=1)
    # A box that lies within the tolerance, but wholly beyond an edge, has nothing left in the image.
    outside |= _is_empty(clipped)
    for wrong, problem, fix in (
        (~np.isfinite(boxes).all(axis=1), "is not finite, in an image", "correct its numbers"),
        (_is_empty(boxes), "has no area, in an image", "correct the box or remove the object"),
        (outside, "lies outside the image", "correct the box or the size of the image"),
    ):
        if wrong.any():
            i = int(np.argmax(wrong))
            (x1, y1, x2, y2), (file, field) = boxes[i], locate(i)
            box, image = f"({x1:g}, {y1:g}) to ({x2:g}, {y2:g})", f"{width[i]:g} x {height[i]:g} pixels"
            raise UserError(f"the box from {box} {problem} of {image}", file=file, field=field, fix=fix)
    return clipped


def _is_empty(boxes: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
    return np.asarray((boxes[:, 2:] <= boxes[:, :2]).any(axis=1))


def number_classes(classes: Sequence[str]) -> dict[str, int]:
    """Return the label of each class, 1..K, by its name.

    Raises:
        UserError: a class is named twice.
    """
    labels = {name: label for label, name in enumerate(classes, start=1)}
    if len(labels) < len(classes):
        raise UserError("a class is named twice", field="classes", fix="name each class once")
    return labels


@dataclass
class AnnotatedImages:
    """A ``DetectionDataset`` over arrays: what every layout is once it has been read.

    The M objects stand image by image in each array, so that a dataset of 100,000 images is a handful of arrays,
    which data loading workers share or unpickle in no time.

    Attributes:
        root: the folder that the dataset was read from.
        classes: the names of the classes 1..K.
        category_ids: the ids of the classes 1..K in COCO's files.
        ids: the ids of the N images.
        files: each image's file, relative to ``root``.
        annotation_files: the file of each image's annotation, likewise.
        sizes: N x 2, int64, height and width in pixels.
        counts: N, the number of objects in each image.
        boxes: M x 4, float32, x1, y1, x2, y2 in pixels, half-open.
        columns: what else a target holds of each object, by its name; each M. ``labels`` are among them.
        annotation_file: COCO's JSON file; None in other layouts.
    """

    root: Path
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    ids: list[str]
    files: list[str]
    annotation_files: list[str]
    sizes: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    columns: Mapping[str, npt.NDArray[Any]]
    annotation_file: Path | None = None

    def __post_init__(self) -> None:
        self._ends = np.cumsum(self.counts)

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
            raise UserError(
                f"the image is {image.shape[2]} x {image.shape[1]} pixels, but its annotation in "
                f"{self.root / self.annotation_files[index]} says {width} x {height}",
                file=path,
                fix="correct the size, or, where the two are swapped, turn the pixels as EXIF says and drop that tag",
            )
        return image, self.target(index)

    def target(self, index: int) -> Target:
        """Return the target alone, without decoding the image."""
        index = range(len(self))[index]
        rows = slice(self._ends[index] - self.counts[index], self._ends[index])
        boxes, size = torch.tensor(self.boxes[rows]), self.image_size(index)
        return {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
            **{name: torch.tensor(column[rows]) for name, column in self.columns.items()},
            "image_id": self.ids[index],
        }

    def image_path(self, index: int) -> Path:
        """Return the image's file."""
        return self.root / self.files[index]

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the image's height and width in pixels, without decoding it."""
        height, width = self.sizes[index].tolist()
        return height, width
