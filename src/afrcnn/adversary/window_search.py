"""The exact window search: which window of an object's features, when hidden, is hardest (section 4.2.1).

Every window of the RoI features is hidden in turn, and the detector's classification loss tells which hurts most. Done
plainly, that evaluates the head once per window. But to a head that begins with a linear layer, a hidden window is a
few terms less, z(w) = b + sum over the cells outside of W[:, cell] x[cell]: the contributions of all cells cost one
pass of the layer, and every window is a sum of them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from afrcnn.adversary.contract import DetachedHead, Head

COPIES = 256
"""Masked copies that are evaluated at once: as many as an update has RoIs, so that the search needs no more memory."""

OUTPUTS = 1024
"""A first layer's outputs that are evaluated at once; each is several times smaller than a masked copy."""


def default_window(size: int) -> int:
    """Return the window's side on ``size`` x ``size`` cells: d / 3 (section 4.2.1), rounded up to whole cells."""
    return -(-size // 3)


def sliding_windows(size: int, window: int, stride: int = 1) -> Tensor:
    """Return all windows on a grid as masks, W x size x size, bool, true where the window is.

    Args:
        size: d, cells on a side of the grid.
        window: cells on a side of a window, 1..d.
        stride: cells between two windows, 1 or more.
    """
    if not (1 <= window <= size and stride >= 1):
        raise ValueError(f"no window of {window} cells slides by {stride} over {size} x {size} cells")
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
    kept = ~windows.to(features.device)
    layer = head.first_layer if isinstance(head, DetachedHead) else None
    # A view where the layer stores its weight by input (its transpose contiguous); elsewhere a copy, once a search.
    weight = None if layer is None else layer.weight.detach().t().contiguous()
    objects = max(1, (COPIES if layer is None else OUTPUTS) // len(kept))
    losses = features.new_empty((len(features), len(kept)), dtype=torch.promote_types(features.dtype, torch.float32))
    for start in range(0, len(features), objects):
        chunk = slice(start, start + objects)
        if isinstance(head, DetachedHead) and layer is not None and weight is not None:
            logits = head.after_first_layer(_first_outputs(features[chunk], weight, layer.bias, kept))
        else:
            logits = head((features[chunk] * kept[:, None, None]).flatten(0, 1))
        loss = F.cross_entropy(logits.to(losses.dtype), labels[chunk].repeat(len(kept)), reduction="none")
        losses[chunk] = loss.view(len(kept), -1).T
    return losses


def _first_outputs(features: Tensor, weight: Tensor, bias: Tensor | None, kept: Tensor) -> Tensor:
    """Return a linear layer's outputs (W * n x D) of features n x C x d x d of which masks W x d x d are kept.

    Args:
        features: n x C x d x d.
        weight: C * d * d x D, contiguous: the layer's weight, by input.
        bias: D.
        kept: W x d x d, bool.
    """
    _, channels, height, width = features.shape
    by_cell = weight.view(channels, height * width, -1).transpose(0, 1)
    cells = features.flatten(2).permute(2, 0, 1).contiguous()  # of a strided operand, bmm takes a slow path
    contributions = torch.bmm(cells, by_cell)
    outputs = (kept.flatten(1).to(contributions.dtype) @ contributions.flatten(1)).view(-1, weight.shape[1])
    return outputs if bias is None else outputs.add_(bias.detach())
