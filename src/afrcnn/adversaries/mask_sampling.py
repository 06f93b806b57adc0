"""From a heatmap of where hiding hurts to the cells that are hidden (section 4.2.1, "thresholding by sampling")."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MaskSampling(nn.Module):
    """Thresholding by sampling: a heatmap becomes a binary mask, at random among its top cells.

    Of all d*d cells, the top ``top`` by the heatmap are candidates, and ``share`` of all cells are drawn from them,
    uniformly. The paper keeps 1/2 and draws 1/3; the Caffe release keeps 20 of 49 and draws 15.

    Args:
        top: the fraction of the cells that may be hidden.
        share: the fraction of the cells that is hidden.
    """

    def __init__(self, top: float = 1 / 2, share: float = 1 / 3) -> None:
        super().__init__()
        if not 0 <= share <= top <= 1:
            raise ValueError(f"0 <= share <= top <= 1 does not hold for share {share:g} and top {top:g}")
        self.top, self.share = top, share

    @torch.no_grad()
    def forward(self, heatmap: Tensor) -> Tensor:
        """Return masks, n x d x d, bool, true where a cell is hidden, of heatmaps' logits n x d x d."""
        cells = heatmap.flatten(1)
        hidden = cell_count(self.share, cells.shape[1])
        candidates = cells.topk(max(hidden, cell_count(self.top, cells.shape[1])), dim=1).indices
        shuffle = torch.rand(candidates.shape, device=candidates.device).argsort(dim=1)[:, :hidden]
        mask = torch.zeros_like(cells, dtype=torch.bool)
        return mask.scatter_(1, candidates.gather(1, shuffle), True).view(heatmap.shape)


class WindowSampling(nn.Module):
    """A heatmap becomes a window of hidden cells, as an occluder leaves it: in one piece, of any size and place.

    Cells that are drawn one by one, as the paper has it, lie scattered, and each has a neighbour left that knows much
    of what it knew. Here each object draws a share of the cells, uniform in ``shares``, and a ratio of height to width,
    and the window takes one of the ``top`` places where the heatmap's mean is highest.

    Args:
        shares: the least and the largest fraction of the cells that is hidden, to rounding.
        top: the fraction of the places of a window that are candidates; 1 for any, whatever the heatmap.
        aspect: the largest ratio of the window's sides.
    """

    def __init__(self, shares: tuple[float, float] = (0.1, 0.6), top: float = 1 / 4, aspect: float = 1.5) -> None:
        super().__init__()
        if not 0 < shares[0] <= shares[1] <= 1:
            raise ValueError(f"0 < least share <= share <= 1 does not hold for {shares[0]:g} and {shares[1]:g}")
        if not 0 < top <= 1:
            raise ValueError(f"a share of {top:g} of the places is not in (0, 1]")
        self.shares, self.top, self.aspect = shares, top, aspect

    @torch.no_grad()
    def forward(self, heatmap: Tensor) -> Tensor:
        """Return masks, n x d x d, bool, true where a cell is hidden, of heatmaps' logits n x d x d."""
        n, size, _ = heatmap.shape
        area = torch.empty(n).uniform_(*self.shares) * size**2
        ratio = torch.empty(n).uniform_(-1, 1).mul(torch.tensor(self.aspect).log()).exp()
        # Not so low that the width would not fit.
        heights = (area * ratio).sqrt().round().clamp(1, size).maximum((area / size).round())
        widths = (area / heights).round().clamp(1, size)
        luck = torch.rand(n, device=heatmap.device)
        sides = torch.stack([heights, widths], dim=1).long()
        heat = heatmap.float().sigmoid()
        mask = torch.zeros_like(heatmap, dtype=torch.bool)
        for height, width in torch.unique(sides, dim=0).tolist():
            mine = (sides == torch.tensor([height, width])).all(dim=1).to(heatmap.device)
            places = F.avg_pool2d(heat[mine][:, None], (height, width), stride=1).flatten(1)
            candidates = places.topk(max(1, cell_count(self.top, places.shape[1])), dim=1).indices
            chosen = candidates.gather(1, (luck[mine] * candidates.shape[1]).long()[:, None])
            rows = torch.arange(size, device=heatmap.device)
            top, left = chosen // (size - width + 1), chosen % (size - width + 1)
            inside = (rows >= top) & (rows < top + height), (rows >= left) & (rows < left + width)
            mask[mine] = inside[0][:, :, None] & inside[1][:, None, :]
        return mask


def cell_count(fraction: float, cells: int) -> int:
    """Return how many of ``cells`` a fraction is, rounded down; 1/3 of 36 is 12, whatever its last bit."""
    return int(fraction * cells + 1e-9)
