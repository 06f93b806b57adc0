"""The exact window search: which window of an object's features, when hidden, is hardest (section 4.2.1).

Every window of the RoI features is hidden in turn, and the detector's classification loss tells which hurts most. Done
plainly, that evaluates the head once per window. But a head that begins with a linear layer sees a hidden window as a
subtraction, z(w) = z - sum over the window's cells of W[:, cell] x[cell]: the contributions of all cells cost one pass
of the layer, and every window is a sum of a few of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afrcnn.adversary.contract import DetachedHead, Head

CHUNK = 1024
"""Masked copies that are evaluated at once; bounds the memory of the search."""


def sliding_windows(size: int, window: int, stride: int = 1) -> Tensor:
    """Return all windows on a grid as masks, W x size x size, bool, true where the window is.

    Args:
        size: d, cells on a side of the grid.
        window: cells on a side of a window, 1..d.
        stride: cells between two windows.
    """
    starts = range(0, size - window + 1, stride)
    masks = torch.zeros(len(starts) ** 2, size, size, dtype=torch.bool)
    for mask, (row, column) in zip(masks, ((r, c) for r in starts for c in starts), strict=True):
        mask[row : row + window, column : column + window] = True
    return masks


@torch.no_grad()
def window_losses(features: Tensor, labels: Tensor, head: Head, windows: Tensor) -> Tensor:
    """Return the classification loss (n x W) of each object with each window hidden.

    Args:
        features: n x C x d x d.
        labels: n, int64, 1..K.
        head: the detector's classifier; a :class:`DetachedHead` that begins with a linear layer is searched fast.
        windows: W x d x d, bool, as of :func:`sliding_windows`.
    """
    windows = windows.to(features.device)
    layer = head.first_layer if isinstance(head, DetachedHead) else None
    chunk = max(1, CHUNK // len(windows))
    losses = features.new_empty((len(features), len(windows)), dtype=torch.promote_types(features.dtype, torch.float32))
    weight = None if layer is None else _by_cell(layer, features.shape)
    for start in range(0, len(features), chunk):
        part, label = features[start : start + chunk], labels[start : start + chunk]
        if isinstance(head, DetachedHead) and layer is not None and weight is not None:
            logits = head.after_first_layer(_without_windows(part, layer, weight, windows).flatten(0, 1))
        else:
            logits = head((part[:, None] * ~windows[:, None]).flatten(0, 1))
        loss = F.cross_entropy(logits.to(losses.dtype), label.repeat_interleave(len(windows)), reduction="none")
        losses[start : start + chunk] = loss.view(len(part), len(windows))
    return losses


def _by_cell(layer: nn.Linear, shape: torch.Size) -> Tensor:
    """Return the layer's weight as d*d matrices of C x D, one a cell."""
    _, channels, height, width = shape
    return layer.weight.detach().view(-1, channels, height * width).permute(2, 1, 0).contiguous()


def _without_windows(features: Tensor, layer: nn.Linear, weight: Tensor, windows: Tensor) -> Tensor:
    """Return the layer's outputs (n x W x D) with each window hidden."""
    cells = features.flatten(2).permute(2, 0, 1)
    contributions = cells @ weight.to(cells.dtype)
    whole = contributions.sum(0)
    if layer.bias is not None:
        whole = whole + layer.bias.detach().to(whole.dtype)
    hidden = torch.einsum("ws,snd->nwd", windows.flatten(1).to(contributions.dtype), contributions)
    return whole[:, None] - hidden
