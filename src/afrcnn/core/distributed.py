"""What the processes of one distributed training tell each other, beyond their gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def rank_and_size() -> tuple[int, int]:
    """Return which process this is and how many there are: (0, 1) where training is not distributed."""
    distributed = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)


def mean_count(count: int, device: torch.device) -> Tensor | int:
    """Return the mean over all processes of a count, for a sum of losses to be divided by; of none, as of one in all.

    Gradients are averaged over processes. Sums divided by the mean of the counts average to the sum over all processes
    divided by the count of all: to what one process with all the images would compute.

    Every process must call this as often as the others.
    """
    _, size = rank_and_size()
    if size == 1:
        return max(count, 1)
    total = torch.tensor(float(count), device=device)
    dist.all_reduce(total)
    return (total / size).clamp(min=1 / size)
