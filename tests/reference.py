"""Plain implementations that the library's are compared with, and what several tests draw or are made of."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from afrcnn.adversaries.base import Adversary, AdversaryOutput, Head
from afrcnn.proposals.store import Proposals, ProposalStore, fingerprint

# --- proposals ---


def random_proposals(rng: np.random.Generator, count: int, side: float = 50) -> np.ndarray:
    """Boxes, count x 4, float32, in an image of a side."""
    corners = rng.uniform(0, side, (2, count, 2))
    return np.concatenate([corners.min(0), corners.max(0) + 0.01], axis=1).clip(0, side).astype(np.float32)


def write_store(folder: Path, scenes, proposals: list[Proposals]) -> ProposalStore:
    """A store of proposals for the images of a dataset."""
    images = [
        (image_id, fingerprint(scenes.image_path(index)), proposals[index]) for index, image_id in enumerate(scenes.ids)
    ]
    return ProposalStore.write(folder, images, method="random", parameters={"seed": 0})


# --- adversaries and detectors ---


class PlainHead(Head):
    """A head of any function from features to class logits; windows are hidden one by one, as by default."""

    def __init__(self, logits):
        self.logits = logits

    def scores(self, features, labels):
        return self.logits(features).softmax(dim=1).gather(1, labels[:, None])[:, 0]

    def losses(self, features, labels):
        return F.cross_entropy(self.logits(features), labels, reduction="none")


class Zeroing(Adversary):
    """Zeroes all that it is given, and notes it; its loss is the number of objects, and depends on its weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.calls = 0

    def forward(self, features, labels, head, context=None):
        self.features, self.labels, self.head, self.context = features.detach(), labels, head, context
        self.calls += 1
        return AdversaryOutput(0 * features, self.weight * len(labels), {"objects": torch.tensor(float(len(labels)))})


def losses_one_by_one(features, labels, logits, masks):
    """The losses n x W of each object with each mask hidden: one call of ``logits`` for each."""
    losses = [
        F.cross_entropy(logits((x * ~mask)[None]), label[None])
        for x, label in zip(features, labels, strict=True)
        for mask in masks
    ]
    return torch.stack(losses).view(len(features), len(masks))


def windows_by_loops(size, window, stride=1):
    """All windows on a grid, row by row, W x size x size."""
    masks = []
    for top in range(0, size - window + 1, stride):
        for left in range(0, size - window + 1, stride):
            mask = torch.zeros(size, size, dtype=torch.bool)
            mask[top : top + window, left : left + window] = True
            masks.append(mask)
    return torch.stack(masks)


def adversarial_by_counting(fraction, images):
    """Image by image: clean while there are fewer clean ones than the fraction of all, this one included."""
    clean, turns = 0, []
    for number in range(1, images + 1):
        is_clean = clean < fraction * number
        clean += is_clean
        turns.append(not is_clean)
    return turns


def binary_cross_entropy_by_loops(logits, target, counted):
    """Equation 1, a cell at a time: summed over the cells that count, divided by the objects."""
    total = 0.0
    for heatmap, mask, count in zip(logits.tolist(), target.tolist(), counted.tolist(), strict=True):
        for row in range(len(heatmap)):
            for column in range(len(heatmap)):
                a = 1 / (1 + math.exp(-heatmap[row][column]))
                if count[row][column]:
                    total -= math.log(a) if mask[row][column] else math.log(1 - a)
    return total / len(logits)


def random_boxes(count, extent=50.0, side=30.0, *, whole=False):
    """Boxes (count x 4) of at least 3 pixels a side, of whole pixels or not."""
    corner, sides = torch.rand(count, 2) * extent, 3 + torch.rand(count, 2) * side
    boxes = torch.cat([corner, corner + sides], dim=1)
    return boxes.floor() if whole else boxes


def random_target(objects, num_classes=3, **keys):
    """The target of an image with some objects."""
    labels = torch.randint(1, num_classes + 1, (objects,))
    return {"boxes": random_boxes(objects), "labels": labels, **keys}
