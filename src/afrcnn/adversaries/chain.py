"""Chains of adversaries: each makes harder what the one before it gave (section 4.2.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from afrcnn.adversaries.base import Hardened, Head, show


class Chain(nn.ModuleDict):
    """Adversaries one after the other, trained at once; ``Chain(asdn=..., astn=...)`` is the paper's fusion."""

    def __init__(self, **adversaries: nn.Module) -> None:
        super().__init__(adversaries)

    def forward(self, features: Tensor, labels: Tensor, head: Head) -> Hardened:
        """Harden features (n x C x d x d) by each in turn; the losses are added; see ``Adversary``."""
        loss = features.new_zeros((), dtype=torch.float32)
        metrics: dict[str, Tensor] = {}
        for name, adversary in self.items():
            features, own_loss, own_metrics = adversary(features, labels, head)
            loss = loss + own_loss
            metrics |= {f"{name}/{metric}": value for metric, value in own_metrics.items()}
        return Hardened(features, loss, metrics)

    def observe(self, features: Tensor, labels: Tensor) -> None:
        """Show all RoIs of an update to those adversaries that look at them; see ``Adversary``."""
        for adversary in self.values():
            show(adversary, features, labels)
