"""RoI sampling: which proposals of an image are trained on, and as what."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from afrcnn.data.target import Target


class Sample(NamedTuple):
    """The RoIs of one image that take part in an update, foreground first.

    Attributes:
        rois: n x 4, XYXY pixels.
        labels: n, int64; 0 is background, 1..K are objects.
        boxes: n x 4, the object's box that each foreground RoI should become; of background RoIs, their own.
    """

    rois: Tensor
    labels: Tensor
    boxes: Tensor

    @property
    def overlaps(self) -> Tensor:
        """The IoU of each RoI with its box, n."""
        overlaps: Tensor = box_iou(self.rois, self.boxes).diagonal()
        return overlaps


class RoISampler(nn.Module):
    """Draws foreground and background RoIs from an image's proposals (Fast R-CNN, section 2.3).

    The objects' own boxes join the proposals. A proposal is foreground when its largest IoU with an object is at
    least ``foreground_iou``, and then has that object's label; background when it lies in ``background_iou``.
    An image without objects is background everywhere: there the lower bound, which looks for backgrounds that
    resemble objects, has nothing to compare with and does not apply.

    Args:
        rois_per_image: how many RoIs an image gives at most (128: 256 proposals from 2 images, section 5.1).
        foreground_fraction: the largest share of them that is foreground.
        foreground_iou: the smallest IoU of a foreground proposal.
        background_iou: lower (inclusive) and upper (exclusive) bound of the largest IoU of a background proposal.
    """

    def __init__(
        self,
        rois_per_image: int = 128,
        foreground_fraction: float = 0.25,
        foreground_iou: float = 0.5,
        background_iou: tuple[float, float] = (0.1, 0.5),
    ) -> None:
        super().__init__()
        self.rois_per_image = rois_per_image
        self.foreground_fraction = foreground_fraction
        self.foreground_iou = foreground_iou
        self.background_iou = background_iou

    @torch.no_grad()
    def forward(self, proposals: Tensor, target: Target) -> Sample:
        """Sample RoIs from proposals (P x 4) for a target's ``boxes`` (M x 4) and ``labels`` (M); M may be 0."""
        every = self.eligible(proposals, target)
        foreground = draw(every.labels > 0, int(self.rois_per_image * self.foreground_fraction))
        background = draw(every.labels == 0, self.rois_per_image - len(foreground))
        chosen = torch.cat([foreground, background])
        return Sample(*(values[chosen] for values in every))

    @torch.no_grad()
    def eligible(self, proposals: Tensor, target: Target) -> Sample:
        """Return all RoIs that could be drawn, in the proposals' order; see ``forward``."""
        boxes: Tensor = target["boxes"].as_subclass(Tensor)
        candidates = torch.cat([boxes, proposals.as_subclass(Tensor)])
        overlap, match = self.match(candidates, boxes)

        foreground = (overlap >= self.foreground_iou).nonzero().flatten()
        low, high = self.background_iou if len(boxes) else (0.0, 1.0)
        background = ((overlap >= low) & (overlap < high)).nonzero().flatten()

        chosen = torch.cat([foreground, background])
        labels = torch.zeros(len(chosen), dtype=torch.int64, device=chosen.device)
        labels[: len(foreground)] = target["labels"][match[foreground]]
        goals = candidates[chosen].clone()
        goals[: len(foreground)] = boxes[match[foreground]]
        return Sample(candidates[chosen], labels, goals)

    @staticmethod
    def match(candidates: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return each candidate's largest IoU with a box and that box's index (0 where there are no boxes)."""
        if not len(boxes):
            zeros = candidates.new_zeros(len(candidates))
            return zeros, zeros.long()
        overlap, match = box_iou(candidates, boxes).max(dim=1)
        return overlap, match


def draw(eligible: Tensor, count: int) -> Tensor:
    """Return the indices of at most ``count`` true entries of a mask, uniformly at random, in random order."""
    indices = eligible.nonzero().flatten()
    return indices[torch.randperm(len(indices), device=indices.device)[:count]]
