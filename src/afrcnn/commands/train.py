"""`afrcnn train`: train the detector of a recipe."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from afrcnn.core.terminal import printable, say
from afrcnn.recipe import load_recipe
from afrcnn.run import Run, training_splits


def train(recipe: Path | str, *, run: Path | str | None = None, overrides: Sequence[str] = ()) -> Run:
    """Train the detector of a recipe.

    A recipe is a YAML file that names what differs from the defaults below. Every field can be set on the command
    line. Interrupted, the same command goes on from the last checkpoint.

    Args:
        recipe: YAML file, as configs/*/*.yaml.
        run: folder of the run (default: runs/<dataset>/<recipe>-seed<seed>).
        overrides: fields of the recipe to set differently, as ``["--data.root", "VOC2007"]``.

    Returns:
        The run.

    Raises:
        UserError: the recipe, the data or the folder is at fault, or a loss is not finite.

    Example:
        afrcnn train configs/voc07/vgg16_frcn.yaml --data.root VOCdevkit/VOC2007
    """
    loaded = load_recipe(recipe, overrides)
    (root, _), *_ = training_splits(loaded)

    from lightning_fabric.utilities.rank_zero import rank_zero_only

    from afrcnn.training.train import train_stages

    name = f"{Path(recipe).stem}-seed{loaded.seed}"
    folder = Path("runs", root.resolve().name, name) if run is None else Path(run)
    rank_zero_only(print)(printable(f"run:     {folder}"), flush=True)  # of all processes, the first speaks
    return train_stages(loaded, folder)


def show(run: Run) -> None:
    """Print what was made, and what comes next."""
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    rank_zero_only(say)(f"weights: {run.weights_file}")
    rank_zero_only(say)(f"next:    afrcnn evaluate {shlex.quote(str(run.folder))}")
