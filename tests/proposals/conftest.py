"""A tiny dataset of drawn scenes, for the tests of proposals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from afrcnn.data.image import read_image, read_image_size
from afrcnn.data.target import Target
from afrcnn.proposals.store import Proposals, ProposalStore
from reference import random_proposals, write_store


class Scenes:
    """A ``DetectionDataset`` of coloured rectangles on noise, one PNG file an image."""

    classes, category_ids, annotation_file, annotated = ("square", "bar"), (1, 2), None, True

    def __init__(self, root: Path, count: int) -> None:
        self.root = root
        self.ids = [f"scene{index}" for index in range(count)]
        rng = np.random.default_rng(0)
        self.targets = []
        for index in range(count):
            height, width = rng.integers(50, 80, 2)
            pixels = rng.integers(0, 30, (height, width, 3), dtype=np.uint8)
            boxes = []
            for _ in range(2):
                x, y = rng.integers(0, 25, 2)
                box = (x, y, x + rng.integers(10, 25), y + rng.integers(10, 25))
                pixels[box[1] : box[3], box[0] : box[2]] = rng.integers(60, 256, 3)
                boxes.append(box)
            Image.fromarray(pixels).save(self.image_path(index))
            self.targets.append(
                {
                    "boxes": tv_tensors.BoundingBoxes(
                        torch.tensor(boxes, dtype=torch.float32),
                        format="XYXY",
                        canvas_size=(int(height), int(width)),
                    ),
                    "labels": torch.tensor([1, 2]),
                    "image_id": self.ids[index],
                }
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, Target]:
        return read_image(self.image_path(index)), self.target(index)

    def target(self, index: int) -> Target:
        return self.targets[index]

    def image_path(self, index: int) -> Path:
        return self.root / f"{self.ids[index]}.png"

    def image_size(self, index: int) -> tuple[int, int]:
        return read_image_size(self.image_path(index))


@pytest.fixture
def scenes(tmp_path: Path) -> Scenes:
    """Five scenes of two objects each."""
    (tmp_path / "images").mkdir()
    return Scenes(tmp_path / "images", 5)


@pytest.fixture
def proposals(scenes) -> list[Proposals]:
    """Proposals of each scene."""
    rng = np.random.default_rng(3)
    return [Proposals(random_proposals(rng, count)) for count in (7, 0, 1, 30, 0)]


@pytest.fixture
def store(tmp_path, scenes, proposals) -> ProposalStore:
    """The store of them."""
    return write_store(tmp_path / "store", scenes, proposals)
