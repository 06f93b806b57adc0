"""Training of the detector of a recipe."""

# ruff: noqa: PLC0415
from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from afrcnn.core.errors import UserError
from afrcnn.recipe import load_recipe

if TYPE_CHECKING:
    from afrcnn.run import Run


def train(recipe: Path | str, *, run: Path | str | None = None, overrides: Sequence[str] = ()) -> Run:
    """Train the detector of a recipe.

    A recipe is a YAML file that names what differs from the defaults below; every field can be set on the command line.
    Interrupted, the same command goes on from the last checkpoint.

    Args:
        recipe: YAML file, as configs/*/*.yaml.
        run: folder of the run (default: runs/<dataset>/<recipe>-seed<seed>).
        overrides: fields of the recipe to set differently, as ``["--data.root", "VOC2007"]``.

    Examples:
        afrcnn train configs/voc07/vgg16_frcn.yaml --data.root VOCdevkit/VOC2007
    """
    loaded = load_recipe(recipe, overrides)
    root = Path(loaded.data.root)
    if not root.is_dir():
        raise UserError("no such folder", file=root, field="data.root", fix="give the folder of a dataset")
    run = run or Path("runs", root.resolve().name, f"{Path(recipe).stem}-seed{loaded.seed}")

    from lightning_fabric.utilities.rank_zero import rank_zero_only

    from afrcnn.training.train import train as train_detector

    rank_zero_only(print)(f"run:     {run}", flush=True)
    return train_detector(loaded, run)


def show(run: Run) -> None:
    """Print where the weights are, and what comes next."""
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    say = rank_zero_only(print)  # of several processes, the first speaks
    say(f"weights: {run.weights_file}")
    say(f"next:    afrcnn evaluate {shlex.quote(str(run.folder))}")
