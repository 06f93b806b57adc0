"""Training: from a recipe to a trained detector in a run folder.

The loop knows no detector by name: it trains any module that returns a dictionary of losses, and logs its ``metrics``.
"""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from afrcnn.adversaries.chain import Chain
from afrcnn.build import arm, build_adversary, build_detector, initial_spec, pretrainable, verify
from afrcnn.core.distributed import in_any_process
from afrcnn.core.engine import build_training_fabric, in_first_process
from afrcnn.core.errors import UserError
from afrcnn.core.image_warnings import refusing
from afrcnn.core.interruption import Interrupted, Interruption
from afrcnn.core.lock import locked
from afrcnn.core.names import file_name
from afrcnn.core.progress import progress
from afrcnn.core.workers import batches, begin_loading
from afrcnn.data.inspection import announce
from afrcnn.data.target import DetectionDataset
from afrcnn.detectors.frozen_head import column_major
from afrcnn.detectors.rcnn import FastRCNN
from afrcnn.detectors.weights import load_strict, read_state_dict
from afrcnn.recipe import PretrainingRecipe, Recipe, dump_recipe
from afrcnn.run import Run, initial_weights, resolve
from afrcnn.training.checkpoint import (
    NAMES,
    load_checkpoint,
    restore_training,
    save_checkpoint,
    save_weights,
    training_state,
)
from afrcnn.training.finite import FiniteGuard
from afrcnn.training.images import open_training_images, open_validation_images
from afrcnn.training.left_out import LeftOut
from afrcnn.training.log import Log, mean_over_processes
from afrcnn.training.optimizer import build_optimizer, learning_rate
from afrcnn.training.pretraining import Pretraining
from afrcnn.training.samples import (
    Batch,
    BatchSampler,
    SampleSequence,
    SampleTransform,
    build_augmentation,
    collate,
    seed_of,
    trainable,
)
from afrcnn.training.stages import Stage, epochs_to_iterations, lengthen, plan_stages
from afrcnn.training.step import step
from afrcnn.training.validation import Validation

_RESUMES = "the same command goes on from there"

_IMAGES_MEASURED = 1000
"""Training images whose foreground proposals give the mean and deviation of box targets (MultiPathNet)."""


class _Training(NamedTuple):
    """What the stages of a training have in common; the arguments of ``train_stages``, and what they lead to."""

    fabric: Fabric
    recipe: Recipe
    run: Run
    dataset: DetectionDataset
    detector: nn.Module
    transform: SampleTransform | None
    left_out: LeftOut
    validation: Validation


def train_stages(
    recipe: Recipe,
    folder: Path | str,
    *,
    detector: nn.Module | None = None,
    transform: SampleTransform | None = None,
) -> Run:
    """Train the detector of a recipe, stage by stage; called again after an interruption, go on from the checkpoint.

    On the CPU with the same number of threads, an interrupted run ends with the same bits as one that was not. Another
    image is drawn in place of one that cannot be decoded, unless the recipe refuses it (``data.strict``); a warning
    (``ImageWarning``) at the end names each.

    Args:
        recipe: the experiment.
        folder: where everything about the run goes.
        detector: what to train, with the parameters of the recipe's; the recipe's own when None.
        transform: a further transform of each training sample (image, target), drawn from the sample's own seed.

    Returns:
        The run; its trained detector is ``load_detector(run)``.

    Raises:
        UserError: the recipe, the data or the folder is at fault, another process trains the same run, or a loss is not
            finite.
        Interrupted: Ctrl-C or SIGTERM came; a checkpoint is written first.
    """
    fabric = build_training_fabric(**asdict(recipe.engine))
    fabric.launch()
    run = Run(folder)
    with refusing(recipe.data.strict):
        dataset = open_training_images(recipe)
    recipe = resolve(replace(recipe, data=replace(recipe.data, classes=list(dataset.classes))))
    recipe = epochs_to_iterations(recipe, len(dataset))
    stages = plan_stages(recipe, fabric.world_size)
    verify(recipe, len(dataset.classes), "all")  # a mistake is told now, not hours later
    validated = open_validation_images(recipe, dataset)
    for name in (*dataset.classes, recipe.data.test_split):
        file_name(name)  # which the evaluation writes
    with ExitStack() as stack:
        stack.enter_context(refusing(recipe.data.strict))
        in_first_process(fabric, lambda: stack.enter_context(locked(run.folder, "trained")))
        saved = load_checkpoint(run.checkpoint_file, *NAMES) if run.checkpoint_file.is_file() else None
        torch.manual_seed(recipe.seed)  # every process builds the same detector
        detector = _initial_detector(recipe, dataset, detector, resumed=saved is not None)
        done = 0 if saved is None else int(saved["iteration"])
        in_first_process(fabric, lambda: lengthen(run, recipe, done))
        in_first_process(fabric, lambda: run.begin(recipe))
        if fabric.is_global_zero:
            announce(dataset, strict=recipe.data.strict)
            if validated is not None:
                announce(validated, "val", strict=recipe.data.strict)
        validation = Validation(fabric, recipe, validated, partial(_save_detector, run.best_file, recipe))
        if saved is not None and "validation" in saved:
            validation.restore(saved["validation"], run.checkpoint_file)
        left_out = LeftOut(run.left_out_file)
        training = _Training(fabric, recipe, run, dataset, detector, transform, left_out, validation)
        _run_stages(training, stages, saved)
        left_out.warn()
    return run


