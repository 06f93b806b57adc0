"""Detection in all images of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as F

from afrcnn.core.engine import _OneDevice, build_fabric, for_inference, in_every_process
from afrcnn.core.errors import UnreadableImageError
from afrcnn.core.evaluation_mode import evaluating
from afrcnn.core.image_warnings import warn_of
from afrcnn.core.progress import progress
from afrcnn.core.workers import batches, begin_loading
from afrcnn.data.target import DetectionDataset, Target
from afrcnn.evaluation.formats import Detection

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_Detector = Callable[..., list[Detection]]
"""A detector in evaluation: images, 3 x H x W, and perhaps their proposals, P x 4, to a dictionary each of ``boxes``
(D x 4, XYXY pixels), ``labels`` (D, 1..K) and ``scores`` (D)."""


def detect(
    detector: _Detector,
    dataset: DetectionDataset | Dataset[Any],
    *,
    fabric: Fabric | _OneDevice | None = None,
    workers: int = 2,
    leave_out: bool = False,
    quiet: bool = False,
) -> list[Detection]:
    """Detect objects in all images of a dataset, one by one.

    Where targets hold ``proposals``, the detector is called with the image (uint8) and its proposals; elsewhere with
    the image alone, as torchvision's detectors are (float32 in [0, 1]).

    Args:
        detector: a detector. A module works on Fabric's device in evaluation mode, and is left as it was given; any
            other callable is called with what is on the CPU.
        dataset: images (3 x H x W, uint8, RGB) and their targets.
        fabric: device, precision and processes (``build_fabric``), launched; this machine's, and one process, when
            None. Of several processes, which must all call this, each has a block of the images to itself.
        workers: processes that read images, for each that detects.
        leave_out: detect nothing in an image that cannot be decoded, with a warning (``ImageWarning``) which
            ``refusing`` makes an error; such an image is refused when False.
        quiet: show no progress, where another work shows its own.

    Returns:
        For each image, in order, ``boxes`` (D x 4), ``labels`` (D) and ``scores`` (D), on the CPU: in every process
        those of all images, with the bits of one process's.

    Raises:
        UserError: an image is at fault, in whichever process.
    """
    fabric = fabric or build_fabric()
    rank, size, count = fabric.global_rank, fabric.world_size, len(cast(Any, dataset))
    rows = range(rank * count // size, (rank + 1) * count // size)  # differ by one image at most, and may be none
    images = _Readable(cast(Any, dataset)) if leave_out else dataset
    work = partial(_detect_rows, detector, images, rows, fabric, workers, quiet or not fabric.is_global_zero)
    blocks = in_every_process(fabric, work)
    detections = list[Detection]()
    for detection in chain.from_iterable(blocks):
        if isinstance(detection, UnreadableImageError):
            warn_of(detection, left_out=True)
            detection = _nothing()  # noqa: PLW2901
        detections.append(detection)
    return detections


class _Readable(Dataset[Any]):
    """A dataset that gives the error of an image that cannot be decoded in its place."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except UnreadableImageError as error:
            return error


def _nothing() -> Detection:
    return {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}


def _detect_rows(
    detector: _Detector,
    dataset: DetectionDataset | Dataset[Any],
    rows: range,
    fabric: Fabric | _OneDevice,
    workers: int,
    quiet: bool,
) -> list[Detection | UnreadableImageError]:
    """Return the detections in some images of a dataset, by one process, or why there are none."""
    loader = DataLoader(
        cast(Any, dataset),
        batch_size=None,
        sampler=rows,
        num_workers=min(workers, len(rows)),
        collate_fn=cast(Any, _inputs),
        worker_init_fn=begin_loading,
        generator=torch.Generator(),
    )
    detections: list[Detection | UnreadableImageError] = []
    with (
        _on_device(detector, fabric) as (model, device),
        torch.inference_mode(),
        progress("detecting", len(rows), "image", quiet=quiet) as report,
    ):
        for inputs in batches(loader):
            if isinstance(inputs, UnreadableImageError):
                warn_of(inputs, left_out=True)  # here, so that it stops at once where it is refused
                detections.append(inputs)
            else:
                (detection,) = model(*([item.to(device)] for item in inputs))
                detections.append({name: detection[name].cpu() for name in ("boxes", "labels", "scores")})
            report(len(detections))
    return detections


def _inputs(sample: tuple[Tensor, Target] | UnreadableImageError) -> tuple[Tensor, ...] | UnreadableImageError:
    """Return what a detector is called with: the image, and its proposals where it has any."""
    if isinstance(sample, UnreadableImageError):
        return sample
    image, target = sample
    if "proposals" in target:
        return image.as_subclass(Tensor), target["proposals"].as_subclass(Tensor)
    return (F.to_dtype(image.as_subclass(Tensor), torch.float32, scale=True),)


@contextmanager
def _on_device(detector: _Detector, fabric: Fabric | _OneDevice) -> Iterator[tuple[_Detector, torch.device]]:
    """Put a module on Fabric's device and into evaluation mode for a block."""
    if not isinstance(detector, nn.Module):
        yield detector, torch.device("cpu")
        return
    device = next((tensor.device for tensor in detector.state_dict().values()), fabric.device)
    with evaluating(detector):
        try:
            yield for_inference(fabric, detector), fabric.device
        finally:
            detector.to(device)
