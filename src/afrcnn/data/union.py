"""The union of datasets, to train on: VOC 2007 with VOC 2012, the field's 07+12."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from torchvision import tv_tensors

from afrcnn.core.errors import UserError
from afrcnn.data.target import DetectionDataset, Target


class JoinedImages:
    """Datasets of the same classes, one after the other: itself a ``DetectionDataset``.

    Images of the first keep their ids. Those of the nth after it have n and a slash before theirs, since datasets may
    number their images alike.

    Args:
        datasets: the datasets, annotated, with proposals or without.

    Raises:
        UserError: one has other classes than the first, or an image that is in an earlier one.
    """

    def __init__(self, datasets: Sequence[DetectionDataset]) -> None:
        first, *further = self.datasets = list(datasets)
        self.root, self.classes, self.category_ids = first.root, first.classes, first.category_ids
        self.annotation_file: Path | None = None
        self.annotated = True
        self.ids, paths = list(first.ids), set(map(first.image_path, range(len(first))))
        for number, dataset in enumerate(further, start=1):
            if dataset.classes != self.classes:
                problem = f"has the classes {', '.join(dataset.classes)}, not {', '.join(self.classes)} as {self.root}"
                raise UserError(problem, file=dataset.root, field="data.also", fix="name them all in data.classes")
            for path in map(dataset.image_path, range(len(dataset))):
                if path in paths:
                    fix = "name splits that have no image in common"
                    raise UserError("would be trained on twice", file=path, field="data.also", fix=fix)
                paths.add(path)
            self.ids += [f"{number}/{image_id}" for image_id in dataset.ids]
        self._ends = list(accumulate(map(len, self.datasets)))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, Target]:
        """Return the image (3 x H x W, uint8, RGB) and its target."""
        dataset, row = self._locate(index)
        image, target = dataset[row]
        return image, {**target, "image_id": self.ids[index]}

    def target(self, index: int) -> Target:
        """Return the target alone, without decoding the image."""
        dataset, row = self._locate(index)
        return {**dataset.target(row), "image_id": self.ids[index]}

    def image_path(self, index: int) -> Path:
        """Return the image's file."""
        dataset, row = self._locate(index)
        return dataset.image_path(row)

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the image's height and width in pixels, without decoding it."""
        dataset, row = self._locate(index)
        return dataset.image_size(row)

    def describe(self) -> str:
        """Return the split, images, objects and classes of each dataset."""
        return " + ".join(dataset.describe() for dataset in self.datasets)

    def _locate(self, index: int) -> tuple[DetectionDataset, int]:
        """Return the dataset that holds an image, and the image's index in it."""
        index = range(len(self))[index]
        number = bisect_right(self._ends, index)
        return self.datasets[number], index - (self._ends[number - 1] if number else 0)
