"""Dropout without a network, which ASDN is compared with: at random, by search (section 5.2.1), and DropBlock."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import drop_block2d

from afrcnn.adversaries.base import Adversary, AdversaryOutput, BoxHeadSpec, Context, Head, mean_metrics, score_drop
from afrcnn.adversaries.mask_sampling import Mask, build_sampling
from afrcnn.adversaries.occluder import Occluder, hide
from afrcnn.adversaries.window_search import WindowSearch


class RandomDropout(Adversary):
    """Hides cells as ASDN does, but at random.

    Args:
        spec: the shape of the RoI features; nothing depends on it.
        mask: single cells, as in the paper, or a window.
        fraction: of all cells, those that are hidden; of a window, also the smallest and the largest fraction.
        occluder: what takes the place of hidden cells: zeros, as in the paper, or other RoIs' features.
    """

    def __init__(
        self,
        spec: BoxHeadSpec | None = None,
        *,
        mask: Mask = "cells",
        fraction: float | Sequence[float] = 1 / 3,
        occluder: Occluder = "zeros",
    ) -> None:
        super().__init__()
        self.sampling, self.occluder = build_sampling(mask, fraction, top=1.0), occluder

    def forward(self, features: Tensor, labels: Tensor, head: Head, context: Context | None = None) -> AdversaryOutput:
        """Hide cells of features (n x C x d x d); see ``Adversary``."""
        mask = self.sampling(torch.zeros_like(features[:, 0], dtype=torch.float32))  # n x d x d
        hidden = hide(features, labels, mask, self.occluder, context)
        drop = score_drop(features, hidden, labels, head)
        return AdversaryOutput(hidden, features.new_zeros(()), mean_metrics(score_drop=drop))


class HardDropout(Adversary):
    """Hides the hardest window of each object, found by exhaustive search in every update.

    Args:
        spec: the shape of the RoI features.
        window: cells on a side of the window; a third of d, rounded, when None.
        stride: cells between two windows.
    """

    def __init__(self, spec: BoxHeadSpec, *, window: int | None = None, stride: int = 1) -> None:
        super().__init__()
        self.search = WindowSearch(spec.size, window, stride)

    def forward(self, features: Tensor, labels: Tensor, head: Head, context: Context | None = None) -> AdversaryOutput:
        """Hide the hardest window of features (n x C x d x d); see ``Adversary``."""
        hardest, losses = self.search(features, labels, head)
        hidden = features.masked_fill(hardest[:, None], 0)
        with torch.no_grad():  # the search already knows the score that is left: exp of -loss
            drop = head.scores(features, labels) - losses.neg().exp()
        return AdversaryOutput(hidden, features.new_zeros(()), mean_metrics(score_drop=drop))


class DropBlock(Adversary):
    """Zeroes square blocks of cells, in each channel others, and scales up the rest (Ghiasi et al., arXiv:1810.12890).

    It is torchvision's ``drop_block2d``. ASDN and random dropout, by contrast, hide a cell in all channels at once.

    Args:
        spec: the shape of the RoI features.
        fraction: of the cells, those that would be zero if no two blocks met, in [0, 1]; a little less is.
        block: cells on a side of a block, odd.
    """

    def __init__(self, spec: BoxHeadSpec | None = None, *, fraction: float = 1 / 3, block: int = 3) -> None:
        super().__init__()
        if block % 2 == 0:
            raise ValueError(f"a block of {block} cells has no centre; choose an odd number")
        if spec is not None and block > spec.size:
            raise ValueError(f"a block of {block} cells does not fit in {spec.size} x {spec.size}")
        self.fraction, self.block = fraction, block

    def forward(self, features: Tensor, labels: Tensor, head: Head, context: Context | None = None) -> AdversaryOutput:
        """Zero blocks of features (n x C x d x d); see ``Adversary``."""
        dropped = drop_block2d(features, self.fraction, self.block)
        drop = score_drop(features, dropped, labels, head)
        return AdversaryOutput(dropped, features.new_zeros(()), mean_metrics(score_drop=drop))
