"""A dataset with its proposals."""

from __future__ import annotations

import torch
from torchvision import tv_tensors

from afrcnn.data.image import fingerprint
from afrcnn.data.target import DetectionDataset, Target
from afrcnn.proposals.store import ProposalStore, repeat_error


class WithProposals:
    """A dataset whose targets hold the image's proposals: itself a ``DetectionDataset``.

    The first time that a process reads an image, it checks that the image is still the one that the
    proposals were made for.

    Args:
        dataset: the images, boxes and labels.
        store: proposals for each of the images.
        limit: how many proposals an image is given, the first ones (about 2000 in Fast R-CNN).

    Raises:
        UserError: the store lacks an image of the dataset; on reading also: the image has changed since
            the proposals were made, or they are for an image of another size.
    """

    def __init__(self, dataset: DetectionDataset, store: ProposalStore, limit: int = 2000) -> None:
        if missing := [image_id for image_id in dataset.ids if image_id not in store]:
            problem = f"holds no proposals for {len(missing)} of {len(dataset)} images, {missing[0]!r} the first"
            raise repeat_error(problem, file=store.folder)
        self.dataset, self.store, self.limit = dataset, store, limit
        self.root, self.ids, self.annotation_file = dataset.root, dataset.ids, dataset.annotation_file
        self.classes, self.category_ids, self.annotated = dataset.classes, dataset.category_ids, dataset.annotated
        self.image_path, self.image_size = dataset.image_path, dataset.image_size
        self._verified: set[int] = set()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, Target]:
        if index not in self._verified:
            path = self.image_path(index)
            if fingerprint(path) != self.store.fingerprint(self.ids[index]):
                raise repeat_error(f"has changed since the proposals in {self.store.folder} were made", file=path)
            self._verified.add(index)
        image, target = self.dataset[index]
        height, width = image.shape[-2:]
        return image, {**target, "proposals": self._proposals(index, (height, width))}

    def target(self, index: int) -> Target:
        """Return the target, proposals included, without decoding the image or checking that it is the same."""
        return {**self.dataset.target(index), "proposals": self._proposals(index, self.image_size(index))}

    def describe(self) -> str:
        """Return what the dataset is, in a line."""
        return self.dataset.describe()

    def _proposals(self, index: int, size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
        (height, width), image_id = size, self.ids[index]
        boxes = self.store.boxes(image_id)[: self.limit]
        if (boxes[:, :2] < 0).any() or (boxes[:, 2:] > (width, height)).any():
            problem = f"a proposal lies outside the image of {width} x {height} pixels"
            raise repeat_error(problem, file=self.store.folder, field=image_id)
        return tv_tensors.BoundingBoxes(torch.from_numpy(boxes), format="XYXY", canvas_size=size)
