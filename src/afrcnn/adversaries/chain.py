"""Chains of adversaries: each perturbs what the one before it returned (section 4.2.3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from afrcnn.adversaries.base import Adversary, AdversaryOutput, Context, Head


class Chain(Adversary):
    """Adversaries one after the other, trained at once; ``Chain(asdn=..., astn=...)`` is the paper's fusion."""

    def __init__(self, **adversaries: Adversary) -> None:
        super().__init__()
        for name, adversary in adversaries.items():
            self.add_module(name, adversary)

    def items(self) -> Iterator[tuple[str, Adversary]]:
        """Yield the names and the adversaries, in order."""
        return cast(Iterator[tuple[str, Adversary]], self.named_children())

    def values(self) -> Iterator[Adversary]:
        """Yield the adversaries, in order."""
        return (adversary for _, adversary in self.items())

    def forward(self, features: Tensor, labels: Tensor, head: Head, context: Context | None = None) -> AdversaryOutput:
        """Perturb features (n x C x d x d) by each in turn; the losses are added; see ``Adversary``."""
        loss = features.new_zeros((), dtype=torch.float32)
        metrics: dict[str, Tensor] = {}
        for name, adversary in self.items():
            output: AdversaryOutput = adversary(features, labels, head, context)
            features, loss = output.features, loss + output.loss
            metrics |= {f"{name}/{metric}": value for metric, value in output.metrics.items()}
        return AdversaryOutput(features, loss, metrics)

    def explain(self, features: Tensor) -> dict[str, Tensor]:
        """Return what each would do to the features as they are, under its name."""
        return {
            f"{name}/{key}": value
            for name, adversary in self.items()
            for key, value in adversary.explain(features).items()
        }