def _run_stages(training: _Training, stages: Sequence[Stage], saved: dict[str, Any] | None) -> None:
    """Run the stages, those before a checkpoint left out, and write the trained detector and its adversaries."""
    fabric, recipe, run, detector = training.fabric, training.recipe, training.run, training.detector
    done = 0 if saved is None else int(saved["iteration"])
    if done > stages[-1].last:
        problem = f"is of iteration {done}, and the recipe has {stages[-1].last}"
        raise UserError(problem, file=run.checkpoint_file, fix="delete it to train from the beginning")
    adversaries: Chain | None = None
    for stage in stages:
        # What a stage draws depends on the seed and the stage alone, not on what came before: a detector from another
        # run, by `init_from`, takes the place of the first stage without a difference.
        torch.manual_seed(seed_of(recipe.seed, stage.number))
        inside = saved if stage.first < done else None
        if stage.name != "detector" and adversaries is None and recipe.adversaries:
            adversaries = build_adversary(recipe, initial_spec(recipe, detector, resumed=inside is not None), "all")
        arm(recipe, detector, stage.name, adversaries)
        if done > stage.last:
            continue
        if inside is not None:
            load_strict(detector, inside["detector"], run.checkpoint_file)
        elif stage.name == "joint" and recipe.joint.new_box_layer and isinstance(detector, FastRCNN):
            detector.roi_heads.renew_box_layer()
        if done < stage.last and not training.validation.is_exhausted(stage):
            _run_stage(training, stage, adversaries, inside)
        if fabric.is_global_zero and stage.name == "detector" and len(stages) > 1:
            _save_detector(run.detector_file, recipe, detector)

    arm(recipe, detector, "detector", None)  # the plain detector again
    if fabric.is_global_zero:
        if adversaries is not None and adversaries.state_dict():
            save_weights(run.adversary_file, adversaries, {"adversaries": list(recipe.adversaries)})
        _save_detector(run.weights_file, recipe, detector, training.validation.score)
    fabric.barrier()


def _save_detector(file: Path, recipe: Recipe, detector: nn.Module, score: float | None = None) -> None:
    """Write a detector without its adversaries, and how it was made, so that the file is all that its use needs."""
    description = {"classes": recipe.data.classes, "score": score, "recipe": dump_recipe(recipe)}
    roi_heads = detector.roi_heads if isinstance(detector, FastRCNN) else None
    adversaries = None if roi_heads is None else roi_heads.adversary
    if roi_heads is not None:
        roi_heads.adversary = None
    try:
        save_weights(file, detector, description)
    finally:
        if roi_heads is not None:
            roi_heads.adversary = adversaries


def _initial_detector(
    recipe: Recipe, dataset: DetectionDataset, given: nn.Module | None, *, resumed: bool
) -> nn.Module:
    """Return the detector that a training begins with; where it goes on, a checkpoint has the weights.

    Raises:
        UserError: weights cannot be read, or are those of another detector.
    """
    source = None if recipe.init_from is None or resumed else initial_weights(recipe.init_from)
    pretrained = source is None and not resumed
    classes = len(dataset.classes)
    detector = given or build_detector(recipe.detector, classes, pretrained=pretrained, trust="all")
    if source is not None:
        load_strict(detector, read_state_dict(source), source)
    elif pretrained and recipe.detector.box_targets != "fixed" and isinstance(detector, FastRCNN):
        by_class = recipe.detector.box_targets == "by_class"
        images = range(len(dataset) if by_class else min(_IMAGES_MEASURED, len(dataset)))
        targets = (trainable(dataset.target(image), recipe.data.use_difficult) for image in images)
        detector.measure_box_targets(targets, mirrored=by_class and recipe.data.flip > 0)
    return detector


