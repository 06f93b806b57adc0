"""Detection in all images of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as F

from afrcnn.core.engine import build_fabric
from afrcnn.core.evaluation_mode import evaluating
from afrcnn.core.progress import progress
from afrcnn.core.workers import batches, begin_loading
from afrcnn.data.target import DetectionDataset, Target
from afrcnn.evaluation.formats import Detection

_Detector = Callable[..., list[Detection]]
"""A detector in evaluation: images, 3 x H x W, and perhaps their proposals, P x 4, to a dictionary each of ``boxes``
(D x 4, XYXY pixels), ``labels`` (D, 1..K) and ``scores`` (D)."""


def detect(
    detector: _Detector, dataset: DetectionDataset | Dataset[Any], *, fabric: Fabric | None = None, workers: int = 2
) -> list[Detection]:
    """Detect objects in all images of a dataset, one by one.

    Where targets hold ``proposals``, the detector is called with the image (uint8) and its proposals; elsewhere with
    the image alone, as torchvision's detectors are (float32 in [0, 1]).

    Args:
        detector: a detector. A module works on Fabric's device in evaluation mode, and is left as it was given; any
            other callable is called with what is on the CPU.
        dataset: images (3 x H x W, uint8, RGB) and their targets.
        fabric: device and precision (``build_fabric``), with one process; this machine's when None.
        workers: processes that read images.

    Returns:
        For each image, in order, ``boxes`` (D x 4), ``labels`` (D) and ``scores`` (D), on the CPU.
    """
    images = cast(Any, dataset)
    loader = DataLoader(
        images,
        batch_size=None,
        num_workers=workers,
        collate_fn=cast(Any, _inputs),
        worker_init_fn=begin_loading,
        generator=torch.Generator(),
    )
    detections: list[Detection] = []
    with (
        _on_device(detector, fabric) as (model, device),
        torch.inference_mode(),
        progress("detecting", len(images), "image") as report,
    ):
        for inputs in batches(loader):
            (detection,) = model(*([item.to(device)] for item in inputs))
            detections.append({name: detection[name].cpu() for name in ("boxes", "labels", "scores")})
            report(len(detections))
    return detections


def _inputs(sample: tuple[Tensor, Target]) -> tuple[Tensor, ...]:
    """Return what a detector is called with: the image, and its proposals where it has any."""
    image, target = sample
    if "proposals" in target:
        return image.as_subclass(Tensor), target["proposals"].as_subclass(Tensor)
    return (F.to_dtype(image.as_subclass(Tensor), torch.float32, scale=True),)


@contextmanager
def _on_device(detector: _Detector, fabric: Fabric | None) -> Iterator[tuple[_Detector, torch.device]]:
    """Put a module on Fabric's device and into evaluation mode for a block."""
    if not isinstance(detector, nn.Module):
        yield detector, torch.device("cpu")
        return
    fabric = fabric or build_fabric()
    device = next((tensor.device for tensor in detector.state_dict().values()), fabric.device)
    with evaluating(detector):
        try:
            yield fabric.setup(detector), fabric.device
        finally:
            detector.to(device)
