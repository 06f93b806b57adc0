"""Run folders: what is needed to repeat a training, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from afrcnn.adversaries import Chain
from afrcnn.core.atomic import atomic_write, remove_parts
from afrcnn.core.errors import UserError
from afrcnn.data import open_dataset
from afrcnn.detectors.attach import roi_head_of
from afrcnn.detectors.rcnn import FastRCNN
from afrcnn.detectors.weights import read_state_dict
from afrcnn.proposals.store import ProposalStore, WithProposals, default_folder
from afrcnn.recipe import Recipe, build_detector, dump_recipe, load_recipe
from afrcnn.training.checkpoint import fill
from afrcnn.training.pretraining import build_adversary


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
    ``results.json``      what they were worth
    ``stress.json``, ``stress.png``  what they are worth when objects are hidden or bent
    ====================  =====================================================================
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.recipe_file = self.folder / "recipe.yaml"
        self.log_file = self.folder / "log.csv"
        self.tensorboard = self.folder / "tensorboard"
        self.checkpoint_file = self.folder / "checkpoint.pt"
        self.stage_one_file = self.folder / "stage_one.safetensors"
        self.weights_file = self.folder / "weights.safetensors"
        self.adversary_file = self.folder / "adversary.safetensors"
        self.detections = self.folder / "detections"
        self.results_file = self.folder / "results.json"

    @property
    def weights_files(self) -> tuple[Path, Path, Path]:
        """The files that stages end with."""
        return self.stage_one_file, self.weights_file, self.adversary_file

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

    def recipe(self, overrides: Sequence[str] = ()) -> Recipe:
        """Return the recipe of the run, with fields set differently (see ``load_recipe``).

        Raises:
            UserError: there is no run here, or an override is wrong.
        """
        if not self.recipe_file.is_file():
            raise UserError("is no run", file=self.folder, fix="name a folder that `afrcnn train` made")
        return load_recipe(self.recipe_file, overrides)

    def detector(self, overrides: Sequence[str] = ()) -> FastRCNN:
        """Return the trained detector, in evaluation mode, on the CPU, with fields of the recipe set differently.

        Raises:
            UserError: there is no run, or its training is not finished.
        """
        recipe = self.recipe(overrides)
        if not self.weights_file.is_file():
            raise UserError(
                "has no trained weights yet", file=self.folder, fix="finish the training with the same `afrcnn train`"
            )
        assert recipe.data.classes is not None  # a resolved recipe names its classes
        detector = build_detector(recipe.detector, len(recipe.data.classes), pretrained=False)
        fill(detector, read_state_dict(self.weights_file), self.weights_file)
        return detector.eval()

    def adversary(self, detector: FastRCNN, overrides: Sequence[str] = (), trust: Sequence[str] | None = None) -> Chain:
        """Return the trained adversaries, in evaluation mode, on the CPU, with fields of the recipe set differently.

        Those without parameters, as random dropout, need no training: an override can name them for any run.

        Args:
            detector: the run's, which says what the adversaries' layers are like.
            overrides: as of ``recipe``.
            trust: modules whose adversaries may be imported; all when None.

        Raises:
            UserError: there is no run, its recipe names no adversary, or one that is not trusted, or the adversaries
                are not trained.
        """
        recipe = self.recipe(overrides)
        if not recipe.adversary.chain:
            raise UserError(
                "has no adversary",
                file=self.folder,
                field="adversary.chain",
                fix="train with one, as by --adversary.chain [asdn,astn], or name [hard_dropout], which learns nothing",
            )
        modules = [name.rpartition(".")[0] for name in recipe.adversary.chain if "." in name]
        if trust is not None and (untrusted := [module for module in modules if module not in trust]):
            problem = f"names an adversary of the module {untrusted[0]}, whose code would run"
            raise UserError(problem, file=self.folder, field="adversary.chain", fix=f"trust it: --trust {untrusted[0]}")
        chain = build_adversary(recipe.adversary, roi_head_of(detector))
        if chain.state_dict():
            if not self.adversary_file.is_file():
                raise UserError(
                    f"has no trained {' and '.join(chain)}",
                    file=self.folder,
                    fix="train them: --pretraining.iterations or --joint.iterations above 0",
                )
            fill(chain, read_state_dict(self.adversary_file), self.adversary_file)
        return chain.eval()


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


def open_split(recipe: Recipe, split: str) -> WithProposals:
    """Open a split of a recipe's dataset together with its proposals.

    Raises:
        UserError: the dataset or its proposals are missing or wrong.
    """
    data = recipe.data
    if not data.root:
        raise UserError("is not set", field="data.root", fix="name the dataset's folder: --data.root FOLDER")
    dataset = open_dataset(data.root, split, data.layout, data.classes)
    folder = (
        default_folder(dataset.root, split, data.proposal_method)
        if data.proposals is None
        else Path(data.proposals) / f"{split}-{data.proposal_method}"
    )
    return WithProposals(dataset, ProposalStore(folder), data.proposals_per_image)


def _first_difference(old: Recipe, new: Recipe) -> str | None:
    """Name the first field in which two recipes differ."""
    pairs = zip(dump_recipe(old).splitlines(), dump_recipe(new).splitlines(), strict=False)
    return next((line.strip() for line, other in pairs if line != other), None)
