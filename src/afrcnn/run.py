"""Run folders: what is needed to repeat a training, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from afrcnn.core.atomic import atomic_write, remove_parts
from afrcnn.core.errors import UserError
from afrcnn.recipe import Recipe, dump_recipe, load_recipe


class Run:
    """The folder of one run.

    ====================  =====================================================================
    ``recipe.yaml``       the resolved recipe, every field of it
    ``log.csv``           losses, learning rate and speed
    ``tensorboard/``      the same for TensorBoard
    ``checkpoint.pt``     the state to go on from
    ``stage_one.safetensors``  the detector after its training alone, where further stages follow
    ``weights.safetensors``  the trained detector; there when the training is finished
    ``adversary.safetensors``  the trained adversaries, where there are any
    ``detections/``       detections on the test split
    ``results.json``      their evaluation
    ``stress.json``, ``stress.png``  evaluation where objects are occluded or bent, and its curves
    ``predictions/``      pictures and detections of images that belong to no dataset
    ``masks/``            what the adversaries do to objects of such images
    ====================  =====================================================================

    Args:
        folder: the folder.
        overrides: fields of its recipe to set differently, as ``["--data.root", "elsewhere"]``.
    """

    def __init__(self, folder: Path | str, overrides: Sequence[str] = ()) -> None:
        self.folder, self.overrides = Path(folder), overrides
        self.recipe_file = self.folder / "recipe.yaml"
        self.log_file = self.folder / "log.csv"
        self.tensorboard = self.folder / "tensorboard"
        self.checkpoint_file = self.folder / "checkpoint.pt"
        self.stage_one_file = self.folder / "stage_one.safetensors"
        self.weights_file = self.folder / "weights.safetensors"
        self.adversary_file = self.folder / "adversary.safetensors"
        self.detections = self.folder / "detections"
        self.results_file = self.folder / "results.json"
        self.stress_file = self.folder / "stress.json"
        self.stress_figure = self.folder / "stress.png"
        self.predictions = self.folder / "predictions"
        self.masks = self.folder / "masks"

    @property
    def weights_files(self) -> tuple[Path, Path, Path]:
        """The files that stages end with."""
        return self.stage_one_file, self.weights_file, self.adversary_file

    def detections_file(self, split: str) -> Path:
        """Return the file of the detections on a split, in COCO's format."""
        return self.detections / f"{split}.json"

    @property
    def classes(self) -> list[str]:
        """The names of the classes 1..K."""
        if self.recipe.data.classes is None:
            fix = "name a run folder, not a recipe"
            raise UserError("names no classes", file=self.recipe_file, field="data.classes", fix=fix)
        return self.recipe.data.classes

    def begin(self, recipe: Recipe) -> None:
        """Write the recipe, or find that the folder holds an earlier part of the same run.

        Raises:
            UserError: the folder holds another run, or something else.
        """
        for written in (self.recipe_file, self.log_file, self.checkpoint_file, *self.weights_files):
            remove_parts(written)
        text = dump_recipe(recipe)
        if self.recipe_file.is_file():
            if self.recipe_file.read_text(encoding="utf-8") != text:
                raise UserError(
                    "holds a run with another recipe",
                    file=self.folder,
                    field=_first_difference(load_recipe(self.recipe_file), recipe),
                    fix="name another folder with --run, or delete this one",
                )
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise UserError("is no run folder and not empty", file=self.folder, fix="name another folder with --run")
        else:
            with atomic_write(self.recipe_file) as file:
                file.write(text)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe of the run, overrides applied, read once.

        Raises:
            UserError: there is no run here, or an override is wrong.
        """
        if not self.recipe_file.is_file():
            raise UserError("is no run", file=self.folder, fix="name a folder that `afrcnn train` made")
        return load_recipe(self.recipe_file, self.overrides)


def initial_weights(source: str) -> Path:
    """Return the file of a detector that a training starts from.

    Args:
        source: a file of weights, or a run: then its detector after the first stage.

    Raises:
        UserError: there is none.
    """
    if not Path(source).is_dir():
        return Path(source)
    run = Run(source)
    found = run.stage_one_file if run.stage_one_file.is_file() else run.weights_file
    if not found.is_file():
        raise UserError("has no trained weights yet", file=source, field="init_from", fix="finish its training first")
    return found


def _first_difference(old: Recipe, new: Recipe) -> str | None:
    """Name the first field in which two recipes differ."""
    pairs = zip(dump_recipe(old).splitlines(), dump_recipe(new).splitlines(), strict=False)
    return next((line.strip() for line, other in pairs if line != other), None)
