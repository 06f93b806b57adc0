"""Fast R-CNN (Girshick 2015; section 4.1): features of an image, pooled in its proposals, classified and refined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from afrcnn.adversaries.base import DetachedHead, evaluating
from afrcnn.core.distributed import mean_count
from afrcnn.data.target import Target
from afrcnn.detectors.backbones import Network
from afrcnn.detectors.box_coding import BoxCoder
from afrcnn.detectors.jitter import Pool, ProposalJitter
from afrcnn.detectors.ohem import hardest
from afrcnn.detectors.sampling import RoISampler, Sample
from afrcnn.detectors.seam import Seam

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FastRCNN(nn.Module):
    """The detector of the paper: backbone, RoI pooling, head, and a linear layer each for classes and boxes.

    In training, ``losses = detector(images, proposals, targets)``; in evaluation,
    ``detections = detector(images, proposals)``: one dictionary an image with ``boxes`` (D x 4, XYXY pixels of the
    given image), ``labels`` (D, int64, 1..K) and ``scores`` (D, float32 in [0, 1]), best first.

    An adversary is attached by ``afrcnn.detectors.attach``; it takes part in training alone, and so do ``jitter`` and
    ``ohem``, online hard example mining. RoIs are mined as they are in the photograph; jitter and adversaries change
    them afterwards.

    Args:
        network: the ImageNet network, cut at RoI pooling.
        roi_pooling: the module between its halves: (features, one n_i x 4 tensor of RoIs an image) -> n x C x d x d.
        num_classes: K, the number of classes without background.
        sampler: draws the RoIs of an update.
        box_coder: offsets between RoIs and boxes.
        frozen_stages: how many first stages of the trunk stay as they are; the network's default when None.
        short_side: the length in pixels that the shorter side is resized to; several for a random choice in training
            (in evaluation the last).
        long_side: the bound in pixels on the longer side.
        score_threshold: detections below are dropped.
        nms_iou: of two detections of a class whose IoU is larger, the better stays (0.3 in Fast R-CNN's code).
        detections_per_image: how many detections an image keeps (100 in the paper's Torch implementation).
    """

    def __init__(
        self,
        network: Network,
        roi_pooling: nn.Module,
        num_classes: int,
        *,
        sampler: RoISampler | None = None,
        box_coder: BoxCoder | None = None,
        frozen_stages: int | None = None,
        short_side: int | Sequence[int] = 600,
        long_side: int = 1000,
        score_threshold: float = 0.01,
        nms_iou: float = 0.3,
        detections_per_image: int = 100,
    ) -> None:
        super().__init__()
        sides = [short_side] if isinstance(short_side, int) else list(short_side)
        self.transform = GeneralizedRCNNTransform(
            sides, long_side, list(IMAGENET_MEAN), list(IMAGENET_STD), size_divisible=32
        )
        self.trunk, self.roi_pooling, self.head = network.trunk, roi_pooling, network.head
        self.predictor = FastRCNNPredictor(network.features, num_classes + 1)
        self.ohem = False
        self.jitter: ProposalJitter | None = None
        self.seam: Seam | None = None
        self.channels = network.channels
        self.sampler = sampler or RoISampler()
        self.box_coder = box_coder or BoxCoder()
        self.score_threshold = score_threshold
        self.nms_iou = nms_iou
        self.detections_per_image = detections_per_image

        # Fast R-CNN, section 2.3: new layers begin with Gaussian weights and zero biases.
        nn.init.normal_(self.predictor.cls_score.weight, std=0.01)
        nn.init.normal_(self.predictor.bbox_pred.weight, std=0.001)
        nn.init.zeros_(self.predictor.cls_score.bias)
        nn.init.zeros_(self.predictor.bbox_pred.bias)
        frozen = network.frozen_stages if frozen_stages is None else frozen_stages
        for stage in list(self.trunk.children())[:frozen]:
            stage.requires_grad_(False)
        # Convolutions run fastest with channels last, on CPUs and on tensor cores.
        self.trunk.to(memory_format=torch.channels_last)

    def forward(
        self, images: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Compute losses (in training) or detections (in evaluation).

        Args:
            images: N images, 3 x H_i x W_i, uint8 in [0, 255] or floating point in [0, 1], RGB.
            proposals: N tensors P_i x 4, XYXY pixels of their image; P_i may be 0.
            targets: N targets with ``boxes`` and ``labels``; needed in training.

        Returns:
            ``{"classification": ..., "box_regression": ...}`` in training, with ``"adversary"`` where one is attached;
            a list of detections in evaluation.
        """
        if not self.training:
            scores, deltas = self.score(images, proposals)
            return self.detect(scores, deltas, proposals, sizes_of(images))

        if targets is None:
            raise ValueError("targets are needed in training; call eval() first to detect")
        samples, pool = self.sample(proposals, targets), self.pooling(images)
        if self.ohem:
            samples = hardest(samples, self.hardness(samples, pool), self.sampler.rois_per_image * len(images))
        if self.jitter is None:
            pooled = pool([sample.rois for sample in samples])
        else:
            samples, pooled = self.jitter(samples, sizes_of(images), pool)
        adversarial = {}
        if self.seam is not None:
            labels, overlaps = zip(*((sample.labels, sample.overlaps) for sample in samples), strict=True)
            pooled, loss = self.seam(pooled, labels, self.detached_head(), overlaps)
            adversarial["adversary"] = loss
        logits, deltas = self.predictor(self.head(pooled))
        return self.losses(logits.float(), deltas.float(), samples) | adversarial

    def rest(self, resting: bool = True) -> None:
        """Let adversary and jitter rest in training, where there are any, or let them go on."""
        for part in (self.seam, self.jitter):
            if part is not None:
                part.adversarial.resting = resting

    def sample(self, proposals: Sequence[Tensor], targets: Sequence[Target]) -> list[Sample]:
        """Draw the RoIs of an update from each image's proposals, or for OHEM take all."""
        draw = self.sampler.eligible if self.ohem else self.sampler
        return [draw(boxes, target) for boxes, target in zip(proposals, targets, strict=True)]

    def pool(self, images: Sequence[Tensor], rois: Sequence[Tensor]) -> Tensor:
        """Return the features n x C x d x d of RoIs (n_i x 4, XYXY pixels of their image, n in all)."""
        return self.pooling(images)(rois)

    def pooling(self, images: Sequence[Tensor]) -> Pool:
        """Compute the features of images, and return RoI pooling from them, as ``pool``."""
        batch, scales = self.prepare(images)
        features = self.trunk(batch)

        def pool(rois: Sequence[Tensor]) -> Tensor:
            pooled: Tensor = self.roi_pooling(features, self.resize(rois, scales))
            return pooled

        return pool

    def detached_head(self) -> DetachedHead:
        """Return the classifier as an adversary sees it."""
        return DetachedHead(self.head, self.predictor)

    def prepare(self, images: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the normalised, resized, padded batch and each image's scale as (x, y, x, y) factors."""
        plain = [image.as_subclass(Tensor) for image in images]
        plain = [image if image.is_floating_point() else image.float().div_(255) for image in plain]
        batch, _ = self.transform(plain)
        scales = [
            batch.tensors.new_tensor([w / image.shape[-1], h / image.shape[-2]]).repeat(2)
            for (h, w), image in zip(batch.image_sizes, plain, strict=True)
        ]
        return batch.tensors.contiguous(memory_format=torch.channels_last), scales

    @staticmethod
    def resize(boxes: Sequence[Tensor], scales: Sequence[Tensor]) -> list[Tensor]:
        """Return boxes of the images as given (n_i x 4) in pixels of the resized images."""
        return [box.as_subclass(Tensor) * scale for box, scale in zip(boxes, scales, strict=True)]

    def losses(self, logits: Tensor, deltas: Tensor, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Multi-task loss (section 3; Fast R-CNN, equations 1 to 3).

        Args:
            logits: n x (K + 1), class scores of all RoIs of the batch.
            deltas: n x 4(K + 1), normalised offsets for each class.
            samples: the RoIs by image, in the same order.

        Returns:
            ``classification``, the mean softmax loss, and ``box_regression``, smooth L1 (beta 1) of the true class's
            offsets, summed over the four numbers and the foreground, divided by the number of all RoIs. Over
            processes, both average to what one process would compute.
        """
        # An image can give no RoI at all (no objects, no proposals): its update is zero, not NaN.
        count = mean_count(len(logits), logits.device)
        return {name: loss.sum() / count for name, loss in self.roi_losses(logits, deltas, samples).items()}

    def roi_losses(self, logits: Tensor, deltas: Tensor, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return each RoI's two losses (n each), of which ``losses`` returns the means; a background's box has none."""
        labels = torch.cat([sample.labels for sample in samples])
        foreground = labels.nonzero().flatten()
        rois = torch.cat([sample.rois for sample in samples])[foreground]
        boxes = torch.cat([sample.boxes for sample in samples])[foreground]
        chosen = deltas.view(len(deltas), deltas.shape[1] // 4, 4)[foreground, labels[foreground]]
        box_losses = F.smooth_l1_loss(chosen, self.box_coder.encode(boxes, rois), reduction="none").sum(dim=1)
        return {
            "classification": F.cross_entropy(logits, labels, reduction="none"),
            "box_regression": torch.zeros_like(logits[:, 0]).index_copy(0, foreground, box_losses),
        }

    @torch.no_grad()
    def hardness(self, samples: Sequence[Sample], pool: Pool) -> Tensor:
        """Return the loss (n) that each RoI of all images has as the detector is now, dropout off."""
        with evaluating(self.head):
            logits, deltas = self.predictor(self.head(pool([sample.rois for sample in samples])))
        classification, box_regression = self.roi_losses(logits.float(), deltas.float(), samples).values()
        return classification + box_regression

    def score(self, images: Sequence[Tensor], proposals: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return class probabilities (n x (K + 1)) and normalised offsets (n x 4(K + 1)) of all images' n proposals."""
        logits, deltas = self.predictor(self.head(self.pool(images, proposals)))
        return logits.float().softmax(dim=1), deltas.float()

    def detect(
        self,
        scores: Tensor,
        deltas: Tensor,
        proposals: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Turn what ``score`` returns into detections by image, whose sizes are (height, width) in pixels."""
        counts = [len(boxes) for boxes in proposals]
        detections = []
        for score, delta, boxes, size in zip(
            torch.split(scores, counts), torch.split(deltas, counts), proposals, sizes, strict=True
        ):
            # Only what passes the threshold is decoded: with many classes that is a small part.
            roi, label = (score[:, 1:] > self.score_threshold).nonzero().unbind(1)
            label = label + 1
            chosen = delta.view(len(delta), delta.shape[1] // 4, 4)[roi, label]
            refined = self.box_coder.decode(chosen, boxes.as_subclass(Tensor)[roi])
            refined = clip_boxes_to_image(refined, size)
            # A box that was moved out of the image has no area left in it.
            solid = remove_small_boxes(refined, min_size=0.01)
            refined, label, best = refined[solid], label[solid], score[roi, label][solid]
            kept = batched_nms(refined, best, label, self.nms_iou)[: self.detections_per_image]
            detections.append({"boxes": refined[kept], "labels": label[kept], "scores": best[kept]})
        return detections


def sizes_of(images: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return the height and width of images in pixels."""
    return [(image.shape[-2], image.shape[-1]) for image in images]
