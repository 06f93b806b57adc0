"""Which runs a comparison has: for each seed a start, and from it one run of each method.

What is compared is the last stage. All methods of a seed begin with the same detector, the start, and train it further
by the same schedule; a method says what differs there: adversaries, what hides objects in images, mining, jitter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

from afrcnn.build import verify
from afrcnn.core.errors import UserError
from afrcnn.recipe import AugmentationRecipe, DataRecipe, Recipe, ScheduleRecipe
from afrcnn.run import Run, resolve
from afrcnn.training.stages import plan_stages

_NETWORK = ("model", "arguments", "backbone", "normalisation", "pooling", "integral_loss")
"""Fields of the detector in which a method cannot differ: the weights of the start would not fit."""

_Schedule = TypeVar("_Schedule", bound=ScheduleRecipe)


@dataclass(frozen=True)
class PlannedRun:
    """A run of a comparison.

    Attributes:
        method: what is trained; empty for a start.
        recipe: its recipe, resolved, with the classes.
        run: its folder.
        start: the run that it begins with; None for a start, and where ``init_from`` names a detector.
    """

    method: str
    recipe: Recipe
    run: Run
    start: PlannedRun | None = None


def plan_runs(methods: Mapping[str, Recipe], classes: Sequence[str], seeds: int, out: Path) -> list[PlannedRun]:
    """Plan a comparison; nothing is trained before every recipe of it is known to be right.

    Args:
        methods: the recipes by name, each with all that it shares with the others. Of the first, the baseline, all take
            data, network and schedules; of their own recipes adversaries, augmentation, and what else the last stage
            does.
        classes: of the dataset.
        seeds: how many runs each method has: with the baseline's seed, the next, ...
        out: folder of the runs.

    Returns:
        The runs, seed by seed, in the order of the methods.

    Raises:
        UserError: a recipe is wrong, has another network, or is not the one that ``out`` holds; no stage is left in
            which methods could differ.
    """
    base = next(iter(methods.values()))
    if not base.joint.iterations:
        problem = "is 0: there is no last stage, in which methods differ"
        raise UserError(problem, field="joint.iterations", fix="set it, as --joint.iterations 500")
    planned = []
    data = replace(base.data, classes=list(classes))
    for seed in range(base.seed, base.seed + seeds):
        start, source = None, Path(base.init_from or out / f"start-seed{seed}").absolute()
        if base.init_from is None:
            start = _planned("", _start_of(base, data, seed), source)
        for name, recipe in methods.items():
            made = replace(_method_of(base, recipe, name, data), init_from=str(source), seed=seed)
            planned.append(_planned(name, resolve(made), out / f"{name}-seed{seed}", start))
    return planned


def _planned(method: str, recipe: Recipe, folder: Path, start: PlannedRun | None = None) -> PlannedRun:
    """Return a run after checking its recipe.

    Raises:
        UserError: as of ``plan_runs``.
    """
    plan_stages(recipe)
    verify(recipe, len(recipe.data.classes or ()), "all")
    run = Run(folder)
    if run.recipe_file.is_file():
        run.require_recipe(recipe, "--out")
    return PlannedRun(method, recipe, run, start)


def _start_of(base: Recipe, data: DataRecipe, seed: int) -> Recipe:
    """Return the recipe of the detector alone: the first stage, without anything that acts in the last."""
    data, detector = replace(data, augmentation=AugmentationRecipe()), replace(base.detector, ohem=[])
    return resolve(Recipe(data=data, detector=detector, schedule=base.schedule, engine=base.engine, seed=seed))


def _method_of(base: Recipe, recipe: Recipe, name: str, data: DataRecipe) -> Recipe:
    """Return a method's recipe: the base's data, network and schedules, and what the method does in the last stage."""
    for field in _NETWORK:
        if getattr(recipe.detector, field) != getattr(base.detector, field):
            fix = "compare methods on one network, or make a comparison of each"
            raise UserError("is another network than the baseline's", file=name, field=f"detector.{field}", fix=fix)
    pretraining = replace(recipe.pretraining, iterations=recipe.pretraining.iterations * bool(recipe.adversaries))
    return replace(
        recipe,
        data=replace(data, augmentation=recipe.data.augmentation),
        schedule=base.schedule,
        pretraining=pretraining,
        joint=_with_schedule(recipe.joint, base.joint),
        engine=base.engine,
    )


def _with_schedule(of: _Schedule, schedule: ScheduleRecipe) -> _Schedule:
    """Return a stage with another's updates, rates and sizes."""
    return replace(of, **{field.name: getattr(schedule, field.name) for field in fields(ScheduleRecipe)})
