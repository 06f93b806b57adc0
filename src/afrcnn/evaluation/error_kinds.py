"""Kinds of false positives, and which classes are similar: Hoiem et al., "Diagnosing error in object detectors"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from afrcnn.core.errors import UserError, suggest
from afrcnn.evaluation.matching import Integers, Matches, overlaps

KINDS = ("localisation", "similar", "other", "background")
"""Of false positives; where several would do, the first one counts."""

NEAR = 0.1
"""The IoU from which on a false positive has to do with an object (Hoiem et al., section 2)."""

_VOC_GROUPS = {
    "animals": ("bird", "cat", "cow", "dog", "horse", "sheep"),
    "vehicles": ("aeroplane", "bicycle", "boat", "bus", "car", "motorbike", "train"),
    "furniture": ("chair", "diningtable", "sofa"),
}
"""VOC's classes that are summed up together (``setDatasetParameters.m`` of Hoiem et al.); the other four are not."""

_VOC_SIMILAR = ((*_VOC_GROUPS["animals"], "person"), *list(_VOC_GROUPS.values())[1:], ("aeroplane", "bird"))
"""VOC's classes that are similar, there; bicycle and motorbike, too, which are both vehicles."""

_VOC = {name for group in _VOC_GROUPS.values() for name in group} | {"bottle", "person", "pottedplant", "tvmonitor"}


@dataclass(frozen=True)
class ClassGroups:
    """Which classes are similar, and which are summed up together.

    Attributes:
        similar: sets of classes, any two of which are similar.
        summaries: by name, the classes that are summed up.
    """

    similar: tuple[tuple[str, ...], ...]
    summaries: dict[str, tuple[str, ...]]


def class_groups(classes: Sequence[str], given: Sequence[str] = ()) -> ClassGroups:
    """Return groups of similar classes.

    Args:
        classes: names of the classes 1..K.
        given: groups, as ``["cat,dog", "car,bus"]``. Without any, the groups are VOC's where all classes are VOC's, as
            far as there are two of a group; elsewhere there is none.

    Raises:
        UserError: a group names an unknown class, or fewer than two.
    """
    groups = {text: tuple(dict.fromkeys(name.strip() for name in text.split(","))) for text in given}
    for text, group in groups.items():
        if unknown := [name for name in group if name not in classes]:
            fix = suggest(unknown[0], list(classes), f"choose from {', '.join(classes)}")
            raise UserError(f"{unknown[0]!r} is not a class", field="similar", fix=fix)
        if len(group) < 2:
            raise UserError(f"{text!r} is one class", field="similar", fix="name two or more, as cat,dog")
    if groups or not _VOC.issuperset(classes):
        return ClassGroups(tuple(groups.values()), groups)
    present = {name: tuple(filter(classes.__contains__, group)) for name, group in _VOC_GROUPS.items()}
    similar = (tuple(filter(classes.__contains__, group)) for group in _VOC_SIMILAR)
    summaries = {name: group for name, group in present.items() if len(group) > 1}
    return ClassGroups(tuple(group for group in similar if len(group) > 1), summaries)


def error_kinds(matches: Matches, similar: Sequence[Sequence[str]]) -> Integers:
    """Tell what kind of error each false positive is.

    ================  ==================================================================================
    ``localisation``  an IoU of at least 0.1 with an object of its class: badly placed, or a second one
    ``similar``       or else with an object of a similar class
    ``other``         or else with any object
    ``background``    or else
    ================  ==================================================================================

    Objects that the evaluation ignores explain an error as others do: a dog on a difficult cat is no background. What
    matches one, and is neither hit nor miss, has no kind.

    Args:
        matches: detections and objects, at an IoU above 0.1.
        similar: sets of classes, any two of which are similar.

    Returns:
        D indices into ``KINDS``; -1 for hits and for what is ignored.
    """
    labels = {name: label for label, name in enumerate(matches.classes, start=1)}
    relation = np.full((len(labels) + 1, len(labels) + 1), KINDS.index("other"))
    for group in similar:
        members = [labels[name] for name in group]
        relation[np.ix_(members, members)] = KINDS.index("similar")
    np.fill_diagonal(relation, KINDS.index("localisation"))
    detections, objects, iou = overlaps(matches.detections, matches.objects, any_class=True)
    detections, objects = detections[iou >= NEAR], objects[iou >= NEAR]
    kinds = np.full(len(matches.scores), KINDS.index("background"))
    np.minimum.at(kinds, detections, relation[matches.detections.labels[detections], matches.objects.labels[objects]])
    return np.where(matches.counted & ~matches.hits, kinds, -1)
