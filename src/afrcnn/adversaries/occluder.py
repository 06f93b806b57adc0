"""What hides an object: zeros, or the features of something else, as in front of a real object."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from afrcnn.adversaries.base import Context

Occluder = Literal["zeros", "features"]


def hide(features: Tensor, labels: Tensor, mask: Tensor, occluder: Occluder, context: Context | None = None) -> Tensor:
    """Hide cells of objects, in zeros or behind other RoIs' features.

    A cell of zeros is nothing that an image ever shows. A detector that is trained with them learns what zeros mean,
    and little about objects that others occlude. With ``"features"``, each object is hidden by one other RoI of the
    update, background or an object of another class, drawn anew each time; the features that it has in the hidden cells
    take the place of the object's.

    Args:
        features: n x C x d x d.
        labels: n, int64, 1..K.
        mask: n x d x d, bool, true where a cell is hidden.
        occluder: zeros, as in the paper, or other RoIs' features.
        context: the RoIs that occluders are drawn from; the objects themselves when None.

    Returns:
        Features n x C x d x d, differentiable in those given where they are visible. Where no RoI has another label,
        hidden cells are zero.
    """
    candidates = context or Context(features.detach(), labels)
    different = labels[:, None] != candidates.labels  # n x m
    if occluder == "zeros" or not different.shape[1]:
        return features.masked_fill(mask[:, None], 0)
    drawn = torch.rand(different.shape, device=different.device).masked_fill(~different, -1)
    best, chosen = drawn.max(dim=1)
    occluders = candidates.features[chosen].masked_fill((best < 0)[:, None, None, None], 0)  # n x C x d x d
    return torch.where(mask[:, None], occluders.to(features.dtype), features)
