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

    RoIs that overlap are hard together, and would count one mistake many times: of these, the hardest remains. By
    default as its section 3.2 says it: the hardest of all images together take part, so that an easy image gives few
    RoIs, or none. Its authors' code differs: overlap counts among RoIs of one label, and each image gives as many.

    Args:
        rois_per_image: how many RoIs remain at most, on average over the images.
        authors: whether it is done as in its authors' code.
    """

    def __init__(self, rois_per_image: int, authors: bool = False) -> None:
        super().__init__()
        self.rois_per_image, self.authors = rois_per_image, authors

    @torch.no_grad()
    def forward(self, rois: RoIs, losses: Tensor, images: int) -> RoIs:
        """Return the hardest RoIs, in their order.

        Args:
            rois: all RoIs, n.
            losses: n, the loss of each (classification and box regression).
            images: how many images they are of.
        """
        if self.authors:
            group = rois.image * (rois.labels.amax() + 1) + rois.labels if len(losses) else rois.image
            remaining = batched_nms(rois.boxes, losses, group, _NMS_IOU)  # hardest first
            of_image = [remaining[rois.image[remaining] == image] for image in range(images)]
            chosen = torch.cat([hardest[: self.rois_per_image] for hardest in of_image])
        else:
            chosen = batched_nms(rois.boxes, losses, rois.image, _NMS_IOU)[: self.rois_per_image * images]
        return rois.select(torch.zeros_like(losses, dtype=torch.bool).index_fill(0, chosen, True))
