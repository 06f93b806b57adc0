"""The annotations of a split, held as a few arrays however many images there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
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

TOLERANCE = 1.0
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
        UserError: a box is not finite, has no area, or stands out of its image by more than ``TOLERANCE``.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    height, width = np.asarray(sizes, dtype=np.float64).reshape(-1, 2).T
    limits = np.stack([width, height, width, height], axis=1)
    clipped = np.clip(boxes, 0, limits).astype(np.float32)

    not_finite = ~np.isfinite(boxes).all(axis=1)
    empty = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
    outside = ((boxes < -TOLERANCE) | (boxes > limits + TOLERANCE)).any(axis=1)
    # A box that lies within the tolerance, but wholly beyond an edge, has nothing left in the image.
    outside |= (clipped[:, 2:] <= clipped[:, :2]).any(axis=1)
    for wrong, problem, fix in (
        (not_finite, "is not finite, in an image", "correct its numbers"),
        (empty, "has no area, in an image", "correct the box or remove the object"),
        (outside, "lies outside the image", "correct the box or the size of the image"),
    ):
        if wrong.any():
            i = int(np.argmax(wrong))
            x1, y1, x2, y2 = boxes[i]
            file, field = locate(i)
            raise UserError(
                f"the box from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) {problem} of {width[i]:g} x {height[i]:g} pixels",
                file=file,
                field=field,
                fix=fix,
            )
    return clipped


class AnnotatedImages(ABC):
    """A ``DetectionDataset`` over arrays: what the layouts share once they are read.

    The objects of image i are rows ``offsets[i]`` to ``offsets[i + 1]`` of each array, so that a dataset of
    100,000 images is a handful of arrays, which data loading workers share or unpickle in no time.

    Args:
        root: the folder that the dataset was read from.
        classes: the names of the classes 1..K.
        ids: the ids of the N images.
        files: each image's file, relative to ``root``.
        sizes: N x 2, height and width in pixels.
        counts: N, the number of objects in each image.
        boxes: M x 4, float32, x1, y1, x2, y2 in pixels, half-open, image by image.
        labels: M, 1..K.
        columns: what else a target holds of each object, by its name; each M.
    """

    def __init__(
        self,
        root: Path,
        classes: Sequence[str],
        ids: list[str],
        *,
        files: list[str],
        sizes: npt.ArrayLike,
        counts: npt.ArrayLike,
        boxes: npt.NDArray[np.float32],
        labels: npt.ArrayLike,
        columns: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        self.root, self.classes, self.ids = root, tuple(classes), ids
        self._files = files
        self._sizes = np.asarray(sizes, dtype=np.int64)
        self._offsets = np.concatenate([[0], np.cumsum(counts)])
        self._boxes = boxes
        self._columns = {"labels": np.asarray(labels, dtype=np.int64), **columns}

    @abstractmethod
    def annotation_path(self, index: int) -> Path:
        """Return the file that holds the image's annotation."""

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
                f"{self.annotation_path(index)} says {width} x {height}",
                file=path,
                fix="correct the size, or, where the two are swapped, turn the pixels as EXIF says and drop that tag",
            )
        return image, self.target(index)

    def target(self, index: int) -> Target:
        """Return the target alone, without decoding the image."""
        index = range(len(self))[index]
        rows = slice(self._offsets[index], self._offsets[index + 1])
        return {
            "boxes": tv_tensors.BoundingBoxes(
                torch.tensor(self._boxes[rows]), format="XYXY", canvas_size=self.image_size(index)
            ),
            **{name: torch.tensor(column[rows]) for name, column in self._columns.items()},
            "image_id": self.ids[index],
        }

    def image_path(self, index: int) -> Path:
        """Return the image's file."""
        return self.root / self._files[index]

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the image's height and width in pixels, without decoding it."""
        height, width = self._sizes[index].tolist()
        return height, width
