"""The results of a stress test: ``stress.json``.

The two numbers that sum up a curve are those of benchmarks on corrupted images (Michaelis et al. 2019, mPC and rPC):
the mean AP over all levels but the clean one, and which share of the clean AP that is.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.evaluation.results import Results, nan_for_null, null_for_nan
from afrcnn.evaluation.voc_ap import Metric


@dataclass(frozen=True)
class Hidden:
    """Which share of their boxes the objects of a level are hidden by, measured.

    Attributes:
        mean: over all objects, in [0, 1].
        lowest: of the least hidden object.
        highest: of the most hidden one.
    """

    mean: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class LevelResults:
    """What a detector was worth at one level.

    Attributes:
        level: the level, in the unit of the curve.
        results: AP, as of an evaluation.
        recall: by class, the share of the objects that any detection finds, whatever its score; NaN for a class
            without objects.
        hidden: how much of the objects was hidden; None where nothing was laid over them.
    """

    level: float
    results: Results
    recall: dict[str, float]
    hidden: Hidden | None

    @property
    def mean_recall(self) -> float:
        """The mean recall over the classes that have objects; NaN if none has."""
        defined = [recall for recall in self.recall.values() if not math.isnan(recall)]
        return float(np.mean(defined)) if defined else math.nan


@dataclass(frozen=True)
class Curve:
    """What a detector was worth at all levels of one stress.

    Attributes:
        name: what was done to the objects.
        unit: what the levels count.
        levels: by rising level, the clean photographs (level 0) first.
    """

    name: str
    unit: str
    levels: tuple[LevelResults, ...]

    def mean_ap(self, metric: Metric = "11-point") -> float:
        """Return the mean over the levels above 0 of VOC's mean AP, in [0, 1]."""
        return float(np.mean([each.results.mean_ap[metric] for each in self.levels[1:]]))

    def kept(self, metric: Metric = "11-point") -> float:
        """Return which share that is of the AP on the clean photographs; NaN where that is 0."""
        clean = self.levels[0].results.mean_ap[metric]
        return self.mean_ap(metric) / clean if clean else math.nan


@dataclass(frozen=True)
class StressResults:
    """The results of a stress test.

    Attributes:
        seed: of all that was drawn at random; the same seed gave the same pixels to every detector.
        curves: one for each stress.
        split: the split that a run was tested on; empty for a detector that is no run's.
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
        metrics = get_args(Metric)
        record["summary"] = {
            "mean_ap": {m: curve.mean_ap(m) for m in metrics},
            "kept": {m: curve.kept(m) for m in metrics},
        }
    with atomic_write(path) as file:
        json.dump(null_for_nan(content), file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def read_stress(path: Path | str) -> StressResults:
    """Read what ``write_stress`` wrote.

    Raises:
        UserError: the file is missing or is no such file.
    """
    fix = "name a stress.json that `afrcnn stress` wrote"
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        curves = tuple(
            Curve(curve["name"], curve["unit"], tuple(_level(level) for level in curve["levels"]))
            for curve in content["curves"]
        )
        return StressResults(content["seed"], curves, content.get("split", ""))
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=path, fix=fix) from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError("holds no results of a stress test", file=path, fix=fix) from error


def _level(record: dict[str, Any]) -> LevelResults:
    hidden = record["hidden"] and Hidden(**record["hidden"])
    return LevelResults(
        record["level"], Results(**nan_for_null(record["results"])), nan_for_null(record["recall"]), hidden
    )
