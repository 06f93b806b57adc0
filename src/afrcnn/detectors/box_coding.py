"""Box coding: the offsets that turn a proposal into an object's box.

R-CNN's parametrisation (Girshick et al. 2014, appendix C), which Fast R-CNN section 2.3 keeps: the centre moves
by fractions of the proposal's size, width and height change by factors given as logarithms. The four numbers
are normalised by a mean and a deviation so that the regression loss sees targets of about unit size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_LARGEST_LOG_FACTOR = math.log(1000.0 / 16.0)
"""A bound on predicted log factors, so that exp never overflows: no box grows more than 62.5 times."""


class BoxCoder(nn.Module):
    """Encodes boxes relative to proposals and decodes them, in normalised offsets.

    Args:
        mean: the means of (dx, dy, dw, dh) over the training set's foreground proposals.
        std: their deviations. Caffe's Fast R-CNN fixes (0.1, 0.1, 0.2, 0.2) and zero means; the paper's
            Torch implementation measures both, see :meth:`measure`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: Sequence[float] = (0.0, 0.0, 0.0, 0.0), std: Sequence[float] = (0.1, 0.1, 0.2, 0.2)
    ) -> None:
        super().__init__()
        # Buffers: a detector's weights are of no use without the scale that they were trained in.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def encode(self, boxes: Tensor, proposals: Tensor) -> Tensor:
        """Return the normalised offsets (N x 4) that turn ``proposals`` into ``boxes`` (both N x 4, XYXY)."""
        return self.normalise(offsets(boxes, proposals))

    def decode(self, deltas: Tensor, proposals: Tensor) -> Tensor:
        """Return the boxes (N x 4, XYXY) that normalised offsets make of proposals (both N x 4)."""
        dx, dy, dw, dh = self.denormalise(deltas).unbind(-1)
        x1, y1, x2, y2 = proposals.unbind(-1)
        w, h = x2 - x1, y2 - y1
        x, y = x1 + w * (0.5 + dx), y1 + h * (0.5 + dy)
        w = w * dw.clamp(max=_LARGEST_LOG_FACTOR).exp() / 2
        h = h * dh.clamp(max=_LARGEST_LOG_FACTOR).exp() / 2
        return torch.stack([x - w, y - h, x + w, y + h], dim=-1)

    def normalise(self, offsets: Tensor) -> Tensor:
        """Return offsets (... x 4) in units of their deviation from the mean."""
        return (offsets - self.mean) / self.std

    def denormalise(self, deltas: Tensor) -> Tensor:
        """Return the offsets (... x 4) that normalised ones stand for."""
        return deltas * self.std + self.mean

    def measure(self, samples: Sequence[Tensor]) -> None:
        """Set mean and deviation to those of ``samples``, unnormalised offsets (n x 4 each) of foreground proposals."""
        values = torch.cat(list(samples)).double()
        if len(values) > 1:
            self.mean.copy_(values.mean(0))
            self.std.copy_(values.std(0, correction=0).clamp(min=1e-3))


def offsets(boxes: Tensor, proposals: Tensor) -> Tensor:
    """Return (dx, dy, dw, dh), N x 4, from proposals to boxes (both N x 4, XYXY, of positive width and height)."""
    px1, py1, px2, py2 = proposals.unbind(-1)
    bx1, by1, bx2, by2 = boxes.unbind(-1)
    pw, ph, bw, bh = px2 - px1, py2 - py1, bx2 - bx1, by2 - by1
    dx = (bx1 + bx2 - px1 - px2) / (2 * pw)
    dy = (by1 + by2 - py1 - py2) / (2 * ph)
    return torch.stack([dx, dy, (bw / pw).log(), (bh / ph).log()], dim=-1)
