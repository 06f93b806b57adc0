"""Run folders: what is needed to repeat a training, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError, safe_open

from afrcnn.core.atomic import atomic_write, remove_parts
from afrcnn.core.errors import UserError
from afrcnn.core.lock import LOCK_FILE
from afrcnn.core.names import file_name
from afrcnn.core.schema import SchemaError, checked, parse_json
from afrcnn.recipe import DataRecipe, Recipe, dump_recipe, load_recipe, parse_recipe

_WEIGHTS = ".safetensors"

_SCORE = 0.5
"""From which on detections are shown, where no validation has found a better one."""

_LONGEST = 1_000_000
"""Characters of a description, of which a recipe has some thousands."""


@dataclass(frozen=True)
class _Description:
    """What a file of weights says of itself, in its metadata under ``afrcnn``, as JSON.

    Attributes:
        recipe: the resolved recipe, in YAML; None in files of earlier versions.
        classes: the names of the classes 1..K.
        score: the score of best F1 in validation; None where there was none.
    """

    recipe: str | None = None
    classes: list[str] = field(default_factory=list)
    score: float | None = None


class Run:
    """The folder of one run: every path in it, and its recipe.

    A file of weights from such a folder stands for the run whose trained detector it is: it holds the recipe, too. What
    is made of it goes into a folder beside it that has its name.

    ====================  =====================================================================
    ``recipe.yaml``       the resolved recipe, every field of it
    ``log.csv``           losses, learning rate and speed
    ``tensorboard/``      the same for TensorBoard, where that is installed
    ``checkpoint.pt``     the state to go on from
    ``detector.safetensors``  the detector after its training alone, where further stages follow
    ``weights.safetensors``  the trained detector; there when the training is finished
    ``weights-best.safetensors``  the detector of the highest AP, where it is validated: used in place of the last
    ``adversary.safetensors``  the trained adversaries, where there are any
    ``detections/``       detections on the test split
    ``results.json``      their AP
    ``left_out.json``     images that the training could not decode, where there are any
    ``stress.json``, ``stress.png``  AP when objects are occluded or bent
    ``diagnosis/``        kinds of false positives, what they cost in AP, and pictures of them
    ``predictions/``, ``masks/``  pictures of one's own images
    ``lock``              the process that trains it, as long as it does
    ====================  =====================================================================

    Args:
        folder: the folder, or a file of weights from one.
        overrides: fields of its recipe to set differently, as ``["--data.root", "elsewhere"]``.
    """

    def __init__(self, folder: Path | str, overrides: Sequence[str] = ()) -> None:
        self.source, self.overrides = Path(folder), overrides
        self._is_file = self.source.suffix == _WEIGHTS and not self.source.is_dir()
        self.folder = self.source.with_suffix("") if self._is_file else self.source
        self.recipe_file = self.folder / "recipe.yaml"
        self.log_file = self.folder / "log.csv"
        self.tensorboard = self.folder / "tensorboard"
        self.checkpoint_file = self.folder / "checkpoint.pt"
        self.detector_file = self.folder / "detector.safetensors"
        self.weights_file = self.source if self._is_file else self.folder / "weights.safetensors"
        self.best_file = self.folder / "weights-best.safetensors"
        self.adversary_file = self.folder / "adversary.safetensors"
        self.detections = self.folder / "detections"
        self.results_file = self.folder / "results.json"
        self.left_out_file = self.folder / "left_out.json"
        self.stress_file = self.folder / "stress.json"
        self.stress_figure = self.folder / "stress.png"
        self.diagnosis = self.folder / "diagnosis"
        self.predictions = self.folder / "predictions"
        self.masks = self.folder / "masks"

    def detections_file(self, split: str) -> Path:
        """Return the file of what was detected in a split, in COCO's format."""
        return self.detections / f"{file_name(split)}.json"

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe of the run, overrides applied, read once.

        Raises:
            UserError: there is no run here, or an override is wrong; or a file of weights holds no recipe, or another.
        """
        if self._is_file:
            return self._described_recipe()
        if not self.recipe_file.is_file():
            raise UserError("is not a run folder", file=self.folder, fix="name a folder that `afrcnn train` made")
        return load_recipe(self.recipe_file, self.overrides)

    def _described_recipe(self) -> Recipe:
        """Return the recipe in the metadata of a file of weights."""
        described = _read_description(self.source)
        if described.recipe is None:
            fix = "name the run folder that it is from"
            raise UserError("does not hold the recipe of its detector", file=self.source, fix=fix)
        recipe = parse_recipe(described.recipe, self.overrides, self.source)
        if not recipe.data.classes or recipe.data.classes != described.classes:
            fix = "name the run folder that it is from"
            raise UserError("holds a recipe of other classes than its own", file=self.source, fix=fix)
        return recipe

    @property
    def score(self) -> float:
        """The score in [0, 1] from which on detections are shown: of best F1 in validation, or 0.5 where none was.

        Raises:
            UserError: the training is not finished, or the file of weights is damaged.
        """
        score = _read_description(self.trained()).score
        return _SCORE if score is None else score

    @property
    def classes(self) -> list[str]:
        """The names of the classes 1..K."""
        if self.recipe.data.classes is None:
            fix = "name a run folder, not a recipe"
            raise UserError("names no classes", file=self.recipe_file, field="data.classes", fix=fix)
        return self.recipe.data.classes

    def require_classes_of(self, first: Run, fix: str) -> None:
        """Refuse a run of other classes than the first one's.

        Raises:
            UserError: it is; ``fix`` says what to do.
        """
        if self.classes != first.classes:
            problem = f"knows other classes than {first.folder}"
            raise UserError(problem, file=self.folder, field="data.classes", fix=fix)

    @staticmethod
    def names(runs: Sequence[Run]) -> list[str]:
        """Return what runs are called: their folders' names, or their paths where two share one."""
        names = [run.folder.resolve().name for run in runs]
        return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]

    def require_recipe(self, recipe: Recipe, option: str = "--run") -> None:
        """Refuse a run of another recipe.

        Args:
            recipe: the one that it should have, resolved and with the classes.
            option: of the command line, by which another folder is named.

        Raises:
            UserError: it is.
        """
        earlier = dump_recipe(resolve(load_recipe(self.recipe_file)))
        if earlier != (text := dump_recipe(recipe)):
            lines = zip(earlier.splitlines(), text.splitlines(), strict=False)
            raise UserError(
                "holds a run with another recipe",
                file=self.folder,
                field=next((old.strip() for old, new in lines if old != new), None),
                fix=f"name another folder with {option}, or delete this one",
            )

    def trained(self) -> Path:
        """Return the file of the trained detector; where it was validated, of the best.

        Raises:
            UserError: the training is not finished.
        """
        if self._is_file:
            return self.source
        if not self.weights_file.is_file():
            fix = "finish the training with the same `afrcnn train`"
            raise UserError("has no trained weights yet", file=self.folder, fix=fix)
        return self.best_file if self.best_file.is_file() else self.weights_file

    def begin(self, recipe: Recipe) -> None:
        """Write the recipe, or find that the folder holds an earlier part of the same run.

        Raises:
            UserError: the folder holds another run, or something else.
        """
        if self._is_file:
            raise UserError("is the name of a file of weights", file=self.source, fix="name a folder with --run")
        written = (self.recipe_file, self.log_file, self.checkpoint_file)
        weights = self.detector_file, self.weights_file, self.best_file, self.adversary_file
        for file in (*written, *weights, self.left_out_file):
            remove_parts(file)
        if self.recipe_file.is_file():
            self.require_recipe(recipe)
        elif self.folder.is_dir() and any(file.name != LOCK_FILE for file in self.folder.iterdir()):
            raise UserError("is not a run folder, and not empty", file=self.folder, fix="name another with --run")
        else:
            with atomic_write(self.recipe_file) as stream:
                stream.write(dump_recipe(recipe))


