"""What adversaries do to an object, as numbers: windows, scores, heatmaps, masks and angles (figure 3 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import box_iou

from afrcnn.adversaries.base import AdversaryOutput, Context, Head
from afrcnn.adversaries.chain import Chain
from afrcnn.adversaries.window_search import WindowSearch

_GRID = 5
"""Windows along a side of the grid from which an image's background is taken."""

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of an image, half-open, from 0."""


@dataclass(frozen=True)
class TraceStep:
    """What one adversary of a chain did to an object, as those before it had left it.

    Attributes:
        adversary: its name in the chain.
        score: the score of the object's class after it, in [0, 1].
        heatmap: where ASDN expects that occlusion hurts, d x d values in [0, 1]; None of other adversaries.
        mask: the cells it occluded, d x d; None of adversaries that occlude nothing.
        angles: by how many degrees ASTN rotated each block of channels, clockwise; None of other adversaries.
    """

    adversary: str
    score: float
    heatmap: list[list[float]] | None
    mask: list[list[bool]] | None
    angles: list[float] | None


@dataclass(frozen=True)
class ObjectTrace:
    """One object of an image, and what the adversaries made of it.

    Attributes:
        name: its class.
        box: where it is; the d x d cells of heatmaps and masks divide it evenly, row by row from its upper left.
        score: the score of its class, in [0, 1], before any adversary. It is that of this very box, classified anew; a
            detection's own score is that of the proposal that became the box.
        steps: the adversaries, in their order.
    """

    name: str
    box: Box
    score: float
    steps: tuple[TraceStep, ...]


@dataclass(frozen=True)
class SearchTrace:
    """One object of an image, and the windows that the exhaustive search hides in turn (figure 3a).

    Attributes:
        name: its class.
        box: where it is; its d x d cells divide it evenly.
        loss: the detector's classification loss with nothing hidden.
        windows: by window, first row, first column, height and width in cells.
        losses: by window, the loss with it hidden.
        hardest: the number of the window with the highest, which becomes ASDN's target.
        size: d.
    """

    name: str
    box: Box
    loss: float
    windows: tuple[tuple[int, int, int, int], ...]
    losses: tuple[float, ...]
    hardest: int
    size: int


class _TraceableDetector(Protocol):
    """A detector whose RoI features and classifier adversaries can be tried on, as ``FastRCNN``."""

    def pool(self, images: Sequence[Tensor], rois: Sequence[Tensor]) -> Tensor:
        """Return the features n x C x d x d of RoIs (n_i x 4, XYXY pixels of their image, n in all)."""

    def frozen_head(self) -> Head:
        """Return the classifier as an adversary sees it."""


def trace_objects(
    detector: _TraceableDetector,
    chain: Chain,
    image: Tensor,
    objects: Mapping[str, Tensor],
    classes: Sequence[str],
    seed: int,
) -> tuple[ObjectTrace, ...]:
    """Follow objects of one image through a chain of adversaries.

    Occluders are cut from the image itself: its other objects, and windows that touch none.

    Args:
        detector: a trained detector, in evaluation mode.
        chain: adversaries for it, on its device, in evaluation mode.
        image: 3 x H x W, uint8, RGB, on the detector's device.
        objects: ``boxes`` n x 4 (XYXY, pixels) and ``labels`` n (1..K).
        classes: names of the classes 1..K.
        seed: of what is random; the same seed gives the same masks, whatever was drawn before.
    """
    boxes, labels = objects["boxes"].to(image.device), objects["labels"].to(image.device)
    background = _background_windows(boxes, image.shape[-2:])
    with torch.no_grad():
        pooled = detector.pool([image], [torch.cat([boxes, background])])  # (n + m) x C x d x d
    context = Context(pooled, torch.cat([labels, labels.new_zeros(len(background))]))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        scores, steps = _trace(chain, pooled[: len(boxes)], labels, detector.frozen_head(), context)
    names = [classes[label - 1] for label in labels.tolist()]
    return tuple(map(ObjectTrace, names, map(tuple, boxes.tolist()), scores, steps))


@torch.no_grad()
def trace_search(
    detector: _TraceableDetector,
    search: WindowSearch,
    image: Tensor,
    objects: Mapping[str, Tensor],
    classes: Sequence[str],
) -> tuple[SearchTrace, ...]:
    """Return what the exhaustive search looks at for objects of an image; arguments as of :func:`trace_objects`."""
    boxes, labels = objects["boxes"].to(image.device), objects["labels"].to(image.device)
    features, head = detector.pool([image], [boxes]), detector.frozen_head()  # n x C x d x d
    masks = search.masks.to(image.device)  # W x d x d
    windows = []
    for mask in masks:
        rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
        windows.append((int(rows[0]), int(columns[0]), len(rows), len(columns)))
    before = head.losses(features, labels).tolist()
    losses = head.losses_without(features, labels, masks)  # n x W
    hardest = losses.argmax(dim=1).tolist() if len(labels) else []
    return tuple(
        SearchTrace(classes[label - 1], tuple(box), loss, tuple(windows), tuple(by_window), best, masks.shape[-1])
        for label, box, loss, by_window, best in zip(
            labels.tolist(), boxes.tolist(), before, losses.tolist(), hardest, strict=True
        )
    )


def _trace(
    chain: Chain, features: Tensor, labels: Tensor, head: Head, context: Context | None = None
) -> tuple[list[float], list[tuple[TraceStep, ...]]]:
    """Follow RoI features of objects through a chain of adversaries.

    Args:
        chain: the adversaries, on the features' device, in evaluation mode.
        features: n x C x d x d, RoI features of objects.
        labels: n, int64, 1..K.
        head: the detector's classifier.
        context: what occluders are made of; the objects themselves when None.

    Returns:
        The score of each object's class before any adversary, and for each object the steps of the chain.
    """
    before, nothing = head.scores(features.detach(), labels).tolist(), [None] * len(labels)
    steps: list[tuple[TraceStep, ...]] = [()] * len(labels)
    for name, adversary in chain.items():
        clean = features.detach().requires_grad_()
        # A copy, as in training: an adversary may work in place.
        output: AdversaryOutput = adversary(clean.clone(), labels, head, context)
        features = output.features
        after = head.scores(features.detach(), labels).tolist()
        explained = {key: value.tolist() for key, value in adversary.explain(clean).items()}
        heatmaps, angles = (explained.get(key, nothing) for key in ("heatmap", "angles"))
        columns = zip(after, heatmaps, _occluded_cells(clean, features) or nothing, angles, strict=True)
        steps = [(*earlier, TraceStep(name, *values)) for earlier, values in zip(steps, columns, strict=True)]
    return before, steps


def _occluded_cells(clean: Tensor, perturbed: Tensor) -> list[list[list[bool]]] | None:
    """Return the cells (n x d x d) of features that no perturbed feature depends on; None where there are none.

    The contract of an adversary makes its features differentiable in those given: an occluded cell is one whose
    gradient is zero. That finds the masks of any adversary, also of one that nobody here knows.

    Args:
        clean: n x C x d x d, which requires a gradient.
        perturbed: what an adversary made of it.
    """
    if not perturbed.requires_grad:
        return None
    (gradient,) = torch.autograd.grad(perturbed, clean, torch.randn_like(perturbed), materialize_grads=True)
    occluded = (gradient == 0).all(dim=1)  # n x d x d
    return occluded.tolist() if occluded.any() else None


def _background_windows(objects: Tensor, size: Sequence[int]) -> Tensor:
    """Return windows (m x 4, XYXY) of an image, of a regular grid, that touch none of its objects (n x 4).

    They stand for the background RoIs of a training, which may occlude objects. There may be none.

    Args:
        objects: boxes.
        size: height and width of the image in pixels.
    """
    rows, columns = (torch.arange(_GRID, device=objects.device) / _GRID for _ in size)
    y, x = torch.meshgrid(rows * size[0], columns * size[1], indexing="ij")
    corner = torch.stack([x.flatten(), y.flatten()], dim=1)
    windows = torch.cat([corner, corner + corner.new_tensor([size[1] / _GRID, size[0] / _GRID])], dim=1)
    return windows[(box_iou(windows, objects) == 0).all(dim=1)]
