"""What methods differ by, and what of it cannot be told from noise: a paired bootstrap over images and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from afrcnn.data.target import DetectionDataset
from afrcnn.evaluation.bootstrap import interval, resample, resampled_ap
from afrcnn.evaluation.formats import read_coco_results
from afrcnn.evaluation.matching import Floats, Integers, match
from afrcnn.evaluation.voc_ap import Metric
from afrcnn.experiment.measurement import LEVELS, detections_file
from afrcnn.run import Run

_DRAWINGS = 1000
"""How often images and seeds are drawn."""

LEAST_IMAGES = 20
"""Images below which no difference is told from noise: of so few, an interval of the bootstrap is too narrow. Of 6
values from a normal distribution, the percentile interval of their mean that should hold the truth in 95% of all cases
does so in 86%; of 20, in 93%."""

SUBSETS = ("overlapped", "unoccluded", "occluded", "not occluded", "separated", "occluded in one piece")
"""Subsets of the objects that comparisons look at, where there are any."""

Scores = Mapping[str, Floats]
"""Mean APs of a run in percent by what they are of: ``"clean"``, ``"0.2"`` and the other levels, ``"mPC"``, their
mean, and subsets. The first of each array is on all images, the others are on drawings of them."""


def draw_images(count: int, seed: int = 0) -> Integers:
    """Return how often each of ``count`` images counts, 1 + R times: all once, then R drawings with return."""
    return np.concatenate([np.ones((1, count), dtype=np.int64), resample(count, _DRAWINGS, seed)])


def score_run(
    run: Run,
    dataset: DetectionDataset,
    draws: Integers,
    subsets: Mapping[str, Sequence[Tensor]] | None = None,
    metric: Metric = "11-point",
) -> Scores:
    """Return the APs of a run from its detections.

    Args:
        run: the run, measured.
        dataset: its test split.
        draws: of ``draw_images``; the same for all runs, so that their differences are paired.
        subsets: of the objects, by name, as of ``afrcnn.evaluation.subsets``.
        metric: VOC's.

    Raises:
        UserError: detections are missing or damaged, or of other images.
    """
    targets = [dataset.target(index) for index in range(len(dataset))]
    scores: dict[str, Floats] = {}
    for level in (0.0, *LEVELS):
        detections = read_coco_results(detections_file(run, level), dataset.ids, dataset.category_ids)
        matches = match(detections, targets, dataset.classes)
        scores[f"{level:g}" if level else "clean"] = 100 * resampled_ap(matches, draws, metric)
        for name, members in {} if level else (subsets or {}).items():
            scores[name] = 100 * resampled_ap(matches.subset(members), draws, metric)
    return scores | {"mPC": np.mean([scores[f"{level:g}"] for level in LEVELS], axis=0)}


@dataclass(frozen=True)
class Difference:
    """What a method's AP differs by from the baseline's, in points.

    Attributes:
        by_seed: the difference of each seed that both have.
        drawn: R, the mean over drawn seeds on drawn images.
        images: how many images have what the AP is of.
    """

    by_seed: tuple[float, ...]
    drawn: Floats
    images: int

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return float(np.mean(self.by_seed))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The ends of the 95% interval."""
        return interval(self.drawn)

    @property
    def is_told(self) -> bool:
        """Whether it can be told from noise: the interval leaves out zero, and there are images enough to trust it."""
        low, high = self.interval
        return self.images >= LEAST_IMAGES and (low > 0 or high < 0)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.mean:+.1f} ({low:+.1f} to {high:+.1f})"


def difference(
    method: Mapping[int, Scores], baseline: Mapping[int, Scores], name: str, images: int, seed: int | Sequence[int] = 1
) -> Difference | None:
    """Return the difference of two methods; None where no seed has both.

    Args:
        method: APs by seed.
        baseline: those of the other.
        name: what they are of.
        images: how many images have such objects.
        seed: of the seeds that are drawn.
    """
    seeds = sorted(method.keys() & baseline.keys())
    if not seeds:
        return None
    differences = np.stack([method[one][name] - baseline[one][name] for one in seeds])  # S x (1 + R)
    drawn = differences[:, 1:]
    chosen = np.random.default_rng(seed).integers(len(seeds), size=drawn.shape)
    mean = np.take_along_axis(drawn, chosen, axis=0).mean(axis=0)
    return Difference(tuple(differences[:, 0].tolist()), mean, images)
