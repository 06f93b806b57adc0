"""What hides an object: nothing, where its cells become zero, or something else, as in front of a real object."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Occluder(nn.Module):
    """Puts other RoIs' features into the cells that are hidden.

    A cell of zeros is nothing that a photograph ever shows. A detector that is trained with them learns what zeros
    mean, and little about objects that are hidden by others. Here each object is hidden by one other RoI of the update,
    background or an object of another class, drawn anew each time; the features that it has in the hidden cells take
    the place of the object's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.observed: tuple[Tensor, Tensor] | None = None

    def observe(self, features: Tensor, labels: Tensor) -> None:
        """See all RoIs of an update (m x C x d x d, and their labels, 0 for background), for the next call alone."""
        self.observed = features.detach(), labels

    def forward(self, features: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Hide cells of objects.

        Args:
            features: n x C x d x d.
            labels: n, int64, 1..K.
            mask: n x d x d, bool, true where a cell is hidden.

        Returns:
            Features n x C x d x d, differentiable in those given where they can be seen. Where no RoI has another
            label, hidden cells are zero.
        """
        others, their_labels = self.observed or (features.detach(), labels)
        self.observed = None
        different = labels[:, None] != their_labels
        chance = torch.rand(different.shape, device=different.device).masked_fill(~different, -1)
        if not chance.shape[1]:
            return features.masked_fill(mask[:, None], 0)
        best, chosen = chance.max(dim=1)
        occluders = others[chosen].masked_fill((best < 0)[:, None, None, None], 0)
        return torch.where(mask[:, None], occluders.to(features.dtype), features)


def hide(features: Tensor, labels: Tensor, mask: Tensor, occluder: Occluder | None) -> Tensor:
    """Hide the cells of a mask (n x d x d) in features (n x C x d x d): behind an occluder, or in zeros."""
    if occluder is None:
        return features.masked_fill(mask[:, None], 0)
    hidden: Tensor = occluder(features, labels, mask)
    return hidden
