"""An adversary on a detector: ours, or any two-stage detector of torchvision in a training loop of one's own.

::

    spec = box_head_spec(detector)
    attach(detector, Chain(asdn=ASDN(spec), astn=ASTN(spec)))
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.001)
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import RoIHeads as TorchvisionRoIHeads

from afrcnn.adversaries.base import Adversary, BoxHeadSpec, is_adversarial
from afrcnn.core.distributed import rank_and_size
from afrcnn.core.evaluation_mode import evaluating
from afrcnn.detectors.frozen_head import FrozenHead
from afrcnn.detectors.rcnn import FastRCNN
from afrcnn.detectors.roi_heads import perturb
from afrcnn.detectors.sampling import RoIs

_Detector: TypeAlias = FastRCNN | GeneralizedRCNN


def attach(detector: _Detector, adversary: Adversary, clean_fraction: float = 0.5, least_iou: float = 0.0) -> None:
    """Let an adversary take part in a detector's training.

    The losses then have one more, the adversary's: ``loss_adversary`` of torchvision's detectors, ``adversary`` of
    ours. The adversary becomes a part of the detector: it moves to the detector's device, and its parameters are among
    the detector's. Make the optimiser, and ``DistributedDataParallel``, after this. In evaluation the detector gives
    what it gave before. Detach before scripting.

    An image is adversarial, or not, as its target's ``adversarial`` says. Where it does not, images take turns: of two,
    with the paper's half, the second; they are counted over all processes and from update to update.

    Args:
        detector: a ``FastRCNN``, or torchvision's ``FasterRCNN``, ``MaskRCNN``, ``KeypointRCNN`` or alike.
        adversary: what perturbs features.
        clean_fraction: the fraction of the images, in [0, 1], that it does not touch, so that the detector does not
            overfit to hard examples (section 5.1: one image of two).
        least_iou: the smallest IoU with its object of a proposal that it is given, in [0, 1]; all objects' when 0.

    Raises:
        TypeError: the detector is none of these, or the adversary is not an ``Adversary``.
        ValueError: it has an adversary already, or the clean fraction or the least IoU is not in [0, 1].
    """
    if not isinstance(adversary, Adversary):
        raise TypeError(f"{type(adversary).__name__} does not derive from afrcnn.Adversary")
    if _adversary_of(detector) is not None:
        raise ValueError("the detector has an adversary already; detach it first")
    for name, value in (("clean fraction", clean_fraction), ("least IoU", least_iou)):
        if not 0 <= value <= 1:
            raise ValueError(f"a {name} of {value:g} is not in [0, 1]")
    adversary.to(next(detector.parameters()).device)
    turns = _Turns(clean_fraction)
    if isinstance(detector, FastRCNN):
        detector.roi_heads.adversary, detector.roi_heads.least_iou = adversary, least_iou
        detector.turns = detector.register_forward_pre_hook(turns.mark, with_kwargs=True)
    else:
        detector.seam = _Seam(adversary, turns, least_iou)
        detector.seam.join(_roi_heads_of(detector))


def detach(detector: _Detector) -> Adversary:
    """Take the adversary off a detector, which then is as it would be without ever having had one; return it.

    Raises:
        TypeError: the detector is neither a ``FastRCNN`` nor one of torchvision's two-stage detectors.
        ValueError: it has no adversary.
    """
    adversary = _adversary_of(detector)
    if adversary is None:
        raise ValueError("the detector has no adversary")
    if isinstance(detector, FastRCNN):
        detector.roi_heads.adversary, detector.roi_heads.least_iou = None, 0.0
        if detector.turns is not None:
            detector.turns.remove()
            detector.turns = None
    else:
        detector.seam.leave(_roi_heads_of(detector))
        del detector.seam
    return adversary


def box_head_spec(detector: _Detector) -> BoxHeadSpec:
    """Return what an adversary's layers begin as: the detector's own box head, and the shape of its RoI features.

    Raises:
        TypeError: the detector is neither a ``FastRCNN`` nor one of torchvision's two-stage detectors.
        ValueError: its RoI features are not square.
    """
    if isinstance(detector, FastRCNN):
        return detector.box_head_spec
    roi_heads = _roi_heads_of(detector)
    height, width = roi_heads.box_roi_pool.output_size
    if height != width:
        raise ValueError(f"RoI features of {height} x {width} cells are not square")
    features = roi_heads.box_predictor.cls_score.in_features
    return BoxHeadSpec(roi_heads.box_head, features, detector.backbone.out_channels, height)


def pretraining_loss(
    detector: GeneralizedRCNN, adversary: Adversary, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]
) -> Tensor:
    """Return the loss of an adversary that learns alone, before joint training (section 4.2.1).

    The detector is frozen: it is run in evaluation mode and without gradient, so that its parameters and statistics
    do not change, whatever the optimiser holds.

    Args:
        detector: one of torchvision's, trained; the adversary may be attached to it or not.
        adversary: on the detector's device; a chain learns as in joint training.
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
    head = FrozenHead(roi_heads.box_head, roi_heads.box_predictor)
    return adversary.pretrain(features, labels[labels > 0], head).loss


