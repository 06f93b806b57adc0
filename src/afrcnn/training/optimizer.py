"""Stochastic gradient descent and its schedule (section 5.1)."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict

from torch import nn
from torch.optim import SGD

from afrcnn.adversaries.base import Adversary
from afrcnn.recipe import ScheduleRecipe


def learning_rate(iteration: int, schedule: ScheduleRecipe) -> float:
    """Return the learning rate of weights at an iteration (0, 1, ...): linear warm-up, then steps (section 5.1)."""
    warmup = min(1.0, (iteration + 1) / (schedule.warmup_iterations + 1))
    decays = bisect_right(sorted(schedule.decay_at), iteration)
    return float(schedule.learning_rate * warmup * schedule.decay_factor**decays)


def build_optimizer(module: nn.Module, schedule: ScheduleRecipe) -> SGD:
    """Return SGD over a module's trainable parameters, biases with their own learning rate and weight decay.

    Each group's ``rate_factor`` is what the learning rate of the schedule is multiplied by: for the parameters of an
    adversary, also by its own factor.
    """
    factors = {
        parameter: adversary.learning_rate_factor
        for adversary in module.modules()
        if isinstance(adversary, Adversary)
        for parameter in adversary.parameters()
    }
    body = getattr(module, "backbone", None)
    backbone = set(body.parameters()) if isinstance(body, nn.Module) else set()
    groups: dict[tuple[float, bool, float], list[nn.Parameter]] = defaultdict(list)
    for name, value in module.named_parameters():
        if value.requires_grad:
            is_bias = name.endswith("bias")
            decay = schedule.bias_weight_decay if is_bias else schedule.weight_decay
            if is_bias and value in backbone and schedule.backbone_bias_weight_decay is not None:
                decay = schedule.backbone_bias_weight_decay
            groups[factors.get(value, 1.0), is_bias, decay].append(value)
    parameters = [
        {
            "params": values,
            "weight_decay": decay,
            "rate_factor": factor * (schedule.bias_learning_rate_factor if is_bias else 1.0),
        }
        for (factor, is_bias, decay), values in groups.items()
    ]
    return SGD(parameters, lr=schedule.learning_rate, momentum=schedule.momentum, fused=True)
