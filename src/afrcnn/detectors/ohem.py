"""Online hard example mining (OHEM; Shrivastava et al. 2016, arXiv:1604.03540), which section 5.4 compares with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from afrcnn.detectors.sampling import RoIs

_NMS_IOU = 0.7
"""Of two RoIs of an image whose IoU is larger, the one with the higher loss stays (section 3.2 there)."""


class OHEM(nn.Module):
    """Miner: chooses the RoIs that an update is made of by their losses, in place of drawing them.

    RoIs that overlap are hard together, and would count one mistake many times: of these, the hardest remains. The
    hardest of all images together take part, so that an easy image gives few RoIs, or none.

    Args:
        rois_per_image: how many RoIs remain at most, on average over the images.
    """

    def __init__(self, rois_per_image: int) -> None:
        super().__init__()
        self.rois_per_image = rois_per_image

    @torch.no_grad()
    def forward(self, rois: RoIs, losses: Tensor, images: int) -> RoIs:
        """Return the hardest RoIs, in their order.

        Args:
            rois: all RoIs, n.
            losses: n, the loss of each (classification and box regression).
            images: how many images they are of.
        """
        chosen = batched_nms(rois.boxes, losses, rois.image, _NMS_IOU)[: self.rois_per_image * images]
        return rois.select(torch.zeros_like(losses, dtype=torch.bool).index_fill(0, chosen, True))
