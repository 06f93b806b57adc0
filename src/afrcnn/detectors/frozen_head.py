"""A detector's classifier as an adversary sees it, and the exact window search through it (section 4.2.1).

Every window of the RoI features is hidden in turn, and the detector's classification loss tells which hurts most. Done
plainly, that evaluates the box head once per window. But to a box head that begins with a linear layer, a hidden window
is a few terms less, z(w) = b + sum over the cells outside of W[:, cell] x[cell]: the contributions of all cells cost
one pass of the layer, and every window is a sum of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import TwoMLPHead

from afrcnn.adversaries.base import Head, loss_dtype
from afrcnn.core.evaluation_mode import evaluating
from afrcnn.detectors.backbones import FullyConnectedHead

_AUTOCAST = (nn.Linear, nn.Conv2d)
"""Layers that autocast computes in 16 bits."""

_VECTORS = 1024
"""A first layer's output vectors that are held at once: of 40 objects with 25 windows, for whom its weight is read."""

_VECTORS_ONWARD = 512
"""Those of them that go through the rest of the box head at once."""

_OUTPUTS = 256
"""A first layer's outputs that are computed at once: the contributions of all cells to all outputs would be twice the
vectors that are made of them."""


class FrozenHead(Head):
    """A box head and a predictor with a softmax over classes: parameters detached, dropout off.

    Args:
        box_head: RoI features to vectors.
        predictor: vectors to (class logits, box offsets), torchvision's ``FastRCNNPredictor`` or alike.
        dropout: whether dropout is on, drawn anew in every call, as in the authors' release.
    """

    def __init__(self, box_head: nn.Module, predictor: nn.Module, dropout: bool = False) -> None:
        self.box_head, self.predictor, self.dropout = box_head, predictor, dropout
        self._casts: dict[int, tuple[int, Tensor]] = {}

    def logits(self, features: Tensor) -> Tensor:
        """Return class logits n x (K + 1) of features n x C x d x d."""
        with self._evaluating():
            return self._classify(self._call(self.box_head, features))

    def scores(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the softmax score (n) of each RoI's label."""
        return self.logits(features).float().softmax(dim=1).gather(1, labels[:, None]).squeeze(1)

    def losses(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the cross entropy (n) of each RoI's label."""
        return F.cross_entropy(self.logits(features).to(loss_dtype(features)), labels, reduction="none")

    @torch.no_grad()
    def losses_without(self, features: Tensor, labels: Tensor, masks: Tensor) -> Tensor:
        """Return the losses (n x W) of each object with each mask hidden; where fc6 comes first, as sums over cells."""
        layer = self.first_layer
        if layer is None:
            return super().losses_without(features, labels, masks)
        visible = ~masks.to(features.device)
        objects = max(1, _VECTORS // len(visible))
        losses = features.new_empty((len(features), len(visible)), dtype=loss_dtype(features))
        for start in range(0, len(features), objects):
            chunk = slice(start, start + objects)
            vectors = _first_outputs(features[chunk], layer, visible).flatten(0, 1)  # (W * n) x D
            blocks = vectors.chunk(ceil(len(vectors) / _VECTORS_ONWARD))
            logits = torch.cat([self._after_first_layer(block) for block in blocks])
            loss = F.cross_entropy(logits.to(losses.dtype), labels[chunk].repeat(len(visible)), reduction="none")
            losses[chunk] = loss.view(len(visible), -1).T
        return losses

    @property
    def first_layer(self) -> nn.Linear | None:
        """The linear layer over the flattened features that the box head begins with, if it does."""
        # These types exactly: a class derived from them may do something else before or between its layers.
        first = self.box_head.fc6 if type(self.box_head) in {FullyConnectedHead, TwoMLPHead} else None
        return first if isinstance(first, nn.Linear) else None

    def _after_first_layer(self, outputs: Tensor) -> Tensor:
        """Return class logits n x (K + 1) of what ``first_layer`` gave (n x D); overwrites its argument."""
        with self._evaluating():
            drop: Any = getattr(self.box_head, "dropout", nn.Identity())
            hidden = self._call(self.box_head.fc7, drop(outputs.relu_()))  # type: ignore[arg-type]
            return self._classify(drop(hidden.relu_()))

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        with evaluating(self.box_head, self.predictor):
            for module in self.box_head.modules() if self.dropout else ():
                if isinstance(module, nn.Dropout):
                    module.train()
            yield

    def _classify(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self._call(self.predictor, hidden)[0]
        return logits

    def _call(self, module: nn.Module, x: Tensor) -> Any:
        """Call a module with its parameters detached."""
        parameters = {
            f"{path}.{name}" if path else name: self._constant(layer, value)
            for path, layer in module.named_modules()
            for name, value in layer.named_parameters(recurse=False)
        }
        return functional_call(module, parameters, (x,))

    def _constant(self, layer: nn.Module, parameter: nn.Parameter) -> Tensor:
        """Return a parameter of a layer detached, in the type that autocast gives it."""
        device = parameter.device.type
        autocast = torch.is_autocast_enabled(device) and parameter.dtype == torch.float32
        if not (autocast and isinstance(layer, _AUTOCAST)):
            return parameter.detach()
        # Autocast caches what it casts of parameters alone, and would cast these again in every call: for fc6 of VGG16,
        # that takes as long as the layer.
        version, cast = self._casts.get(id(parameter), (None, None))
        if cast is None or version != parameter._version or cast.dtype != torch.get_autocast_dtype(device):
            cast = parameter.detach().to(torch.get_autocast_dtype(device))
            self._casts[id(parameter)] = parameter._version, cast
        return cast


def _first_outputs(features: Tensor, layer: nn.Linear, visible: Tensor) -> Tensor:
    """Return a linear layer's outputs (W x n x D) of features of which the masks leave some cells visible.

    Args:
        features: n x C x d x d.
        layer: over the flattened features.
        visible: W x d x d, bool, the cells that are not hidden.
    """
    cells = features.flatten(2).permute(2, 0, 1).contiguous()  # of a strided operand, bmm takes a slow path
    outputs = features.new_empty(len(visible), len(features), layer.out_features)
    for start in range(0, layer.out_features, _OUTPUTS):
        rows = slice(start, start + _OUTPUTS)
        outputs[:, :, rows] = _sums_of_cells(cells, layer.weight.detach()[rows], visible)
    return outputs if layer.bias is None else outputs.add_(layer.bias.detach())


def _sums_of_cells(cells: Tensor, weight: Tensor, visible: Tensor) -> Tensor:
    """Return the sums (W x n x D) over the visible cells of weight (D x C * d * d) times cells (d * d x n x C)."""
    count, _, channels = cells.shape
    if weight.stride(0) == 1:  # see column_major
        by_cell = weight.t().view(channels, count, -1).transpose(0, 1)
    else:  # one transposition of a matrix, which is quicker than any other copy
        by_cell = weight.reshape(-1, count).t().contiguous().view(count, -1, channels).mT
    contributions = torch.bmm(cells, by_cell)  # d * d x n x D
    sums = visible.flatten(1).to(contributions.dtype) @ contributions.flatten(1)
    return sums.view(len(visible), *contributions.shape[1:])


@contextmanager
def column_major(head: Head) -> Iterator[None]:
    """For a block in which a head is frozen, store the weight of the linear layer that it begins with column-major.

    The weights of one cell are then a matrix that the search reads where it lies; of a row-major weight, as layers are
    made, every search copies them. The parameter stays the same tensor with the same shape and values, so that nothing
    can be out of date, and the layer is as fast. But fused optimisers copy what is not row-major, at several times the
    price of their step: hence not for a head that is trained.

    Args:
        head: a :class:`FrozenHead`; others are left as they are.
    """
    layer = head.first_layer if isinstance(head, FrozenHead) else None
    if layer is None:
        yield
        return
    layer.weight.data = layer.weight.data.t().contiguous().t()
    try:
        yield
    finally:
        layer.weight.data = layer.weight.data.contiguous()
