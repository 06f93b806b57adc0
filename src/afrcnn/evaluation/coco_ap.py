"""Average precision as COCO defines it, through faster-coco-eval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from faster_coco_eval import COCO, COCOeval_faster

from afrcnn.evaluation.voc_ap import concatenate, flatten, ignored_by_default

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def coco_ap(
    detections: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]], classes: Sequence[str]
) -> dict[str, float]:
    """Compute COCO's twelve numbers for boxes.

    ``AP`` is the mean over the classes and the IoU thresholds 0.5, 0.55, ..., 0.95; ``AP50`` and ``AP75`` are
    at one threshold; ``APs``, ``APm`` and ``APl`` are for objects of up to 32 x 32 pixels, up to 96 x 96, and
    larger; ``AR1``, ``AR10`` and ``AR100`` are the recall with so many detections of a class an image; ``ARs``,
    ``ARm`` and ``ARl`` are the recall by size, with 100.

    With COCO layout, an object's size is the area of its segmentation (``area``), and crowds (``iscrowd``)
    are ignored as COCO does: a crowd absorbs all detections that lie in it. With VOC layout, the size is
    that of the box, and objects with ``difficult`` count as crowds, COCO's one way to ignore an object.

    Args:
        detections: one mapping an image, of tensors or arrays: ``boxes`` D x 4 (XYXY, pixels), ``labels`` D
            (1..K), ``scores`` D.
        targets: one mapping an image, in the same order, as ``afrcnn.data.target.Target``.
        classes: names of the classes 1..K.

    Returns:
        The numbers by the names above, in [0, 1]; NaN where there are no objects to find.

    Raises:
        ValueError: there are not as many targets as detections.
    """
    if len(detections) != len(targets):
        raise ValueError(f"{len(detections)} images with detections but {len(targets)} with targets")
    found, objects = _annotations(detections), _annotations(targets)
    for detection, score in zip(found, concatenate([image["scores"] for image in detections]), strict=True):
        detection["score"] = score
    crowds = concatenate([ignored_by_default(target) for target in targets])
    for number, (annotation, crowd) in enumerate(zip(objects, crowds, strict=True), start=1):
        annotation |= {"id": number, "iscrowd": int(crowd)}
    if all("area" in target for target in targets):
        areas = concatenate([target["area"] for target in targets])
        for annotation, area in zip(objects, areas, strict=True):
            annotation["area"] = area

    truth = COCO(
        {
            "images": [{"id": image} for image in range(1, len(targets) + 1)],
            "categories": [{"id": label, "name": name} for label, name in enumerate(classes, start=1)],
            "annotations": objects,
        }
    )
    evaluation = COCOeval_faster(truth, truth.loadRes(found), "bbox")
    evaluation.run()
    return {
        name: float(value) if value >= 0 else float("nan")  # COCO has -1 where there is nothing to find
        for name, value in zip(METRICS, evaluation.stats, strict=True)
    }


def _annotations(images: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the boxes of all images as COCO's annotations; images are numbered from 1."""
    boxes, labels, indices = flatten(images)
    boxes[:, 2:] -= boxes[:, :2]
    return [
        {"image_id": index + 1, "category_id": label, "bbox": box, "area": box[2] * box[3]}
        for box, label, index in zip(boxes.tolist(), labels.tolist(), indices.tolist(), strict=True)
    ]
