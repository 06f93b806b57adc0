"""What the processes of one distributed training tell each other, beyond their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def rank_and_size() -> tuple[int, int]:
    """Return which process this is and how many there are: (0, 1) where training is not distributed."""
    distributed = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)


def gather(value: Any) -> list[Any]:
    """Return what each process has for a value, in the order of their ranks."""
    _, size = rank_and_size()
    values = [value] * size
    if size > 1:
        dist.all_gather_object(values, value)
    return values


def sum_over_processes(value: Tensor) -> Tensor:
    """Return the sum of what all processes have; it may overwrite the value."""
    if rank_and_size()[1] > 1:
        dist.all_reduce(value)
    return value


def in_any_process(flag: bool, device: torch.device) -> bool:
    """Tell all processes whether a flag is set in any of them."""
    return flag if rank_and_size()[1] == 1 else bool(sum_over_processes(torch.tensor(float(flag), device=device)) > 0)


def mean_count(count: int | Tensor, device: torch.device) -> Tensor | int:
    """Return the mean over all processes of a count, for a sum of losses to be divided by; of none, as of one in all.

    Gradients are averaged over processes. Sums divided by the mean of the counts average to the sum over all processes
    divided by the count of all: to what one process with all the images would compute.

    Every process must call this as often as the others. A count that is a tensor stays on its device.
    """
    _, size = rank_and_size()
    if size == 1 and not isinstance(count, Tensor):
        return max(count, 1)
    if not isinstance(count, Tensor):
        count = torch.full((), count, dtype=torch.float32, device=device)  # a copy from the host would wait
    total = sum_over_processes(count.to(torch.float32, copy=True))
    return (total / size).clamp(min=1 / size)
