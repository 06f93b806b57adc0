"""One step of training: the gradients of a batch, some of its images at a time."""

from __future__ import annotations

from collections import defaultdict

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch import Tensor, nn
from torch.optim import Optimizer

from afrcnn.core.distributed import sum_over_processes
from afrcnn.data.target import Target
from afrcnn.training.samples import Batch


def step(
    fabric: Fabric, model: _FabricModule, optimizer: Optimizer, batch: Batch, images_at_once: int | None
) -> tuple[dict[str, Tensor], list[tuple[str, Tensor]]]:
    """Compute the gradients of a batch, some images at a time.

    A loss is a mean over the RoIs of some images, and counts by their fraction of all images, as Caffe's ``iter_size``
    has it; the adversary's, which only adversarial images have, by their fraction of these. Where images give as many
    RoIs, that is the mean over the RoIs of all.

    Returns:
        The losses: ``loss``, the sum that was differentiated, and what it is made of. And what the module measured,
        time by time.
    """
    images, targets = batch
    size = images_at_once or len(images)
    chunks = [slice(start, start + size) for start in range(0, len(images), size)]
    counts = [sum(target["adversarial"] for target in targets[chunk]) for chunk in chunks]
    adversarial = counts
    if fabric.world_size > 1:
        adversarial = sum_over_processes(torch.tensor(counts, device=fabric.device)).tolist()
    losses: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=fabric.device))
    metrics: list[tuple[str, Tensor]] = []
    for number, chunk in enumerate(chunks):
        fraction = len(images[chunk]) / len(images)
        weights = {"adversary": adversarial[number] / max(sum(adversarial), 1)}
        with fabric.no_backward_sync(model, enabled=number + 1 < len(chunks)):
            some = _call(model, images[chunk], targets[chunk])
            some = {name: loss * weights.get(name, fraction) for name, loss in some.items()}
            some["loss"] = torch.stack(list(some.values())).sum()
            if number == 0:  # not before: the old gradients' memory goes from hand to hand
                optimizer.zero_grad()
            fabric.backward(some["loss"])
        for name, value in some.items():
            losses[name] = losses[name] + value.detach()
        metrics += getattr(model.module, "metrics", {}).items()
    return losses, metrics


def _call(model: nn.Module, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
    """Return the losses of a model, which is given the images' proposals where there are some."""
    proposals = [target["proposals"] for target in targets if "proposals" in target]
    losses: dict[str, Tensor] = model(images, proposals, targets) if proposals else model(images, targets)
    return losses
