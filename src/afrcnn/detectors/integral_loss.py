"""The integral loss: classifiers for several IoUs (MultiPath network, arXiv:1604.02135, section 3.3).

COCO's AP is a mean over IoUs from 0.5 to 0.95, but Fast R-CNN's classifier learns to find objects at 0.5 alone. Here
each of several IoUs has a classifier of its own, to which a RoI that overlaps its object less is background. Together
their losses approximate the integral of Fast R-CNN's loss over the IoU; in a test, the mean of their probabilities is
the higher, the better a RoI fits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from afrcnn.detectors.sampling import RoIs


class IntegralPredictor(nn.Module):
    """A linear layer of T classifiers, one for each IoU, and one of boxes, which they share.

    Its paper trains all classifiers on the same RoIs, as is done here; its authors' code trains one in each update,
    drawn at random, on RoIs that are sampled by that one's IoU.

    Args:
        in_features: D, the length of the box head's vectors.
        num_classes: K + 1, with background.
        thresholds: T IoUs in [0, 1], rising, the first that of the sampler (0.5, 0.55, ..., 0.75 in the paper).
    """

    def __init__(self, in_features: int, num_classes: int, thresholds: Sequence[float]) -> None:
        super().__init__()
        self.thresholds = tuple(thresholds)
        self.cls_score = nn.Linear(in_features, num_classes * len(self.thresholds))
        self.bbox_pred = nn.Linear(in_features, num_classes * 4)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Classify RoIs and predict their boxes.

        Args:
            vectors: n x D, of the box head.

        Returns:
            Class logits, in training of each classifier, n x (K + 1) x T; in evaluation, which is also how an adversary
            sees the detector, n x (K + 1) whose softmax is the mean of the classifiers'. And normalised offsets,
            n x 4(K + 1).
        """
        count = len(self.thresholds)
        logits = self.cls_score(vectors).unflatten(1, (-1, count))  # n x (K + 1) x T
        if not self.training:
            logits = logits.log_softmax(dim=1).logsumexp(dim=2) - math.log(count)  # n x (K + 1)
        return logits, self.bbox_pred(vectors)

    def labels(self, rois: RoIs) -> Tensor:
        """Return what each RoI is to each classifier, n x T: its label, or 0 where its IoU with its object is too low.

        To the first, it is what the sampler says. A RoI that was jittered counts as it is then, but for its rotation.
        """
        below = rois.iou[:, None] < torch.tensor(self.thresholds).to(rois.boxes.device, non_blocking=True)  # n x T
        below[:, 0] = False
        return rois.labels[:, None].masked_fill(below, 0)
