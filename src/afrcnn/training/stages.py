"""The stages of a training (section 4.2.1): the detector alone, the adversary alone, both together."""

from __future__ import annotations

from typing import Literal, NamedTuple

from afrcnn.core.errors import UserError
from afrcnn.recipe import JointRecipe, Recipe, ScheduleRecipe


class Stage(NamedTuple):
    """One stage of a training.

    Attributes:
        name: which one.
        schedule: its updates.
        first: how many updates the run has made when it begins.
    """

    name: Literal["detector", "pretraining", "joint"]
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
    def label(self) -> str:
        """What its progress is called."""
        return ("training", "pre-training", "joint training")[self.number - 1]

    @property
    def perturbed(self) -> int:
        """How many of its updates see anything made harder; those after them see photographs as they are."""
        clean = self.schedule.clean_iterations if isinstance(self.schedule, JointRecipe) else 0
        return int(self.schedule.iterations - clean)

    @property
    def last(self) -> int:
        """How many updates the run has made when it ends."""
        return int(self.first + self.schedule.iterations)


def stages(recipe: Recipe) -> list[Stage]:
    """Return the stages that a recipe asks for, in order; the detector alone is skipped where one is given.

    Raises:
        UserError: no stage is left, or one lacks what it is for.
    """
    chain, jitter, before = recipe.adversary.chain, recipe.adversary.jitter, 0
    if (jitter.scale or jitter.aspect_ratio or jitter.degrees) and not recipe.joint.iterations:
        raise UserError(
            "is 0, and so adversary.jitter changes nothing",
            field="joint.iterations",
            fix="set it, or leave adversary.jitter out",
        )
    if recipe.joint.clean_iterations > recipe.joint.iterations:
        raise UserError(
            f"{recipe.joint.clean_iterations} are more than joint.iterations, {recipe.joint.iterations}",
            field="joint.clean_iterations",
            fix="choose fewer",
        )
    ours = recipe.data.augmentation
    augmented = ours.stages if ours.random_erasing or ours.cutout or ours.copy_paste else []
    for rival, where in (("data.augmentation.stages", augmented), ("detector.ohem", recipe.detector.ohem)):
        if "joint" in where and not recipe.joint.iterations:
            raise UserError(
                f"is 0, and {rival} names that stage",
                field="joint.iterations",
                fix=f"set it, or choose {rival} [schedule]",
            )
    if chain and not (recipe.pretraining.iterations or recipe.joint.iterations):
        raise UserError(
            f"is 0, and so {' and '.join(chain)} never meet the detector",
            field="joint.iterations",
            fix="set it, or leave adversary.chain empty",
        )
    if recipe.pretraining.iterations and not chain:
        raise UserError(
            "there is no adversary to train",
            field="pretraining.iterations",
            fix="set it to 0, or name an adversary in adversary.chain",
        )
    if "asdn" in chain and recipe.adversary.asdn.fixed and not recipe.pretraining.iterations:
        raise UserError(
            "is true, and nothing has trained it before",
            field="adversary.asdn.fixed",
            fix="set pretraining.iterations, or leave it false",
        )
    found = []
    if recipe.init_from is None:
        found.append(Stage("detector", recipe.schedule, before))
        before = found[-1].last
    if recipe.pretraining.iterations:
        found.append(Stage("pretraining", recipe.pretraining, before))
        before = found[-1].last
    if recipe.joint.iterations:
        found.append(Stage("joint", recipe.joint, before))
    if not found:
        raise UserError(
            "takes the place of the first stage, and no other has iterations",
            field="init_from",
            fix="set joint.iterations",
        )
    return found
