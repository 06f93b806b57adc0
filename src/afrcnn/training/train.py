"""Training: from a recipe to a trained detector in a run folder."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from afrcnn.adversaries import Chain
from afrcnn.adversaries.window_search import stored_by_input
from afrcnn.core.engine import build_fabric
from afrcnn.core.errors import UserError
from afrcnn.core.progress import progress
from afrcnn.data.augmentation import CopyPaste, CutOut, RandomErasing
from afrcnn.data.target import DetectionDataset, Target
from afrcnn.detectors.attach import attach, detach, roi_head_of
from afrcnn.detectors.box_coding import offsets
from afrcnn.detectors.rcnn import FastRCNN
from afrcnn.detectors.weights import read_state_dict
from afrcnn.recipe import DataRecipe, PretrainingRecipe, Recipe, ScheduleRecipe, build_detector
from afrcnn.run import Run, initial_weights, open_split
from afrcnn.training.checkpoint import fill, load_checkpoint, save_checkpoint, save_weights
from afrcnn.training.log import Log
from afrcnn.training.pretraining import Pretraining, build_adversary, build_jitter, freeze, initial_head, learners
from afrcnn.training.samples import (
    Positions,
    SampleTransform,
    TrainableSamples,
    TrainingStream,
    seed_of,
    trainable,
)
from afrcnn.training.stages import Stage, stages

Batch = tuple[list[Tensor], list[Target]]

CHECKPOINT = ("iteration", "detector", "optimizer", "precision", "randomness")
"""What a checkpoint holds."""

IMAGES_MEASURED = 1000
"""Training images whose foreground proposals give the mean and deviation of box targets (MultiPathNet)."""


def train(recipe: Recipe, folder: Path | str, *, transform: SampleTransform | None = None) -> Run:
    """Train the detector of a recipe, stage by stage; called again after an interruption, go on from the checkpoint.

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
    fabric = build_fabric(**asdict(recipe.engine))
    fabric.launch()
    run, ahead = Run(folder), stages(recipe)
    for stage in ahead:
        if stage.schedule.images_per_iteration % fabric.world_size:
            raise UserError(
                f"{stage.schedule.images_per_iteration} cannot be shared by {fabric.world_size} processes",
                field=f"{stage.section}.images_per_iteration",
                fix=f"use a multiple of {fabric.world_size}",
            )

    dataset = open_split(recipe, recipe.data.train_split)
    recipe = replace(recipe, data=replace(recipe.data, classes=list(dataset.classes)))
    torch.manual_seed(recipe.seed)  # every process builds the same detector
    detector = begin(recipe, dataset)
    if fabric.is_global_zero:
        run.begin(recipe)
    fabric.barrier()

    description = {"backbone": recipe.detector.backbone, "classes": recipe.data.classes}
    saved = load_checkpoint(run.checkpoint_file, *CHECKPOINT) if run.checkpoint_file.is_file() else None
    done = 0 if saved is None else int(saved["iteration"])
    for stage in ahead:
        # What a stage draws depends on the seed and the stage alone, not on what came before: a detector from another
        # run, by `init_from`, takes the place of the first stage without a difference.
        torch.manual_seed(seed_of(recipe.seed, stage.number))
        if stage.name != "detector" and detector.seam is None and detector.jitter is None:
            meet(recipe, detector)
        if done > stage.last:
            continue
        inside = saved if stage.first < done else None
        if inside is not None:
            fill(detector, inside["detector"], run.checkpoint_file)
        if done < stage.last:
            run_stage(fabric, stage, detector, dataset, recipe, run, inside, transform)
        if fabric.is_global_zero and stage.name == "detector" and len(ahead) > 1:
            save_weights(run.stage_one_file, detector, description)

    if fabric.is_global_zero:
        adversary = None if detector.seam is None else detach(detector)
        if adversary is not None and adversary.state_dict():
            save_weights(run.adversary_file, adversary, {"chain": recipe.adversary.chain})
        detector.jitter = None
        save_weights(run.weights_file, detector, description)
    fabric.barrier()
    return run


