"""ASTN, the adversarial spatial transformer network (section 4.2.2): it learns how to bend an object's parts.

The three parts of a spatial transformer network (Jaderberg et al. 2015): a localisation network estimates how to
transform, a grid generator says where each output cell comes from, and a sampler interpolates there. The channels fall
into blocks with a rotation each: channels respond to different parts of an object, so that parts turn apart.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from afrcnn.adversaries.base import (
    Adversary,
    AdversaryOutput,
    BoxHeadCopy,
    BoxHeadSpec,
    Context,
    Head,
    mean_loss,
    mean_metrics,
    score_drop,
)

_BACKGROUND = 0


class ASTN(Adversary):
    """Rotates blocks of an object's channels so that the detector no longer recognises the object.

    Args:
        spec: what the localisation network's layers are made from; its channels must be a multiple of ``blocks``.
        blocks: how many blocks the channels are divided into (4 in the paper).
        degrees: the largest rotation either way (10 in the paper).
        scale: the largest factor of enlargement, or of reduction, minus 1; 0 for none, as in the paper.
        translation: the largest shift as a fraction of the features' side; 0 for none, as in the paper.
        objective: what it wants the detector to do: take the object for background (section 4.2.2), or for anything but
            its true class (section 3's loss of a general adversary).

    Raises:
        ValueError: the channels cannot be divided into the blocks.
    """

    def __init__(
        self,
        spec: BoxHeadSpec,
        *,
        blocks: int = 4,
        degrees: float = 10.0,
        scale: float = 0.0,
        translation: float = 0.0,
        objective: Literal["background", "true_class"] = "background",
    ) -> None:
        super().__init__()
        if blocks < 1 or spec.channels % blocks:
            raise ValueError(f"{spec.channels} channels cannot be divided into {blocks} blocks")
        self.localisation = LocalisationNetwork(spec, blocks)
        self.blocks, self.degrees, self.scale, self.translation = blocks, degrees, scale, translation
        self.objective = objective

    def forward(self, features: Tensor, labels: Tensor, head: Head, context: Context | None = None) -> AdversaryOutput:
        """Rotate blocks of features (n x C x d x d); see ``Adversary``."""
        theta = self.theta(features.detach())
        if not len(labels):
            return AdversaryOutput(features, mean_loss(theta.sum(dim=(1, 2, 3))), {})
        # Two warps of the same features: the detector is trained through one, the localisation network through the
        # other, so that neither loss reaches what the other trains.
        rotated = warp(features, theta.detach())
        bent = warp(features.detach(), theta)
        if self.objective == "background":
            losses = head.losses(bent, torch.full_like(labels, _BACKGROUND))
        else:
            losses = -head.losses(bent, labels)
        angles = _degrees_of(theta.detach()).abs()  # n x blocks
        metrics = mean_metrics(
            score_drop=score_drop(features, rotated, labels, head),
            absolute_angle=angles,
            angles_at_limit=(angles > 0.99 * self.degrees).float(),
        )
        return AdversaryOutput(rotated, mean_loss(losses), metrics)

    def theta(self, features: Tensor) -> Tensor:
        """Return the affine maps, n x blocks x 2 x 3, that the network answers features (n x C x d x d) with."""
        return self.transformation(self.localisation(features).float().view(-1, self.blocks, 4))

    def transformation(self, numbers: Tensor) -> Tensor:
        """Return affine maps n x blocks x 2 x 3 from output to input coordinates in [-1, 1], of raw numbers (.. x 4).

        A block's numbers are rotation, logarithm of scale, and translation along x and y; those with a limit of 0 are
        not used. Each is confined to [-1, 1], so that the limits hold whatever the network says.
        """
        bounded: Tensor = _Confine.apply(numbers)
        angle = bounded[..., 0] * math.radians(self.degrees)
        factor = (bounded[..., 1] * math.log1p(self.scale)).exp()
        shift = bounded[..., 2:] * (2 * self.translation)
        return _affine(angle, factor, shift)

    @torch.no_grad()
    def explain(self, features: Tensor) -> dict[str, Tensor]:
        """Return the angles (n x blocks, degrees clockwise) by which it turns features n x C x d x d."""
        return {"angles": _degrees_of(self.theta(features))}


class _Confine(torch.autograd.Function):
    """Clamps to [-1, 1], with the gradient of the identity wherever it does not lead further out.

    A function that saturates, as the hyperbolic tangent, would keep each angle at the limit that it reached first:
    which way parts turn would become one habit for all objects.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, numbers: Tensor) -> Tensor:
        """Return the numbers, clamped."""
        ctx.save_for_backward(numbers)
        return numbers.clamp(-1, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient, and 0 where descent would leave the bounds."""
        (numbers,), (gradient,) = ctx.saved_tensors, gradients
        return gradient.where((numbers.abs() < 1) | (numbers * gradient > 0), 0)


class LocalisationNetwork(nn.Module):
    """The paper's localisation network: layers as fc6 and fc7, and a third that estimates the transformation.

    Args:
        spec: of the ImageNet network's box head, or the detector's own; its layers are copied, never shared.
        blocks: how many blocks of channels are transformed.
    """

    def __init__(self, spec: BoxHeadSpec, blocks: int = 4) -> None:
        super().__init__()
        self.head = BoxHeadCopy(spec.layers)
        self.transformation = nn.Linear(spec.features, blocks * 4)
        nn.init.normal_(self.transformation.weight, std=0.01)
        nn.init.zeros_(self.transformation.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return raw numbers n x (blocks * 4) of features n x C x d x d."""
        numbers: Tensor = self.transformation(self.head(features))
        return numbers


def _affine(angle: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
    """Return affine maps ... x 2 x 3 from output to input coordinates (x right, y down, both in [-1, 1]).

    Args:
        angle: ..., radians; the content turns clockwise on the screen by it.
        factor: ..., the content is enlarged by it.
        shift: ... x 2, the content moves by it, in units of half the features' side.
    """
    cos, sin = angle.cos() / factor, angle.sin() / factor
    linear = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    return torch.cat([linear, -linear @ shift[..., None]], -1)


def _degrees_of(theta: Tensor) -> Tensor:
    """Return the rotations (..., degrees, clockwise) of affine maps ... x 2 x 3 as of :func:`_affine`."""
    # The maps lead from output to input: they turn the other way.
    return torch.atan2(-theta[..., 1, 0], theta[..., 0, 0]).rad2deg()


def warp(features: Tensor, theta: Tensor) -> Tensor:
    """Transform blocks of channels: grid generator and sampler (bilinear, zero outside).

    Args:
        features: n x C x d x d.
        theta: n x blocks x 2 x 3, float32, as of :func:`_affine`; C must be a multiple of ``blocks``.
    """
    n, channels, height, width = features.shape
    blocks = theta.shape[1]
    shape = [n * blocks, channels // blocks, height, width]
    # In 16 bits, a coordinate would be off by more than a hundredth of a cell.
    precision = torch.promote_types(features.dtype, theta.dtype)
    with torch.autocast(features.device.type, enabled=False):
        grid = F.affine_grid(theta.flatten(0, 1).to(precision), shape, align_corners=False)
        sampled = F.grid_sample(features.reshape(shape).to(precision), grid, align_corners=False)
    return sampled.to(features.dtype).view(n, channels, height, width)
