"""ASDN, the adversarial spatial dropout network (section 4.2.1): it learns which cells of an object to hide."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afrcnn.adversary.contract import Hardened, Head, HeadCopy, RoIHead, score_drop
from afrcnn.adversary.window_search import default_window, sliding_windows, window_losses


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
        if not 0 < share <= top <= 1:
            raise ValueError(f"0 < share <= top <= 1 does not hold for share {share:g} and top {top:g}")
        self.top, self.share = top, share

    @torch.no_grad()
    def forward(self, heatmap: Tensor) -> Tensor:
        """Return masks, n x d x d, bool, true where a cell is hidden, of heatmaps (or their logits) n x d x d."""
        cells = heatmap.flatten(1)
        hidden = cell_count(self.share, cells.shape[1])
        candidates = cells.topk(max(hidden, cell_count(self.top, cells.shape[1])), dim=1).indices
        shuffle = torch.rand(candidates.shape, device=candidates.device).argsort(dim=1)[:, :hidden]
        mask = torch.zeros_like(cells, dtype=torch.bool)
        return mask.scatter_(1, candidates.gather(1, shuffle), True).view(heatmap.shape)


def cell_count(fraction: float, cells: int) -> int:
    """Return how many of ``cells`` a fraction is, rounded down; 1/3 of 36 is 12, whatever its last bit."""
    return int(fraction * cells + 1e-9)


class ASDN(nn.Module):
    """Predicts, from an object's features, where hiding them makes the detector fail.

    In joint training (``forward``), the features lose the cells of a sampled mask; those masks that lowered the true
    class's score much become the targets, and the others give no gradient (the paper's turn on REINFORCE). In
    pre-training (``pretrain``), against a frozen detector, the target is the window whose hiding costs the detector
    most, found by exhaustive search, and the features stay as they are. Both learn by binary cross entropy (equation
    1).

    Args:
        network: features n x C x d x d to the heatmap's logits n x d x d, with parameters of its own.
        sampling: turns heatmaps into masks.
        window: cells on a side of the windows of pre-training; a third of d, rounded up, when None.
        stride: cells between two windows.
        threshold: the smallest drop of the true class's score, in [0, 1], that makes a mask a target.
        negatives: the share of the cells outside the window that give a gradient in pre-training (1 in the paper, 0.4
            in the release).
    """

    def __init__(
        self,
        network: nn.Module,
        sampling: MaskSampling | None = None,
        *,
        window: int | None = None,
        stride: int = 1,
        threshold: float = 0.1,
        negatives: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.sampling = sampling or MaskSampling()
        self.window, self.stride = window, stride
        self.threshold, self.negatives = threshold, negatives

    def forward(self, features: Tensor, labels: Tensor, head: Head) -> Hardened:
        """Hide cells of features (n x C x d x d), and learn from the masks that were hard; see ``Adversary``."""
        logits = self.network(features.detach())
        mask = self.sampling(logits.detach())
        hidden = features.masked_fill(mask[:, None], 0)
        drop = score_drop(features, hidden, labels, head)
        hard = drop > self.threshold
        loss = masked_binary_cross_entropy(logits, mask, hard[:, None, None].expand_as(mask))
        metrics = {"score_drop": drop.mean(), "hard_masks": hard.float().mean()} if len(drop) else {}
        return Hardened(hidden, loss, metrics)

    def pretrain(self, features: Tensor, labels: Tensor, head: Head) -> Hardened:
        """Learn to predict the hardest window of features (n x C x d x d), which stay as they are."""
        logits = self.network(features.detach())
        size = features.shape[-1]
        windows = sliding_windows(size, self.window or default_window(size), self.stride).to(features.device)
        losses = window_losses(features.detach(), labels, head, windows)
        target = windows[losses.argmax(dim=1)]
        counted = target | (torch.rand(target.shape, device=target.device) < self.negatives)
        loss = masked_binary_cross_entropy(logits, target, counted)
        metrics = {"hardest_window_loss": losses.amax(dim=1).mean()} if len(losses) else {}
        return Hardened(features, loss, metrics)


def masked_binary_cross_entropy(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Return equation 1, the binary cross entropy, summed over the cells that count and divided by n; 0 for n = 0.

    Args:
        logits: n x d x d.
        target: n x d x d, bool.
        counted: n x d x d, bool; the other cells give no gradient.
    """
    loss = F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
    return (loss * counted).sum() / max(len(loss), 1)


class FullyConnectedASDN(nn.Module):
    """The paper's network: layers as the detector's head has (fc6 and fc7), and one more that gives a logit a cell.

    Args:
        head: of the ImageNet network, or the detector's own; its layers are copied, never shared.
    """

    def __init__(self, head: RoIHead) -> None:
        super().__init__()
        self.head = HeadCopy(head.layers)
        self.mask = nn.Linear(head.features, head.size**2)
        self.size = head.size
        nn.init.normal_(self.mask.weight, std=0.01)
        nn.init.zeros_(self.mask.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits n x d x d of features n x C x d x d."""
        logits: Tensor = self.mask(self.head(features))
        return logits.view(-1, self.size, self.size)


class ConvolutionalASDN(nn.Sequential):
    """The Caffe release's network: four 3 x 3 convolutions of 256 channels with ReLU, and one to a single channel.

    Args:
        channels: C of the features.
        width: channels of the layers between.
    """

    def __init__(self, channels: int, width: int = 256) -> None:
        layers: list[nn.Module] = []
        for inputs in (channels, width, width, width):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Conv2d(width, 1, 3, padding=1), nn.Flatten(1, 2))
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
