"""Runs grouped by method: those whose recipes differ in the seed alone are one method, measured several times."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import isnan, nan
from pathlib import Path
from shlex import quote
from typing import TypeVar

import numpy as np

from afrcnn.build import open_images
from afrcnn.core.errors import UserError
from afrcnn.data.target import DetectionDataset, Target, require_annotations
from afrcnn.evaluation.formats import read_coco_results
from afrcnn.evaluation.matching import Matches, match
from afrcnn.evaluation.results import Results, read_results
from afrcnn.evaluation.subsets import SubsetResult
from afrcnn.recipe import Recipe, dump_recipe
from afrcnn.robustness.stress_results import Curve, StressResults, read_stress
from afrcnn.run import Run

_T = TypeVar("_T", Results, StressResults)


class ReportedRun(Run):
    """A run, its test split, and the results of its evaluation and stress test, where it has any: each read once."""

    @cached_property
    def results(self) -> Results | None:
        """The results of the evaluation.

        Raises:
            UserError: the file is damaged or of another split.
        """
        return self._read(self.results_file, read_results)

    @cached_property
    def stress(self) -> StressResults | None:
        """The results of the stress test.

        Raises:
            UserError: as of ``results``.
        """
        return self._read(self.stress_file, read_stress)

    @cached_property
    def test_split(self) -> tuple[DetectionDataset, list[Target]]:
        """The images of the test split, without proposals, and their targets.

        Raises:
            UserError: the dataset is missing, wrong or not annotated.
        """
        images = require_annotations(open_images(self.recipe, self.recipe.data.test_split))
        return images, [images.target(index) for index in range(len(images))]

    @cached_property
    def matches(self) -> Matches | None:
        """The detections in the test split, and what they match at an IoU above 0.5; None where there are none.

        Raises:
            UserError: the detections are damaged, or as of ``test_split``.
        """
        file = self.detections_file(self.recipe.data.test_split)
        if not file.is_file():
            return None
        dataset, targets = self.test_split
        return match(read_coco_results(file, dataset.ids, dataset.category_ids), targets, dataset.classes)

    @property
    def dataset(self) -> str:
        """The name of the dataset's folder."""
        return Path(self.recipe.data.root).resolve().name

    @property
    def curves(self) -> dict[str, Curve]:
        """The results of the stress test, by the names of the stresses."""
        return {curve.name: curve for curve in self.stress.curves} if self.stress else {}

    @property
    def subsets(self) -> dict[str, SubsetResult]:
        """The results of the evaluation on subsets, by their names."""
        return self.results.subsets if self.results else {}

    def command(self, name: str, *options: str) -> str:
        """Return a command of the command line for this run, as a shell takes it."""
        return " ".join(["afrcnn", name, quote(str(self.folder)), *options])

    def _read(self, file: Path, read: Callable[[Path], _T]) -> _T | None:
        content, split = read(file) if file.is_file() else None, self.recipe.data.test_split
        if content is not None and content.split not in ("", split):
            fix = f"report that split by --data.test_split {content.split}, or make the file anew"
            raise UserError(f"is of the split {content.split}, not {split}", file=file, fix=fix)
        return content


Number = Callable[[ReportedRun], float]
"""A number of a run, in [0, 1]; NaN where it has none."""


@dataclass(frozen=True)
class Method:
    """A name, and the runs of the method by rising seed."""

    name: str
    runs: tuple[ReportedRun, ...]

    def of_seed(self, seed: int) -> ReportedRun:
        """Return the run of a seed, or where there is none the first."""
        return next((run for run in self.runs if run.recipe.seed == seed), self.runs[0])

    def by_seed(self, number: Number) -> dict[int, float]:
        """Return a number of those runs that have it, by their seeds."""
        return {run.recipe.seed: value for run in self.runs if not isnan(value := number(run))}

    def mean(self, number: Number) -> float:
        """Return the mean of a number over those runs that have it; NaN if none has."""
        values = list(self.by_seed(number).values())
        return float(np.mean(values)) if values else nan


def read_methods(
    folders: Sequence[Path | str], baseline: Path | str | None = None, overrides: Sequence[str] = ()
) -> list[Method]:
    """Read runs and group them.

    Args:
        folders: the runs, of one set of classes and one test split.
        baseline: one of them, whose method comes first; the first when None.
        overrides: fields of their recipes to set differently.

    Returns:
        The methods, the baseline first and the others as their first runs were given. A method is named as the folders
        of its runs without their seed, or as much of their path as tells it from the others.

    Raises:
        UserError: a folder is not a run folder, is given twice, or was tested on other data, or its results are of
            another split than the recipe's ``data.test_split``; the baseline is none of them.
    """
    paths = [Path(folder) for folder in folders]
    resolved = [path.resolve() for path in paths]
    if twice := [path for path in paths if resolved.count(path.resolve()) > 1]:
        raise UserError("is named twice", file=twice[0], fix="name each run once")
    first = paths[0] if baseline is None else Path(baseline)
    if first.resolve() not in resolved:
        raise UserError("is not among the runs", file=first, field="baseline", fix="name it among them, too")
    paths.sort(key=lambda path: path.resolve() != first.resolve())

    runs = [ReportedRun(path, overrides) for path in paths]
    groups: dict[str, list[ReportedRun]] = {}
    for run in runs:
        _refuse_other_data(runs[0], run)
        groups.setdefault(_without_seed(run.recipe), []).append(run)
    names = _names([group[0] for group in groups.values()])
    by_seed = (sorted(group, key=lambda run: run.recipe.seed) for group in groups.values())
    return [Method(name, tuple(group)) for name, group in zip(names, by_seed, strict=True)]


def _refuse_other_data(one: ReportedRun, other: ReportedRun) -> None:
    """Refuse runs whose numbers cannot stand in one table."""
    _ = other.stress  # refused here where it is damaged or of another split
    tested = [(run.results.images, run.results.objects) for run in (one, other) if run.results]
    same_images = tested == tested[::-1] and one.recipe.data.test_split == other.recipe.data.test_split
    mistake = partial(UserError, file=other.folder, fix="make a report for each dataset")
    if one.classes != other.classes:
        raise mistake(f"knows other classes than {one.folder}", field="data.classes")
    if not same_images:
        raise mistake(f"was tested on other images than {one.folder}")


def _without_seed(recipe: Recipe) -> str:
    """Return a recipe as text in which its seed is left out, also from the name of the run that it begins from."""
    start = recipe.init_from and re.sub(rf"seed{recipe.seed}(?!\d)", "seed", recipe.init_from)
    return dump_recipe(replace(recipe, seed=0, init_from=start))


def _names(runs: Sequence[ReportedRun]) -> list[str]:
    """Name each run by the shortest end of its path, if possible without the seed, that no other has."""
    paths = [run.folder.resolve() for run in runs]
    seeds = [rf"[-_.]?seed{run.recipe.seed}(?!\d)" for run in runs]
    plain = [path.with_name(re.sub(seed, "", path.name) or path.name) for path, seed in zip(paths, seeds, strict=True)]
    for candidates in (plain, paths):
        for depth in range(1, 4):
            names = ["/".join(path.parts[-depth:]) for path in candidates]
            if len(set(names)) == len(names):
                return names
    return [str(path) for path in paths]