def _read_description(file: Path) -> _Description:
    """Return what a file of weights says of itself; its tensors are not read, and no code is run.

    Raises:
        UserError: the file cannot be read, or says something else.
    """
    try:
        with safe_open(file, "np") as tensors:
            text = (tensors.metadata() or {}).get("afrcnn", "{}")
    except (OSError, SafetensorError) as error:
        problem = f"is not a readable file of weights ({getattr(error, 'strerror', None) or error})"
        raise UserError(problem, file=file, fix="check the path, or copy the file again") from error
    try:
        if len(text) > _LONGEST:
            raise SchemaError(f"{len(text)} characters are too many")
        described = checked(parse_json(text), _Description)
        if described.score is not None and not 0 <= described.score <= 1:
            raise SchemaError("is not from 0 to 1", "score")
    except SchemaError as error:
        fix = "copy it again, or name the run folder that it is from"
        raise UserError(f"holds no valid description ({error})", file=file, field="afrcnn", fix=fix) from error
    return described


def resolve(recipe: Recipe) -> Recipe:
    """Return a recipe whose folders of data are absolute, so that its run works from any folder."""
    data = recipe.data
    proposals = None if data.proposals is None else str(Path(data.proposals).absolute())
    root = str(Path(data.root).absolute()) if data.root else ""
    also = [f"{folder.absolute()}:{split}" for folder, split in _further_splits(data)]
    return replace(recipe, data=replace(data, root=root, also=also, proposals=proposals))


def dataset_root(recipe: Recipe) -> Path:
    """Return the folder of a recipe's dataset.

    Raises:
        UserError: there is none, named with the field and the way out.
    """
    root, fix = recipe.data.root, "name the dataset's folder: --data.root FOLDER"
    if not root:
        raise UserError("is not set", field="data.root", fix=fix)
    if not Path(root).is_dir():
        raise UserError("there is no such folder", file=root, field="data.root", fix=fix)
    return Path(root)


def training_splits(recipe: Recipe) -> list[tuple[Path, str]]:
    """Return folder and split of every dataset that a recipe trains on, those of ``data.also`` last.

    Raises:
        UserError: a folder is missing, named with the field and the way out.
    """
    first, further = (dataset_root(recipe), recipe.data.train_split), _further_splits(recipe.data)
    for folder, _ in further:
        if not folder.is_dir():
            fix = "write FOLDER or FOLDER:SPLIT"
            raise UserError("there is no such folder", file=folder, field="data.also", fix=fix)
    return [first, *further]


def _further_splits(data: DataRecipe) -> list[tuple[Path, str]]:
    """Return folder and split of each dataset of ``data.also``."""
    splits = []
    for text in data.also:
        folder, _, split = text.rpartition(":")
        named = bool(folder) and "/" not in split  # a colon further left belongs to the folder
        splits.append((Path(folder), split) if named else (Path(text), data.train_split))
    return splits


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
    earlier = run.folder / "stage_one.safetensors"  # as version 0.1 called it at first
    for file in (run.detector_file, earlier, run.weights_file):
        if file.is_file():
            return file
    raise UserError("has no trained weights yet", file=source, field="init_from", fix="finish its training first")
