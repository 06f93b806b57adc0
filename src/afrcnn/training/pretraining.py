"""Pre-training: adversaries trained alone against a frozen detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from afrcnn.adversaries.base import Adversary
from afrcnn.data.target import Target
from afrcnn.detectors.rcnn import FastRCNN


class Pretraining(nn.Module):
    """The second stage (section 4.2.1): adversaries learn alone, and the detector is a constant to them.

    Args:
        adversaries: those that learn, by name.
        detector: no part of this module, so that nothing here trains it.
        foreground_per_image: how many foreground RoIs an image gives at most.

    Attributes:
        metrics: what the adversaries measured in the last update.
        targets_on_host: as of ``FastRCNN``.
    """

    targets_on_host = True

    def __init__(self, adversaries: Mapping[str, Adversary], detector: nn.Module, foreground_per_image: int) -> None:
        super().__init__()
        assert isinstance(detector, FastRCNN)
        self.adversaries = nn.ModuleDict(adversaries)
        self.metrics: dict[str, Tensor] = {}
        self.pool_foreground, self.foreground_per_image = detector.pool_foreground, foreground_per_image
        self.head = detector.roi_heads.frozen_head()

    def forward(
        self, images: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Return the adversaries' losses, each a mean over the foreground RoIs of all processes."""
        with torch.no_grad():
            features, labels = self.pool_foreground(images, proposals, targets, self.foreground_per_image)
        losses, self.metrics = {}, {}
        for name, adversary in self.adversaries.items():
            assert isinstance(adversary, Adversary)
            output = adversary.pretrain(features, labels, self.head)
            losses[f"adversary/{name}"] = output.loss
            self.metrics |= {f"{name}/{metric}": value for metric, value in output.metrics.items()}
        return losses
