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
        by_class: K, the number of classes, where each has a mean and a deviation of its own, as in the release; or 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
        std: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
        by_class: int = 0,
    ) -> None:
        super().__init__()
        # Buffers: a detector's weights are of no use without the scale that they were trained in.
        for name, values in (("mean", torch.tensor(mean)), ("std", torch.tensor(std))):
            self.register_buffer(name, values.repeat(by_class + 1, 1) if by_class else values)

    def encode(self, boxes: Tensor, proposals: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the normalised offsets (N x 4) that turn proposals into boxes (both N x 4, XYXY).

        ``labels`` (N) are needed where each class has numbers of its own.
        """
        return self.normalise(offsets(boxes, proposals), labels)

    def decode(self, deltas: Tensor, proposals: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the boxes (N x 4, XYXY) that normalised offsets make of proposals (both N x 4); as ``encode``."""
        dx, dy, dw, dh = self.denormalise(deltas, labels).unbind(-1)
        x1, y1, x2, y2 = proposals.unbind(-1)
        w, h = x2 - x1, y2 - y1
        x, y = x1 + w * (0.5 + dx), y1 + h * (0.5 + dy)
        w = w * dw.clamp(max=_LARGEST_LOG_FACTOR).exp() / 2
        h = h * dh.clamp(max=_LARGEST_LOG_FACTOR).exp() / 2
        return torch.stack([x - w, y - h, x + w, y + h], dim=-1)

    def normalise(self, offsets: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return offsets (N x 4 of labels N, or ... x (K + 1) x 4) in units of their deviation from the mean."""
        return (offsets - self._of(self.mean, labels)) / self._of(self.std, labels)

    def denormalise(self, deltas: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the offsets that normalised ones (as of ``normalise``) stand for."""
        return deltas * self._of(self.std, labels) + self._of(self.mean, labels)

    @staticmethod
    def _of(values: Tensor, labels: Tensor | None) -> Tensor:
        """Return the numbers that apply to labels (N): 4 or N x 4; to all classes in turn when None."""
        return values if labels is None or values.dim() == 1 else values[labels]

    def measure(self, samples: Tensor, labels: Tensor) -> None:
        """Set mean and deviation to those of offsets (n x 4) of foreground proposals, all or of each label (n)."""
        one = self.mean.dim() == 1
        for label in [slice(None)] if one else range(1, len(self.mean)):
            values = (samples if one else samples[labels == label]).double()
            if len(values) > 1:
                self.mean[label] = values.mean(0)
                self.std[label] = values.std(0, correction=0).clamp(min=1e-3)


def offsets(boxes: Tensor, proposals: Tensor) -> Tensor:
    """Return (dx, dy, dw, dh), N x 4, from proposals to boxes (both N x 4, XYXY, of positive width and height)."""
    px1, py1, px2, py2 = proposals.unbind(-1)
    bx1, by1, bx2, by2 = boxes.unbind(-1)
    pw, ph, bw, bh = px2 - px1, py2 - py1, bx2 - bx1, by2 - by1
    dx = (bx1 + bx2 - px1 - px2) / (2 * pw)
    dy = (by1 + by2 - py1 - py2) / (2 * ph)
    return torch.stack([dx, dy, (bw / pw).log(), (bh / ph).log()], dim=-1)
