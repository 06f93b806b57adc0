"""Training: from a recipe to a trained detector in a run folder."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from afrcnn.data.dataset import DetectionDataset, Target
from afrcnn.detector.box_coding import offsets
from afrcnn.detector.fast_rcnn import FastRCNN
from afrcnn.errors import UserError
from afrcnn.progress import progress
from afrcnn.training.checkpoint import fill, load_checkpoint, save_checkpoint, save_weights
from afrcnn.training.engine import build_fabric
from afrcnn.training.log import Log
from afrcnn.training.recipe import Recipe, ScheduleRecipe, build_detector
from afrcnn.training.run import Run, open_split
from afrcnn.training.stream import Positions, SampleTransform, TrainingStream, trainable

Batch = tuple[list[Tensor], list[Target]]

IMAGES_MEASURED = 1000
"""Training images whose foreground proposals give the mean and deviation of box targets (MultiPathNet)."""


def train(recipe: Recipe, folder: Path | str, *, transform: SampleTransform | None = None) -> Run:
    """Train the detector of a recipe; called again after an interruption, go on from the last checkpoint.

    On the CPU with the same number of threads, an interrupted run ends with the same bits as one that was not.

    Args:
        recipe: the experiment.
        folder: where everything about the run is kept.
        transform: a further transform of each training sample (image, target), drawn from the sample's own seed.

    Returns:
        The run; its trained detector is ``run.detector()``.

    Raises:
        UserError: the recipe, the data or the folder is at fault, or a loss is not finite.
    """
    fabric = build_fabric(recipe.engine)
    fabric.launch()
    run, schedule = Run(folder), recipe.schedule
    images_per_process, rest = divmod(schedule.images_per_iteration, fabric.world_size)
    if rest:
        raise UserError(
            f"{schedule.images_per_iteration} cannot be shared by {fabric.world_size} processes",
            field="schedule.images_per_iteration",
            fix=f"use a multiple of {fabric.world_size}",
        )

    dataset = open_split(recipe, recipe.data.train_split)
    recipe = replace(recipe, data=replace(recipe.data, classes=list(dataset.classes)))
    if fabric.is_global_zero:
        run.begin(recipe)
    fabric.barrier()

    # Every process builds the same detector, and then draws its own RoIs and dropout masks.
    torch.manual_seed(recipe.seed)
    detector = build_detector(recipe.detector, len(dataset.classes))
    if recipe.detector.box_targets == "measured":
        measure_box_targets(detector, dataset, recipe.data.use_difficult)
    torch.manual_seed(recipe.seed + fabric.global_rank)

    optimizer = build_optimizer(detector, schedule)
    model, optimizer = fabric.setup(detector, optimizer)
    iteration = restore(fabric, run, detector, optimizer) if run.checkpoint_file.is_file() else 0

    stream = TrainingStream(
        dataset,
        seed=recipe.seed,
        flip=recipe.data.flip,
        use_difficult=recipe.data.use_difficult,
        transform=transform,
    )
    loader = fabric.setup_dataloaders(
        DataLoader(
            stream,
            batch_sampler=Positions(
                iteration, schedule.iterations, images_per_process, fabric.global_rank, fabric.world_size
            ),
            num_workers=recipe.data.workers,
            collate_fn=collate,
            pin_memory=fabric.device.type == "cuda",
            generator=torch.Generator(),  # the loader's own, or it would draw from the stream that is restored
        ),
        use_distributed_sampler=False,
    )
    if iteration < schedule.iterations:
        fit(fabric, model, detector, optimizer, cast(Iterable[Batch], loader), schedule, run, iteration)
    if fabric.is_global_zero:
        save_weights(run.weights_file, detector, {"backbone": recipe.detector.backbone, "classes": recipe.data.classes})
    fabric.barrier()
    return run


def fit(
    fabric: Fabric,
    model: nn.Module,
    detector: FastRCNN,
    optimizer: Optimizer,
    loader: Iterable[Batch],
    schedule: ScheduleRecipe,
    run: Run,
    iteration: int,
) -> None:
    """Update the detector from ``iteration`` to the end of the schedule."""
    first = fabric.is_global_zero
    log = Log(run.log_file, run.tensorboard, iteration) if first else None
    model.train()
    sums: dict[str, Tensor] = {}
    began, since = time.monotonic(), iteration
    with progress("training", schedule.iterations, "iteration", done=iteration, quiet=not first) as report:
        for images, targets in loader:
            rate = learning_rate(iteration, schedule)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["rate_factor"]
            losses = model(images, [target["proposals"] for target in targets], targets)
            loss = torch.stack(list(losses.values())).sum()
            refuse_not_finite(fabric, loss, f"the loss of iteration {iteration + 1} is", targets, run)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            iteration += 1

            for name, value in {"loss": loss, **losses}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
            if iteration % schedule.log_every == 0 or iteration == schedule.iterations:
                means = {name: float(value) / (iteration - since) for name, value in sums.items()}
                speed = (iteration - since) / (time.monotonic() - began)
                if log is not None:
                    log.write(iteration, {**means, "learning_rate": rate, "iterations_per_second": speed})
                report(iteration, f"loss {means['loss']:.3f}")
                sums, began, since = {}, time.monotonic(), iteration
            if iteration % schedule.checkpoint_every == 0 or iteration == schedule.iterations:
                norm = nn.utils.get_total_norm(detector.parameters())
                refuse_not_finite(fabric, norm, f"the weights after iteration {iteration} are", targets, run)
                checkpoint(fabric, run, detector, optimizer, iteration)
    if log is not None:
        log.close()


def learning_rate(iteration: int, schedule: ScheduleRecipe) -> float:
    """Return the learning rate of weights at an iteration (0, 1, ...): linear warm-up, then steps (section 5.1)."""
    warmup = min(1.0, (iteration + 1) / (schedule.warmup_iterations + 1))
    decays = bisect_right(sorted(schedule.decay_at), iteration)
    return float(schedule.learning_rate * warmup * schedule.decay_factor**decays)


def build_optimizer(detector: nn.Module, schedule: ScheduleRecipe) -> SGD:
    """Return SGD over a module's trainable parameters, biases with their own learning rate and weight decay.

    Each group's ``rate_factor`` is what the learning rate of the schedule is multiplied by.
    """
    named = [(name, value) for name, value in detector.named_parameters() if value.requires_grad]
    groups = [
        {
            "params": [value for name, value in named if not name.endswith("bias")],
            "weight_decay": schedule.weight_decay,
            "rate_factor": 1.0,
        },
        {
            "params": [value for name, value in named if name.endswith("bias")],
            "weight_decay": schedule.bias_weight_decay,
            "rate_factor": schedule.bias_learning_rate_factor,
        },
    ]
    return SGD(groups, lr=schedule.learning_rate, momentum=schedule.momentum, fused=True)


def collate(samples: Sequence[tuple[tv_tensors.Image, Target]]) -> Batch:
    """Put samples of different sizes into lists."""
    images, targets = zip(*samples, strict=True)
    return [image.as_subclass(Tensor) for image in images], list(targets)


def refuse_not_finite(fabric: Fabric, value: Tensor, what: str, targets: Sequence[Target], run: Run) -> None:
    """Stop all processes before an update from a loss, or a checkpoint of weights, that is not finite.

    Raises:
        UserError: some process's value is infinite or not a number; says what it is, and names the images.
    """
    bad = (~torch.isfinite(value.detach())).float()
    if fabric.world_size > 1:
        bad = cast(Tensor, fabric.all_reduce(bad, reduce_op="sum"))
    if bad > 0:
        ids = gather(fabric, [target["image_id"] for target in targets])
        images = ", ".join(image_id for part in ids for image_id in part)
        kept = "the last checkpoint is kept" if run.checkpoint_file.is_file() else "no checkpoint was written yet"
        raise UserError(
            f"{what} not finite (images {images}); {kept}",
            field="schedule.learning_rate",
            fix="lower it, or add schedule.warmup_iterations",
        )


def gather(fabric: Fabric, value: Any) -> list[Any]:
    """Return what each process has for ``value``, in the order of their ranks."""
    if fabric.world_size == 1:
        return [value]
    values = [None] * fabric.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def checkpoint(fabric: Fabric, run: Run, detector: FastRCNN, optimizer: Optimizer, iteration: int) -> None:
    """Write all that the next iteration depends on."""
    randomness: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if fabric.device.type == "cuda":
        randomness["cuda"] = torch.cuda.get_rng_state(fabric.device)
    gathered = gather(fabric, randomness)
    if fabric.is_global_zero:
        save_checkpoint(
            run.checkpoint_file,
            {
                "iteration": iteration,
                "detector": detector.state_dict(),
                "optimizer": optimizer.state_dict(),
                "precision": fabric.strategy.precision.state_dict(),
                "randomness": gathered,
            },
        )
    fabric.barrier()


def restore(fabric: Fabric, run: Run, detector: FastRCNN, optimizer: Optimizer) -> int:
    """Go back to the state of the last checkpoint and return its iteration.

    Raises:
        UserError: the checkpoint is damaged, of another model, or of another number of processes.
    """
    state = load_checkpoint(run.checkpoint_file, "iteration", "detector", "optimizer", "precision", "randomness")
    if len(state["randomness"]) != fabric.world_size:
        raise UserError(
            f"was written by {len(state['randomness'])} processes, not {fabric.world_size}",
            file=run.checkpoint_file,
            fix="go on with as many devices and nodes",
        )
    fill(detector, state["detector"], run.checkpoint_file)
    optimizer.load_state_dict(state["optimizer"])
    fabric.strategy.precision.load_state_dict(state["precision"])
    randomness = state["randomness"][fabric.global_rank]
    torch.set_rng_state(randomness["cpu"])
    if fabric.device.type == "cuda":
        torch.cuda.set_rng_state(randomness["cuda"], fabric.device)
    return int(state["iteration"])


def measure_box_targets(detector: FastRCNN, dataset: DetectionDataset, use_difficult: bool) -> None:
    """Normalise box targets by their mean and deviation over the first training images' foreground proposals."""
    samples = []
    for image in range(min(IMAGES_MEASURED, len(dataset))):
        target = trainable(dataset.target(image), use_difficult)
        proposals, boxes = target["proposals"].as_subclass(Tensor), target["boxes"].as_subclass(Tensor)
        overlap, match = detector.sampler.match(proposals, boxes)
        foreground = overlap >= detector.sampler.foreground_iou
        samples.append(offsets(boxes[match[foreground]], proposals[foreground]))
    detector.box_coder.measure(samples)
