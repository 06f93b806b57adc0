"""How many of the objects a set of proposals covers: the ceiling of any detector that uses them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from afrcnn.data.target import DetectionDataset
from afrcnn.proposals.store import ProposalStore


@dataclass(frozen=True)
class Recall:
    """The share of objects that the first n proposals of their image cover.

    Attributes:
        classes: the names of the K classes.
        objects: K, int64: the number of objects of each class.
        ious: the I overlaps from which on an object counts as covered.
        counts: the C numbers of proposals, from the first.
        by_class: K x I x C, float64: the share of each class's objects, in [0, 1]; NaN without objects.
        overall: I x C, float64: the share of all objects, in [0, 1]; NaN without objects.
        proposals: the mean number of proposals an image.
    """

    classes: tuple[str, ...]
    objects: NDArray[np.int64]
    ious: tuple[float, ...]
    counts: tuple[int, ...]
    by_class: NDArray[np.float64]
    overall: NDArray[np.float64]
    proposals: float


def recall(
    dataset: DetectionDataset,
    store: ProposalStore,
    ious: Sequence[float] = (0.5, 0.7),
    counts: Sequence[int] = (100, 300, 500, 1000, 2000),
) -> Recall:
    """Measure the recall of proposals (Hosang et al., PAMI 2016, section 4).

    Objects that are ``difficult`` or ``iscrowd`` are left out.

    Args:
        dataset: the objects.
        store: the proposals of the dataset's images.
        ious: an object is covered where a proposal's IoU with it is at least this; in (0, 1].
        counts: numbers of proposals, 1 or more; an image with fewer gives all it has.

    Raises:
        UserError: the store lacks an image of the dataset, or is damaged.
    """
    # best[k][m, c]: the highest IoU of object m of class k with the first counts[c] proposals of its image
    best: list[list[NDArray[np.float64]]] = [[np.empty((0, len(counts)))] for _ in dataset.classes]
    total = 0
    for index, image_id in enumerate(dataset.ids):
        proposals = torch.from_numpy(store.boxes(image_id)).double()
        total += len(proposals)
        target = dataset.target(index)
        keep = torch.ones(len(target["labels"]), dtype=torch.bool)
        for flag in ("difficult", "iscrowd"):
            if flag in target:
                keep &= ~target[flag]
        overlaps = box_iou(target["boxes"].as_subclass(torch.Tensor)[keep].double(), proposals)
        overlaps = torch.cat([overlaps.new_zeros(len(overlaps), 1), overlaps], dim=1)  # best of none is 0
        so_far = overlaps.cummax(dim=1).values
        at = torch.tensor(counts).clamp(max=len(proposals))
        labels = target["labels"][keep]
        for label in labels.unique().tolist():
            best[label - 1].append(so_far[labels == label][:, at].numpy())
    by_object = [np.concatenate(parts) for parts in best]
    return Recall(
        classes=tuple(dataset.classes),
        objects=np.array([len(overlaps) for overlaps in by_object], dtype=np.int64),
        ious=tuple(ious),
        counts=tuple(counts),
        by_class=np.stack([_covered(overlaps, ious) for overlaps in by_object]),
        overall=_covered(np.concatenate(by_object), ious),
        proposals=total / len(dataset.ids),
    )


def _covered(overlaps: NDArray[np.float64], ious: Sequence[float]) -> NDArray[np.float64]:
    """Return the share of objects (rows) that reach each IoU at each count, I x C."""
    if not len(overlaps):
        return np.full((len(ious), overlaps.shape[1]), np.nan)
    return np.stack([(overlaps >= iou).mean(axis=0) for iou in ious])