def begin(recipe: Recipe, dataset: DetectionDataset) -> FastRCNN:
    """Return the detector that a training begins with, after the adversaries' fields were found to be right.

    Raises:
        UserError: weights cannot be read, or are those of another detector; an adversary cannot be built.
    """
    source = None if recipe.init_from is None else initial_weights(recipe.init_from)
    detector = build_detector(recipe.detector, len(dataset.classes), pretrained=source is None)
    if source is not None:
        fill(detector, read_state_dict(source), source)
    elif recipe.detector.box_targets == "measured":
        measure_box_targets(detector, dataset, recipe.data.use_difficult)
    if recipe.adversary.chain:
        adversary = build_adversary(recipe.adversary, roi_head_of(detector))  # a mistake is told now, not hours later
        if recipe.pretraining.iterations:
            learners(recipe.adversary, adversary)
    return detector


def meet(recipe: Recipe, detector: FastRCNN) -> None:
    """Give a detector what a recipe says that it competes with."""
    detector.jitter = build_jitter(recipe.adversary)
    if recipe.adversary.chain:
        adversary = build_adversary(recipe.adversary, initial_head(recipe.detector, detector))
        attach(detector, adversary, recipe.adversary.clean_fraction, recipe.adversary.least_iou)


def build_augmentation(recipe: DataRecipe, dataset: DetectionDataset) -> list[SampleTransform]:
    """Return what hides objects in training images, in the order in which a recipe's probabilities are drawn."""
    ours, samples = recipe.augmentation, TrainableSamples(dataset, recipe.use_difficult)
    return [
        *([v2.RandomApply([CopyPaste(samples, recipe.flip)], ours.copy_paste)] if ours.copy_paste else []),
        *([v2.RandomApply([CutOut(ours.cutout_share)], ours.cutout)] if ours.cutout else []),
        *([RandomErasing(ours.random_erasing)] if ours.random_erasing else []),
    ]


def run_stage(
    fabric: Fabric,
    stage: Stage,
    detector: FastRCNN,
    dataset: DetectionDataset,
    recipe: Recipe,
    run: Run,
    saved: dict[str, Any] | None,
    transform: SampleTransform | None,
) -> None:
    """Run a stage to its end, from its beginning or from a checkpoint that was ``saved`` within it."""
    schedule, module = stage.schedule, cast(nn.Module, detector)
    if isinstance(schedule, PretrainingRecipe):
        assert detector.seam is not None
        adversaries = learners(recipe.adversary, cast(Chain, detector.seam.adversary))
        module = Pretraining(adversaries, detector, schedule.foreground_per_image)
    elif detector.seam is not None:
        freeze(recipe.adversary, cast(Chain, detector.seam.adversary))
    detector.ohem = stage.section in recipe.detector.ohem
    augmentation = build_augmentation(recipe.data, dataset) if stage.section in recipe.data.augmentation.stages else []
    fabric.to_device(detector)
    detector.train()
    factors = {
        "asdn": recipe.adversary.asdn.learning_rate_factor,
        "astn": recipe.adversary.astn.learning_rate_factor,
    }
    optimizer = build_optimizer(module, schedule, factors)
    model, optimizer = fabric.setup(module, optimizer)

    # Every process draws its own RoIs and dropout masks.
    torch.manual_seed(seed_of(recipe.seed, stage.number, fabric.global_rank))
    done = 0 if saved is None else restore(fabric, run, saved, optimizer) - stage.first
    stream = TrainingStream(
        dataset,
        seed=seed_of(recipe.seed, stage.number),
        flip=recipe.data.flip,
        use_difficult=recipe.data.use_difficult,
        transform=transform,
        augmentation=v2.Compose(augmentation) if augmentation else None,
        augmented=stage.perturbed * schedule.images_per_iteration,
    )
    images = schedule.images_per_iteration // fabric.world_size
    loader = fabric.setup_dataloaders(
        DataLoader(
            stream,
            batch_sampler=Positions(done, schedule.iterations, images, fabric.global_rank, fabric.world_size),
            num_workers=recipe.data.workers,
            collate_fn=collate,
            pin_memory=fabric.device.type == "cuda",
            generator=torch.Generator(),  # the loader's own, or it would draw from the stream that is restored
        ),
        use_distributed_sampler=False,
    )
    # While the detector is frozen, the exhaustive search may have its first layer's weight as it reads it fastest.
    with stored_by_input(detector.detached_head()) if stage.name == "pretraining" else nullcontext():
        fit(fabric, stage, model, detector, optimizer, cast(Iterable[Batch], loader), run, done)


