"""DropBlock (Ghiasi et al. 2018, arXiv:1810.12890) on objects' RoI features: blocks of each channel, at random."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.ops import drop_block2d

from afrcnn.adversaries.base import Hardened, Head, score_drop


class DropBlock(nn.Module):
    """Zeroes square blocks of cells, in each channel others, and scales up what is left to the same mean.

    It is torchvision's ``drop_block2d``. ASDN and random dropout, by contrast, hide a cell in all channels at once.

    Args:
        share: the fraction of the cells that would be zero if no two blocks met, in [0, 1]; a little less is.
        block: cells on a side of a block, odd.
    """

    def __init__(self, share: float = 1 / 3, block: int = 3) -> None:
        super().__init__()
        if block % 2 == 0:
            raise ValueError(f"a block of {block} cells has no centre; choose an odd number")
        self.share, self.block = share, block

    def forward(self, features: Tensor, labels: Tensor, head: Head) -> Hardened:
        """Zero blocks of features (n x C x d x d); see ``Adversary``."""
        dropped = drop_block2d(features, self.share, self.block)
        metrics = {"score_drop": score_drop(features, dropped, labels, head).mean()} if len(labels) else {}
        return Hardened(dropped, features.new_zeros(()), metrics)
