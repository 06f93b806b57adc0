"""RoI sampling: which proposals of the images are trained on, and as what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from afrcnn.data.target import Target


class RoIs(NamedTuple):
    """The regions of interest of all images of an update, image by image.

    They lie where the proposals do that they are drawn from. In training that is the host, whatever the detector's
    device: what is chosen among them is known there, and nothing has to wait for the device.

    Attributes:
        boxes: n x 4, XYXY pixels of their image.
        labels: n, int64; 0 is background, 1..K are objects.
        matched: n x 4, the object's box that each foreground RoI should become; of background RoIs, their own.
        image: n, int64, the index of each one's image in the batch, rising.
        adversarial: n, bool, whether its image is one in which RoIs are made harder.
        angle: n, radians, by which a RoI is turned clockwise about its centre; None for not at all.
    """

    boxes: Tensor
    labels: Tensor
    matched: Tensor
    image: Tensor
    adversarial: Tensor
    angle: Tensor | None = None

    def select(self, rows: Tensor) -> RoIs:
        """Return some of the RoIs, by their indices or by a mask."""
        return RoIs(*(None if field is None else field[rows] for field in self))  # type: ignore[arg-type]

    def to(self, device: torch.device) -> RoIs:
        """Return the RoIs on a device, without waiting for it."""
        fields = (None if field is None else field.to(device, non_blocking=True) for field in self)
        return RoIs(*fields)  # type: ignore[arg-type]

    @property
    def iou(self) -> Tensor:
        """The IoU (n) of each RoI with its matched box."""
        corners = torch.maximum(self.boxes[:, :2], self.matched[:, :2]), torch.minimum(self.boxes, self.matched)[:, 2:]
        intersection = (corners[1] - corners[0]).clamp(min=0).prod(dim=1)
        areas = [(boxes[:, 2:] - boxes[:, :2]).prod(dim=1) for boxes in (self.boxes, self.matched)]
        return intersection / (areas[0] + areas[1] - intersection)


class RoISampler(nn.Module):
    """Draws foreground and background RoIs from images' proposals (Fast R-CNN, section 2.3).

    The objects' own boxes join the proposals. A proposal is foreground when its largest IoU with an object is at
    least ``foreground_iou``, and then has that object's label; background when it lies in ``background_iou``.
    An image without objects is background everywhere: there the lower bound, which looks for backgrounds that
    resemble objects, has nothing to compare with and does not apply.

    Args:
        rois_per_image: how many RoIs an image gives at most (128: 256 proposals from 2 images, section 5.1).
        foreground_fraction: the largest fraction of them that is foreground.
        foreground_iou: the smallest IoU of a foreground proposal.
        background_iou: lower (inclusive) and upper (exclusive) bound of the largest IoU of a background proposal.
        replacement: whether a RoI can be drawn several times, as in the paper's Torch baseline.
        fill_up: whether background takes the places that foreground leaves empty, as in Fast R-CNN's Caffe code.
    """

    def __init__(
        self,
        rois_per_image: int = 128,
        foreground_fraction: float = 0.25,
        foreground_iou: float = 0.5,
        background_iou: tuple[float, float] = (0.1, 0.5),
        replacement: bool = False,
        fill_up: bool = True,
    ) -> None:
        super().__init__()
        self.rois_per_image = rois_per_image
        self.foreground_fraction = foreground_fraction
        self.foreground_iou = foreground_iou
        self.background_iou = background_iou
        self.replacement, self.fill_up = replacement, fill_up

    @torch.no_grad()
    def forward(self, proposals: Sequence[Tensor], targets: Sequence[Target]) -> RoIs:
        """Sample RoIs.

        Args:
            proposals: by image P_i x 4.
            targets: by image, ``boxes`` M_i x 4 and ``labels`` M_i (M_i may be 0), and ``adversarial``, false where it
                is absent.
        """
        images, places = [], int(self.rois_per_image * self.foreground_fraction)
        for image, (boxes, target) in enumerate(zip(proposals, targets, strict=True)):
            eligible = self._eligible(boxes, target, image)
            foreground = self._draw(eligible.labels > 0, places)
            taken = len(foreground) if self.fill_up else places
            background = self._draw(eligible.labels == 0, self.rois_per_image - taken)
            images.append(eligible.select(torch.cat([foreground, background])))
        return _join(images)

    @torch.no_grad()
    def eligible(self, proposals: Sequence[Tensor], targets: Sequence[Target]) -> RoIs:
        """Return all RoIs that could be drawn, foreground first in each image; see ``forward``."""
        images = enumerate(zip(proposals, targets, strict=True))
        return _join([self._eligible(boxes, target, image) for image, (boxes, target) in images])

    def has_both_kinds(self, target: Target) -> bool:
        """Tell whether an image's ``proposals`` and objects give foreground and background."""
        labels = self.eligible([target["proposals"]], [target]).labels
        return bool((labels > 0).any() and (labels == 0).any())

    def _eligible(self, proposals: Tensor, target: Target, image: int) -> RoIs:
        boxes: Tensor = target["boxes"].as_subclass(Tensor)
        candidates = torch.cat([boxes, proposals.as_subclass(Tensor)])
        overlap, match = self.match(candidates, boxes)

        foreground = (overlap >= self.foreground_iou).nonzero().flatten()
        low, high = self.background_iou if len(boxes) else (0.0, 1.0)
        background = ((overlap >= low) & (overlap < high)).nonzero().flatten()

        chosen = torch.cat([foreground, background])
        labels = torch.zeros(len(chosen), dtype=torch.int64, device=chosen.device)
        labels[: len(foreground)] = target["labels"][match[foreground]]
        matched = candidates[chosen].clone()
        matched[: len(foreground)] = boxes[match[foreground]]
        adversarial = torch.full_like(labels, target.get("adversarial", False), dtype=torch.bool)
        return RoIs(candidates[chosen], labels, matched, torch.full_like(labels, image), adversarial)

    def _draw(self, eligible: Tensor, count: int) -> Tensor:
        """Return the indices of at most ``count`` true entries of a mask, uniformly at random, in random order."""
        indices = eligible.nonzero().flatten()
        if self.replacement and len(indices):
            return indices[torch.randint(len(indices), (min(count, len(indices)),), device=indices.device)]
        return indices[torch.randperm(len(indices), device=indices.device)[:count]]

    @staticmethod
    def match(candidates: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return each candidate's largest IoU with a box and that box's index (0 where there are no boxes)."""
        if not len(boxes):
            zeros = candidates.new_zeros(len(candidates))
            return zeros, zeros.long()
        overlap, match = box_iou(candidates, boxes).max(dim=1)
        return overlap, match


def _join(images: Sequence[RoIs]) -> RoIs:
    """Return the RoIs of images, none of which is turned, as one."""
    return RoIs(*(torch.cat(fields) for fields in list(zip(*images, strict=True))[:5]))