def fit(
    fabric: Fabric,
    stage: Stage,
    model: _FabricModule,
    detector: FastRCNN,
    optimizer: Optimizer,
    loader: Iterable[Batch],
    run: Run,
    start: int,
) -> None:
    """Make the updates of a stage after the first ``start``."""
    schedule, first = stage.schedule, fabric.is_global_zero
    log = Log(run.log_file, run.tensorboard, stage.first + start) if first else None
    values: dict[str, list[Tensor]] = defaultdict(list)
    began, since = time.monotonic(), start
    with progress(stage.label, schedule.iterations, "iteration", done=start, quiet=not first) as report:
        for done, batch in enumerate(loader, start=start + 1):
            detector.rest(done > stage.perturbed)
            rate = learning_rate(done - 1, schedule)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["rate_factor"]
            losses, hardness = accumulate(fabric, model, optimizer, batch, schedule.images_at_once)
            what = f"the loss of iteration {stage.first + done} is"
            refuse_not_finite(fabric, losses["loss"], what, batch[1], run, stage)
            optimizer.step()

            for name, value in [*losses.items(), *hardness]:
                values[name].append(value.detach())
            if done % schedule.log_every == 0 or done == schedule.iterations:
                means = mean_over_processes(fabric, values)
                speed = (done - since) / (time.monotonic() - began)
                if log is not None:
                    row = {"stage": stage.name, **means, "learning_rate": rate, "iterations_per_second": speed}
                    log.write(stage.first + done, row)
                report(done, f"loss {means['loss']:.3f}")
                values, began, since = defaultdict(list), time.monotonic(), done
            if done % schedule.checkpoint_every == 0 or done == schedule.iterations:
                norm = nn.utils.get_total_norm(detector.parameters())
                what = f"the weights after iteration {stage.first + done} are"
                refuse_not_finite(fabric, norm, what, batch[1], run, stage)
                checkpoint(fabric, run, detector, optimizer, stage.first + done)
    if log is not None:
        log.close()


def accumulate(
    fabric: Fabric, model: _FabricModule, optimizer: Optimizer, batch: Batch, images_at_once: int | None
) -> tuple[dict[str, Tensor], list[tuple[str, Tensor]]]:
    """Compute the gradients of a batch, some images at a time.

    A loss is a mean over the RoIs of a part, and counts by the part's share of the images, as Caffe's ``iter_size``
    has it; an adversary's, which only adversarial images have, by the share of these. Where images give as many RoIs,
    that is the mean over the RoIs of all.

    Returns:
        The losses: ``loss``, the sum that was differentiated, and what it is made of. And what the adversary measured,
        part by part.
    """
    images, targets = batch
    size = images_at_once or len(images)
    seam = model.module.seam if isinstance(model.module, FastRCNN) else None
    adversarial = 0 if seam is None else seam.adversarial.ahead(len(images))
    losses: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=fabric.device))
    hardness: list[tuple[str, Tensor]] = []
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        share = len(images[part]) / len(images)
        shares = {} if seam is None else {"adversary": seam.adversarial.ahead(len(images[part])) / max(adversarial, 1)}
        with fabric.no_backward_sync(model, enabled=start + size < len(images)):
            own = model(images[part], [target["proposals"] for target in targets[part]], targets[part])
            own = {name: loss * shares.get(name, share) for name, loss in own.items()}
            own["loss"] = torch.stack(list(own.values())).sum()
            if start == 0:  # not before: the old gradients' memory goes from hand to hand
                optimizer.zero_grad()
            fabric.backward(own["loss"])
        for name, value in own.items():
            losses[name] = losses[name] + value.detach()
        hardness += metrics(model.module).items()
    return losses, hardness


