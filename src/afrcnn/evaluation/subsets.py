"""Subsets of the objects, overlapped or unoccluded, by size, by VOC's flags: AP and recall on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_area

from afrcnn.core.errors import UserError
from afrcnn.data.overlap import overlapped
from afrcnn.data.target import DetectionDataset, Target
from afrcnn.evaluation.matching import Booleans, Matches, ignored_by_default
from afrcnn.evaluation.occluded_coco import derive_subsets, read_list
from afrcnn.evaluation.voc_ap import Metric, voc_ap

_SMALL, _MEDIUM = 32**2, 96**2
"""Areas in pixels of the image below which COCO calls an object small, and medium."""

_CONFIDENT, _CLOSE = 0.3, 0.75
"""The score and the IoU from which on Zhan et al. (2022) take an object for recalled."""

_Members = list[Tensor]
"""A subset of a split's objects: for each image M flags, bool, of the objects in it."""


@dataclass(frozen=True)
class SubsetResult:
    """AP and recall on a subset of the objects.

    Attributes:
        objects: by class, the number of objects in the subset.
        mean_ap: VOC's mean AP in [0, 1] by metric, over the classes that the subset has objects of: two subsets
            compare to each other as far as their classes are the same. NaN for no objects.
        ap: VOC's AP in [0, 1] by metric and class; NaN for a class without objects in the subset.
        recall: the fraction of the subset's objects, of all classes, that VOC's AP counts as found, at any score.
        confident_recall: the fraction that some detection of their class with a score of at least 0.3 overlaps by an
            IoU of at least 0.75: the recall of Zhan et al. (2022), by boxes.
    """

    objects: dict[str, int]
    mean_ap: dict[str, float]
    ap: dict[str, dict[str, float]]
    recall: float
    confident_recall: float


def all_subsets(dataset: DetectionDataset, lists: Sequence[Path | str] = ()) -> dict[str, _Members]:
    """Divide the objects of a dataset in every way that its annotations allow.

    ==========================================  ====================================================================
    ``all``                                     all objects that the ordinary evaluation counts
    ``overlapped``, ``unoccluded``              whether one other labelled box covers more than 5% of the
                                                object's own (``afrcnn.data.overlap.overlapped``)
    ``small``, ``medium``, ``large``            an area below 32 x 32 pixels of the image, below 96 x 96, or
                                                larger: COCO's ``area`` where targets have it, else the box's. Each
                                                object has one size; COCO's own tool counts areas of just 32 x 32
                                                and 96 x 96 in two
    ``truncated``, ``not truncated``,           VOC's flags
    ``occluded``, ``not occluded``
    ``difficult``                               VOC's flag: the objects that all other subsets leave out
    ==========================================  ====================================================================

    VOC's flags divide a split only where some object has them. Crowd regions are in no subset.

    Args:
        dataset: the split. With COCO's masks, the two of ``occluded_coco.derive_subsets`` join those above.
        lists: published lists of objects (``occluded_coco.read_list``), each a subset by the name of its file.

    Raises:
        UserError: a mask or a list is malformed, or lists are given for a dataset that is not in COCO layout.
    """
    members = _by_annotations([dataset.target(index) for index in range(len(dataset))])
    if dataset.annotation_file is not None:
        members |= derive_subsets(dataset)
        members |= {Path(path).stem: read_list(path, dataset) for path in lists}
    elif lists:
        raise UserError("lists objects of COCO", file=lists[0], fix="give it with COCO's val2017")
    return members


def _by_annotations(targets: Sequence[Target]) -> dict[str, _Members]:
    """Divide the objects of a split by what each annotation says alone."""
    over = [overlapped(target) for target in targets]
    areas = [target.get("area", box_area(target["boxes"])) for target in targets]
    flags = {
        "all": [torch.ones_like(flags) for flags in over],
        "overlapped": over,
        "unoccluded": [~flags for flags in over],
        "small": [area < _SMALL for area in areas],
        "medium": [(area >= _SMALL) & (area < _MEDIUM) for area in areas],
        "large": [area >= _MEDIUM for area in areas],
    }

    def flagged(name: str) -> list[Tensor]:
        given = any(name in target and target[name].any() for target in targets)
        return [target[name] for target in targets] if given else []

    for name in ("truncated", "occluded"):
        if of_images := flagged(name):
            flags |= {name: of_images, f"not {name}": [~of_image for of_image in of_images]}
    counted = [~ignored_by_default(target) for target in targets]
    members = {name: [a & b for a, b in zip(counted, of_images, strict=True)] for name, of_images in flags.items()}
    return members | ({"difficult": difficult} if (difficult := flagged("difficult")) else {})


def subset_ap(matches: Matches, members: Sequence[Tensor | Booleans] | None = None) -> SubsetResult:
    """Compute VOC's AP and the recall on a subset of the objects.

    Objects outside the subset are ignored as the VOC kit ignores difficult ones: nobody has to find them, and
    detections that overlap them most are neither hits nor misses. Detections on no object at all are misses in every
    subset and weigh the more, the fewer objects it has: AP compares detectors on a subset; the subsets of one detector
    compare by their recall. On the subset of all objects that count, the AP is the ordinary one, bit for bit.

    Args:
        matches: detections and objects.
        members: for each image, M flags: the objects in the subset; by default all objects that count.

    Returns:
        The result; its recalls are NaN for a subset without objects.

    Raises:
        ValueError: there are not as many flags as objects.
    """
    if members is not None:
        matches = matches.subset(members)
    voc = {metric: voc_ap(matches, metric) for metric in get_args(Metric)}
    indices = matches.by_class().values()
    hits = sum(int(matches.hits[detections].sum()) for detections, _ in indices)
    count = sum(len(objects) for _, objects in indices)
    confident = int((_confidently_recalled(matches) & ~matches.ignored).sum())
    return SubsetResult(
        objects=voc["area"].objects,
        mean_ap={metric: result.mean_ap for metric, result in voc.items()},
        ap={metric: result.ap for metric, result in voc.items()},
        recall=hits / count if count else float("nan"),
        confident_recall=confident / count if count else float("nan"),
    )


def _confidently_recalled(matches: Matches) -> Booleans:
    """Tell which objects Zhan et al. (2022) take for recalled, by boxes: M flags.

    An object is recalled if some detection of its class has a score of at least 0.3 and an IoU of at least 0.75 with
    it. One detection may recall two objects.
    """
    detections, objects, iou = matches.pairs
    recalled = np.zeros(len(matches.ignored), dtype=bool)
    recalled[objects[(iou >= _CLOSE) & (matches.scores[detections] >= _CONFIDENT)]] = True
    return recalled
