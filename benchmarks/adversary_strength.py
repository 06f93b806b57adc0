"""Measure what adversaries learn alone: how far they lower a trained detector's scores on images it never saw.

Starts from a run of the detector alone, trains ASDN and ASTN against it, frozen, on the split that it was trained on,
and asks on the test split by how much the true class's score falls: ASDN's masks against random masks of as many cells,
ASTN's angles against random angles within the same limit. The goal is twice as much.

    python benchmarks/adversary_strength.py demo/run runs/fruit/squeezenet_frcn-seed0 runs/cards/squeezenet_frcn-seed0
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from afrcnn.adversaries.asdn import ASDN
from afrcnn.adversaries.astn import ASTN, _affine, warp
from afrcnn.adversaries.base import Head, score_drop
from afrcnn.adversaries.dropout import HardDropout, RandomDropout
from afrcnn.build import load_adversary, load_detector, open_split
from afrcnn.detectors.rcnn import FastRCNN
from afrcnn.recipe import Recipe, load_recipe
from afrcnn.run import Run
from afrcnn.training.train import train_stages

BOOTSTRAPS = 2000


def train_adversaries(detector: Run, folder: Path, arguments: argparse.Namespace) -> Recipe:
    """Train ASDN and ASTN alone against a run's detector, in a run of their own."""
    fields = [
        f"--init_from={detector.folder}",
        "--adversaries=[asdn,astn]",
        "--adversaries.astn.pretrain=true",
        f"--adversaries.astn.learning_rate_factor={arguments.astn_factor}",
        f"--pretraining.iterations={arguments.iterations}",
        f"--pretraining.decay_at=[{arguments.iterations * 3 // 4}]",
        f"--pretraining.learning_rate={arguments.learning_rate}",
    ]
    recipe = load_recipe(detector.recipe_file, fields)
    train_stages(recipe, folder)
    return recipe


def bent(features: Tensor, angles: Tensor) -> Tensor:
    """Turn blocks of channels of features (n x C x d x d) by angles (n x blocks, radians)."""
    return warp(features, _affine(angles, torch.ones_like(angles), torch.zeros(*angles.shape, 2)))


def drops(detector: FastRCNN, asdn: ASDN, astn: ASTN, features: Tensor, labels: Tensor) -> Tensor:
    """Return for each object (n) the score and, for each way to perturb its features, by how much it falls."""
    head: Head = detector.frozen_head()
    limit = math.radians(astn.degrees)
    angles = torch.empty(len(features), astn.blocks).uniform_(-limit, limit)
    perturbed = [
        features.masked_fill(asdn.sampling(asdn.network(features))[:, None], 0),
        RandomDropout(fraction=asdn.sampling.fraction)(features, labels, head).features,
        HardDropout(detector.box_head_spec)(features, labels, head).features,
        bent(features, astn.explain(features)["angles"].deg2rad()),
        bent(features, angles),
        bent(features, angles.sign() * limit),
    ]
    score = head.scores(features, labels)
    return torch.stack([score, *(score_drop(features, x, labels, head) for x in perturbed)], dim=1)


@torch.inference_mode()
def measure(run: Run, recipe: Recipe) -> list[np.ndarray]:
    """Return the numbers of ``drops`` for the foreground RoIs of each test image."""
    torch.manual_seed(0)
    detector = load_detector(run)
    chain = dict(load_adversary(run, detector).items())
    asdn, astn = chain["asdn"], chain["astn"]
    assert isinstance(detector, FastRCNN) and isinstance(asdn, ASDN) and isinstance(astn, ASTN)
    dataset = open_split(recipe, recipe.data.test_split)
    numbers = []
    for index in range(len(dataset)):
        image, target = dataset[index]
        pixels = image.as_subclass(Tensor)
        features, labels = detector.pool_foreground([pixels], [target["proposals"]], [target], per_image=32)
        if len(labels):
            numbers.append(drops(detector, asdn, astn, features, labels).numpy())
    return numbers


def ratio(images: list[np.ndarray], column: int, other: int) -> str:
    """Return the ratio of two mean drops and its 95% interval, by a bootstrap over images."""
    sums = np.array([image[:, [column, other]].sum(axis=0) for image in images])
    draws = np.random.default_rng(0).integers(len(sums), size=(BOOTSTRAPS, len(sums)))
    drawn = sums[draws].sum(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    mean = sums.sum(axis=0)
    return f"{mean[0] / mean[1]:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="finished run of a detector alone")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--astn-factor", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    console = Console(width=120)
    for folder in arguments.runs:
        out = folder.with_name(f"{folder.name}-adversaries")
        recipe = train_adversaries(Run(folder), out, arguments)
        images = measure(Run(out), recipe)
        mean = np.concatenate(images).mean(axis=0)
        table = Table(title=f"{folder}: {len(images)} test images, {sum(map(len, images))} RoIs, score {mean[0]:.3f}")
        for title in ("", "score drop", "random", "hardest window / random at the limit", "ratio to random (95%)"):
            table.add_column(title)
        for name, first in (("ASDN", 1), ("ASTN", 4)):
            numbers = [f"{value:.4f}" for value in mean[first : first + 3]]
            table.add_row(name, *numbers, ratio(images, first, first + 1))
        console.print(table)


if __name__ == "__main__":
    main()
