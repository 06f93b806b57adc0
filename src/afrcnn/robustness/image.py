"""What a stress test knows of each photograph, and the chance of its objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from afrcnn.data.target import DetectionDataset


@dataclass(frozen=True)
class Photograph:
    """A photograph of a split, without its pixels.

    Attributes:
        image_id: its id.
        file: the image.
        size: its height and width in pixels.
        boxes: M x 4, XYXY in pixels, inside the image.
        labels: M, 1..K.
        is_object: M; false of crowd regions, which are neither hidden nor bent.
    """

    image_id: str
    file: Path
    size: tuple[int, int]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    is_object: NDArray[np.bool_]

    @property
    def objects(self) -> NDArray[np.float64]:
        """The boxes of the objects, N x 4."""
        boxes: NDArray[np.float64] = self.boxes[self.is_object]
        return boxes

    @property
    def object_labels(self) -> NDArray[np.int64]:
        """The labels of the objects, N."""
        labels: NDArray[np.int64] = self.labels[self.is_object]
        return labels

    def chance(self, seed: int) -> list[np.random.Generator]:
        """Return the source of chance of each object.

        It depends on the seed, the image's id and the object's number alone: it is the same for every detector, in
        whatever process, at every level.
        """
        return [np.random.default_rng([seed, number, *self.image_id.encode()]) for number in range(len(self.objects))]


def photographs_of(dataset: DetectionDataset) -> list[Photograph]:
    """Return the photographs of a split, in order.

    Raises:
        UserError: an annotation is missing or wrong.
    """
    photographs = []
    for index, image_id in enumerate(dataset.ids):
        target, (height, width) = dataset.target(index), dataset.image_size(index)
        boxes = np.asarray(target["boxes"], dtype=np.float64).reshape(-1, 4)
        labels = np.asarray(target["labels"])
        crowd = np.asarray(target.get("iscrowd", np.zeros(len(labels))), dtype=bool)
        inside = boxes.clip(0, (width, height, width, height))
        photographs.append(Photograph(image_id, dataset.image_path(index), (height, width), inside, labels, ~crowd))
    return photographs
