"""ASDN, the adversarial spatial dropout network (section 4.2.1): it learns which cells of an object to hide."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afrcnn.adversaries.base import Hardened, Head, HeadCopy, RoIHead, score_drop
from afrcnn.adversaries.mask_sampling import MaskSampling, WindowSampling
from afrcnn.adversaries.occluder import Occluder, hide
from afrcnn.adversaries.window_search import default_window, sliding_windows, window_losses


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
        occluder: what hides the cells in joint training; they become zero, as in the paper, when None.
        window: cells on a side of the windows of pre-training; a third of d, rounded up, when None.
        stride: cells between two windows.
        threshold: the smallest drop of the true class's score, in [0, 1], that makes a mask a target.
        negatives: the share of the cells outside the window that give a gradient in pre-training (1 in the paper, 0.4
            in the release).
    """

    def __init__(
        self,
        network: nn.Module,
        sampling: MaskSampling | WindowSampling | None = None,
        occluder: Occluder | None = None,
        *,
        window: int | None = None,
        stride: int = 1,
        threshold: float = 0.1,
        negatives: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.sampling = sampling or MaskSampling()
        self.occluder = occluder
        self.window, self.stride = window, stride
        self.threshold, self.negatives = threshold, negatives

    def forward(self, features: Tensor, labels: Tensor, head: Head) -> Hardened:
        """Hide cells of features (n x C x d x d), and learn from the masks that were hard; see ``Adversary``."""
        logits = self.network(features.detach())
        mask = self.sampling(logits.detach())
        hidden = hide(features, labels, mask, self.occluder)
        drop = score_drop(features, hidden, labels, head)
        hard = drop > self.threshold
        loss = masked_binary_cross_entropy(logits, mask, hard[:, None, None].expand_as(mask))
        metrics = {"score_drop": drop.mean(), "hard_masks": hard.float().mean()} if len(drop) else {}
        return Hardened(hidden, loss, metrics)

    def observe(self, features: Tensor, labels: Tensor) -> None:
        """See all RoIs of an update, before it: what occluders are made of; see ``Adversary``."""
        if self.occluder is not None:
            self.occluder.observe(features, labels)

    @torch.no_grad()
    def explain(self, features: Tensor) -> dict[str, Tensor]:
        """Return ``heatmap``, n x d x d in [0, 1]: where occlusion of features (n x C x d x d) is expected to hurt."""
        return {"heatmap": self.network(features).sigmoid()}

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
