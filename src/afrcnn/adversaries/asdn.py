"""ASDN, the adversarial spatial dropout network (section 4.2.1): it learns which cells of an object to hide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afrcnn.adversaries.base import (
    Adversary,
    AdversaryOutput,
    BoxHeadCopy,
    BoxHeadSpec,
    Context,
    Head,
    mean_loss,
    mean_metrics,
    score_drop,
)
from afrcnn.adversaries.mask_sampling import Mask, build_sampling
from afrcnn.adversaries.occluder import Occluder, hide
from afrcnn.adversaries.window_search import WindowSearch


class ASDN(Adversary):
    """Predicts, from an object's features, where hiding them makes the detector fail.

    In joint training (``forward``), the features lose the cells of a sampled mask; those masks that lowered the true
    class's score much become the targets, and the others give no gradient (the paper's turn on REINFORCE). In
    pre-training (``pretrain``), against a frozen detector, the target is the window whose hiding costs the detector
    most, found by exhaustive search, and the features stay as they are. Both learn by binary cross entropy (equation
    1): a sum over the cells, and a mean over the n masks that are learned from.

    Args:
        spec: what the network's layers are made from, and the shape of the RoI features.
        network: the paper's, layers as fc6 and fc7 and one more, or the Caffe release's five convolutions.
        window: cells on a side of the windows of pre-training; a third of d, rounded, when None.
        stride: cells between two windows.
        negatives: the fraction of the cells outside the window that give a gradient in pre-training (1 in the paper;
            0.4 is what the release means, and 1 is what its code does).
        mask: what is hidden in joint training: single cells, as in the paper, or a window.
        top: the fraction of the cells, or of a window's places, those with the highest values, that may be hidden.
        fraction: of all cells, those that are hidden; of a window, also the smallest and the largest fraction.
        occluder: what takes the place of hidden cells: zeros, as in the paper, or other RoIs' features.
        threshold: the smallest drop of the true class's score, in [0, 1], that makes a mask a target.
        averaged_over: n of equation 1 in joint training: the hard masks alone, as the paper's words have it, all
            objects, or, as in the release, all RoIs of the update; with the last, both losses are means over the cells.
        weight: a factor of the joint loss (1 in the paper, 0.0025 in the release).

    Raises:
        ValueError: an argument is out of its range.
    """

    pretrainable = True

    def __init__(
        self,
        spec: BoxHeadSpec,
        *,
        network: Literal["fully_connected", "convolutional"] = "fully_connected",
        window: int | None = None,
        stride: int = 1,
        negatives: float = 1.0,
        mask: Mask = "cells",
        top: float = 1 / 2,
        fraction: float | Sequence[float] = 1 / 3,
        occluder: Occluder = "zeros",
        threshold: float = 0.1,
        averaged_over: Literal["hard_masks", "objects", "rois"] = "hard_masks",
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.search = WindowSearch(spec.size, window, stride)
        networks = {"fully_connected": FullyConnectedASDN, "convolutional": ConvolutionalASDN}
        self.network: nn.Module = networks[network](spec)
        self.sampling, self.occluder = build_sampling(mask, fraction, top), occluder
        self.threshold, self.negatives = threshold, negatives
        self.averaged_over, self.weight = averaged_over, weight
        self.cells = spec.size**2 if averaged_over == "rois" else 1

    def forward(self, features: Tensor, labels: Tensor, head: Head, context: Context | None = None) -> AdversaryOutput:
        """Hide cells of features (n x C x d x d), and learn from the masks that were hard; see ``Adversary``."""
        logits = self.network(features.detach())  # n x d x d
        mask = self.sampling(logits.detach())
        hidden = hide(features, labels, mask, self.occluder, context)
        drop = score_drop(features, hidden, labels, head)
        hard = drop > self.threshold
        losses = _binary_cross_entropy(logits, mask, hard[:, None, None]) * (self.weight / self.cells)
        rois = len(labels if context is None else context.labels)
        counts: dict[str, int | Tensor] = {"hard_masks": hard.sum(), "objects": len(labels), "rois": rois}
        loss = mean_loss(losses, counts[self.averaged_over])
        return AdversaryOutput(hidden, loss, mean_metrics(score_drop=drop, hard_masks=hard.float()))

    def pretrain(self, features: Tensor, labels: Tensor, head: Head) -> AdversaryOutput:
        """Learn to predict the hardest window of features (n x C x d x d), which stay as they are."""
        logits = self.network(features.detach())
        target, losses = self.search(features, labels, head)
        counted = target | (torch.rand(target.shape, device=target.device) < self.negatives)
        loss = mean_loss(_binary_cross_entropy(logits, target, counted) / self.cells)
        return AdversaryOutput(features, loss, mean_metrics(hardest_window_loss=losses))

    @torch.no_grad()
    def explain(self, features: Tensor) -> dict[str, Tensor]:
        """Return the heatmap (n x d x d, in [0, 1]) of features n x C x d x d."""
        return {"heatmap": self.network(features).sigmoid()}


def _binary_cross_entropy(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Return the sum of equation 1, the binary cross entropy over the cells that count, for each object (n).

    Args:
        logits: n x d x d.
        target: n x d x d, bool.
        counted: broadcasts to n x d x d, bool; the other cells give no gradient.
    """
    losses = F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
    return (losses * counted).sum(dim=(1, 2))


class FullyConnectedASDN(nn.Module):
    """The paper's network: layers as the box head has (fc6 and fc7), and one more that gives a logit a cell.

    Args:
        spec: of the ImageNet network's box head, or the detector's own; its layers are copied, never shared.
    """

    def __init__(self, spec: BoxHeadSpec) -> None:
        super().__init__()
        self.head = BoxHeadCopy(spec.layers)
        self.mask = nn.Linear(spec.features, spec.size**2)
        self.size = spec.size
        nn.init.normal_(self.mask.weight, std=0.01)
        nn.init.zeros_(self.mask.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits n x d x d of features n x C x d x d."""
        logits: Tensor = self.mask(self.head(features))
        return logits.view(-1, self.size, self.size)


class ConvolutionalASDN(nn.Sequential):
    """The Caffe release's network: four 3 x 3 convolutions with ReLU, and one to a single channel.

    Args:
        spec: whose channels are C of the features.
        width: channels of the layers between (256 in the release).
    """

    def __init__(self, spec: BoxHeadSpec, width: int = 256) -> None:
        layers: list[nn.Module] = []
        for inputs in (spec.channels, width, width, width):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Conv2d(width, 1, 3, padding=1), nn.Flatten(1, 2))
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                # "msra", as the release's pre-training begins; the Gaussian of its joint stage is never used.
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
