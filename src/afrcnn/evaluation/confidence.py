"""What a score of a detector says: precision, recall and F1 by threshold, and calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from afrcnn.evaluation.matching import Booleans, Floats, Integers, Matches


@dataclass(frozen=True)
class ThresholdCurve:
    """Precision, recall and F1 of the detections from each score on, the classes pooled.

    Attributes:
        scores: T, falling: the scores that occur among the detections that count.
        precision: T, the fraction of those detections that are hits.
        recall: T, the fraction of the objects that they find; NaN where there are none.
        f1: T, the harmonic mean of both; 0 where both are 0.
    """

    scores: Floats
    precision: Floats
    recall: Floats
    f1: Floats

    @property
    def best(self) -> int | None:
        """The index of the highest F1, the highest score of as many; None where there is none above 0."""
        return int(self.f1.argmax()) if len(self.f1) and self.f1.max() > 0 else None


def threshold_curve(matches: Matches) -> ThresholdCurve:
    """Return precision, recall and F1 by the lowest score that a detection is shown from on, the classes pooled.

    All classes are pooled, not averaged: one threshold serves them all where a detector is used, and one point of each
    curve is what it then does. Detections of ignored objects are left out.
    """
    scores, hits = _counted(matches)
    last = np.flatnonzero(np.diff(scores, append=-np.inf))  # of each score: a threshold lets all of them in
    count, found_objects = last + 1, np.cumsum(hits)[last]
    objects = int((~matches.ignored).sum())
    precision = found_objects / count
    recall = found_objects / objects if objects else np.full(len(last), np.nan)
    f1 = 2 * found_objects / (count + objects)
    return ThresholdCurve(scores[last], precision, recall, f1)


@dataclass(frozen=True)
class _Calibration:
    """Scores against the fraction of detections that are hits, in bins of equal width.

    Attributes:
        edges: B + 1, from the lowest score that counts to 1.
        counts: B, the detections of each bin.
        confidence: B, their mean score; NaN for none.
        precision: B, the fraction of them that are hits; NaN for none.
        error: the expected calibration error, in [0, 1]; NaN without detections.
    """

    edges: Floats
    counts: Integers
    confidence: Floats
    precision: Floats
    error: float


def calibration(matches: Matches, *, bins: int = 10, lowest: float = 0.3) -> _Calibration:
    r"""Compare the scores of detections with the fraction of them that are hits.

    The expected calibration error is :math:`\sum_b n_b / n \, |precision_b - confidence_b|` over the bins (Naeini et
    al. 2015; of detections Küppers et al. 2020, arXiv:2004.13546). Detections of low scores are left out: they are many
    and hardly ever right, and would hide all others. So are detections of ignored objects.

    Args:
        matches: detections and objects.
        bins: B, the number of bins between the lowest score and 1; a score on an edge is in the upper one.
        lowest: the score from which on detections count, in [0, 1).
    """
    scores, hits = _counted(matches)
    scores, hits = scores[scores >= lowest], hits[scores >= lowest]
    edges = np.linspace(lowest, 1, bins + 1)
    bin_of = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, bins - 1)
    counts, total, right = (np.bincount(bin_of, weights, bins) for weights in (None, scores, hits))
    empty = np.full(bins, np.nan)
    confidence, precision = (np.divide(sums, counts, out=empty.copy(), where=counts > 0) for sums in (total, right))
    error = float(np.abs(right - total).sum() / len(scores)) if len(scores) else float("nan")
    return _Calibration(edges, counts.astype(np.int64), confidence, precision, error)


def _counted(matches: Matches) -> tuple[Floats, Booleans]:
    """Return the scores of the detections that are hits or misses, falling, and which are hits."""
    return matches.scores[matches.counted], matches.hits[matches.counted]
