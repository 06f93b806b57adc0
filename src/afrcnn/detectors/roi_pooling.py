"""RoI pooling: a d x d grid of features for each region of interest.

Two kinds, chosen by a recipe's field: the paper's max pooling over quantised bins (Fast R-CNN, section 2.1), and
RoIAlign's bilinear samples without quantisation (He et al. 2017, Mask R-CNN, section 3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision import ops

CHUNK = 256
"""RoIs that are aligned at once: bounds the memory of what is between the two products."""


class RoIPool(nn.Module):
    """The paper's RoI pooling: the maximum of each bin, its borders rounded to whole cells.

    Args:
        size: d, cells on a side.
        stride: input pixels per cell of the features.
    """

    def __init__(self, size: int, stride: int) -> None:
        super().__init__()
        self.size, self.stride = size, stride

    def forward(self, features: Tensor, rois: list[Tensor]) -> Tensor:
        """Pool features (N x C x H x W) in each image's RoIs (n_i x 4, XYXY pixels of the input) to n x C x d x d."""
        # Max pooling takes its last pixel as part of the region; our boxes end before theirs.
        inclusive = [torch.cat([roi[:, :2], roi[:, 2:] - 1], dim=1) for roi in rois]
        with torch.autocast(features.device.type, enabled=False):
            pooled: Tensor = ops.roi_pool(features.float(), inclusive, self.size, 1 / self.stride)
        return pooled.to(features.dtype)


class RoIAlign(nn.Module):
    """Average of bilinear samples in each bin, with borders where they fall (half-pixel centres).

    Bilinear interpolation at a product grid is separable, so a RoI's output is two small matrix products,
    W_y F W_x^T. On the CPU these run in the fast matrix kernels, where torchvision's operator walks over samples:
    several times faster in bfloat16, and in float32 with the backward pass. Elsewhere, and in a float32 forward pass
    alone, torchvision's operator is used. Both agree to rounding.

    Args:
        size: d, cells on a side.
        stride: input pixels per cell of the features.
        samples: samples per bin along each axis.
    """

    def __init__(self, size: int, stride: int, samples: int = 2) -> None:
        super().__init__()
        self.size, self.stride, self.samples = size, stride, samples

    def forward(self, features: Tensor, rois: list[Tensor]) -> Tensor:
        """Pool features (N x C x H x W) in each image's RoIs (n_i x 4, XYXY pixels of the input) to n x C x d x d."""
        if features.device.type == "cpu" and (features.requires_grad or features.dtype == torch.bfloat16):
            return torch.cat(
                [
                    self.align(image, part)
                    for image, roi in zip(features, rois, strict=True)
                    for part in torch.split(roi, CHUNK)
                ]
            )
        with torch.autocast(features.device.type, enabled=False):
            pooled: Tensor = ops.roi_align(
                features.float(), rois, self.size, 1 / self.stride, self.samples, aligned=True
            )
        return pooled.to(features.dtype)

    def align(self, features: Tensor, rois: Tensor) -> Tensor:
        """Pool one image's features (C x H x W) in its RoIs (n x 4) by matrix products."""
        channels, height, width = features.shape
        rois = rois / self.stride - 0.5
        rows = self.interpolation(rois[:, 1], rois[:, 3], height).to(features.dtype)
        columns = self.interpolation(rois[:, 0], rois[:, 2], width).to(features.dtype)
        plane = features.permute(1, 2, 0).reshape(height, width * channels)
        bands = (rows.flatten(0, 1) @ plane).view(len(rois), self.size, width, channels)
        return (columns[:, None] @ bands).permute(0, 3, 1, 2)

    def interpolation(self, low: Tensor, high: Tensor, size: int) -> Tensor:
        """Return n x d x size: how much each of ``size`` cells counts in each of d bins between low and high (n)."""
        samples = self.size * self.samples
        steps = (torch.arange(samples, device=low.device) + 0.5) / samples
        points = low[:, None] + (high - low)[:, None] * steps
        outside = (points < -1) | (points > size)
        distance = (points.clamp(0, size - 1)[..., None] - torch.arange(size, device=low.device)).abs()
        weights = (1 - distance).clamp(min=0).masked_fill(outside[..., None], 0)
        return weights.view(len(low), self.size, self.samples, size).mean(dim=2)
