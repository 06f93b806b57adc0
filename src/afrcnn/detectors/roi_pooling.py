"""RoI pooling: a d x d grid of features for each region of interest.

Three kinds, chosen by a recipe's field: max pooling over quantised bins as in Fast R-CNN (section 2.1) and its Caffe
code, the same with the bins of the Torch implementation that the paper follows, and RoIAlign's bilinear samples without
quantisation (He et al. 2017, Mask R-CNN, section 3).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import ops

from afrcnn.adversaries.astn import warp

_CHUNK = 256
"""RoIs that are aligned at once: bounds the memory of what is between the two products."""


class Features(NamedTuple):
    """The features of a batch of images, and how pixels of the images become their cells.

    Attributes:
        maps: N x C x H x W.
        scales: by image 4, on the host, the factors (x, y, x, y) from pixels of the image as given to those the
            backbone saw.
        sizes: by image, height and width in pixels as given.
    """

    maps: Tensor
    scales: list[Tensor]
    sizes: list[tuple[int, int]]


class RoIPooling(nn.Module):
    """RoI pooling of any kind.

    Args:
        size: d, cells on a side.
        stride: pixels that the backbone saw per cell of its features.
        offset: the pixel that the first cell is centred on; see ``Backbone``.

    Attributes:
        last_pixel: what is taken off the right and lower borders of boxes, which end after their last pixel, before
            they are scaled: 1 where the last pixel itself is scaled.
    """

    last_pixel: int = 0

    def __init__(self, size: int, stride: int, offset: float) -> None:
        super().__init__()
        self.size, self.stride, self.offset = size, stride, offset

    def forward(self, features: Features, boxes: Tensor, image: Tensor, angle: Tensor | None = None) -> Tensor:
        """Pool features in RoIs.

        Args:
            features: of N images.
            boxes: n x 4, XYXY pixels of the images as given; on the host or where the features are.
            image: n, the index of each one's image, rising.
            angle: n, radians, by which a RoI is turned clockwise about its centre; 0 or None for not at all.

        Returns:
            n x C x d x d.
        """
        if angle is None or not (turned := angle.nonzero().flatten()).numel():
            return self._pool_images(features, boxes, image)
        cover, theta = _cover_of_turned(boxes[turned], angle[turned])
        pooled = self._pool_images(features, boxes.index_copy(0, turned, cover), image)
        turned, theta = (tensor.to(pooled.device, non_blocking=True) for tensor in (turned, theta))
        return pooled.index_copy(0, turned, warp(pooled[turned], theta[:, None]))

    def _pool_images(self, features: Features, boxes: Tensor, image: Tensor) -> Tensor:
        counts = torch.bincount(image, minlength=len(features.scales)).tolist()
        if self.last_pixel:
            boxes = torch.cat([boxes[:, :2], boxes[:, 2:] - self.last_pixel], dim=1)
        by_image = zip(torch.split(boxes, counts), features.scales, strict=True)
        scaled = [box * scale.to(box.device, non_blocking=True) for box, scale in by_image]
        return self.pool(features.maps, [box.to(features.maps.device, non_blocking=True) for box in scaled])

    @abstractmethod
    def pool(self, maps: Tensor, boxes: list[Tensor]) -> Tensor:
        """Pool maps (N x C x H x W) in each image's boxes (n_i x 4, XYXY pixels as seen) to n x C x d x d."""


class RoIPool(RoIPooling):
    """RoI pooling as in Fast R-CNN's Caffe code: the maximum of each bin, its borders rounded outwards to whole cells.

    A pixel's cell is its coordinate over the stride, rounded, wherever the backbone's cells lie: right for CaffeNet,
    whose first cell is centred on pixel 0, and half a cell too far for VGG16, as its authors have it.
    """

    last_pixel = 1

    def pool(self, maps: Tensor, boxes: list[Tensor]) -> Tensor:
        """Pool; see ``RoIPooling``."""
        with torch.autocast(maps.device.type, enabled=False):
            pooled: Tensor = ops.roi_pool(maps.float(), boxes, self.size, 1 / self.stride)
        return pooled.to(maps.dtype)


class RoIPoolV2(RoIPooling):
    """RoI pooling of the paper's Torch baseline ("v2" in imagine-nn): bins that do not overlap.

    A box ends before the cell of its last pixel, and the borders between bins are rounded, so that a cell is in one bin
    alone. Bins of boxes with fewer than d cells on a side can be empty, which makes them zero. Its authors put down
    about 2 mAP to this (see :class:`RoIPool` for where cells lie).
    """

    last_pixel = 1

    def pool(self, maps: Tensor, boxes: list[Tensor]) -> Tensor:
        """Pool; see ``RoIPooling``."""
        left, top, right, bottom = _round(torch.cat(boxes) / self.stride).unbind(1)
        rows, columns = self._bins(top, bottom, maps.shape[-2]), self._bins(left, right, maps.shape[-1])  # n x d x 2
        size = (rows.shape[0], self.size, self.size, 2)
        bins = torch.stack([columns[:, None].expand(size), rows[:, :, None].expand(size)], dim=-1)  # n x d x d x 2 x 2
        empty = (bins[..., 0, :] >= bins[..., 1, :]).any(dim=-1)  # n x d x d
        # Each bin is a RoI of its own, of whole cells, to the operator of Fast R-CNN, whose last cells are inclusive.
        cells = torch.cat([bins[..., 0, :], bins[..., 1, :] - 1], dim=-1).flatten(0, 2).float()  # (n * d * d) x 4
        # One image is not split, so that its number of RoIs can be left open in an exported graph.
        by_image = torch.split(cells, [len(box) * self.size**2 for box in boxes]) if len(boxes) > 1 else [cells]
        with torch.autocast(maps.device.type, enabled=False):
            pooled: Tensor = ops.roi_pool(maps.float(), list(by_image), 1)
        pooled = pooled.view(*size[:3], maps.shape[1]).masked_fill(empty[..., None], 0).permute(0, 3, 1, 2)
        return pooled.to(maps.dtype)

    def _bins(self, first: Tensor, end: Tensor, cells: int) -> Tensor:
        """Return n x d x 2: first cell and exclusive end of d bins between borders (n each), within so many cells."""
        length = (end - first).clamp(min=1)[:, None].long()
        # round(i * length / d) in whole numbers, so that no border depends on the last bit of a quotient.
        borders = (2 * torch.arange(self.size + 1, device=first.device) * length + self.size) // (2 * self.size)
        return (first[:, None].long() + borders).clamp(0, cells).unfold(1, 2, 1)


