"""Average precision as PASCAL VOC defines it (Everingham et al., IJCV 2010, section 4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from afrcnn.evaluation.matching import Floats, Matches

Metric = Literal["11-point", "area"]

# As in the widely used Python port, not k / 10: 3 * 0.1 is a bit more than 0.3, and whether a
# recall of exactly 3 / 10 reaches it moves the AP by up to 1 / 11.
RECALLS = np.arange(0, 1.1, 0.1)


@dataclass(frozen=True)
class _VOCResult:
    """Average precision of each class, and the curves it comes from.

    The curves hold one point for each detection that counts, a hit or a miss, by falling score; detections
    of ignored objects are left out.

    Attributes:
        ap: AP in [0, 1] by class; NaN for a class without objects that count.
        objects: number of objects that count by class.
        recall: by class, the fraction of objects found up to each detection; NaN where there are none.
        precision: by class, the fraction of hits up to each detection.
        scores: by class, the score of each detection, falling.
    """

    ap: dict[str, float]
    objects: dict[str, int]
    recall: dict[str, Floats]
    precision: dict[str, Floats]
    scores: dict[str, Floats]

    @property
    def mean_ap(self) -> float:
        """Mean AP over the classes that have objects that count; NaN if none has."""
        return mean_over_classes(self.ap)


def mean_over_classes(by_class: Mapping[str, float]) -> float:
    """Return the mean of a number over the classes that have one; NaN if none has."""
    defined = [number for number in by_class.values() if not np.isnan(number)]
    return float(np.mean(defined)) if defined else float("nan")


def voc_ap(matches: Matches, metric: Metric = "11-point") -> _VOCResult:
    """Compute the AP of each class.

    Args:
        matches: detections and objects, as of ``afrcnn.evaluation.matching.match``.
        metric: ``"11-point"``, mean precision at the recalls 0, 0.1, ..., 1 (VOC 2007), whose last bits are
            those of ``numpy.arange(0, 1.1, 0.1)``, as in the widely used Python port; or ``"area"``, the area
            under the curve (VOC 2010 on).

    Returns:
        The AP and the curves. A class without objects that count has AP NaN and no part in the mean.
    """
    result = _VOCResult({}, {}, {}, {}, {})
    for name, (detections, objects) in matches.by_class().items():
        hits, count = np.cumsum(matches.hits[detections]), len(objects)
        recall = hits / count if count else np.full(len(hits), np.nan)
        precision = hits / np.arange(1, len(hits) + 1)
        result.ap[name] = _average_precision(recall, precision, metric) if count else float("nan")
        result.objects[name] = count
        result.recall[name], result.precision[name] = recall, precision
        result.scores[name] = matches.scores[detections]
    return result


def _average_precision(recall: Floats, precision: Floats, metric: Metric) -> float:
    """Summarise a curve of precision over recall; both metrics take the best precision at a recall or beyond.

    Args:
        recall: D values in [0, 1], rising.
        precision: D values in [0, 1].
        metric: ``"11-point"`` or ``"area"``, as in ``voc_ap``.

    Returns:
        The average precision in [0, 1]; 0 without any point.
    """
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    if metric == "11-point":
        return float(envelope[np.searchsorted(recall, RECALLS)].mean())
    return float(np.diff(recall, prepend=0.0) @ envelope[:-1])
