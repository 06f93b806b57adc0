"""How far an AP, or the difference of two, depends on the images that happen to be in a test split: the bootstrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from afrcnn.evaluation.voc_ap import RECALLS, Booleans, Floats, Integers, Judged, Metric, judge


def resample(images: int, times: int, seed: int = 0) -> Integers:
    """Return ``times`` x ``images``: how often each image is drawn when as many as there are are drawn, with return.

    The same draws serve two detectors: the difference of their APs is then paired.
    """
    draws = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=times)
    return draws.astype(np.int64)


def resampled_ap(
    detections: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    draws: Integers,
    *,
    iou_threshold: float = 0.5,
    metric: Metric = "11-point",
    ignored: Sequence[torch.Tensor | Booleans] | None = None,
) -> Floats:
    """Return the mean AP in [0, 1] on each drawing of the images.

    An image that is drawn twice counts as two images with the same objects and detections.

    Args:
        detections: one mapping an image, as for ``voc_ap``.
        targets: one mapping an image, in the same order.
        classes: names of the classes 1..K.
        draws: R x N: how often each of N images is drawn (``resample``).
        iou_threshold: IoU in [0, 1] that a hit exceeds.
        metric: ``"11-point"`` or ``"area"``.
        ignored: as for ``voc_ap``.

    Returns:
        R mean APs over the classes that have objects in the images drawn; NaN where none has.
    """
    judged = judge(detections, targets, classes, iou_threshold=iou_threshold, ignored=ignored)
    aps = np.stack([_ap(one, draws, metric) for one in judged.values()])
    defined = ~np.isnan(aps)
    count = defined.sum(axis=0)
    total = np.where(defined, aps, 0).sum(axis=0)
    means: Floats = np.divide(total, count, out=np.full(len(draws), np.nan), where=count > 0)
    return means


def interval(values: npt.ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of resampled values that holds ``confidence`` (in [0, 1]) of them."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(np.asarray(values, dtype=np.float64), [tail, 1 - tail])
    return float(low), float(high)


def _ap(judged: Judged, draws: Integers, metric: Metric) -> Floats:
    """Return the AP of a class on each of R drawings; NaN where it has no objects."""
    weights = draws[:, judged.images]
    hits = np.cumsum(weights * judged.hit, axis=1)
    seen = np.cumsum(weights, axis=1)
    objects = draws @ judged.objects
    # A detection's copies share their score. Recall rises from the first copy of a hit to the last, and precision does
    # not fall meanwhile, so that the envelope takes all of them at the last one's: one point for all copies will do.
    recall = hits / np.maximum(objects, 1)[:, None]
    precision = np.divide(hits, seen, out=np.zeros(hits.shape), where=seen > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    if metric == "area":
        ap = (np.diff(recall, prepend=0.0, axis=1) * envelope).sum(axis=1)
    else:
        # The best precision at a recall or beyond: that of the first detection which reaches the recall.
        padded = np.concatenate([envelope, np.zeros((len(draws), 1))], axis=1)
        reached = np.stack([(recall < point).sum(axis=1) for point in RECALLS], axis=1)
        ap = np.take_along_axis(padded, reached, axis=1).mean(axis=1)
    return np.where(objects > 0, ap, np.nan)
