"""The recall of proposals: how many of the objects they find, the ceiling of any detector that uses them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from torchvision.ops import box_iou

from afrcnn.data.overlap import not_crowds
from afrcnn.data.target import DetectionDataset
from afrcnn.proposals.store import ProposalStore


@dataclass(frozen=True)
class Recall:
    """The fraction of objects that the first n proposals of their image find.

    Attributes:
        classes: the names of the K classes.
        objects: K, int64: the number of objects of each class.
        ious: the I overlaps from which on an object counts as found.
        counts: the C numbers of proposals, from the first.
        by_class: K x I x C, float64: the fraction found of each class's objects, in [0, 1]; NaN without objects.
        overall: I x C, float64: the fraction found of all objects, in [0, 1]; NaN without objects.
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
        ious: an object is found where a proposal's IoU with it is at least this; in (0, 1].
        counts: numbers of proposals, 1 or more; an image with fewer gives all it has.

    Raises:
        UserError: the store lacks an image of the dataset, or is damaged.
    """
    # best[k][m][c]: highest IoU of object m of class k with its image's first counts[c] proposals
    best: list[list[NDArray[np.float64]]] = [[] for _ in dataset.classes]
    total = 0
    for index, image_id in enumerate(dataset.ids):
        proposals = torch.from_numpy(store.boxes(image_id)).double()
        total += len(proposals)
        target = dataset.target(index)
        counted = not_crowds(target) & ~target.get("difficult", torch.tensor(False))
        overlaps = box_iou(target["boxes"][counted].double(), proposals)  # m x P
        so_far = F.pad(overlaps, (1, 0)).cummax(dim=1).values  # m x (P + 1): best of none is 0
        at = torch.tensor(counts).clamp(max=len(proposals))
        for label, row in zip(target["labels"][counted].tolist(), so_far[:, at].numpy(), strict=True):
            best[label - 1].append(row)
    by_object = [np.array(rows).reshape(-1, len(counts)) for rows in best]
    return Recall(
        classes=tuple(dataset.classes),
        objects=np.array([len(overlaps) for overlaps in by_object], dtype=np.int64),
        ious=tuple(ious),
        counts=tuple(counts),
        by_class=np.stack([_fraction_found(overlaps, ious) for overlaps in by_object]),
        overall=_fraction_found(np.concatenate(by_object), ious),
        proposals=total / len(dataset.ids),
    )


def _fraction_found(overlaps: NDArray[np.float64], ious: Sequence[float]) -> NDArray[np.float64]:
    """Return the fraction of objects (rows) that reach each IoU at each count, I x C."""
    if not len(overlaps):
        return np.full((len(ious), overlaps.shape[1]), np.nan)
    return np.stack([(overlaps >= iou).mean(axis=0) for iou in ious])
