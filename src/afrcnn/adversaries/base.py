"""The contract between a detector and an adversary (section 3).

In training, between RoI pooling and the box head, an adversary is given the RoI features of foreground proposals, their
labels, and the detector's own classifier to try itself against. It returns harder features of the same shape, with
which the detector is trained, and its own loss. Two invariants hold: the detector's loss gives the adversary no
gradient, and the adversary's loss gives the detector none.
"""

from __future__ import annotations

from abc import abstractmethod
from copy import deepcopy
from fractions import Fraction
from math import ceil
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from afrcnn.core.distributed import mean_count


class AdversaryOutput(NamedTuple):
    """What an adversary returns.

    Attributes:
        features: n x C x d x d, harder; differentiable in the features given, not in the adversary's parameters.
        loss: scalar, the adversary's own loss; differentiable in its parameters alone.
        metrics: numbers for the log that say how hard it is, without gradient.
    """

    features: Tensor
    loss: Tensor
    metrics: dict[str, Tensor]


class Context(NamedTuple):
    """All RoIs of an update, background among them: what occluders are made of.

    Attributes:
        features: m x C x d x d, without gradient.
        labels: m, int64, 0..K; 0 is background.
    """

    features: Tensor
    labels: Tensor


class Head(Protocol):
    """A detector's classifier as an adversary sees it.

    Its parameters are constants and its dropout is off; what it returns is differentiable in the features alone.
    Whatever kind of head it is, label 0 is background.
    """

    @abstractmethod
    def scores(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the score (n, in [0, 1]) of each object's label, from features n x C x d x d and labels n."""

    @abstractmethod
    def losses(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the classification loss (n) of each object, from features n x C x d x d and labels n."""

    @torch.no_grad()
    def losses_without(self, features: Tensor, labels: Tensor, masks: Tensor) -> Tensor:
        """Return the losses (n x W) of each object with the cells of each mask hidden in turn, one by one.

        Args:
            features: n x C x d x d.
            labels: n, int64, 1..K.
            masks: W x d x d, bool, true where a cell is hidden.
        """
        visible = ~masks.to(features.device)
        objects = max(1, _COPIES // len(visible))
        losses = features.new_empty((len(features), len(visible)), dtype=loss_dtype(features))
        for start in range(0, len(features), objects):
            chunk = slice(start, start + objects)
            copies = (features[chunk] * visible[:, None, None]).flatten(0, 1)  # (W * n) x C x d x d
            losses[chunk] = self.losses(copies, labels[chunk].repeat(len(visible))).view(len(visible), -1).T
        return losses


_COPIES = 256
"""Masked copies that are classified at once: as many as an update has RoIs, so that it needs no more memory."""


class Adversary(nn.Module):
    """Base class of adversaries.

    Attributes:
        learning_rate_factor: the learning rate of its parameters as a multiple of the stage's.
        frozen: whether joint training leaves its parameters as they are.
        pretrainable: whether it is trained alone, against the frozen detector, before joint training.
    """

    learning_rate_factor: float = 1.0
    frozen: bool = False
    pretrainable: bool = False

    def forward(self, features: Tensor, labels: Tensor, head: Head, context: Context | None = None) -> AdversaryOutput:
        """Return harder features.

        Args:
            features: n x C x d x d, RoI features of foreground proposals; n may be 0.
            labels: n, int64, 1..K.
            head: the detector's classifier as it is now.
            context: all RoIs of the update; None where only the objects themselves are known.

        Returns:
            Features of the same shape and type; a loss that is a mean over the objects of all processes, as
            :func:`mean_loss` makes it, and for n = 0 is 0 and still depends on every parameter.
        """
        raise NotImplementedError

    def pretrain(self, features: Tensor, labels: Tensor, head: Head) -> AdversaryOutput:
        """Return what ``forward`` does, of which only the loss is used: the lesson of the second stage."""
        output: AdversaryOutput = self(features, labels, head)
        return output

    def explain(self, features: Tensor) -> dict[str, Tensor]:
        """Return what it would do to features (n x C x d x d), for figures.

        Returns:
            ``heatmap``, n x d x d in [0, 1], where it expects hiding to hurt; ``angles``, n x blocks, degrees clockwise
            by which it turns blocks of channels; or neither.
        """
        return {}


class BoxHeadSpec(NamedTuple):
    """What an adversary's own layers are made from, and for.

    Attributes:
        layers: the detector's box head, or that of the ImageNet network: n x C x d x d to n x D.
        features: D.
        channels: C.
        size: d.
    """

    layers: nn.Module
    features: int
    channels: int
    size: int


class BoxHeadCopy(nn.Module):
    """Layers as a detector's box head has them, for an adversary's own: a copy that starts from the same weights.

    It stays in evaluation mode: dropout is off, and batch normalisation keeps its statistics.

    Args:
        box_head: RoI features n x C x d x d to vectors n x D.
    """

    def __init__(self, box_head: nn.Module) -> None:
        super().__init__()
        self.layers = deepcopy(box_head).requires_grad_(True).eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of this module, but leave the layers in evaluation mode."""
        self.training = mode
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Return vectors n x D of features n x C x d x d."""
        vectors: Tensor = self.layers(features)
        return vectors


def is_adversarial(number: int, clean_fraction: float, first: bool = False) -> bool:
    """Tell whether image ``number`` (0, 1, ...) of a training is one that is made harder.

    A fraction of the images stays clean, so that the detector does not overfit to hard examples (section 5.1: one image
    of two). Images take turns, so that the fraction holds for any number of them; the first is clean, or adversarial
    where ``first`` says so, unless all are of one kind.
    """
    if first:  # as clean ones, were they of the other fraction
        return not is_adversarial(number, 1 - clean_fraction)
    fraction = Fraction(clean_fraction).limit_denominator(1_000_000)
    return ceil((number + 1) * fraction) == ceil(number * fraction)


def mean_loss(losses: Tensor, count: int | Tensor | None = None) -> Tensor:
    """Return the mean of losses by object (n), as an adversary's loss; 0 for n = 0.

    Over processes, whose gradients are averaged, it is what one process with all the objects would have; every process
    must call it as often as the others.

    Args:
        losses: n.
        count: what the sum is divided by; n when None.
    """
    return losses.sum() / mean_count(len(losses) if count is None else count, losses.device)


@torch.no_grad()
def score_drop(features: Tensor, perturbed: Tensor, labels: Tensor, head: Head) -> Tensor:
    """Return by how much (n, in [-1, 1]) the label's score falls when features (n x C x d x d) are perturbed."""
    # In one call: the head's weights, larger than the features, are read once.
    before, after = head.scores(torch.cat([features, perturbed]), labels.repeat(2)).chunk(2)
    return before - after


def mean_metrics(**values: Tensor) -> dict[str, Tensor]:
    """Return the means of numbers by object (n each) as metrics; none for n = 0, where means are not defined."""
    return {name: value.mean() for name, value in values.items() if len(value)}


def loss_dtype(features: Tensor) -> torch.dtype:
    """Return the type that losses of features are computed in: float32, or their own where that is wider."""
    return torch.promote_types(features.dtype, torch.float32)
