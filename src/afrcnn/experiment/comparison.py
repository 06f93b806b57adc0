"""A comparison of methods: APs, differences to the baseline, and in one sentence what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from afrcnn.build import open_images
from afrcnn.core.errors import UserError
from afrcnn.data.target import require_annotations
from afrcnn.evaluation.subsets import all_subsets
from afrcnn.experiment.differences import (
    LEAST_IMAGES,
    SUBSETS,
    Difference,
    Scores,
    difference,
    draw_images,
    score_run,
)
from afrcnn.experiment.measurement import LEVELS
from afrcnn.experiment.plan import PlannedRun


@dataclass(frozen=True)
class ComparedMethod:
    """A method of a comparison.

    Attributes:
        name: what it is called.
        scores: APs in percent by seed.
        differences: to the baseline, by what the APs are of; empty for the baseline.
        folders: of its runs, by seed.
    """

    name: str
    scores: dict[int, Scores]
    differences: dict[str, Difference]
    folders: dict[int, Path]

    def mean(self, of: str) -> float:
        """Return the mean over the seeds of the AP on all images, in percent."""
        return float(np.mean([scores[of][0] for scores in self.scores.values()]))


@dataclass(frozen=True)
class Comparison:
    """Methods, measured on the same images.

    Attributes:
        methods: the baseline first.
        images: by what APs are of, the number of images that have such objects.
        dataset: the name of the dataset's folder.
    """

    methods: tuple[ComparedMethod, ...]
    images: dict[str, int]
    dataset: str

    @property
    def baseline(self) -> ComparedMethod:
        """The method that the others are compared with."""
        return self.methods[0]

    @property
    def best(self) -> ComparedMethod:
        """The method, besides the baseline, with the highest mean AP over the levels of occlusion and the seeds."""
        return max(self.methods[1:] or self.methods, key=lambda method: method.mean("mPC"))

    @property
    def seeds(self) -> int:
        """How many runs each method has."""
        return len(self.baseline.scores)

    def finding(self) -> str:
        """Return what the best method gives, in one sentence, with its interval, and on how much it was measured."""
        best, baseline = self.best, self.baseline
        hidden = f"With {LEVELS[0]:.0%} to {LEVELS[-1]:.0%} of every object hidden"
        measured = f"on {_count(self.images['clean'], 'test image')} and {_count(self.seeds, 'seed')}"
        if self.images["clean"] < LEAST_IMAGES:
            measured += ": too few images to tell anything from noise"
        known = best.differences.get("mPC")
        if known is None:
            return f"{hidden}, {best.name} has a mAP of {best.mean('mPC'):.1f}, {measured}."
        low, high = known.interval
        more = "more" if known.mean >= 0 else "less"
        clean = best.differences["clean"]
        return (
            f"{hidden}, {best.name} has {abs(known.mean):.1f} points {more} mAP than "
            f"{baseline.name} ({best.mean('mPC'):.1f} against {baseline.mean('mPC'):.1f}; 95% interval "
            f"{low:+.1f} to {high:+.1f}){self._doubt(known)}, and where nothing is hidden {clean}{self._doubt(clean)}, "
            f"{measured}."
        )

    def _doubt(self, known: Difference) -> str:
        few = self.images["clean"] < LEAST_IMAGES  # which the end of the sentence says
        return "" if known.is_told or few else ", which cannot be told from noise"


def read_comparison(planned: Sequence[PlannedRun]) -> Comparison:
    """Compare runs, all of them measured.

    Raises:
        UserError: detections are missing or damaged, the test split is not annotated, or none of its objects counts.
    """
    recipe = planned[0].recipe
    dataset = require_annotations(open_images(recipe, recipe.data.test_split))
    members = all_subsets(dataset)
    images = {name: sum(int(flags.any()) for flags in of_images) for name, of_images in members.items()}
    if not images["all"]:
        fix = "name a split with objects: --data.test_split SPLIT"
        raise UserError("has no objects to find", file=dataset.root, field=recipe.data.test_split, fix=fix)
    subsets = {name: members[name] for name in SUBSETS if images.get(name)}
    draws = draw_images(len(dataset))
    scores: dict[str, dict[int, Scores]] = {}
    folders: dict[str, dict[int, Path]] = {}
    for one in planned:
        scores.setdefault(one.method, {})[one.recipe.seed] = score_run(one.run, dataset, draws, subsets)
        folders.setdefault(one.method, {})[one.recipe.seed] = one.run.folder
    names = ("clean", *(f"{level:g}" for level in LEVELS), "mPC")
    counts = dict.fromkeys(names, images["all"]) | {name: images[name] for name in subsets}
    baseline, *_ = scores
    methods = tuple(
        ComparedMethod(name, of_seeds, _differences(of_seeds, scores[baseline], counts), folders[name])
        for name, of_seeds in scores.items()
    )
    return Comparison(methods, counts, Path(recipe.data.root).resolve().name)


def _differences(
    method: Mapping[int, Scores], baseline: Mapping[int, Scores], images: Mapping[str, int]
) -> dict[str, Difference]:
    if method is baseline:
        return {}
    known = {name: difference(method, baseline, name, count) for name, count in images.items()}
    return {name: of_name for name, of_name in known.items() if of_name is not None}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
