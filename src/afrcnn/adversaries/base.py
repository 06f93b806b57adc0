"""The contract between a detector and an adversary (section 3).

In training, between RoI pooling and the head, an adversary is given the RoI features of foreground proposals, their
labels, and the detector's own classifier to try itself against. It returns harder features of the same shape, with
which the detector is trained, and its own loss. Two invariants hold: the detector's loss gives the adversary no
gradient, and the adversary's loss gives the detector none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.models.detection.faster_rcnn import TwoMLPHead

from afrcnn.detectors.backbones import FullyConnectedHead

Head = Callable[[Tensor], Tensor]
"""From RoI features n x C x d x d to class logits n x (K + 1), differentiable in the features alone."""


class Hardened(NamedTuple):
    """What an adversary returns.

    Attributes:
        features: n x C x d x d, harder; differentiable in the features given, not in the adversary's parameters.
        loss: scalar, the adversary's own loss; differentiable in its parameters alone.
        metrics: numbers for the log that say how hard it is, without gradient.
    """

    features: Tensor
    loss: Tensor
    metrics: dict[str, Tensor]


class Adversary(Protocol):
    """Anything that makes features harder: in practice an ``nn.Module``.

    One that has to learn before it competes has a method ``pretrain`` with the arguments and the result of the call:
    it is called instead while the detector is frozen, and only its loss is used.

    One that needs to know what else is in the photographs has a method ``observe``: before each call in joint training,
    it is given the features (m x C x d x d, detached) and labels (m, 0..K) of all RoIs of the update.
    """

    def __call__(self, features: Tensor, labels: Tensor, head: Head) -> Hardened:
        """Return harder features.

        Args:
            features: n x C x d x d, RoI features of foreground proposals; n may be 0.
            labels: n, int64, 1..K.
            head: the detector's classifier as it is now.

        Returns:
            Features of the same shape and type; a loss that is a mean over the n objects, and for n = 0 is 0 and still
            depends on every parameter.
        """


def show(adversary: object, features: Tensor, labels: Tensor) -> None:
    """Show all RoIs of an update (m x C x d x d, and their labels) to an adversary, if it has a method ``observe``."""
    observe = getattr(adversary, "observe", None)
    if callable(observe):
        observe(features, labels)


LOWERED = (nn.Linear, nn.Conv2d)
"""Layers that autocast computes in 16 bits."""


class RoIHead(NamedTuple):
    """What an adversary's own layers are made from, and for.

    Attributes:
        layers: the detector's head, or that of the ImageNet network: n x C x d x d to n x D.
        features: D.
        channels: C.
        size: d.
    """

    layers: nn.Module
    features: int
    channels: int
    size: int


class HeadCopy(nn.Module):
    """Layers as a detector's head has them, for an adversary's own: a copy that starts from the same weights.

    It stays in evaluation mode: dropout is off, and batch normalisation keeps its statistics.

    Args:
        head: RoI features n x C x d x d to vectors n x D.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.layers = deepcopy(head).requires_grad_(True).eval()

    def train(self, mode: bool = True) -> Self:
        """Note the mode, but leave the layers in evaluation mode."""
        self.training = mode
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Return vectors n x D of features n x C x d x d."""
        vectors: Tensor = self.layers(features)
        return vectors


class DetachedHead:
    """A detector's head and predictor as an adversary sees them: parameters detached, dropout off.

    Args:
        head: RoI features to vectors.
        predictor: vectors to (class logits, box offsets), torchvision's ``FastRCNNPredictor`` or alike.
    """

    def __init__(self, head: nn.Module, predictor: nn.Module) -> None:
        self.head, self.predictor = head, predictor
        self._lowered: dict[int, tuple[int, Tensor]] = {}

    def __call__(self, features: Tensor) -> Tensor:
        """Return class logits n x (K + 1) of features n x C x d x d."""
        with evaluating(self.head, self.predictor):
            return self._classify(self._call(self.head, features))

    @property
    def first_layer(self) -> nn.Linear | None:
        """The linear layer over the flattened features that the head begins with, if it does."""
        # These types exactly: a class derived from them may do something else before or between its layers.
        first = self.head.fc6 if type(self.head) in {FullyConnectedHead, TwoMLPHead} else None
        return first if isinstance(first, nn.Linear) else None

    def after_first_layer(self, outputs: Tensor) -> Tensor:
        """Return class logits n x (K + 1) of what ``first_layer`` gave (n x D); overwrites its argument."""
        with evaluating(self.head, self.predictor):
            hidden = self._call(self.head.fc7, outputs.relu_()).relu_()  # type: ignore[arg-type]
            return self._classify(hidden)

    def _classify(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self._call(self.predictor, hidden)[0]
        return logits

    def _call(self, module: nn.Module, x: Tensor) -> Any:
        """Call a module with its parameters detached."""
        parameters = {
            f"{path}.{name}" if path else name: self._constant(part, value)
            for path, part in module.named_modules()
            for name, value in part.named_parameters(recurse=False)
        }
        return functional_call(module, parameters, (x,))

    def _constant(self, layer: nn.Module, parameter: nn.Parameter) -> Tensor:
        """Return a parameter of a layer detached, in the type that autocast gives it."""
        device = parameter.device.type
        if not (torch.is_autocast_enabled(device) and parameter.dtype == torch.float32 and isinstance(layer, LOWERED)):
            return parameter.detach()
        # Autocast keeps what it casts of parameters alone, and would cast these again in every call: for fc6 of VGG16,
        # that takes as long as the layer.
        version, lowered = self._lowered.get(id(parameter), (None, None))
        if lowered is None or version != parameter._version or lowered.dtype != torch.get_autocast_dtype(device):
            lowered = parameter.detach().to(torch.get_autocast_dtype(device))
            self._lowered[id(parameter)] = parameter._version, lowered
        return lowered


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules into evaluation mode for a block, and back."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@torch.no_grad()
def score_drop(features: Tensor, hardened: Tensor, labels: Tensor, head: Head) -> Tensor:
    """Return by how much (n, in [-1, 1]) the true class's score falls when features (n x C x d x d) are hardened."""
    logits = head(torch.cat([features, hardened]))  # the head's weights, larger than the features, are read once
    before, after = true_class_score(logits, labels.repeat(2)).chunk(2)
    return before - after


def true_class_score(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the softmax score (n) of each RoI's label from logits n x (K + 1)."""
    return logits.float().softmax(dim=1).gather(1, labels[:, None]).squeeze(1)
