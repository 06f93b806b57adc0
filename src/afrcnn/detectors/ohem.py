"""Online hard example mining (OHEM; Shrivastava et al. 2016, arXiv:1604.03540), which section 5.4 compares with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from afrcnn.detectors.sampling import Sample

NMS_IOU = 0.7
"""Of two RoIs of an image whose IoU is larger, the one with the higher loss stays (section 3.2 there)."""


@torch.no_grad()
def hardest(samples: Sequence[Sample], losses: Tensor, count: int) -> list[Sample]:
    """Choose the RoIs that an update is made of by their losses, in place of drawing them.

    RoIs that overlap are hard together, and would count one mistake many times: of these, the hardest remains. The
    hardest of all images together take part, so that an easy image gives few RoIs, or none.

    Args:
        samples: all RoIs by image, n in all.
        losses: n, the loss of each (classification and box regression), in the same order.
        count: how many remain at most.

    Returns:
        The samples with the RoIs that remain, in their order.
    """
    sizes = [len(sample.labels) for sample in samples]
    images = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(losses.device)
    chosen = batched_nms(torch.cat([sample.rois for sample in samples]), losses, images, NMS_IOU)[:count]
    mined = torch.zeros_like(losses, dtype=torch.bool).index_fill(0, chosen, True)
    return [
        Sample(*(values[remains] for values in sample))
        for sample, remains in zip(samples, torch.split(mined, sizes), strict=True)
    ]
