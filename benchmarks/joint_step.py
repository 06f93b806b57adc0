"""Time a training step against adversaries as a multiple of the plain step, in one run.

VGG16, 2 images of 600 pixels on the shorter side, of which one is adversarial, 256 RoIs. As in a training, steps of
one kind follow each other: the kinds take turns in blocks of three, of which the first is not counted. The detector and
its data are those of ``detector_speed.py``, the optimiser is that of ``afrcnn train``.

    python benchmarks/joint_step.py [--precision 32-true bf16-mixed] [--threads 2] [--rounds 2]
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext

import torch
from rich.console import Console
from rich.table import Table
from torch.optim import SGD

from afrcnn.adversaries.asdn import ASDN
from afrcnn.adversaries.astn import ASTN
from afrcnn.adversaries.base import Adversary
from afrcnn.adversaries.chain import Chain
from afrcnn.adversaries.dropout import HardDropout, RandomDropout
from afrcnn.detectors.attach import attach, detach
from afrcnn.detectors.rcnn import FastRCNN
from afrcnn.recipe import ScheduleRecipe
from afrcnn.training.optimizer import build_optimizer
from detector_speed import SIDES, peers, scene

STEPS = 2
"""Steps of a block that are counted."""


def adversaries(detector: FastRCNN) -> dict[str, Adversary]:
    spec = detector.box_head_spec
    asdn, astn = ASDN(spec), ASTN(spec)
    return {
        "ASDN + ASTN": Chain(asdn=asdn, astn=astn),
        "ASDN": asdn,
        "ASDN, convolutional": ASDN(spec, network="convolutional"),
        "ASTN": astn,
        "hard dropout": HardDropout(spec),
        "random dropout": RandomDropout(spec),
    }


def measure(backbone: str, precision: str, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each kind of step; the plain one is "none"."""
    torch.manual_seed(0)
    detector = peers(backbone)[0].train()
    images, proposals, targets = zip(*(scene(SIDES[backbone], seed) for seed in (0, 1)), strict=True)
    rivals: dict[str, Adversary | None] = {"none": None, **adversaries(detector)}
    optimizers: dict[str, SGD] = {}
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    context = torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16-mixed" else nullcontext()
    for name, adversary in list(rivals.items()) * rounds:
        if adversary is not None:
            attach(detector, adversary)
        optimizer = optimizers.setdefault(name, build_optimizer(detector, ScheduleRecipe(learning_rate=1e-5)))
        for number in range(STEPS + 1):
            began = time.perf_counter()
            with context:
                losses = detector(images, proposals, targets)
            optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
            if number:  # the first warms up
                seconds[name].append(time.perf_counter() - began)
        optimizer.zero_grad()
        if adversary is not None:
            detach(detector)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vgg16", choices=SIDES)
    parser.add_argument("--precision", nargs="+", default=["32-true", "bf16-mixed"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    table = Table("precision", "adversary", "seconds", "ratio", title=f"{arguments.backbone}: a step in training")
    for precision in arguments.precision:
        seconds = measure(arguments.backbone, precision, arguments.rounds)
        plain = statistics.median(seconds["none"])
        for name, times in seconds.items():
            table.add_row(precision, name, f"{statistics.median(times):.3f}", f"{statistics.median(times) / plain:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
