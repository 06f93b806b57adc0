"""The masks of objects in COCO's format of annotations: polygons and run lengths."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray

from afrcnn.core.errors import UserError
from afrcnn.data.target import DetectionDataset


class ObjectMasks:
    """The mask of each object of a dataset, which targets do not hold.

    Args:
        dataset: images and objects in COCO layout.

    Raises:
        UserError: the dataset is of a layout without masks.
    """

    def __init__(self, dataset: DetectionDataset) -> None:
        if dataset.annotation_file is None:
            fix = "give a dataset in COCO layout, whose annotations have a segmentation"
            raise UserError("has boxes alone, and masks are needed", file=dataset.root, fix=fix)
        self.dataset, self.file = dataset, dataset.annotation_file
        content = json.loads(self.file.read_text(encoding="utf-8-sig"))
        self._segmentations = {item["id"]: item.get("segmentation") for item in content.get("annotations", ())}

    def mask(self, index: int, row: int) -> NDArray[np.uint8]:
        """Return the mask of an object.

        Args:
            index: of the image in the dataset.
            row: of the object in the image's target.

        Returns:
            H x W, uint8: 1 inside, 0 outside.

        Raises:
            UserError: the annotation has no mask, or a malformed one.
        """
        id_ = int(self.dataset.target(index)["annotation_id"][row])
        try:
            return decode_segmentation(self._segmentations[id_], self.dataset.image_size(index))
        except ValueError as error:
            field = f"annotations[id={id_}].segmentation"
            raise UserError(str(error), file=self.file, field=field, fix="correct the file") from error


def decode_segmentation(segmentation: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw a mask in COCO's format.

    The library's own decoder writes as many pixels as the run lengths say; so that a hostile file cannot make it write
    beyond the mask, run lengths are decoded, and all numbers checked, here.

    Args:
        segmentation: polygons, lists of x1, y1, x2, y2, ... in pixels; or run lengths of pixels outside and inside in
            turns, column by column, as numbers or as COCO's string of them.
        size: height and width of the image.

    Returns:
        H x W, uint8: 1 inside, 0 outside.

    Raises:
        ValueError: it is none of these, or the mask of another size.
    """
    height, width = size
    if isinstance(segmentation, list) and segmentation:
        polygons = [_polygon(points, size) for points in segmentation]
        runs = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        return np.asarray(coco_mask.decode(runs), dtype=np.uint8)
    if not isinstance(segmentation, dict):
        raise ValueError("is neither polygons nor run lengths")
    counts = read_run_lengths(segmentation, size)
    inside = np.arange(len(counts)) % 2
    return np.repeat(inside.astype(np.uint8), counts).reshape(width, height).T


def _polygon(points: Any, size: tuple[int, int]) -> list[float]:
    """Return a polygon's points, clipped to the image."""
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        raise ValueError("has a polygon that is not a list of three points or more")
    if not all(isinstance(value, int | float) and np.isfinite(value) for value in points):
        raise ValueError("has a polygon with a coordinate that is not a finite number")
    height, width = size
    clipped: list[float] = np.clip(np.reshape(points, (-1, 2)), 0, (width, height)).astype(float).ravel().tolist()
    return clipped


def read_run_lengths(segmentation: dict[str, Any], size: tuple[int, int]) -> list[int]:
    """Return the run lengths of a mask, outside and inside in turns, once they are known to be those of its image.

    Args:
        segmentation: ``size``, and ``counts`` as numbers or as COCO's string of them.
        size: height and width of the image.

    Raises:
        ValueError: they are malformed, or of an image of another size.
    """
    if segmentation.get("size") != [*size]:
        raise ValueError(f"is of the size {segmentation.get('size')!r:.40}, and the image of {[*size]}")
    counts: Any = segmentation.get("counts")
    if isinstance(counts, str | bytes):
        counts = _decompress(counts if isinstance(counts, str) else counts.decode("latin-1"))
    whole = isinstance(counts, list) and all(isinstance(count, int) and count >= 0 for count in counts)
    if not whole or sum(counts) != size[0] * size[1]:
        raise ValueError("has run lengths that do not make up the image")
    return list(counts)


def _decompress(text: str) -> list[int]:
    """Return run lengths of COCO's string: digits of 5 bits from 48 on, lowest first, with a bit for "more follow".

    From the fourth number on, each is the difference to the last but one; the highest bit of a last digit is the sign.
    """
    counts, value, shift = list[int](), 0, 0
    for digit in (ord(letter) - 48 for letter in text):
        if not 0 <= digit < 64 or shift > 60:
            raise ValueError("has run lengths that cannot be read")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("has run lengths whose last one is cut off")
    return counts
