"""RoI heads: what happens in each region of interest, and the seam where an adversary meets the detector (section 3).

In training, RoIs are sampled or mined, jittered, pooled, perturbed by an adversary, classified and refined; adversary,
miner and jitter take part in training alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from afrcnn.adversaries.base import Adversary, AdversaryOutput, Context, Head
from afrcnn.core.distributed import mean_count
from afrcnn.core.evaluation_mode import evaluating
from afrcnn.data.target import Target
from afrcnn.detectors.box_coding import BoxCoder
from afrcnn.detectors.frozen_head import FrozenHead
from afrcnn.detectors.integral_loss import IntegralPredictor
from afrcnn.detectors.jitter import ProposalJitter
from afrcnn.detectors.ohem import OHEM
from afrcnn.detectors.roi_pooling import Features, RoIPooling
from afrcnn.detectors.sampling import RoIs, RoISampler


class RoIHeads(nn.Module):
    """Sampler, miner, jitter, RoI pooling, adversary, box head and predictor, and how they join.

    Args:
        roi_pool: features and RoIs to n x C x d x d.
        box_head: n x C x d x d to vectors n x D.
        predictor: vectors to (class logits n x (K + 1), normalised offsets n x 4(K + 1)), or an ``IntegralPredictor``.
        sampler: draws the RoIs of an update.
        box_coder: offsets between RoIs and boxes.
        miner: chooses the RoIs of an update by their losses, as they are in the image, in place of drawing them.
        jitter: changes the RoIs of adversarial images.
        adversary: perturbs the features of foreground RoIs of adversarial images.
        least_iou: the smallest IoU with its object, in [0, 1], of a RoI that is perturbed (0, any, in the paper). A RoI
            that shows part of an object, and most of that hidden, shows little else than background.
        perturb_background: whether the background RoIs of adversarial images are perturbed, too (not in the paper).
        dropout_in_scores: whether dropout is on where RoIs are scored for the miner or the adversary, as in their
            authors' code.
        score_threshold: detections below are dropped.
        nms_iou: of two detections of a class whose IoU is larger, the better stays (0.3 in Fast R-CNN's code).
        detections_per_image: how many detections of an image remain (100 in the paper's Torch implementation).

    Attributes:
        metrics: what the adversary measured in the last update.
    """

    adversary: Adversary | None

    def __init__(
        self,
        roi_pool: RoIPooling,
        box_head: nn.Module,
        predictor: nn.Module,
        *,
        sampler: RoISampler | None = None,
        box_coder: BoxCoder | None = None,
        miner: OHEM | None = None,
        jitter: ProposalJitter | None = None,
        adversary: Adversary | None = None,
        least_iou: float = 0.0,
        perturb_background: bool = False,
        dropout_in_scores: bool = False,
        score_threshold: float = 0.01,
        nms_iou: float = 0.3,
        detections_per_image: int = 100,
    ) -> None:
        super().__init__()
        self.roi_pool, self.box_head, self.predictor = roi_pool, box_head, predictor
        self.sampler, self.miner, self.jitter = sampler or RoISampler(), miner, jitter
        self.box_coder = box_coder or BoxCoder()
        # Registered also where there is none, so that attaching and detaching one leaves nothing behind.
        self.register_module("adversary", adversary)
        self.least_iou, self.perturb_background = least_iou, perturb_background
        self.dropout_in_scores = dropout_in_scores
        self.score_threshold = score_threshold
        self.nms_iou = nms_iou
        self.detections_per_image = detections_per_image
        self.metrics: dict[str, Tensor] = {}

    @property
    def num_classes(self) -> int:
        """K, the number of classes without background."""
        return int(self.predictor.bbox_pred.out_features) // 4 - 1  # type: ignore[union-attr, arg-type]

    def sample(self, proposals: Sequence[Tensor], targets: Sequence[Target]) -> RoIs:
        """Return the RoIs of an update, or all of which the miner chooses some; see ``RoISampler``."""
        rois: RoIs = (self.sampler if self.miner is None else self.sampler.eligible)(proposals, targets)
        return rois

    def losses(self, features: Features, rois: RoIs) -> dict[str, Tensor]:
        """Return the losses of an update: ``classification``, ``box_regression`` and ``adversary``, if there is one."""
        if self.miner is not None:
            losses = self.loss_of_each(features, rois).to(rois.boxes.device)
            rois = self.miner(rois, losses, len(features.sizes))
        if self.jitter is not None:
            rois = self.jitter(rois, features.sizes)
        pooled = self.roi_pool(features, rois.boxes, rois.image, rois.angle)  # n x C x d x d
        pooled, adversary_losses = self.perturb(pooled, rois)
        logits, deltas = self.predictor(self.box_head(pooled))
        return self.box_losses(logits.float(), deltas.float(), rois) | adversary_losses

    def perturb(self, pooled: Tensor, rois: RoIs) -> tuple[Tensor, dict[str, Tensor]]:
        """Return features (n x C x d x d) of which some are harder, and the adversary's loss, if there is one."""
        if self.adversary is None:
            return pooled, {}
        options = self.frozen_head(), self.least_iou, self.perturb_background
        pooled, loss, self.metrics = perturb(pooled, rois, self.adversary, *options)
        return pooled, {"adversary": loss}

    def frozen_head(self) -> FrozenHead:
        """Return the classifier as an adversary sees it."""
        return FrozenHead(self.box_head, self.predictor, self.dropout_in_scores)

    def box_losses(self, logits: Tensor, deltas: Tensor, rois: RoIs) -> dict[str, Tensor]:
        """Multi-task loss (section 3; Fast R-CNN, equations 1 to 3).

        Args:
            logits: n x (K + 1), class scores of all RoIs of the batch; of the integral loss n x (K + 1) x T.
            deltas: n x 4(K + 1), normalised offsets for each class.
            rois: the RoIs, in the same order.

        Returns:
            ``classification``, the mean softmax loss, and ``box_regression``, smooth L1 (beta 1) of the true class's
            offsets, summed over the four numbers and the foreground, divided by the number of all RoIs. The integral
            loss is the mean of such losses over the IoUs from which a RoI is foreground. Over processes, both average
            to what one process would compute.
        """
        # An image can give no RoI at all (no objects, no proposals): its update is zero, not NaN.
        count = mean_count(len(logits), logits.device)
        return {name: loss.sum() / count for name, loss in self._roi_losses(logits, deltas, rois).items()}

    @torch.no_grad()
    def loss_of_each(self, features: Features, rois: RoIs) -> Tensor:
        """Return the loss (n) that each RoI has as the detector is now."""
        with nullcontext() if self.dropout_in_scores else evaluating(self.box_head):
            logits, deltas = self.predictor(self.box_head(self.roi_pool(features, rois.boxes, rois.image)))
        classification, box_regression = self._roi_losses(logits.float(), deltas.float(), rois).values()
        return classification + box_regression

    def _roi_losses(self, logits: Tensor, deltas: Tensor, rois: RoIs) -> dict[str, Tensor]:
        """Return each RoI's two losses (n each); a background's box has none."""
        foreground, rois = rois.labels.nonzero().flatten().to(deltas.device, non_blocking=True), rois.to(deltas.device)
        labels = rois.labels[foreground]
        chosen = deltas.view(len(deltas), deltas.shape[1] // 4, 4)[foreground, labels]
        goals = self.box_coder.encode(rois.matched[foreground], rois.boxes[foreground], labels)
        box_losses = F.smooth_l1_loss(chosen, goals, reduction="none").sum(dim=1)
        if isinstance(self.predictor, IntegralPredictor):
            labels = self.predictor.labels(rois)  # n x T
            classification = F.cross_entropy(logits, labels, reduction="none").mean(dim=1)
            box_losses = box_losses * (labels[foreground] > 0).float().mean(dim=1)
        else:
            classification = F.cross_entropy(logits, rois.labels, reduction="none")
        box_regression = torch.zeros_like(classification).index_copy(0, foreground, box_losses)
        return {"classification": classification, "box_regression": box_regression}

    def renew_box_layer(self) -> None:
        """Begin the predictor's layer of boxes anew (Fast R-CNN, section 2.3)."""
        nn.init.normal_(self.predictor.bbox_pred.weight, std=0.001)  # type: ignore[union-attr, arg-type]
        nn.init.zeros_(self.predictor.bbox_pred.bias)  # type: ignore[union-attr, arg-type]

    def score(self, features: Features, proposals: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return class probabilities (n x (K + 1)) and normalised offsets (n x 4(K + 1)) of all images' n proposals."""
        boxes = torch.cat([box.as_subclass(Tensor) for box in proposals])
        counts = torch.tensor([len(box) for box in proposals], device=boxes.device)
        image = torch.arange(len(counts), device=boxes.device).repeat_interleave(counts)
        logits, deltas = self.predictor(self.box_head(self.roi_pool(features, boxes, image)))
        return logits.float().softmax(dim=1), deltas.float()

    def detect(
        self, scores: Tensor, deltas: Tensor, proposals: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        """Turn what ``score`` returns into detections by image, whose sizes are (height, width) in pixels."""
        counts = [len(boxes) for boxes in proposals]
        by_image = zip(torch.split(scores, counts), torch.split(deltas, counts), proposals, sizes, strict=True)
        return [self._detect_image(*image) for image in by_image]

    def _detect_image(
        self, scores: Tensor, deltas: Tensor, proposals: Tensor, size: tuple[int, int]
    ) -> dict[str, Tensor]:
        # Only what passes the threshold is decoded: with many classes that is a small part.
        roi, label = (scores[:, 1:] > self.score_threshold).nonzero().unbind(1)
        label = label + 1
        chosen = deltas.view(len(deltas), deltas.shape[1] // 4, 4)[roi, label]
        boxes = clip_boxes_to_image(self.box_coder.decode(chosen, proposals.as_subclass(Tensor)[roi], label), size)
        # A box that was moved out of the image has no area left in it.
        solid = remove_small_boxes(boxes, min_size=0.01)
        boxes, label, best = boxes[solid], label[solid], scores[roi, label][solid]
        remaining = batched_nms(boxes, best, label, self.nms_iou)[: self.detections_per_image]
        return {"boxes": boxes[remaining], "labels": label[remaining], "scores": best[remaining]}


def perturb(
    pooled: Tensor,
    rois: RoIs,
    adversary: Adversary,
    head: Head,
    least_iou: float = 0.0,
    background: bool = False,
) -> AdversaryOutput:
    """Hand the foreground RoIs of adversarial images to an adversary, and put back what it made of them: the seam.

    Args:
        pooled: n x C x d x d, the features of all RoIs of an update.
        rois: the RoIs.
        adversary: what makes them harder.
        head: the detector's classifier.
        least_iou: as of ``RoIHeads``.
        background: whether it perturbs the background RoIs of adversarial images, too, from which it learns nothing.

    Returns:
        Features n x C x d x d of which some are harder; the adversary's loss, a scalar; and what it measured.
    """
    labels = rois.labels.to(pooled.device, non_blocking=True)
    context = Context(pooled.detach(), labels)

    def hand(chosen: Tensor) -> AdversaryOutput:
        index = (chosen & rois.adversarial).nonzero().flatten().to(pooled.device, non_blocking=True)
        output: AdversaryOutput = adversary(pooled[index], labels[index], head, context)
        return output._replace(features=pooled.index_copy(0, index, output.features.to(pooled.dtype)))

    foreground = rois.labels > 0
    output = hand(foreground & (rois.iou >= least_iou))
    if background:
        # Where objects alone lose cells, a detector learns that what has lost some is an object.
        keep = (labels > 0)[:, None, None, None]
        output = output._replace(features=torch.where(keep, output.features, hand(~foreground).features))
    return output