class _Turns:
    """Says which images of an update are adversarial: as their targets say, or else in turns."""

    def __init__(self, clean_fraction: float) -> None:
        self.clean_fraction, self.count = clean_fraction, 0

    def __call__(self, targets: Sequence[Any]) -> list[bool]:
        """Return for each target whether its image is adversarial."""
        rank, size = rank_and_size()
        first = self.count + rank * len(targets)
        self.count += size * len(targets)
        return [
            bool(target.get("adversarial", is_adversarial(number, self.clean_fraction)))
            for number, target in enumerate(targets, start=first)
        ]

    def mark(
        self, detector: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Write it into the targets of a ``FastRCNN``'s call, before the call."""
        call = inspect.signature(detector.forward).bind(*arguments, **keywords)
        targets = call.arguments.get("targets")
        if detector.training and targets is not None:
            marked = zip(targets, self(targets), strict=True)
            call.arguments["targets"] = [dict(target, adversarial=adversarial) for target, adversarial in marked]
        return call.args, call.kwargs


class _Seam(nn.Module):
    """The seam in torchvision's ``RoIHeads``, in hooks: its ``forward`` is not replaced, also in a derived class.

    In training ``forward`` calls, in this order, ``select_training_samples``, which gives the labels that the losses
    are computed with; ``box_roi_pool``; ``box_head`` and ``box_predictor``; and the same of masks and keypoints. The
    first is the one step that is no module and has no hooks: a wrapper takes its place. The labels serve the first
    pooling after it alone, since the other branches may use the same module. All of it is bound methods and modules, so
    that a copy of the detector is wired to the copy. What the adversary measured in the last update is in ``metrics``.
    """

    def __init__(self, adversary: Adversary, turns: _Turns, least_iou: float) -> None:
        super().__init__()
        self.adversary, self.turns, self.least_iou = adversary, turns, least_iou
        self.metrics: dict[str, Tensor] = {}
        self.sampled: RoIs | None = None
        self.loss: Tensor | None = None

    def join(self, roi_heads: TorchvisionRoIHeads) -> None:
        """Take the place between pooling and box head."""
        roi_heads.select_training_samples = partial(self.select_training_samples, roi_heads)
        self.handles = [
            roi_heads.box_roi_pool.register_forward_hook(partial(self.perturb, roi_heads)),
            roi_heads.register_forward_hook(self.add_loss),
        ]

    def leave(self, roi_heads: TorchvisionRoIHeads) -> None:
        """Undo ``join``."""
        del roi_heads.select_training_samples
        for handle in self.handles:
            handle.remove()

    def select_training_samples(self, roi_heads: TorchvisionRoIHeads, proposals: list[Tensor], targets: Any) -> Any:
        """Do as ``roi_heads`` does, and note the samples."""
        samples = type(roi_heads).select_training_samples(roi_heads, proposals, targets)
        if not roi_heads.training:  # as in pre-training
            return samples
        boxes, matches, labels, *_ = samples
        # Of an image without objects there is nothing to match with: every RoI is background.
        matched = [
            target["boxes"][match] if len(target["boxes"]) else box
            for box, match, target in zip(boxes, matches, targets, strict=True)
        ]
        adversarial = zip(labels, self.turns(targets), strict=True)
        self.sampled = RoIs(
            torch.cat(boxes),
            torch.cat(labels),
            torch.cat(matched),
            torch.cat([torch.full_like(label, image) for image, label in enumerate(labels)]),
            torch.cat([torch.full_like(label, flag, dtype=torch.bool) for label, flag in adversarial]),
        )
        return samples

    def perturb(self, roi_heads: TorchvisionRoIHeads, _: nn.Module, __: Any, pooled: Tensor) -> Tensor:
        """Return the features (n x C x d x d) of the samples with the adversary's in their places."""
        if self.sampled is None or not roi_heads.training:  # of an update that was interrupted, nothing is left
            return pooled
        rois, self.sampled = self.sampled, None
        # The box head and predictor are looked up every time: predictors are often replaced for other classes.
        head = FrozenHead(roi_heads.box_head, roi_heads.box_predictor)
        pooled, self.loss, self.metrics = perturb(pooled, rois, self.adversary, head, self.least_iou)
        return pooled

    def add_loss(
        self, roi_heads: TorchvisionRoIHeads, _: Any, output: tuple[Any, dict[str, Tensor]]
    ) -> tuple[Any, dict[str, Any]]:
        """Return the output of ``roi_heads``, (detections, losses), with the adversary's loss."""
        if not roi_heads.training:
            return output
        detections, losses = output
        loss, self.loss = self.loss, None
        return detections, losses | {"loss_adversary": loss}


def _adversary_of(detector: _Detector) -> Adversary | None:
    if isinstance(detector, FastRCNN):
        return detector.roi_heads.adversary
    _roi_heads_of(detector)
    seam: _Seam | None = getattr(detector, "seam", None)
    return None if seam is None else seam.adversary


def _roi_heads_of(detector: GeneralizedRCNN) -> TorchvisionRoIHeads:
    if not (isinstance(detector, GeneralizedRCNN) and isinstance(detector.roi_heads, TorchvisionRoIHeads)):
        raise TypeError(
            f"{type(detector).__name__} is not a two-stage detector of torchvision (with RoIHeads); "
            "of a detector that is wrapped for distributed training, pass the module inside"
        )
    return detector.roi_heads