class RoIAlign(RoIPooling):
    """Average of bilinear samples in each bin, with borders where they fall (half-pixel centres).

    Bilinear interpolation at a product grid is separable, so a RoI's output is two small matrix products,
    W_y F W_x^T. On the CPU these run in the fast matrix kernels, where torchvision's operator walks over samples:
    several times faster in bfloat16, and in float32 with the backward pass. Elsewhere, and in a float32 forward pass
    alone, torchvision's operator is used. Both agree to rounding.

    Args:
        size: d, cells on a side.
        stride: pixels that the backbone saw per cell of its features.
        offset: the pixel that the first cell is centred on; see ``Backbone``.
        samples: samples per bin along each axis.
    """

    def __init__(self, size: int, stride: int, offset: float, samples: int = 2) -> None:
        super().__init__(size, stride, offset)
        self.samples = samples

    def pool(self, maps: Tensor, boxes: list[Tensor]) -> Tensor:
        """Pool; see ``RoIPooling``."""
        # To the operator, the first cell is centred on pixel (stride - 1) / 2.
        boxes = [box + ((self.stride - 1) / 2 - self.offset) for box in boxes]
        if maps.device.type == "cpu" and (maps.requires_grad or maps.dtype == torch.bfloat16):
            by_image = zip(maps, boxes, strict=True)
            chunks = [(plane, chunk) for plane, box in by_image for chunk in torch.split(box, _CHUNK)]
            return torch.cat([self._align(plane, chunk) for plane, chunk in chunks])
        with torch.autocast(maps.device.type, enabled=False):
            pooled: Tensor = ops.roi_align(maps.float(), boxes, self.size, 1 / self.stride, self.samples, aligned=True)
        return pooled.to(maps.dtype)

    def _align(self, features: Tensor, rois: Tensor) -> Tensor:
        """Pool one image's features (C x H x W) in its RoIs (n x 4) by matrix products."""
        channels, height, width = features.shape
        rois = rois / self.stride - 0.5
        rows = self._interpolation(rois[:, 1], rois[:, 3], height).to(features.dtype)
        columns = self._interpolation(rois[:, 0], rois[:, 2], width).to(features.dtype)
        plane = features.permute(1, 2, 0).reshape(height, width * channels)
        bands = (rows.flatten(0, 1) @ plane).view(len(rois), self.size, width, channels)
        return (columns[:, None] @ bands).permute(0, 3, 1, 2)

    def _interpolation(self, low: Tensor, high: Tensor, size: int) -> Tensor:
        """Return n x d x size: how much each of ``size`` cells counts in each of d bins between low and high (n)."""
        samples = self.size * self.samples
        steps = (torch.arange(samples, device=low.device) + 0.5) / samples
        points = low[:, None] + (high - low)[:, None] * steps
        outside = (points < -1) | (points > size)
        distance = (points.clamp(0, size - 1)[..., None] - torch.arange(size, device=low.device)).abs()
        weights = (1 - distance).clamp(min=0).masked_fill(outside[..., None], 0)
        return weights.view(len(low), self.size, self.samples, size).mean(dim=2)


def _cover_of_turned(boxes: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Return how to pool boxes that are turned about their centres: pool their covers, then warp by theta.

    The cell centres of a turned box lie between those of its cover, so that no zero from outside is interpolated. The
    cells of the cover are the larger ones, most for long boxes: at 10 degrees up to 1.16 times for a square and 1.68
    times for sides of 4 to 1, along the short side.

    Args:
        boxes: n x 4, XYXY, of positive width and height.
        angle: n, radians; a box turns clockwise on the screen by it, so that its content turns counterclockwise.

    Returns:
        The smallest boxes (n x 4, XYXY) around the turned ones, and the affine maps (n x 2 x 3) from the turned box's
        coordinates to the cover's, both in [-1, 1]: an angle in pixels, whatever the aspect ratio.
    """
    centre, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)  # n x 2 x 2
    axes = rotation * sides[:, None]  # the turned box's width and height as vectors, in columns
    cover = axes.abs().sum(dim=2)  # n x 2
    theta = F.pad(axes / cover[..., None], (0, 1))
    return torch.cat([centre - cover / 2, centre + cover / 2], dim=1), theta


def _round(values: Tensor) -> Tensor:
    """Round to whole numbers, halves away from zero, as C does."""
    return values.sign() * (values.abs() + 0.5).floor()
