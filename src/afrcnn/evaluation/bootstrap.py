"""How far an AP, or the difference of two, depends on the images that happen to be in a test split: the bootstrap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from afrcnn.evaluation.matching import Floats, Integers, Matches
from afrcnn.evaluation.voc_ap import RECALLS, Metric

_TABLE = 2**21
"""Numbers of a table at most: 16 MiB."""


def resample(images: int, times: int, seed: int = 0) -> Integers:
    """Return ``times`` x ``images``: how often each image is drawn when as many as there are are drawn, with return.

    The same draws serve two detectors: the difference of their APs is then paired.
    """
    draws = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=times)
    return draws.astype(np.int64)


def resampled_ap(matches: Matches, draws: Integers, metric: Metric = "11-point") -> Floats:
    """Return the mean AP in [0, 1] on each drawing of the images.

    An image that is drawn twice counts as two images with the same objects and detections.

    Args:
        matches: detections and objects of N images.
        draws: R x N: how often each image is drawn (``resample``).
        metric: ``"11-point"`` or ``"area"``.

    Returns:
        R mean APs over the classes that have objects in the images drawn; NaN where none has.
    """
    return mean_of_drawings(list(resampled_class_ap(matches, draws, metric).values()))


def resampled_class_ap(matches: Matches, draws: Integers, metric: Metric = "11-point") -> dict[str, Floats]:
    """Return by class its R APs in [0, 1], as of ``resampled_ap``; NaN where it has no objects in the images drawn."""
    return {
        name: np.concatenate([_ap(matches, *indices, block, metric) for block in _blocks(draws, len(indices[0]))])
        for name, indices in matches.by_class().items()
    }


def mean_of_drawings(aps: Sequence[Floats]) -> Floats:
    """Return the mean of several classes' APs, R of each class, on each drawing; NaN where none has one."""
    table = np.stack(aps)  # K x R
    defined = ~np.isnan(table)
    count, total = defined.sum(axis=0), np.where(defined, table, 0).sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0))


def interval(values: npt.ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of resampled values that holds ``confidence`` (in [0, 1]) of them."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(np.asarray(values, dtype=np.float64), [tail, 1 - tail])
    return float(low), float(high)


def _blocks(draws: Integers, detections: int) -> list[Integers]:
    """Return the drawings in blocks of few enough that their tables, a block x D, stay small."""
    rows = max(1, _TABLE // max(detections, 1))
    return [draws[start : start + rows] for start in range(0, len(draws), rows)] or [draws]


def _ap(matches: Matches, detections: Integers, objects: Integers, draws: Integers, metric: Metric) -> Floats:
    """Return the AP of a class, of D detections, on each of R drawings; NaN where it has no objects."""
    weights = draws[:, matches.detections.images[detections]]  # R x D
    at = np.flatnonzero(matches.hits[detections])  # between hits, precision only falls: H points will do
    hits, seen = np.cumsum(weights[:, at], axis=1), np.cumsum(weights, axis=1)[:, at]  # R x H
    count = draws @ np.bincount(matches.objects.images[objects], minlength=matches.image_count)  # R
    # Copies of a detection share their score. From a hit's first copy to its last, recall rises and
    # precision does not fall: the envelope takes all at the last one's, and one point will do.
    recall = hits / np.maximum(count, 1)[:, None]
    precision = np.divide(hits, seen, out=np.zeros(hits.shape), where=seen > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    if metric == "area":
        ap = (np.diff(recall, prepend=0.0, axis=1) * envelope).sum(axis=1)
    else:
        # The best precision at a recall or beyond: that of the first detection to reach it.
        padded = np.concatenate([envelope, np.zeros((len(draws), 1))], axis=1)
        reached = np.stack([(recall < point).sum(axis=1) for point in RECALLS], axis=1)  # R x 11
        ap = np.take_along_axis(padded, reached, axis=1).mean(axis=1)
    return np.where(count > 0, ap, np.nan)
