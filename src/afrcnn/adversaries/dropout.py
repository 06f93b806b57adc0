"""Spatial dropout without a network, which the paper compares ASDN with (section 5.2.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from afrcnn.adversaries.base import Hardened, Head, score_drop, true_class_score
from afrcnn.adversaries.mask_sampling import MaskSampling, WindowSampling
from afrcnn.adversaries.occluder import Occluder, hide
from afrcnn.adversaries.window_search import default_window, sliding_windows, window_losses


class RandomDropout(nn.Module):
    """Hides cells as ASDN does, but at random.

    Args:
        sampling: draws masks; the paper's share of the cells, any of them, when None.
        occluder: what hides the cells; they become zero when None.
    """

    def __init__(self, sampling: MaskSampling | WindowSampling | None = None, occluder: Occluder | None = None) -> None:
        super().__init__()
        self.sampling, self.occluder = sampling or MaskSampling(top=1), occluder

    def forward(self, features: Tensor, labels: Tensor, head: Head) -> Hardened:
        """Hide cells of features (n x C x d x d); see ``Adversary``."""
        mask = self.sampling(torch.zeros_like(features[:, 0], dtype=torch.float32))
        hidden = hide(features, labels, mask, self.occluder)
        metrics = {"score_drop": score_drop(features, hidden, labels, head).mean()} if len(labels) else {}
        return Hardened(hidden, features.new_zeros(()), metrics)

    def observe(self, features: Tensor, labels: Tensor) -> None:
        """See all RoIs of an update, before it: what occluders are made of; see ``Adversary``."""
        if self.occluder is not None:
            self.occluder.observe(features, labels)


class HardDropout(nn.Module):
    """Hides the hardest window of each object, found by exhaustive search in every update.

    Args:
        window: cells on a side of the window; a third of d, rounded up, when None.
        stride: cells between two windows.
    """

    def __init__(self, window: int | None = None, stride: int = 1) -> None:
        super().__init__()
        self.window, self.stride = window, stride

    def forward(self, features: Tensor, labels: Tensor, head: Head) -> Hardened:
        """Hide the hardest window of features (n x C x d x d); see ``Adversary``."""
        size = features.shape[-1]
        windows = sliding_windows(size, self.window or default_window(size), self.stride).to(features.device)
        losses, hardest = window_losses(features.detach(), labels, head, windows).max(dim=1)
        hidden = features.masked_fill(windows[hardest][:, None], 0)
        return Hardened(hidden, features.new_zeros(()), self.measure(losses, features, labels, head))

    @torch.no_grad()
    def measure(self, losses: Tensor, features: Tensor, labels: Tensor, head: Head) -> dict[str, Tensor]:
        """Return how hard it is: the score drop, of which the search already knows what is left (exp of -loss)."""
        if not len(losses):
            return {}
        return {"score_drop": (true_class_score(head(features), labels) - losses.neg().exp()).mean()}
