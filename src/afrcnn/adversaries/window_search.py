"""The windows of the exhaustive search: which one, when hidden, makes an object hardest to classify (section 4.2.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from afrcnn.adversaries.base import Head


class WindowSearch:
    """Finds, among all windows that slide over an object's features, the one whose hiding costs the detector most.

    Args:
        size: d, cells on a side of the features.
        window: cells on a side of a window, 1..d; a third of d (section 4.2.1), rounded to whole cells, when None.
        stride: cells between two windows, 1 or more.

    Raises:
        ValueError: no such window fits.
    """

    def __init__(self, size: int, window: int | None = None, stride: int = 1) -> None:
        self.masks = _sliding_windows(size, max(1, round(size / 3)) if window is None else window, stride)  # W x d x d

    def __call__(self, features: Tensor, labels: Tensor, head: Head) -> tuple[Tensor, Tensor]:
        """Return the hardest windows (n x d x d, bool) of features n x C x d x d, and the losses (n) they lead to."""
        self.masks = self.masks.to(features.device)
        losses, hardest = head.losses_without(features.detach(), labels, self.masks).max(dim=1)
        return self.masks[hardest], losses


def _sliding_windows(size: int, window: int, stride: int = 1) -> Tensor:
    """Return all windows on a grid as masks, W x size x size, bool, true where the window is.

    Args:
        size: d, cells on a side of the grid.
        window: cells on a side of a window, 1..d.
        stride: cells between two windows, 1 or more; the last windows are moved back to end where the grid does, so
            that no cell is left out.

    Raises:
        ValueError: the window does not fit, the stride is below 1, or it is so large that cells between two windows
            are left out.
    """
    if not 1 <= window <= size or not 1 <= stride <= window:
        raise ValueError(f"a window of {window} cells cannot slide by {stride} over all of {size} x {size} cells")
    starts = torch.arange(0, size - window + stride, stride).clamp(max=size - window)
    cells = torch.arange(size)
    inside = (cells >= starts[:, None]) & (cells < starts[:, None] + window)  # starts x size
    return (inside[:, None, :, None] & inside[None, :, None, :]).flatten(0, 1)
