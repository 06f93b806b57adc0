"""Attaching an adversary to a detector, and taking it off again."""

from __future__ import annotations

from torch import nn

from afrcnn.adversary.contract import RoIHead
from afrcnn.adversary.seam import Seam
from afrcnn.detector.fast_rcnn import FastRCNN


def attach(detector: FastRCNN, adversary: nn.Module, clean_fraction: float = 0.5) -> None:
    """Let an adversary take part in a detector's training."""
    detector.seam = Seam(adversary, clean_fraction)


def detach(detector: FastRCNN) -> nn.Module:
    """Take the adversary off a detector, which then is as it was before, and return it."""
    assert detector.seam is not None
    adversary, detector.seam = detector.seam.adversary, None
    return adversary


def roi_head_of(detector: FastRCNN) -> RoIHead:
    """Return what an adversary of a detector is made from."""
    return RoIHead(
        detector.head, detector.predictor.cls_score.in_features, detector.channels, detector.roi_pooling.size
    )
