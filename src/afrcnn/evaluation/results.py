"""What a detector's detections on a split are worth: ``results.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.data.target import DetectionDataset
from afrcnn.evaluation.coco_ap import coco_ap
from afrcnn.evaluation.subsets import Members, SubsetResult, subset_ap
from afrcnn.evaluation.voc_ap import Metric, voc_ap


@dataclass(frozen=True)
class Results:
    """The results of one evaluation; ``results.json`` holds the same fields, with null for NaN.

    Attributes:
        images: number of images.
        detections: number of detections.
        iou_threshold: IoU that a hit of VOC's AP exceeds.
        objects: by class, the number of objects that VOC's AP counts.
        mean_ap: VOC's mean AP in [0, 1] by metric, ``11-point`` and ``area``.
        ap: VOC's AP in [0, 1] by metric and class; NaN for a class without objects.
        coco: COCO's twelve numbers in [0, 1], named as in ``afrcnn.evaluation.coco_ap``; NaN where there are no
            objects to find.
        subsets: by name, what the detections are worth on subsets of the objects; empty where not asked for.
        split: the split that a run was evaluated on; empty for detections that are no run's.
    """

    images: int
    detections: int
    iou_threshold: float
    objects: dict[str, int]
    mean_ap: dict[str, float]
    ap: dict[str, dict[str, float]]
    coco: dict[str, float]
    subsets: dict[str, SubsetResult] = field(default_factory=dict)
    split: str = ""


def evaluate(
    detections: Sequence[Mapping[str, Any]],
    dataset: DetectionDataset,
    *,
    iou_threshold: float = 0.5,
    subsets: Mapping[str, Members] | None = None,
) -> Results:
    """Compare detections with a dataset's objects, by VOC's AP and by COCO's numbers.

    Args:
        detections: for each image of the dataset, in its order: ``boxes`` D x 4 (XYXY, pixels), ``labels`` D
            (1..K), ``scores`` D.
        dataset: the images' objects, in VOC or COCO layout.
        iou_threshold: IoU in [0, 1] that a hit of VOC's AP exceeds; COCO's numbers have their own.
        subsets: the subsets of the objects to look at, by name, as of ``afrcnn.evaluation.subsets``.

    Returns:
        The results.

    Raises:
        ValueError: there are not as many images as detections.
    """
    targets = [dataset.target(index) for index in range(len(dataset))]
    voc = {
        metric: voc_ap(detections, targets, dataset.classes, iou_threshold=iou_threshold, metric=metric)
        for metric in get_args(Metric)
    }
    return Results(
        images=len(targets),
        detections=sum(len(found["scores"]) for found in detections),
        iou_threshold=iou_threshold,
        objects=voc["11-point"].objects,
        mean_ap={metric: result.mean_ap for metric, result in voc.items()},
        ap={metric: result.ap for metric, result in voc.items()},
        coco=coco_ap(detections, targets, dataset.classes),
        subsets={
            name: subset_ap(detections, targets, dataset.classes, members, iou_threshold=iou_threshold)
            for name, members in (subsets or {}).items()
        },
    )


def write_results(path: Path | str, results: Results) -> None:
    """Write ``results.json``.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_write(path) as file:
        json.dump(null_for_nan(asdict(results)), file, indent=2, allow_nan=False)
        file.write("\n")


def read_results(path: Path | str) -> Results:
    """Read what ``write_results`` wrote.

    Raises:
        UserError: the file is missing or is no such file.
    """
    fix = "name a results.json that `afrcnn evaluate` wrote"
    try:
        content = nan_for_null(json.loads(Path(path).read_text(encoding="utf-8")))
        subsets = {name: SubsetResult(**result) for name, result in content.pop("subsets", {}).items()}
        return Results(**content, subsets=subsets)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=path, fix=fix) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError("holds no results", file=path, fix=fix) from error


def null_for_nan(value: Any) -> Any:
    """Return nested mappings and sequences as JSON can hold them: NaN becomes None, and a tuple a list."""
    if isinstance(value, dict):
        return {key: null_for_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [null_for_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def nan_for_null(value: Any) -> Any:
    """Return nested mappings with NaN where ``null_for_nan`` put None."""
    if isinstance(value, dict):
        return {key: nan_for_null(item) for key, item in value.items()}
    return math.nan if value is None else value
