"""Results of a stress test: ``stress.json``.

Two numbers sum up a curve, those of benchmarks on corrupted images (Michaelis et al. 2019): the mean performance under
corruption (mPC), the mean AP over all levels but the clean one; and the relative performance under corruption (rPC),
the fraction of the clean AP that this is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from afrcnn.core.schema import SchemaError, checked
from afrcnn.evaluation.results import Results, read_record, write_record
from afrcnn.evaluation.voc_ap import Metric, mean_over_classes

_OLD_WORDS = {"share": "fraction", "hidden": "occluded", "photographs": "images"}
"""Words of names and units in files of earlier versions."""


@dataclass(frozen=True)
class OccludedFraction:
    """The fraction of their boxes that the objects of a level are occluded by, measured.

    Attributes:
        mean: over all objects, in [0, 1].
        lowest: of the least occluded object.
        highest: of the most occluded one.
    """

    mean: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, fractions: Sequence[float]) -> OccludedFraction | None:
        """Sum up the fractions of M objects; None for no objects."""
        return cls(*(float(f(fractions)) for f in (np.mean, np.min, np.max))) if len(fractions) else None


@dataclass(frozen=True)
class LevelResults:
    """Results of a detector at one level.

    Attributes:
        level: the level, in the unit of the curve.
        results: AP, as of an evaluation.
        recall: by class, the fraction of the objects that any detection finds, whatever its score; NaN for a class
            without objects.
        occluded: how much of the objects was occluded; None where nothing was laid over them.
    """

    level: float
    results: Results
    recall: dict[str, float]
    occluded: OccludedFraction | None

    @property
    def mean_recall(self) -> float:
        """The mean recall over the classes that have objects; NaN if none has."""
        return mean_over_classes(self.recall)


@dataclass(frozen=True)
class Curve:
    """Results of a detector at all levels of one stress.

    Attributes:
        name: what was done to the objects.
        unit: what the levels count.
        levels: by rising level, the clean images (level 0) first.
    """

    name: str
    unit: str
    levels: tuple[LevelResults, ...]

    def mpc(self, metric: Metric = "11-point") -> float:
        """Return the mean over the levels above 0 of VOC's mean AP, in [0, 1]."""
        return float(np.mean([level.results.mean_ap[metric] for level in self.levels[1:]]))

    def relative_performance(self, metric: Metric = "11-point") -> float:
        """Return the fraction of the AP on the clean images that ``mpc`` is; NaN where that AP is 0."""
        clean = self.levels[0].results.mean_ap[metric]
        return self.mpc(metric) / clean if clean else math.nan


@dataclass(frozen=True)
class StressResults:
    """The results of a stress test.

    Attributes:
        seed: of all that was drawn at random; the same seed gave the same pixels to every detector.
        curves: one for each stress.
        split: the split that was tested on; empty where it has no name.
    """

    seed: int
    curves: tuple[Curve, ...]
    split: str = ""


def write_stress(path: Path | str, results: StressResults) -> None:
    """Write ``stress.json``: the fields of the results and, for each curve, its summary; null for NaN.

    Raises:
        UserError: the file cannot be written.
    """
    content = asdict(results)
    for record, curve in zip(content["curves"], results.curves, strict=True):
        record["summary"] = {
            name: {metric: number(curve, metric) for metric in get_args(Metric)}
            for name, number in (("mpc", Curve.mpc), ("relative_performance", Curve.relative_performance))
        }
    write_record(path, content)


def read_stress(path: Path | str) -> StressResults:
    """Read what ``write_stress`` wrote.

    Raises:
        UserError: the file is missing or is not such a file.
    """
    fix = "name a stress.json that `afrcnn stress` wrote"
    return read_record(path, _results, "holds no results of a stress test", fix)


@dataclass(frozen=True)
class _WrittenLevel:
    """A level as files have it; ``hidden`` is what earlier versions called ``occluded``, and NaN stands for null."""

    level: float
    results: dict[str, Any]
    recall: dict[str, float]
    occluded: OccludedFraction | float = math.nan
    hidden: OccludedFraction | float = math.nan


@dataclass(frozen=True)
class _WrittenCurve:
    """A curve as files have it."""

    name: str
    unit: str
    levels: list[_WrittenLevel]


@dataclass(frozen=True)
class _WrittenResults:
    """The file."""

    seed: int
    curves: list[_WrittenCurve]
    split: str = ""


def _results(record: Any) -> StressResults:
    written = checked(record, _WrittenResults)
    return StressResults(written.seed, tuple(map(_curve, written.curves)), written.split)


def _curve(written: _WrittenCurve) -> Curve:
    if not written.levels:
        raise SchemaError("curves: levels: is empty")
    return Curve(_words(written.name), _words(written.unit), tuple(map(_level, written.levels)))


def _level(written: _WrittenLevel) -> LevelResults:
    fractions = (value for value in (written.occluded, written.hidden) if isinstance(value, OccludedFraction))
    return LevelResults(written.level, Results.from_record(written.results), written.recall, next(fractions, None))


def _words(text: str) -> str:
    for old, new in _OLD_WORDS.items():
        text = text.replace(old, new)
    return text
