"""Random jittering of the proposals, which the paper compares ASTN with (section 5.2.1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import clip_boxes_to_image

from afrcnn.adversaries.astn import warp
from afrcnn.detectors.sampling import Sample
from afrcnn.detectors.seam import AdversarialImages

Pool = Callable[[Sequence[Tensor]], Tensor]
"""A detector's RoI pooling: boxes by image (n_i x 4, XYXY pixels of their image, n in all) to n x C x d x d."""


class ProposalJitter(nn.Module):
    """Changes scale, aspect ratio and rotation of the foreground RoIs of adversarial images, in training alone.

    The paper gives no ranges and does not say how. Here a RoI keeps its centre, label and object; each change is drawn
    on its own, from the global generator, and as often one way as the other: factors log-uniform, angles uniform. The
    box targets are those of the changed RoI; a rotation does not take part in them. A RoI that by its change overlaps
    its object less than a foreground RoI has to stays foreground: to recognise the object in it is what is practised.

    Args:
        scale: the largest factor of enlargement, or of reduction, of both sides, minus 1; 0 for none.
        aspect_ratio: the largest factor of width to height, or of its inverse, minus 1, the area unchanged; 0 for none.
        degrees: the largest rotation either way; 0 for none.
        clean_fraction: the share of the images, in [0, 1], whose RoIs stay as they are.
    """

    def __init__(self, scale: float, aspect_ratio: float, degrees: float, clean_fraction: float = 0.5) -> None:
        super().__init__()
        self.scale, self.aspect_ratio, self.degrees = scale, aspect_ratio, degrees
        self.adversarial = AdversarialImages(clean_fraction)

    def forward(
        self, samples: Sequence[Sample], sizes: Sequence[tuple[int, int]], pool: Pool
    ) -> tuple[list[Sample], Tensor]:
        """Return the samples with their RoIs jittered, and the features (n x C x d x d) pooled in these.

        Args:
            samples: the RoIs of an update by image, n in all.
            sizes: each image's height and width in pixels.
            pool: called once.
        """
        turns = zip(samples, self.adversarial(len(samples)), strict=True)
        chosen = [(sample.labels > 0) & adversarial for sample, adversarial in turns]
        samples = [
            sample._replace(rois=sample.rois.masked_scatter(which[:, None], self.reshape(sample.rois[which], size)))
            for sample, which, size in zip(samples, chosen, sizes, strict=True)
        ]
        rois = [sample.rois for sample in samples]
        rotated = torch.cat(chosen).nonzero().flatten()
        if not (self.degrees and len(rotated)):
            return samples, pool(rois)

        boxes = torch.cat(rois)
        cover, theta = turned(boxes[rotated], uniform(math.radians(self.degrees), boxes[rotated, 0]))
        pooled = pool(torch.split(boxes.index_copy(0, rotated, cover), [len(roi) for roi in rois]))
        return samples, pooled.index_copy(0, rotated, warp(pooled[rotated], theta[:, None]))

    def reshape(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Return boxes (n x 4, XYXY) of another scale and aspect ratio, clipped to an image of ``size`` (H, W) pixels.

        A box that would be left with less than a pixel on a side stays as it was: its box targets would have no bound.
        """
        if not (self.scale or self.aspect_ratio):
            return boxes
        scale = uniform(math.log1p(self.scale), boxes[:, 0])
        ratio = uniform(math.log1p(self.aspect_ratio), boxes[:, 0])
        growth = torch.stack([scale + ratio / 2, scale - ratio / 2], dim=1).expm1() / 2
        growth = growth * (boxes[:, 2:] - boxes[:, :2])
        changed = clip_boxes_to_image(boxes + torch.cat([-growth, growth], dim=1), size)
        solid = (changed[:, 2:] - changed[:, :2] >= 1).all(dim=1, keepdim=True)
        return torch.where(solid, changed, boxes)


def turned(boxes: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
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
    rotation = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    axes = rotation * sides[:, None]  # the turned box's width and height as vectors, in columns
    cover = axes.abs().sum(dim=2)
    theta = F.pad(axes / cover[..., None], (0, 1))
    return torch.cat([centre - cover / 2, centre + cover / 2], dim=1), theta


def uniform(limit: float, like: Tensor) -> Tensor:
    """Return numbers from -limit to limit, as many and of the type as in ``like``, from the global generator."""
    return torch.empty_like(like).uniform_(-limit, limit)
