"""Runs grouped by method: those whose recipes differ in the seed alone are one method, measured several times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from afrcnn.core.errors import UserError
from afrcnn.evaluation.results import Results, read_results
from afrcnn.recipe import Recipe, dump_recipe
from afrcnn.robustness.stress_results import StressResults, read_stress
from afrcnn.run import Run


@dataclass(frozen=True)
class ReportedRun:
    """A run with its recipe, and the results of its evaluation and of its stress test, where it has any."""

    run: Run
    recipe: Recipe
    results: Results | None = None
    stress: StressResults | None = None

    @property
    def classes(self) -> list[str]:
        """The classes 1..K."""
        assert self.recipe.data.classes is not None  # a resolved recipe names its classes
        return self.recipe.data.classes

    @property
    def dataset(self) -> str:
        """The name of the dataset's folder."""
        return Path(self.recipe.data.root).resolve().name

    @property
    def detections_file(self) -> Path:
        """What was found on the test split, in COCO's format."""
        return self.run.detections / f"{self.recipe.data.test_split}.json"


@dataclass(frozen=True)
class Method:
    """A name, and the runs of the method by rising seed."""

    name: str
    runs: tuple[ReportedRun, ...]

    def of_seed(self, seed: int) -> ReportedRun:
        """Return the run of a seed, or where there is none the first."""
        return next((each for each in self.runs if each.recipe.seed == seed), self.runs[0])


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
        UserError: a folder is no run, is given twice, or was tested on other data, or its results are of another split
            than the recipe's ``data.test_split``; the baseline is none of them.
    """
    paths = [Path(folder) for folder in folders]
    resolved = [path.resolve() for path in paths]
    if twice := [path for path in paths if resolved.count(path.resolve()) > 1]:
        raise UserError("is named twice", file=twice[0], fix="name each run once")
    first = paths[0] if baseline is None else Path(baseline)
    if first.resolve() not in resolved:
        raise UserError("is not among the runs", file=first, field="baseline", fix="name it among them, too")
    paths.sort(key=lambda path: path.resolve() != first.resolve())

    groups: dict[str, list[ReportedRun]] = {}
    for path in paths:
        each = _read(path, overrides)
        groups.setdefault(_without_seed(each.recipe), []).append(each)
    runs = [each for group in groups.values() for each in group]
    for each in runs[1:]:
        _refuse_other_data(runs[0], each)
    names = _names(list(groups.values()))
    by_seed = (sorted(group, key=lambda each: each.recipe.seed) for group in groups.values())
    return [Method(name, tuple(group)) for name, group in zip(names, by_seed, strict=True)]


def _read(path: Path, overrides: Sequence[str]) -> ReportedRun:
    run = Run(path, overrides)
    recipe = run.recipe
    if recipe.data.classes is None:
        raise UserError("names no classes", file=run.recipe_file, field="data.classes", fix="name a run, not a recipe")
    stress_file = run.folder / "stress.json"
    results = read_results(run.results_file) if run.results_file.is_file() else None
    stress = read_stress(stress_file) if stress_file.is_file() else None
    for file, found in ((run.results_file, results), (stress_file, stress)):
        if found is not None and found.split not in ("", recipe.data.test_split):
            raise UserError(
                f"is of the split {found.split}, not {recipe.data.test_split}",
                file=file,
                fix=f"report that split by --data.test_split {found.split}, or make the file anew",
            )
    return ReportedRun(run, recipe, results, stress)


def _refuse_other_data(one: ReportedRun, other: ReportedRun) -> None:
    """Refuse runs whose numbers cannot stand in one table."""
    fix = "make a report for each dataset"
    if one.classes != other.classes:
        problem = f"knows other classes than {one.run.folder}"
        raise UserError(problem, file=other.run.folder, field="data.classes", fix=fix)
    same = one.recipe.data.test_split == other.recipe.data.test_split
    if one.results is not None and other.results is not None:
        same = same and (one.results.images, one.results.objects) == (other.results.images, other.results.objects)
    if not same:
        raise UserError(f"was tested on other images than {one.run.folder}", file=other.run.folder, fix=fix)


def _without_seed(recipe: Recipe) -> str:
    """Return a recipe as text in which its seed is left out, also from the name of the run that it begins from."""
    start = recipe.init_from and re.sub(rf"seed{recipe.seed}(?!\d)", "seed", recipe.init_from)
    return dump_recipe(replace(recipe, seed=0, init_from=start))


def _names(groups: Sequence[Sequence[ReportedRun]]) -> list[str]:
    """Name each group by the shortest end of its first run's path, if possible without the seed, that no other has."""
    firsts = [group[0] for group in groups]
    paths = [each.run.folder.resolve() for each in firsts]
    for candidates in ([_without_seed_of(path, each) for path, each in zip(paths, firsts, strict=True)], paths):
        for depth in range(1, 4):
            names = ["/".join(path.parts[-depth:]) for path in candidates]
            if len(set(names)) == len(names):
                return names
    return [str(path) for path in paths]


def _without_seed_of(path: Path, each: ReportedRun) -> Path:
    return path.with_name(re.sub(rf"[-_.]?seed{each.recipe.seed}(?!\d)", "", path.name) or path.name)