def mean_over_processes(fabric: Fabric, values: Mapping[str, Sequence[Tensor]]) -> dict[str, float]:
    """Return the mean by name of what all processes have; some may have nothing under a name."""
    parts = gather(fabric, {name: torch.stack(list(items)).tolist() for name, items in values.items()})
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: fmean(chain.from_iterable(part.get(name, []) for part in parts)) for name in names}


def learning_rate(iteration: int, schedule: ScheduleRecipe) -> float:
    """Return the learning rate of weights at an iteration (0, 1, ...): linear warm-up, then steps (section 5.1)."""
    warmup = min(1.0, (iteration + 1) / (schedule.warmup_iterations + 1))
    decays = bisect_right(sorted(schedule.decay_at), iteration)
    return float(schedule.learning_rate * warmup * schedule.decay_factor**decays)


def build_optimizer(module: nn.Module, schedule: ScheduleRecipe, factors: Mapping[str, float] | None = None) -> SGD:
    """Return SGD over a module's trainable parameters, biases with their own learning rate and weight decay.

    Each group's ``rate_factor`` is what the learning rate of the schedule is multiplied by: for parameters of an
    adversary that ``factors`` names, also by its factor.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = defaultdict(list)
    for name, value in module.named_parameters():
        if value.requires_grad:
            factor = next((own for adversary, own in (factors or {}).items() if f".{adversary}." in name), 1.0)
            groups[factor, name.endswith("bias")].append(value)
    parameters = [
        {
            "params": values,
            "weight_decay": schedule.bias_weight_decay if is_bias else schedule.weight_decay,
            "rate_factor": factor * (schedule.bias_learning_rate_factor if is_bias else 1.0),
        }
        for (factor, is_bias), values in groups.items()
    ]
    return SGD(parameters, lr=schedule.learning_rate, momentum=schedule.momentum, fused=True)


def metrics(module: nn.Module) -> dict[str, Tensor]:
    """Return what the adversary of a stage measured in its last update: how hard it is."""
    measured = module.seam if isinstance(module, FastRCNN) else cast(Pretraining, module)
    return {} if measured is None else measured.metrics


def collate(samples: Sequence[tuple[tv_tensors.Image, Target]]) -> Batch:
    """Put samples of different sizes into lists."""
    images, targets = zip(*samples, strict=True)
    return [image.as_subclass(Tensor) for image in images], list(targets)


def refuse_not_finite(
    fabric: Fabric, value: Tensor, what: str, targets: Sequence[Target], run: Run, stage: Stage
) -> None:
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
            field=f"{stage.section}.learning_rate",
            fix=f"lower it, or add {stage.section}.warmup_iterations",
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


def restore(fabric: Fabric, run: Run, saved: dict[str, Any], optimizer: Optimizer) -> int:
    """Bring optimiser and random numbers to where a checkpoint was saved, and return its iteration.

    Raises:
        UserError: the checkpoint is of another number of processes.
    """
    if len(saved["randomness"]) != fabric.world_size:
        raise UserError(
            f"was written by {len(saved['randomness'])} processes, not {fabric.world_size}",
            file=run.checkpoint_file,
            fix="go on with as many devices and nodes",
        )
    optimizer.load_state_dict(saved["optimizer"])
    fabric.strategy.precision.load_state_dict(saved["precision"])
    randomness = saved["randomness"][fabric.global_rank]
    torch.set_rng_state(randomness["cpu"])
    if fabric.device.type == "cuda":
        torch.cuda.set_rng_state(randomness["cuda"], fabric.device)
    return int(saved["iteration"])


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
