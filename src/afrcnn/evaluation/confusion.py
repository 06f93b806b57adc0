"""The confusion matrix of a detector: what the objects of each class are taken for, and what is seen where none is."""

from __future__ import annotations

import numpy as np

from afrcnn.evaluation.matching import Integers, Matches, overlaps


def confusion_matrix(matches: Matches, lowest: float) -> Integers:
    """Count the objects of each class by the class that they are detected as.

    Detections and objects of an image are paired whatever their classes, each once, by falling IoU, if it exceeds the
    threshold of the matches; of equal IoUs the more confident detection comes first, then the earlier object. A
    detection that is left over and whose IoU with an object that evaluation ignores exceeds the threshold is left out.

    Args:
        matches: detections and objects.
        lowest: the score from which on a detection counts, in [0, 1].

    Returns:
        (K + 1) x (K + 1): a row for each true class and a column for each detected one. The last row is background,
        where there is no object; the last column holds the objects that are missed.
    """
    detections, objects, iou = overlaps(matches.detections, matches.objects, any_class=True)
    close = (iou > matches.iou_threshold) & (matches.scores[detections] >= lowest)
    detections, objects, iou = detections[close], objects[close], iou[close]
    free_detections, free_objects = matches.scores >= lowest, ~matches.ignored
    matrix = np.zeros((len(matches.classes) + 1,) * 2, np.int64)
    # Detections are by falling score, so that their index breaks ties.
    for pair in np.lexsort((objects, detections, -iou)):
        detection, found_object = detections[pair], objects[pair]
        if free_detections[detection] and free_objects[found_object]:
            free_detections[detection] = free_objects[found_object] = False
            matrix[matches.objects.labels[found_object] - 1, matches.detections.labels[detection] - 1] += 1
    free_detections[detections[matches.ignored[objects]]] = False
    count = len(matches.classes)
    matrix[:-1, -1] = np.bincount(matches.objects.labels[free_objects] - 1, minlength=count)
    matrix[-1, :-1] = np.bincount(matches.detections.labels[free_detections] - 1, minlength=count)
    return matrix
