"""What detections are worth on subsets of the objects: overlapped or in the open, by size, by VOC's flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor
from torchvision.ops import box_iou

from afrcnn.core.errors import UserError
from afrcnn.data.annotations import AnnotatedImages
from afrcnn.data.overlap import OVERLAP, overlapped
from afrcnn.data.target import DetectionDataset
from afrcnn.evaluation.occluded_coco import derive_subsets, read_list
from afrcnn.evaluation.voc_ap import Metric, ignored_by_default, voc_ap

SMALL, MEDIUM = 32**2, 96**2
"""Areas in pixels of the photograph below which COCO calls an object small, and medium."""

CONFIDENT, CLOSE = 0.3, 0.75
"""The score and the IoU from which on Zhan et al. (2022) take an object for recalled."""

Members = list[Tensor]
"""A subset of a split's objects: for each image M flags, bool, of the objects in it."""


@dataclass(frozen=True)
class SubsetResult:
    """What detections are worth on a subset of the objects.

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


def subsets(targets: Sequence[Mapping[str, Any]], overlap: float = OVERLAP) -> dict[str, Members]:
    """Divide the objects of a split.

    ==========================================  ====================================================================
    ``all``                                     all objects that the ordinary evaluation counts
    ``overlapped``, ``in the open``             whether one other labelled box covers more than ``overlap`` of the
                                                object's own (``afrcnn.data.overlap.overlapped``)
    ``small``, ``medium``, ``large``            an area below 32 x 32 pixels of the photograph, below 96 x 96, or
                                                larger: COCO's ``area`` where targets have it, else the box's. Each
                                                object has one size; COCO's own tool counts areas of just 32 x 32
                                                and 96 x 96 in two
    ``truncated``, ``not truncated``,           VOC's flags
    ``occluded``, ``not occluded``
    ``difficult``                               VOC's flag: the objects that all other subsets leave out
    ==========================================  ====================================================================

    VOC's flags divide a split only where some object has them. Crowd regions are in no subset.

    Args:
        targets: the annotations of the images, as ``afrcnn.data.target.Target``.
        overlap: the share of a box from which on it counts as overlapped, in [0, 1].
    """
    counted = [~ignored_by_default(target) for target in targets]
    over = [overlapped(dict(target), overlap) for target in targets]
    areas = [_area(target) for target in targets]
    found = {
        "all": counted,
        "overlapped": [own & flags for own, flags in zip(counted, over, strict=True)],
        "in the open": [own & ~flags for own, flags in zip(counted, over, strict=True)],
        "small": [own & (area < SMALL) for own, area in zip(counted, areas, strict=True)],
        "medium": [own & (area >= SMALL) & (area < MEDIUM) for own, area in zip(counted, areas, strict=True)],
        "large": [own & (area >= MEDIUM) for own, area in zip(counted, areas, strict=True)],
    }
    for flag in ("truncated", "occluded"):
        if any(flag in target and target[flag].any() for target in targets):
            flagged = [target[flag] for target in targets]
            found[flag] = [own & flags for own, flags in zip(counted, flagged, strict=True)]
            found[f"not {flag}"] = [own & ~flags for own, flags in zip(counted, flagged, strict=True)]
    if any("difficult" in target and target["difficult"].any() for target in targets):
        found["difficult"] = [target["difficult"] for target in targets]
    return found


def all_subsets(dataset: DetectionDataset, lists: Sequence[Path | str] = ()) -> dict[str, Members]:
    """Divide the objects of a dataset in every way that its annotations allow.

    Args:
        dataset: the split. With COCO's masks, the two of ``occluded_coco.derive_subsets`` join those of ``subsets``.
        lists: published lists of objects (``occluded_coco.read_list``), each a subset by the name of its file.

    Raises:
        UserError: a mask or a list is malformed, or lists are given for a dataset that is not in COCO layout.
    """
    found = subsets([dataset.target(index) for index in range(len(dataset))])
    if isinstance(dataset, AnnotatedImages) and dataset.annotation_file:
        found |= derive_subsets(dataset)
        found |= {Path(path).stem: read_list(path, dataset) for path in lists}
    elif lists:
        raise UserError("lists objects of COCO", file=lists[0], fix="give it with COCO's val2017")
    return found


def subset_ap(
    detections: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    members: Sequence[Tensor],
    *,
    iou_threshold: float = 0.5,
) -> SubsetResult:
    """Compute VOC's AP and the recall on a subset of the objects.

    Objects outside the subset are ignored as the VOC kit ignores difficult ones: nobody has to find them, and
    detections that overlap them most are neither hits nor misses. Detections on no object at all are misses in every
    subset and weigh the more, the fewer objects it has: AP compares detectors on a subset; the subsets of one detector
    compare by their recall. On the subset of all objects that count, the AP is the ordinary one, bit for bit.

    Args:
        detections: one mapping an image: ``boxes`` D x 4 (XYXY, pixels), ``labels`` D (1..K), ``scores`` D.
        targets: one mapping an image, in the same order, with ``boxes`` M x 4 and ``labels`` M.
        classes: names of the classes 1..K.
        members: for each image, M flags: the objects in the subset.
        iou_threshold: IoU in [0, 1] that a hit of VOC's AP exceeds.

    Returns:
        The result; its recalls are NaN for a subset without objects.

    Raises:
        ValueError: there are not as many targets as detections, or as many flags as objects.
    """
    ignored = [~flags for flags in members]
    voc = {
        metric: voc_ap(detections, targets, classes, iou_threshold=iou_threshold, metric=metric, ignored=ignored)
        for metric in get_args(Metric)
    }
    curves = voc["11-point"]
    found = sum(
        round(float(curves.recall[name][-1]) * count)
        for name, count in curves.objects.items()
        if count and len(curves.recall[name])
    )
    confident = sum(
        int((confidently_recalled(*image) & flags).sum())
        for *image, flags in zip(detections, targets, members, strict=True)
    )
    objects = sum(curves.objects.values())
    return SubsetResult(
        objects=curves.objects,
        mean_ap={metric: result.mean_ap for metric, result in voc.items()},
        ap={metric: result.ap for metric, result in voc.items()},
        recall=found / objects if objects else float("nan"),
        confident_recall=confident / objects if objects else float("nan"),
    )


def confidently_recalled(detections: Mapping[str, Any], target: Mapping[str, Any]) -> Tensor:
    """Tell which objects of an image Zhan et al. (2022) take for recalled, by boxes.

    An object is recalled if some detection of its class has a score of at least 0.3 and an IoU of at least 0.75 with
    it. One detection may recall two objects.

    Args:
        detections: ``boxes`` D x 4 (XYXY, pixels), ``labels`` D (1..K), ``scores`` D.
        target: ``boxes`` M x 4 and ``labels`` M.

    Returns:
        M flags, bool.
    """
    boxes, labels, scores = (torch.as_tensor(detections[key]).cpu() for key in ("boxes", "labels", "scores"))
    iou = box_iou(torch.as_tensor(target["boxes"]).as_subclass(Tensor).double(), boxes.double())
    same = torch.as_tensor(target["labels"])[:, None] == labels
    recalled: Tensor = ((iou >= CLOSE) & same & (scores >= CONFIDENT)).any(dim=1)
    return recalled


def _area(target: Mapping[str, Any]) -> Tensor:
    """Return the areas of an image's objects in pixels."""
    if "area" in target:
        return torch.as_tensor(target["area"])
    boxes = torch.as_tensor(target["boxes"]).as_subclass(Tensor)
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
