"""F1 of detections (van Rijsbergen 1979): the score from which on a detector's answers are most right as a whole."""

from __future__ import annotations

import numpy as np

from afrcnn.evaluation.matching import Matches


def score_of_best_f1(matches: Matches) -> float | None:
    """Return the score for which detections of it or a higher one have the highest F1, all classes together.

    F1 is 2 hits / (detections + objects), of the detections and objects that count. Of scores with the same F1 it is
    the highest.

    Args:
        matches: detections and objects, as of ``afrcnn.evaluation.matching.match``.

    Returns:
        The score in [0, 1]; None where there is no hit.
    """
    counted = matches.counted
    hits, scores = np.cumsum(matches.hits[counted]), matches.scores[counted]  # both D, by falling score
    if not len(hits) or not hits[-1]:
        return None
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + int((~matches.ignored).sum()))
    f1[:-1][scores[1:] == scores[:-1]] = 0  # of equal scores, none is above the others
    return float(scores[np.argmax(f1)])
