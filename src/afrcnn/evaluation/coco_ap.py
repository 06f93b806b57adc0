"""Average precision as COCO defines it, through faster-coco-eval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from afrcnn.evaluation.formats import coco_image_id
from afrcnn.evaluation.matching import Images, Integers, concatenate, flatten, ignored_by_default

_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class COCOResult(NamedTuple):
    """What COCO's evaluation says of detections.

    Attributes:
        numbers: its twelve numbers, as of :func:`coco_ap`.
        ap50: by class, AP at an IoU of 0.5 in [0, 1]; NaN for a class without objects.
    """

    numbers: dict[str, float]
    ap50: dict[str, float]


def coco_ap(detections: Images, targets: Images, classes: Sequence[str], ids: Sequence[str] = ()) -> dict[str, float]:
    """Return COCO's twelve numbers for boxes; see :func:`evaluate_coco`."""
    return evaluate_coco(detections, targets, classes, ids).numbers


def evaluate_coco(detections: Images, targets: Images, classes: Sequence[str], ids: Sequence[str] = ()) -> COCOResult:
    """Compute COCO's twelve numbers for boxes, and AP at an IoU of 0.5 by class.

    ``AP`` is the mean over the classes and the IoU thresholds 0.5, 0.55, ..., 0.95; ``AP50`` and ``AP75`` are
    at one threshold; ``APs``, ``APm`` and ``APl`` are for objects of up to 32 x 32 pixels, up to 96 x 96, and
    larger; ``AR1``, ``AR10`` and ``AR100`` are the recall with so many detections of a class an image; ``ARs``,
    ``ARm`` and ``ARl`` are the recall by size, with 100.

    With COCO layout, an object's size is the area of its segmentation (``area``), and crowds (``iscrowd``)
    are ignored as COCO does: a crowd absorbs all detections that lie in it. With VOC layout, the size is
    that of the box, and objects with ``difficult`` count as crowds, COCO's one way to ignore an object.

    Detections with equal scores are ordered by image: by ids that are all integers, as pycocotools does, else as given.

    Args:
        detections: one mapping an image, of tensors or arrays: ``boxes`` D x 4 (XYXY, pixels), ``labels`` D
            (1..K), ``scores`` D.
        targets: one mapping an image, in the same order, as ``afrcnn.data.target.Target``.
        classes: names of the classes 1..K.
        ids: the ids of the images, in the same order.

    Returns:
        The numbers, those above in [0, 1]; NaN where there are no objects to find.

    Raises:
        ValueError: there are not as many targets, or ids, as detections.
    """
    content, records = coco_content(detections, targets, classes, ids)
    truth = COCO(content)
    evaluation = COCOeval_faster(truth, truth.loadRes(records), "bbox")
    evaluation.run()
    precision = evaluation.eval["precision"][0, :, :, 0, -1]  # recalls x K, at 0.5, of any size, 100 detections
    return COCOResult(
        _known(dict(zip(_METRICS, evaluation.stats, strict=True))),
        _known(dict(zip(classes, precision.mean(axis=0), strict=True))),
    )


def coco_content(
    detections: Images, targets: Images, classes: Sequence[str], ids: Sequence[str] = ()
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return objects and detections as COCO's programs take them; arguments and errors as of ``evaluate_coco``."""
    if len(detections) != len(targets):
        raise ValueError(f"{len(detections)} images with detections but {len(targets)} with targets")
    if len(ids) not in (0, len(targets)):
        raise ValueError(f"{len(targets)} images but {len(ids)} ids")
    numbers = np.arange(len(targets))
    keys = [coco_image_id(image_id) for image_id in ids]
    if keys and all(isinstance(key, int) for key in keys):
        numbers[np.argsort(np.array(keys), kind="stable")] = np.arange(len(targets))
    crowds = concatenate([ignored_by_default(target) for target in targets]).astype(int)
    columns: dict[str, Any] = {"id": range(1, len(crowds) + 1), "iscrowd": crowds.tolist()}
    if all("area" in target for target in targets):
        columns["area"] = concatenate([target["area"] for target in targets]).tolist()
    content = {
        "images": [{"id": int(number)} for number in numbers],
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes, start=1)],
        "annotations": _annotations(targets, numbers, columns),
    }
    scores = concatenate([image["scores"] for image in detections]).tolist()
    return content, _annotations(detections, numbers, {"score": scores})


def _known(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return numbers with NaN where COCO has -1, which is that there is none."""
    return {name: float(value) if value >= 0 else float("nan") for name, value in numbers.items()}


def _annotations(images: Images, numbers: Integers, columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the boxes of all images as COCO's annotations, with further fields."""
    boxes, labels, indices = flatten(images)
    boxes[:, 2:] -= boxes[:, :2]
    fields = {
        "image_id": numbers[indices].tolist(),
        "category_id": labels.tolist(),
        "bbox": boxes.tolist(),
        "area": boxes[:, 2:].prod(axis=1).tolist(),
        **columns,
    }
    return [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]
