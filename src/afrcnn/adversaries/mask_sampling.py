"""From a heatmap of where hiding hurts to the cells that are hidden (section 4.2.1, "thresholding by sampling")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Mask = Literal["cells", "window"]

_ASPECT = 1.5
"""The largest ratio of a window's sides."""


class MaskSampling(nn.Module):
    """Thresholding by sampling: a heatmap becomes a binary mask, at random among its top cells.

    Of all d*d cells, the top ``top`` by the heatmap are candidates, and ``fraction`` of all cells are drawn from them,
    uniformly. The paper keeps 1/2 and draws 1/3; the Caffe release keeps 20 of 49 and draws 15.

    Args:
        top: the fraction of the cells that may be hidden.
        fraction: the fraction of the cells that is hidden.
    """

    def __init__(self, top: float = 1 / 2, fraction: float = 1 / 3) -> None:
        super().__init__()
        if not 0 <= fraction <= top <= 1:
            raise ValueError(f"0 <= fraction <= top <= 1 does not hold for fraction {fraction:g} and top {top:g}")
        self.top, self.fraction = top, fraction

    @torch.no_grad()
    def forward(self, heatmap: Tensor) -> Tensor:
        """Return masks, n x d x d, bool, true where a cell is hidden, of heatmaps' logits n x d x d."""
        cells = heatmap.flatten(1)
        hidden = _cell_count(self.fraction, cells.shape[1])
        candidates = cells.topk(max(hidden, _cell_count(self.top, cells.shape[1])), dim=1).indices
        shuffle = torch.rand(candidates.shape, device=candidates.device).argsort(dim=1)[:, :hidden]
        mask = torch.zeros_like(cells, dtype=torch.bool)
        return mask.scatter_(1, candidates.gather(1, shuffle), True).view(heatmap.shape)


class WindowSampling(nn.Module):
    """A heatmap becomes a window of hidden cells, as an occluder leaves it: in one piece, of any size and place.

    Cells that are drawn one by one, as the paper has it, lie scattered, and each has a neighbour left that knows much
    of what it knew. Here each object draws a fraction of the cells, uniformly, and a ratio of height to width (up to
    1.5 either way), and the window takes one of the ``top`` places where the heatmap's mean is highest.

    Args:
        fraction: the smallest and the largest fraction of the cells that is hidden, to rounding; one number for both.
        top: the fraction of the places of a window that are candidates; 1 for any, whatever the heatmap.
    """

    def __init__(self, fraction: float | Sequence[float] = (0.1, 0.6), top: float = 1 / 4) -> None:
        super().__init__()
        low, high = (fraction, fraction) if isinstance(fraction, int | float) else fraction
        if not 0 < low <= high <= 1:
            raise ValueError(f"0 < smallest <= largest <= 1 does not hold for the fractions {low:g} and {high:g}")
        if not 0 < top <= 1:
            raise ValueError(f"the fraction {top:g} of the places is not in (0, 1]")
        self.low, self.high, self.top = low, high, top

    @torch.no_grad()
    def forward(self, heatmap: Tensor) -> Tensor:
        """Return masks, n x d x d, bool, true where a cell is hidden, of heatmaps' logits n x d x d."""
        n, size, _ = heatmap.shape
        area = torch.empty(n).uniform_(self.low, self.high) * size**2
        ratio = torch.empty(n).uniform_(-1, 1).mul(torch.tensor(_ASPECT).log()).exp()
        # Not so low that the width would not fit.
        heights = (area * ratio).sqrt().round().clamp(1, size).maximum((area / size).round())
        widths = (area / heights).round().clamp(1, size)
        place = torch.rand(n, device=heatmap.device)
        sides = torch.stack([heights, widths], dim=1).long()  # n x 2
        heat = heatmap.float().sigmoid()
        mask = torch.zeros_like(heatmap, dtype=torch.bool)
        for height, width in torch.unique(sides, dim=0).tolist():
            same = (sides == torch.tensor([height, width])).all(dim=1).nonzero().flatten()
            same = same.to(heatmap.device, non_blocking=True)
            means = F.avg_pool2d(heat[same][:, None], (height, width), stride=1).flatten(1)  # m x places
            candidates = means.topk(max(1, _cell_count(self.top, means.shape[1])), dim=1).indices
            chosen = candidates.gather(1, (place[same] * candidates.shape[1]).long()[:, None])
            cells = torch.arange(size, device=heatmap.device)
            top, left = chosen // (size - width + 1), chosen % (size - width + 1)
            rows = (cells >= top) & (cells < top + height)  # m x d
            columns = (cells >= left) & (cells < left + width)
            mask[same] = rows[:, :, None] & columns[:, None, :]
        return mask


def build_sampling(mask: Mask, fraction: float | Sequence[float], top: float) -> MaskSampling | WindowSampling:
    """Return what draws masks: single cells, as in the paper, or a window, as an occluder leaves it.

    Raises:
        ValueError: a fraction is out of its range, or a range is given for single cells.
    """
    if mask not in ("cells", "window"):
        raise ValueError(f"mask is {mask!r}; choose cells or window")
    if mask == "window":
        return WindowSampling(fraction, top)
    if not isinstance(fraction, int | float):
        raise ValueError("a range of fractions is for windows; set mask to window, or fraction to one number")
    return MaskSampling(top, fraction)


def _cell_count(fraction: float, cells: int) -> int:
    """Return how many of ``cells`` a fraction is, rounded down; 1/3 of 36 is 12, whatever its last bit."""
    return int(fraction * cells + 1e-9)
