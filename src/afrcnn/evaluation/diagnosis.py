"""Diagnosis of errors after Hoiem et al. (ECCV 2012): kinds of false positives, and what each costs in AP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from afrcnn.evaluation.bootstrap import interval, mean_of_drawings, resampled_class_ap
from afrcnn.evaluation.error_kinds import KINDS, NEAR, ClassGroups, error_kinds
from afrcnn.evaluation.matching import Booleans, Floats, Integers, Matches
from afrcnn.evaluation.voc_ap import Metric, mean_over_classes, voc_ap

_ALL = "all classes"
"""The row of all classes together."""

_METRIC: Metric = "area"
"""As in Hoiem et al.: it changes with every false positive, where AP by 11 points may not."""


class ErrorChange(NamedTuple):
    """A difference to a baseline, and its 95% interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Errors:
    """The false positives of a class, or of several: counts are sums, APs are means over the classes with objects.

    Attributes:
        objects: number of objects that count.
        top: number of the most confident detections, which are looked at.
        correct: how many of these are hits.
        counts: by kind, how many of these are false positives.
        fractions: by kind, what fraction of these false positives, in [0, 1]; NaN where there are none.
        totals: by kind, the false positives among all detections.
        ap: VOC's AP by area, in [0, 1]: ``AP`` as it is; ``without`` the false positives of each kind; and where
            those of localisation are ``placed right``, and second ones are gone. NaN without objects.
    """

    objects: int
    top: int
    correct: int
    counts: dict[str, int]
    fractions: dict[str, float]
    totals: dict[str, int]
    ap: dict[str, float]


@dataclass(frozen=True)
class _Diagnosis:
    """The false positives of a detector by kind.

    Attributes:
        kinds: D indices into ``KINDS``; -1 for what is no false positive.
        top: D flags: the most confident detections of each class.
        rows: by name, the classes of each row of a table: each class, each group, and all.
        errors: by row, its false positives.
        variants: by name, the matches that each AP of ``Errors`` is of.
    """

    kinds: Integers
    top: Booleans
    rows: dict[str, tuple[str, ...]]
    errors: dict[str, Errors]
    variants: dict[str, Matches]


def diagnose_errors(matches: Matches, groups: ClassGroups, top: int | None = None) -> _Diagnosis:
    """Sort the false positives of a detector by kind, and tell what AP it would have without each kind.

    The most confident detections of a class are as many as the class has objects, as in Hoiem et al.: a perfect
    detector has no false positive among them. What matches an ignored object is not among them.

    Args:
        matches: detections and objects, at an IoU above 0.1.
        groups: which classes are similar, and which are summed up together.
        top: number of the most confident detections of each class, instead.
    """
    kinds, by_class, first = (
        error_kinds(matches, groups.similar),
        matches.by_class(),
        np.zeros(len(matches.scores), bool),
    )
    for detections, objects in by_class.values():
        first[detections[: len(objects) if top is None else top]] = True
    variants = _variants(matches, kinds)
    aps = {name: voc_ap(variant, _METRIC).ap for name, variant in variants.items()}
    rows = {name: (name,) for name in matches.classes} | groups.summaries | {_ALL: matches.classes}
    errors = {}
    for row, members in rows.items():
        of_row = _of_classes(matches, members)
        counts = _count(kinds[of_row & first])
        errors[row] = Errors(
            objects=sum(len(by_class[name][1]) for name in members),
            top=int((of_row & first).sum()),
            correct=int(matches.hits[of_row & first].sum()),
            counts=counts,
            fractions=dict(zip(KINDS, _fractions(list(counts.values())).tolist(), strict=True)),
            totals=_count(kinds[of_row]),
            ap={name: mean_over_classes({member: ap[member] for member in members}) for name, ap in aps.items()},
        )
    return _Diagnosis(kinds, first, rows, errors, variants)


def error_changes(diagnosis: _Diagnosis, baseline: _Diagnosis, draws: Integers) -> dict[str, dict[str, ErrorChange]]:
    """Return what differs from a baseline, with the interval of a bootstrap over images, paired.

    The most confident detections stay those of the whole split.

    Args:
        diagnosis: of N images.
        baseline: of the same images, classes and groups.
        draws: R x N: how often each image is drawn (``afrcnn.evaluation.bootstrap.resample``).

    Returns:
        By row, the change of each kind's fraction and of each AP of ``Errors``.
    """
    drawn, of_baseline = (_drawn(one, draws) for one in (diagnosis, baseline))
    changes: dict[str, dict[str, ErrorChange]] = {}
    for row, errors in diagnosis.errors.items():
        before = baseline.errors[row].fractions | baseline.errors[row].ap
        changes[row] = {
            name: ErrorChange(value - before[name], *_interval(drawn[row][name] - of_baseline[row][name]))
            for name, value in (errors.fractions | errors.ap).items()
        }
    return changes


def _variants(matches: Matches, kinds: Integers) -> dict[str, Matches]:
    """Return the matches as they are, without the false positives of each kind, and with boxes placed right."""
    variants = {"AP": matches} | {f"without {kind}": matches.without(kinds == i) for i, kind in enumerate(KINDS)}
    placed = matches.at(float(np.nextafter(NEAR, 0)))  # to exceed the number below 0.1 is to be at least 0.1
    return variants | {"placed right": placed.without(placed.counted & (placed.matched >= 0) & ~placed.hits)}


def _drawn(diagnosis: _Diagnosis, draws: Integers) -> dict[str, dict[str, Floats]]:
    """Return by row each kind's fraction and each AP on R drawings."""
    matches = diagnosis.variants["AP"]
    aps = {name: resampled_class_ap(variant, draws, _METRIC) for name, variant in diagnosis.variants.items()}
    drawn: dict[str, dict[str, Floats]] = {}
    for row, members in diagnosis.rows.items():
        chosen = np.flatnonzero(_of_classes(matches, members) & diagnosis.top & (diagnosis.kinds >= 0))
        counts = np.zeros((matches.image_count, len(KINDS)), np.int64)
        np.add.at(counts, (matches.detections.images[chosen], diagnosis.kinds[chosen]), 1)
        fractions = _fractions(draws @ counts)  # R x 4
        of_row = {name: mean_of_drawings([ap[member] for member in members]) for name, ap in aps.items()}
        drawn[row] = dict(zip(KINDS, fractions.T, strict=True)) | of_row
    return drawn


def _of_classes(matches: Matches, members: Sequence[str]) -> Booleans:
    """Return D flags: the detections of some classes."""
    return np.isin(matches.detections.labels, [matches.classes.index(name) + 1 for name in members])


def _count(kinds: Integers) -> dict[str, int]:
    """Return by kind how many there are."""
    return {kind: int((kinds == i).sum()) for i, kind in enumerate(KINDS)}


def _fractions(counts: Sequence[int] | Integers) -> Floats:
    """Return what fraction of the sum along the last axis each count is; NaN where all are 0."""
    counted = np.asarray(counts, np.float64)
    total = counted.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(counted, total, out=np.full(counted.shape, np.nan), where=total > 0))


def _interval(values: Floats) -> tuple[float, float]:
    return (float("nan"), float("nan")) if np.isnan(values).all() else interval(values)