def _run_stage(training: _Training, stage: Stage, adversaries: Chain | None, saved: dict[str, Any] | None) -> None:
    """Run a stage to its end, from its beginning or from a checkpoint that was ``saved`` within it."""
    fabric, recipe, detector, schedule = training.fabric, training.recipe, training.detector, stage.schedule
    fabric.to_device(detector)
    detector.train()
    if isinstance(schedule, PretrainingRecipe) and adversaries is not None:
        module: nn.Module = Pretraining(pretrainable(adversaries), detector, schedule.foreground_per_image)
    else:
        module = detector
        for adversary in () if adversaries is None else adversaries.values():
            adversary.requires_grad_(not adversary.frozen)
    model, optimizer = fabric.setup(module, build_optimizer(module, schedule))

    # Every process draws its own RoIs and dropout masks.
    torch.manual_seed(seed_of(recipe.seed, stage.number, fabric.global_rank))
    done, unlogged = 0, dict[str, list[Tensor]]()
    if saved is not None:
        unlogged = restore_training(fabric, saved, optimizer, training.run.checkpoint_file)
        done = int(saved["iteration"]) - stage.first
    augments = stage.name in recipe.data.augmentation.stages
    augmentation = build_augmentation(recipe.data, training.dataset) if augments else []
    samples = SampleSequence(
        training.dataset,
        seed=seed_of(recipe.seed, stage.number),
        flip=recipe.data.flip,
        use_difficult=recipe.data.use_difficult,
        transform=training.transform,
        augmentation=v2.Compose(augmentation) if augmentation else None,
        perturbed=stage.perturbed * schedule.images_per_iteration,
        clean_fraction=recipe.joint.clean_fraction if stage.name == "joint" else 1.0,
        adversarial_first=recipe.joint.adversarial_first,
        eligible=detector.roi_heads.sampler.has_both_kinds
        if recipe.data.redraw and isinstance(detector, FastRCNN)
        else None,
        strict=recipe.data.strict,
    )
    images = schedule.images_per_iteration // fabric.world_size
    loader = DataLoader(
        samples,
        batch_sampler=BatchSampler(done, schedule.iterations, images, fabric.global_rank, fabric.world_size),
        num_workers=recipe.data.workers,
        collate_fn=collate,
        worker_init_fn=begin_loading,
        pin_memory=fabric.device.type == "cuda",
        generator=torch.Generator(),  # the loader's own, or it would draw from the one that is restored
    )
    # While the detector is frozen, the exhaustive search may have its first layer's weight as it reads it fastest.
    with column_major(module.head) if isinstance(module, Pretraining) else nullcontext():
        _fit(training, stage, model, optimizer, loader, done, unlogged)


def _fit(
    training: _Training,
    stage: Stage,
    model: _FabricModule,
    optimizer: Optimizer,
    loader: Iterable[Batch],
    start: int,
    unlogged: dict[str, list[Tensor]],
) -> None:
    """Make the updates of a stage after the first ``start``, or as many as there are until somebody interrupts.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; a checkpoint is written.
    """
    fabric, run, schedule, detector = training.fabric, training.run, stage.schedule, training.detector
    validation = training.validation
    log = Log(run.log_file, run.tensorboard, stage.first + start) if fabric.is_global_zero else None
    values, guard = defaultdict(list, unlogged), FiniteGuard(run, stage.section)
    began, since, quiet = time.monotonic(), start, not fabric.is_global_zero
    done, stopped = start, False
    with (
        Interruption(quiet) as interruption,
        progress(stage.name, schedule.iterations, "iteration", done=start, quiet=quiet) as report,
    ):
        for loaded in batches(loader, _RESUMES):
            done += 1
            rate = learning_rate(done - 1, schedule)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["rate_factor"]
            training.left_out.note(loaded[1])
            images, targets = _to_device(fabric, model, loaded)
            losses, metrics = step(fabric, model, optimizer, (images, targets), schedule.images_at_once)
            guard.watch(stage.first + done, losses["loss"], targets)
            optimizer.step()

            for name, value in [*losses.items(), *metrics]:
                values[name].append(value.detach())
            stopped = in_any_process(interruption.number > 0, fabric.device)
            ends = done == schedule.iterations
            measures = validation.is_due(stage, done)
            logs = done % schedule.log_every == 0 or ends or measures
            saves = done % schedule.checkpoint_every == 0 or ends or stopped or measures
            if logs or saves:
                training.left_out.share(fabric.is_global_zero)
                guard.check()
            if saves:
                guard.check_weights(stage.first + done, detector, targets)
            if logs:
                means = mean_over_processes(values)
                speed = (done - since) / (time.monotonic() - began)
                row = {"stage": stage.name, **means, "learning_rate": rate, "iterations_per_second": speed}
                row |= {"val_ap": validation.measure(detector, stage, done)} if measures else {}
                if log is not None:
                    log.write(stage.first + done, row)
                report(done, f"loss {means['loss']:.3f}")
                values, began, since = defaultdict(list), time.monotonic(), done
            if saves:
                state = training_state(fabric, stage.first + done, detector, optimizer, values)
                if fabric.is_global_zero:
                    save_checkpoint(run.checkpoint_file, state | {"validation": validation.state()})
                fabric.barrier()
            if stopped or validation.is_exhausted(stage):
                break
    if log is not None:
        log.close()
    if stopped:
        checkpoint = f"a checkpoint of iteration {done} of {schedule.iterations} of the stage {stage.name} is written"
        raise Interrupted(f"{checkpoint}; {_RESUMES}", interruption.number or signal.SIGINT)


def _to_device(fabric: Fabric, model: _FabricModule, batch: Batch) -> Batch:
    """Return a batch on the device; targets stay where they were read if the module says so."""
    images, targets = batch
    on_host = getattr(model.module, "targets_on_host", False)
    return fabric.to_device(images), targets if on_host else fabric.to_device(targets)
