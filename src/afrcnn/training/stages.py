"""The stages of a training (section 4.2.1): the detector alone, the adversaries alone, both together."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.recipe import JointRecipe, Recipe, ScheduleRecipe, dump_recipe, load_recipe
from afrcnn.run import Run, resolve

_StageName = Literal["detector", "pretraining", "joint"]


class Stage(NamedTuple):
    """One stage of a training.

    Attributes:
        name: which one.
        schedule: its updates.
        first: how many updates the run has made when it begins.
    """

    name: _StageName
    schedule: ScheduleRecipe
    first: int

    @property
    def section(self) -> str:
        """The section of the recipe that holds its schedule."""
        return "schedule" if self.name == "detector" else self.name

    @property
    def number(self) -> int:
        """Its number, 1 to 3, also where a stage before it is left out."""
        return ("detector", "pretraining", "joint").index(self.name) + 1

    @property
    def perturbed(self) -> int:
        """How many of its updates see anything made harder; those after them see images as they are."""
        clean = self.schedule.clean_iterations if isinstance(self.schedule, JointRecipe) else 0
        return int(self.schedule.iterations - clean)

    @property
    def last(self) -> int:
        """How many updates the run has made when it ends."""
        return int(self.first + self.schedule.iterations)


def epochs_to_iterations(recipe: Recipe, images: int) -> Recipe:
    """Return a recipe in which schedules that are given in epochs have as many iterations.

    Args:
        recipe: the recipe.
        images: how many images an epoch has.
    """
    schedules: dict[str, Any] = {}
    for name in ("schedule", "pretraining", "joint"):
        schedule: ScheduleRecipe = getattr(recipe, name)
        if schedule.epochs is not None:
            iterations = math.ceil(schedule.epochs * images / schedule.images_per_iteration)
            schedules[name] = replace(schedule, iterations=iterations, epochs=None)
    return replace(recipe, **schedules)


def plan_stages(recipe: Recipe, world_size: int = 1) -> list[Stage]:
    """Return the stages that a recipe asks for, in order; the detector alone is skipped where one is given.

    Raises:
        UserError: no stage is left, one lacks what it is for, or ``world_size`` processes cannot divide its images.
    """
    joint, pretraining, adversaries = recipe.joint, recipe.pretraining.iterations, recipe.adversaries
    augmentation, jitter = recipe.data.augmentation, joint.jitter
    hides = augmentation.random_erasing or augmentation.cutout or augmentation.copy_paste
    needs_joint = {
        "joint.jitter": jitter.scale or jitter.aspect_ratio or jitter.degrees,
        "data.augmentation.stages": hides and "joint" in augmentation.stages,
        "detector.ohem": "joint" in recipe.detector.ohem,
        "adversaries": adversaries and not pretraining,
    }
    for field, needed in needs_joint.items():
        if needed and not joint.iterations:
            problem = f"is 0, and so {field} has no effect there"
            raise UserError(problem, field="joint.iterations", fix=f"set it, or change {field}")
    if joint.clean_iterations > joint.iterations:
        problem = f"{joint.clean_iterations} are more than joint.iterations, {joint.iterations}"
        raise UserError(problem, field="joint.clean_iterations", fix="choose fewer")
    if pretraining and not adversaries:
        fix = "set it to 0, or name an adversary in adversaries"
        raise UserError("there is no adversary to train", field="pretraining.iterations", fix=fix)
    for name, arguments in adversaries.items():
        if arguments.get("frozen") and not pretraining:
            fix = "set pretraining.iterations, or leave it false"
            raise UserError("nothing has trained it before", field=f"adversaries.{name}.frozen", fix=fix)

    planned: list[Stage] = []
    schedules: tuple[tuple[_StageName, ScheduleRecipe, bool], ...] = (
        ("detector", recipe.schedule, recipe.init_from is None),
        ("pretraining", recipe.pretraining, pretraining > 0),
        ("joint", joint, joint.iterations > 0),
    )
    for name, schedule, wanted in schedules:
        if wanted:
            planned.append(Stage(name, schedule, planned[-1].last if planned else 0))
            if schedule.images_per_iteration % world_size:
                problem = f"{schedule.images_per_iteration} cannot be divided among {world_size} processes"
                field = f"{planned[-1].section}.images_per_iteration"
                raise UserError(problem, field=field, fix=f"use a multiple of {world_size}")
    if not planned:
        problem = "takes the place of the first stage, and no other has iterations"
        raise UserError(problem, field="init_from", fix="set joint.iterations")
    return planned


def lengthen(run: Run, recipe: Recipe, done: int) -> None:
    """Let a run make more iterations than it began with, or have another patience; what else differs is not its matter.

    The lengthened run ends as one of that length from the beginning; the AP at its old end counts, where it is
    validated. Its weights, where it was finished, go: they are not those of the recipe any more.

    Args:
        run: the run, which need not be there.
        recipe: its recipe now, resolved.
        done: how many updates it has made.

    Raises:
        UserError: a stage would become shorter, or one would change that is over.
    """
    if not run.recipe_file.is_file():
        return
    earlier = resolve(load_recipe(run.recipe_file))
    names = ("schedule", "pretraining", "joint")
    lengths = {name: getattr(recipe, name).iterations for name in names}
    longer = replace(earlier, **{name: replace(getattr(earlier, name), iterations=lengths[name]) for name in names})
    longer = replace(longer, patience=recipe.patience)
    if dump_recipe(longer) != dump_recipe(recipe) or longer == earlier:
        return
    for name in names:
        if lengths[name] < (iterations := getattr(earlier, name).iterations):
            problem = f"is {iterations} in this run, which {lengths[name]} would shorten"
            fix = "name another folder with --run, or choose more"
            raise UserError(problem, file=run.folder, field=f"{name}.iterations", fix=fix)
    planned = {stage.name: stage for stage in plan_stages(recipe)}
    for stage in plan_stages(earlier):
        moved = planned[stage.name].first != stage.first and done > stage.first
        changed = planned[stage.name].last != stage.last and done > stage.first + stage.perturbed
        if moved or changed:
            fix = "name another folder with --run"
            problem = f"cannot change after {done} iterations, of which some are of a later stage, or clean"
            raise UserError(problem, file=run.folder, field=f"{stage.section}.iterations", fix=fix)
    for file in (run.weights_file, run.adversary_file):
        file.unlink(missing_ok=True)
    if lengths["schedule"] != earlier.schedule.iterations:
        run.detector_file.unlink(missing_ok=True)
    with atomic_write(run.recipe_file) as stream:
        stream.write(dump_recipe(recipe))
