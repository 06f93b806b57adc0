"""The stages of a training (section 4.2.1): the detector alone, the adversaries alone, both together."""

from __future__ import annotations

from typing import Literal, NamedTuple

from afrcnn.core.errors import UserError
from afrcnn.recipe import JointRecipe, Recipe, ScheduleRecipe

StageName = Literal["detector", "pretraining", "joint"]


class Stage(NamedTuple):
    """One stage of a training.

    Attributes:
        name: which one.
        schedule: its updates.
        first: how many updates the run has made when it begins.
    """

    name: StageName
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


def plan_stages(recipe: Recipe) -> list[Stage]:
    """Return the stages that a recipe asks for, in order; the detector alone is skipped where one is given.

    Raises:
        UserError: no stage is left, or one lacks what it is for.
    """
    _refuse_idle(recipe)
    planned: list[Stage] = []
    schedules: tuple[tuple[StageName, ScheduleRecipe, bool], ...] = (
        ("detector", recipe.schedule, recipe.init_from is None),
        ("pretraining", recipe.pretraining, recipe.pretraining.iterations > 0),
        ("joint", recipe.joint, recipe.joint.iterations > 0),
    )
    for name, schedule, wanted in schedules:
        if wanted:
            planned.append(Stage(name, schedule, planned[-1].last if planned else 0))
    if not planned:
        problem = "takes the place of the first stage, and no other has iterations"
        raise UserError(problem, field="init_from", fix="set joint.iterations")
    return planned


def _refuse_idle(recipe: Recipe) -> None:
    """Refuse fields that have no effect without others."""
    joint, pretraining = recipe.joint.iterations, recipe.pretraining.iterations
    jitter, augmentation = recipe.joint.jitter, recipe.data.augmentation
    hides = augmentation.random_erasing or augmentation.cutout or augmentation.copy_paste
    names = " and ".join(recipe.adversaries)
    frozen = [name for name, arguments in recipe.adversaries.items() if arguments.get("frozen")]
    rules: list[tuple[object, str, str, str]] = [
        (
            not joint and (jitter.scale or jitter.aspect_ratio or jitter.degrees),
            "joint.iterations",
            "is 0, and so joint.jitter changes nothing",
            "set it, or leave joint.jitter out",
        ),
        (
            recipe.joint.clean_iterations > joint,
            "joint.clean_iterations",
            f"{recipe.joint.clean_iterations} are more than joint.iterations, {joint}",
            "choose fewer",
        ),
        (
            not joint and hides and "joint" in augmentation.stages,
            "joint.iterations",
            "is 0, and data.augmentation.stages names that stage",
            "set it, or choose data.augmentation.stages [detector]",
        ),
        (
            not joint and "joint" in recipe.detector.ohem,
            "joint.iterations",
            "is 0, and detector.ohem names that stage",
            "set it, or choose detector.ohem [detector]",
        ),
        (
            names and not (pretraining or joint),
            "joint.iterations",
            f"is 0, and so {names} would take no part",
            "set it, or leave adversaries empty",
        ),
        (
            pretraining and not names,
            "pretraining.iterations",
            "there is no adversary to train",
            "set it to 0, or name an adversary in adversaries",
        ),
        (
            frozen and not pretraining,
            f"adversaries.{''.join(frozen[:1])}.frozen",
            "is true, and nothing has trained it before",
            "set pretraining.iterations, or leave it false",
        ),
    ]
    for broken, field, problem, fix in rules:
        if broken:
            raise UserError(problem, field=field, fix=fix)
