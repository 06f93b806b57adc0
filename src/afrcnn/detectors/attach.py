"""An adversary on a detector: ours, or any two-stage detector of torchvision in a training loop of one's own.

::

    head = roi_head_of(detector)
    attach(detector, Chain(asdn=ASDN(FullyConnectedASDN(head)), astn=ASTN(LocalisationNetwork(head))))
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.001)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import RoIHeads

from afrcnn.adversaries.base import DetachedHead, Hardened, RoIHead, evaluating
from afrcnn.detectors.rcnn import FastRCNN
from afrcnn.detectors.sampling import Sample
from afrcnn.detectors.seam import Seam

Detector: TypeAlias = FastRCNN | GeneralizedRCNN


def attach(detector: Detector, adversary: nn.Module, clean_fraction: float = 0.5, least_iou: float = 0.0) -> None:
    """Let an adversary take part in a detector's training.

    The losses then have one more, the adversary's: ``loss_adversary`` of torchvision's detectors, ``adversary`` of
    ours. The adversary becomes a part of the detector, as ``detector.seam``: it moves to the detector's device, and its
    parameters are among the detector's. Make the optimiser, and ``DistributedDataParallel``, after this. In evaluation
    the detector gives what it gave before. Detach before scripting.

    Args:
        detector: a ``FastRCNN``, or torchvision's ``FasterRCNN``, ``MaskRCNN``, ``KeypointRCNN`` or alike.
        adversary: an ``Adversary`` (see ``afrcnn.adversaries.base``).
        clean_fraction: the share of the images, in [0, 1], that it does not touch.
        least_iou: the smallest IoU with its object of a proposal that it is given, in [0, 1]; all objects' when 0.

    Raises:
        TypeError: the detector is none of these.
        ValueError: it has an adversary already, or the clean fraction or the least IoU is not in [0, 1].
    """
    if _seam_of(detector) is not None:
        raise ValueError("the detector has an adversary already; detach it first")
    device = next(detector.parameters()).device
    if isinstance(detector, FastRCNN):
        detector.seam = Seam(adversary, clean_fraction, least_iou).to(device)
    else:
        seam = RoIHeadsSeam(adversary, clean_fraction, least_iou).to(device)
        seam.join(_roi_heads_of(detector))
        detector.seam = seam


def detach(detector: Detector) -> nn.Module:
    """Take the adversary off a detector, which then is as it would be without ever having had one; return it.

    Raises:
        TypeError: the detector is neither a ``FastRCNN`` nor one of torchvision's two-stage detectors.
        ValueError: it has no adversary.
    """
    seam = _seam_of(detector)
    if seam is None:
        raise ValueError("the detector has no adversary")
    del detector.seam
    if isinstance(detector, FastRCNN):
        detector.seam = None
    else:
        seam.leave(_roi_heads_of(detector))
    adversary: nn.Module = seam.adversary
    return adversary


def roi_head_of(detector: Detector) -> RoIHead:
    """Return what the layers of an adversary begin as: the detector's own head, and the shape of its RoI features.

    Raises:
        TypeError: the detector is neither a ``FastRCNN`` nor one of torchvision's two-stage detectors.
        ValueError: its RoI features are not square.
    """
    if isinstance(detector, FastRCNN):
        size: int = detector.roi_pooling.size  # type: ignore[assignment]
        return RoIHead(detector.head, detector.predictor.cls_score.in_features, detector.channels, size)
    roi_heads = _roi_heads_of(detector)
    height, width = roi_heads.box_roi_pool.output_size
    if height != width:
        raise ValueError(f"RoI features of {height} x {width} cells are not square")
    features = roi_heads.box_predictor.cls_score.in_features
    return RoIHead(roi_heads.box_head, features, detector.backbone.out_channels, height)


def pretraining_loss(
    detector: GeneralizedRCNN, adversary: nn.Module, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]
) -> Tensor:
    """Return the loss of an adversary that learns alone, before it competes (section 4.2.1).

    The detector is frozen: it is run in evaluation mode and without gradient, so that its parameters and statistics
    stay, whatever the optimiser holds. An adversary with a method ``pretrain`` learns by that one, which of a chain is
    each adversary's own; others learn as in joint training.

    Args:
        detector: one of torchvision's, trained; the adversary may be attached to it or not.
        adversary: on the detector's device.
        images: as of ``detector(images, targets)``.
        targets: likewise.

    Returns:
        A scalar, the mean over the foreground RoIs of all images.

    Raises:
        TypeError: the detector is none of torchvision's two-stage detectors.
    """
    roi_heads = _roi_heads_of(detector)
    with evaluating(detector), torch.no_grad():
        batch, resized = detector.transform(images, targets)
        maps = detector.backbone(batch.tensors)
        maps = {"0": maps} if isinstance(maps, Tensor) else maps
        proposals, _ = detector.rpn(batch, maps)
        proposals, _, labels, *_ = roi_heads.select_training_samples(proposals, resized)
        foreground = [boxes[label > 0] for boxes, label in zip(proposals, labels, strict=True)]
        features = roi_heads.box_roi_pool(maps, foreground, batch.image_sizes)
    labels = torch.cat(labels)
    learn = getattr(adversary, "pretrain", adversary)
    head = DetachedHead(roi_heads.box_head, roi_heads.box_predictor)
    return Hardened(*learn(features, labels[labels > 0], head)).loss


class RoIHeadsSeam(Seam):
    """The seam in torchvision's ``RoIHeads``, in hooks: its ``forward`` stays whose it is, also in a derived class.

    In training ``forward`` calls, in this order, ``select_training_samples``, which gives the labels that the losses
    are computed with; ``box_roi_pool``; ``box_head`` and ``box_predictor``; and the same of masks and keypoints. The
    first is the one step that is no module and has no hooks: a wrapper takes its place. The labels serve the first
    pooling after it alone, since the other branches may share the module. All of it is bound methods and modules, so
    that a copy of the detector is wired to the copy.
    """

    def __init__(self, adversary: nn.Module, clean_fraction: float, least_iou: float) -> None:
        super().__init__(adversary, clean_fraction, least_iou)
        self.sampled: tuple[list[Tensor], DetachedHead, list[Tensor]] | None = None
        self.loss: Tensor | None = None

    def join(self, roi_heads: RoIHeads) -> None:
        """Take the place between pooling and head."""
        roi_heads.select_training_samples = partial(self.select_training_samples, roi_heads)
        self.handles = [
            roi_heads.box_roi_pool.register_forward_hook(self.harden),
            roi_heads.register_forward_hook(self.add_loss),
        ]

    def leave(self, roi_heads: RoIHeads) -> None:
        """Undo ``join``."""
        del roi_heads.select_training_samples
        for handle in self.handles:
            handle.remove()

    def select_training_samples(self, roi_heads: RoIHeads, proposals: list[Tensor], targets: Any) -> Any:
        """Do as ``roi_heads`` does, and keep the labels, and how well the samples fit their objects."""
        samples = type(roi_heads).select_training_samples(roi_heads, proposals, targets)
        rois, matches, labels, *_ = samples
        overlaps = [
            Sample(roi, label, boxes[match]).overlaps if len(boxes := target["boxes"]) else torch.zeros_like(roi[:, 0])
            for roi, match, label, target in zip(rois, matches, labels, targets, strict=True)
        ]
        # The head is asked for every time: predictors are often replaced by ones for other classes.
        self.sampled = labels, DetachedHead(roi_heads.box_head, roi_heads.box_predictor), overlaps
        return samples

    def harden(self, pooling: nn.Module, _: Any, features: Tensor) -> Tensor:
        """Return the features (n x C x d x d) of the samples with the adversary's in their places."""
        if not pooling.training or self.sampled is None:
            return features
        (labels, head, overlaps), self.sampled = self.sampled, None
        features, self.loss = self(features, labels, head, overlaps)
        return features

    def add_loss(self, roi_heads: RoIHeads, _: Any, output: tuple[Any, dict[str, Tensor]]) -> tuple[Any, Any]:
        """Return the output of ``roi_heads``, (detections, losses), with the adversary's loss."""
        if not roi_heads.training:
            return output
        detections, losses = output
        loss, self.loss = self.loss, None
        return detections, losses | {"loss_adversary": loss}


def _seam_of(detector: Detector) -> Any:
    if not isinstance(detector, FastRCNN):
        _roi_heads_of(detector)
    return getattr(detector, "seam", None)


def _roi_heads_of(detector: GeneralizedRCNN) -> RoIHeads:
    if not (isinstance(detector, GeneralizedRCNN) and isinstance(detector.roi_heads, RoIHeads)):
        raise TypeError(
            f"{type(detector).__name__} is no two-stage detector of torchvision (with RoIHeads); "
            "of a detector that is wrapped for distributed training, pass the module inside"
        )
    return detector.roi_heads
