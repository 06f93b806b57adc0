"""The exact window search: which window of an object's features, when hidden, is hardest (section 4.2.1).

Every window of the RoI features is hidden in turn, and the detector's classification loss tells which hurts most. Done
plainly, that evaluates the head once per window. But to a head that begins with a linear layer, a hidden window is a
few terms less, z(w) = b + sum over the cells outside of W[:, cell] x[cell]: the contributions of all cells cost one
pass of the layer, and every window is a sum of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afrcnn.adversaries.base import DetachedHead, Head

COPIES = 256
"""Masked copies that are evaluated at once: as many as an update has RoIs, so that the search needs no more memory."""

VECTORS = 1024
"""A first layer's output vectors that are kept at once: of 40 objects with 25 windows, for whom its weight is read."""

VECTORS_ONWARD = 512
"""Those of them that go through the rest of the head at once."""

OUTPUTS = 256
"""A first layer's outputs that are computed at once: the contributions of all cells to all outputs would be twice the
vectors that are made of them."""


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
    layer = _first_layer(head)
    objects = max(1, (COPIES if layer is None else VECTORS) // len(kept))
    losses = features.new_empty((len(features), len(kept)), dtype=torch.promote_types(features.dtype, torch.float32))
    for start in range(0, len(features), objects):
        chunk = slice(start, start + objects)
        if isinstance(head, DetachedHead) and layer is not None:
            vectors = first_outputs(features[chunk], layer, kept).flatten(0, 1)
            blocks = vectors.chunk(ceil(len(vectors) / VECTORS_ONWARD))
            logits = torch.cat([head.after_first_layer(block) for block in blocks])
        else:
            logits = head((features[chunk] * kept[:, None, None]).flatten(0, 1))
        loss = F.cross_entropy(logits.to(losses.dtype), labels[chunk].repeat(len(kept)), reduction="none")
        losses[chunk] = loss.view(len(kept), -1).T
    return losses


def first_outputs(features: Tensor, layer: nn.Linear, kept: Tensor) -> Tensor:
    """Return a linear layer's outputs (W x n x D) of features of which the masks keep some cells.

    Args:
        features: n x C x d x d.
        layer: over the flattened features.
        kept: W x d x d, bool, the cells that are not hidden.
    """
    cells = features.flatten(2).permute(2, 0, 1).contiguous()  # of a strided operand, bmm takes a slow path
    outputs = features.new_empty(len(kept), len(features), layer.out_features)
    for start in range(0, layer.out_features, OUTPUTS):
        part = slice(start, start + OUTPUTS)
        outputs[:, :, part] = _sums_of_cells(cells, layer.weight.detach()[part], kept)
    return outputs if layer.bias is None else outputs.add_(layer.bias.detach())


def _sums_of_cells(cells: Tensor, weight: Tensor, kept: Tensor) -> Tensor:
    """Return the sums (W x n x D) over the kept cells of weight (D x C * d * d) times cells (d * d x n x C)."""
    count, _, channels = cells.shape
    if weight.stride(0) == 1:  # see stored_by_input
        by_cell = weight.t().view(channels, count, -1).transpose(0, 1)
    else:  # one transposition of a matrix, which is quicker than any other copy
        by_cell = weight.reshape(-1, count).t().contiguous().view(count, -1, channels).mT
    contributions = torch.bmm(cells, by_cell)
    sums = kept.flatten(1).to(contributions.dtype) @ contributions.flatten(1)
    return sums.view(len(kept), *contributions.shape[1:])


@contextmanager
def stored_by_input(head: Head) -> Iterator[None]:
    """For a block in which a head is frozen, store the weight of the linear layer that it begins with by input.

    The weights of one cell are then a matrix that the search reads where it lies; of a weight that is stored by output,
    as layers are made, every search copies them. The parameter stays the same tensor with the same shape and values,
    so that nothing can be out of date, and the layer is as fast. But fused optimisers copy what is not stored by
    output, at several times the price of their step: hence not for a head that is trained.

    Args:
        head: a :class:`DetachedHead`; others are left as they are.
    """
    layer = _first_layer(head)
    if layer is None:
        yield
        return
    layer.weight.data = layer.weight.data.t().contiguous().t()
    try:
        yield
    finally:
        layer.weight.data = layer.weight.data.contiguous()


def _first_layer(head: Head) -> nn.Linear | None:
    return head.first_layer if isinstance(head, DetachedHead) else None
