"""Random jittering of the proposals, which the paper compares ASTN with (section 5.2.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from afrcnn.detectors.sampling import RoIs


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
    """

    def __init__(self, scale: float, aspect_ratio: float, degrees: float) -> None:
        super().__init__()
        self.scale, self.aspect_ratio, self.degrees = scale, aspect_ratio, degrees

    def forward(self, rois: RoIs, sizes: Sequence[tuple[int, int]]) -> RoIs:
        """Return the RoIs, jittered; ``sizes`` are each image's height and width in pixels."""
        chosen = (rois.labels > 0) & rois.adversarial
        boxes = rois.boxes.clone()
        for image, size in enumerate(sizes):
            rows = chosen & (rois.image == image)
            boxes[rows] = self.reshape(boxes[rows], size)
        if not self.degrees:
            return rois._replace(boxes=boxes)
        angle = torch.zeros_like(boxes[:, 0])
        angle[chosen] = _uniform(math.radians(self.degrees), boxes[chosen, 0])
        return rois._replace(boxes=boxes, angle=angle)

    def reshape(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Return boxes (n x 4, XYXY) of another scale and aspect ratio, clipped to an image of ``size`` (H, W) pixels.

        A box that would be left with less than a pixel on a side stays as it was: its box targets would have no bound.
        """
        if not (self.scale or self.aspect_ratio):
            return boxes
        scale = _uniform(math.log1p(self.scale), boxes[:, 0])
        ratio = _uniform(math.log1p(self.aspect_ratio), boxes[:, 0])
        growth = torch.stack([scale + ratio / 2, scale - ratio / 2], dim=1).expm1() / 2  # n x 2
        growth = growth * (boxes[:, 2:] - boxes[:, :2])
        changed = clip_boxes_to_image(boxes + torch.cat([-growth, growth], dim=1), size)
        solid = (changed[:, 2:] - changed[:, :2] >= 1).all(dim=1, keepdim=True)
        return torch.where(solid, changed, boxes)


def _uniform(limit: float, like: Tensor) -> Tensor:
    """Return numbers from -limit to limit, as many and of the type as in ``like``, from the global generator."""
    return torch.empty_like(like).uniform_(-limit, limit)
