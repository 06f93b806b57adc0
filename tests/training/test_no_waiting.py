"""An update on an accelerator: the host reads nothing from the device, so that it never waits for it."""

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from afrcnn.adversaries.chain import Chain
from afrcnn.detectors.jitter import ProposalJitter
from afrcnn.detectors.roi_pooling import RoIAlign, RoIPool, RoIPoolV2
from afrcnn.recipe import ScheduleRecipe
from afrcnn.training.finite import FiniteGuard
from afrcnn.training.optimizer import build_optimizer
from afrcnn.training.pretraining import Pretraining
from afrcnn.training.step import step
from reference import random_boxes

CHAINS = {
    "baseline": (),
    "paper": ("asdn fc", "astn"),
    "release": ("asdn conv",),
    "occluding": ("asdn occluding", "astn"),
    "random": ("random",),
    "hard": ("hard",),
    "dropblock": ("dropblock",),
}


def loaded_batch(count=3):
    """Images and targets as the loader gives them, on the host; one image without objects."""
    images, targets = [], []
    for image in range(count):
        images.append(torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8))
        boxes = random_boxes(0 if image == 2 else 4)
        proposals = torch.cat([boxes, boxes + torch.tensor([0.0, 0, 3, 3]), random_boxes(20)])
        labels = torch.randint(1, 4, (len(boxes),))
        targets.append({"boxes": boxes, "labels": labels, "proposals": proposals, "adversarial": image > 0})
        targets[-1]["image_id"] = str(image)
    return images, targets


def trained_module(tiny, name, pooling, stage):
    chain = Chain(**{f"a{i}": tiny.adversary(kind, channels=128, size=7) for i, kind in enumerate(CHAINS[name])})
    detector = tiny.fast_rcnn()
    roi_heads = detector.roi_heads
    roi_heads.roi_pool = pooling(roi_heads.roi_pool.size, roi_heads.roi_pool.stride, roi_heads.roi_pool.offset)
    detector.train()
    if stage == "pretraining":
        return detector, Pretraining(dict(chain.items()), detector, 8)
    roi_heads.adversary = chain if CHAINS[name] else None
    roi_heads.jitter = ProposalJitter(0.2, 0.2, 10.0) if name == "baseline" else None
    roi_heads.perturb_background = name == "occluding"
    return detector, detector


def updates(module, detector, device, schedule, images, targets):
    """Two updates as the training loop makes them, between two lines of the log."""
    fabric = Fabric(accelerator="cpu" if device == "meta" else "cuda", devices=1)
    detector.to(device)
    module.to(device)
    model, optimizer = fabric.setup(module, build_optimizer(module, schedule), move_to_device=False)
    for group in optimizer.param_groups:
        group["fused"] = device != "meta"  # which has no fused update
    guard = FiniteGuard(None, "joint")
    assert module.targets_on_host
    if device != "meta":
        torch.cuda.set_sync_debug_mode("error")
    try:
        for iteration in range(2):
            moved = [image.to(device, non_blocking=True) for image in images]
            losses, _ = step(fabric, model, optimizer, (moved, targets), None)
            guard.watch(iteration, losses["loss"], targets)
            optimizer.step()
    finally:
        if device != "meta":
            torch.cuda.set_sync_debug_mode("default")
    return losses


@pytest.fixture
def schedule():
    return ScheduleRecipe(iterations=2, images_per_iteration=3)


@pytest.fixture
def meta(monkeypatch):
    """The name of the meta device, which has no autocast of its own."""
    autocast, enabled = torch.autocast, torch.is_autocast_enabled
    monkeypatch.setattr(
        torch, "autocast", lambda device, **kwargs: autocast("cpu" if device == "meta" else device, **kwargs)
    )
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device != "meta" and enabled(device))
    return "meta"


@pytest.mark.parametrize("pooling", [RoIAlign, RoIPool, RoIPoolV2])
@pytest.mark.parametrize("name", CHAINS)
def test_an_update_reads_no_number_from_a_device_that_has_none(name, pooling, tiny, schedule, meta):
    # Tensors of the meta device have a shape alone: whoever looks at a value, or at how many are true, gets an error.
    detector, module = trained_module(tiny, name, pooling, "joint")
    losses = updates(module, detector, meta, schedule, *loaded_batch())
    assert all(loss.device.type == "meta" for loss in losses.values())
    assert ("adversary" in losses) == bool(CHAINS[name])


@pytest.mark.parametrize("name", ["paper", "release", "occluding"])
def test_an_update_of_pretraining_reads_no_number_from_a_device_that_has_none(name, tiny, schedule, meta):
    detector, module = trained_module(tiny, name, RoIAlign, "pretraining")
    losses = updates(module, detector, meta, schedule, *loaded_batch())
    assert all(loss.device.type == "meta" for loss in losses.values())


def test_the_meta_device_refuses_what_would_wait():
    values = torch.zeros(3, device="meta")
    for look in (torch.Tensor.tolist, torch.Tensor.nonzero, lambda v: bool(v[0]), lambda v: v[v > 0], torch.Tensor.cpu):
        with pytest.raises((RuntimeError, NotImplementedError)):
            look(values)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("stage", ["joint", "pretraining"])
@pytest.mark.parametrize("name", ["paper", "release", "occluding"])
def test_no_update_waits_for_a_cuda_device(name, stage, tiny, schedule):
    detector, module = trained_module(tiny, name, RoIAlign, stage)
    updates(module, detector, "cuda", schedule, *loaded_batch())


def test_a_loss_is_looked_at_before_its_update_on_the_cpu_and_before_the_log_elsewhere():
    guard = FiniteGuard(None, "joint")
    guard.watch(1, nn.Parameter(torch.ones(())), [])
    assert not guard.unchecked
    guard.watch(2, torch.ones((), device="meta"), [])
    assert len(guard.unchecked) == 1
