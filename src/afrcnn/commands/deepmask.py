"""Training a network that proposes boxes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

from afrcnn.core.errors import UserError, require_dataset, suggest
from afrcnn.core.terminal import say


def deepmask(
    dataset: Path | str,
    *,
    out: Path | str = "deepmask.safetensors",
    split: str | None = None,
    backbone: str = "squeezenet1_0",
    weights: Path | str | None = None,
    frozen_stages: int | None = None,
    iterations: int = 1000,
    batch: int = 8,
    crops: int = 0,
    learning_rate: float = 5e-4,
    seed: int = 0,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
) -> Path:
    """Train DeepMask, a network that proposes boxes.

    It learns from objects with masks (COCO layout), without their classes, and writes a file of weights that `afrcnn
    proposals --method deepmask` takes. Interrupted, the same command goes on from a checkpoint beside that file.

    Args:
        dataset: folder in COCO layout, whose annotations have masks
        out: file of weights to write
        split: split to train on (default: the first whose name begins with train)
        backbone: ImageNet network, by its name in recipes
        weights: its ImageNet weights, a file or a name of torchvision's as in detector.weights of recipes; without, it
            begins from random numbers
        frozen_stages: stages of the backbone that remain as they are (default: all with ImageNet weights, else none)
        iterations: updates
        batch: crops of an update, of 121 patches each
        crops: different crops that are drawn, or 0 for new ones in each update; with a frozen backbone, some hundreds
            make training on a CPU several times faster, since its features of them are computed once
        learning_rate: of the first update; it falls to 0 along half a cosine
        seed: another seed, another training
        accelerator: what to train on; auto takes a GPU if there is one

    Examples:
        afrcnn deepmask coco --backbone resnet50 --weights DEFAULT --batch 32
        afrcnn proposals coco --method deepmask --weights deepmask.safetensors

    Returns:
        The file of weights.

    Raises:
        UserError: the dataset, an option or a file is at fault.
    """
    require_dataset(dataset)
    if Path(out).suffix != ".safetensors":
        raise UserError(
            "is not the name of a .safetensors file", file=out, fix=f"write it to {Path(out).stem}.safetensors"
        )

    import inspect

    import torch

    from afrcnn.core.engine import build_fabric
    from afrcnn.core.progress import progress
    from afrcnn.data.layouts import list_splits, open_dataset
    from afrcnn.detectors.backbones import BACKBONES
    from afrcnn.proposals.deepmask import DeepMaskNetwork
    from afrcnn.training.deepmask import train_deepmask

    if backbone not in BACKBONES:
        fix = suggest(backbone, list(BACKBONES), f"choose {', '.join(BACKBONES)}")
        raise UserError("is not a backbone", field=backbone, fix=fix)
    options = {} if weights is None else {"weights": str(weights)}
    if weights is not None and "weights" not in inspect.signature(BACKBONES[backbone]).parameters:
        raise UserError(f"{backbone} has none", field="weights", fix="leave the option out")
    split = split or next((name for name in list_splits(dataset) if name.startswith("train")), "train")
    images = open_dataset(dataset, split)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = DeepMaskNetwork(BACKBONES[backbone](**options), backbone)
    network.to(build_fabric(accelerator).device)
    if frozen_stages is None:
        frozen_stages = 0 if weights is None else len(network.body)
    with progress("training", iterations, "update") as report:
        train_deepmask(
            network,
            images,
            out,
            frozen_stages=frozen_stages,
            iterations=iterations,
            batch=batch,
            crops=crops,
            learning_rate=learning_rate,
            seed=seed,
            progress=report,
        )
    return Path(out)


def show(file: Path, *, dataset: Path) -> None:
    """Print where the weights are, and what comes next."""
    say(f"weights: {file}")
    say(f"next:    afrcnn proposals {shlex.quote(str(dataset))} --method deepmask --weights {shlex.quote(str(file))}")
