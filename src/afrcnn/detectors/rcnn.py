"""Fast R-CNN (Girshick 2015; section 4.1): features of an image, pooled in its proposals, classified and refined."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms.v2.functional import resize

from afrcnn.adversaries.base import BoxHeadSpec
from afrcnn.core.errors import UserError
from afrcnn.data.target import Target
from afrcnn.detectors.backbones import Backbone
from afrcnn.detectors.box_coding import offsets
from afrcnn.detectors.frozen_head import FrozenHead
from afrcnn.detectors.integral_loss import IntegralPredictor
from afrcnn.detectors.roi_heads import RoIHeads
from afrcnn.detectors.roi_pooling import Features, RoIPooling
from afrcnn.detectors.sampling import RoIs

_MOST_PIXELS = 25_000_000
"""Of an image that is resized in one step."""

_NORMALISATIONS = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "caffe": ([102.9801 / 255, 115.9465 / 255, 122.7717 / 255], [1 / 255] * 3),
}
"""Mean and deviation of pixels in [0, 1]: torchvision's of RGB, and Fast R-CNN's of BGR (rbgirshick/fast-rcnn,
lib/fast_rcnn/config.py, PIXEL_MEANS), which leaves pixels in [0, 255] minus the mean."""


class _Transform(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Torchvision's, but that it does not wait for the device."""

    def normalize(self, image: Tensor) -> Tensor:
        """Return an image (3 x H x W) minus the mean, divided by the deviation."""
        mean, deviation = (torch.tensor(values, dtype=image.dtype) for values in (self.image_mean, self.image_std))
        mean, deviation = (values.to(image.device, non_blocking=True) for values in (mean, deviation))
        return (image - mean[:, None, None]) / deviation[:, None, None]


class FastRCNN(nn.Module):
    """The detector of the paper: backbone, RoI pooling, box head, and a linear layer each for classes and boxes.

    In training, ``losses = detector(images, proposals, targets)``; in evaluation,
    ``detections = detector(images, proposals)``: one dictionary an image with ``boxes`` (D x 4, XYXY pixels of the
    given image), ``labels`` (D, int64, 1..K) and ``scores`` (D, float32 in [0, 1]), best first.

    Args:
        backbone: a normalised batch N x 3 x H x W to features N x C x about H / stride x about W / stride; its
            ``out_channels`` is C.
        roi_heads: what happens in each region; its adversary, miner and jitter take part in training alone.
        short_side: the length in pixels that the shorter side is resized to; several for a random choice in training
            (in evaluation the last).
        long_side: the bound in pixels on the longer side.
        normalisation: how images are normalised: ``"imagenet"``, RGB by ImageNet's mean and deviation, as for
            torchvision's weights; or ``"caffe"``, BGR from 0 to 255 minus a mean, as for Caffe's.

    Attributes:
        targets_on_host: tells the training loop to leave targets and proposals where they were read.
    """

    targets_on_host = True

    def __init__(
        self,
        backbone: nn.Module,
        roi_heads: RoIHeads,
        short_side: int | Sequence[int] = 600,
        long_side: int = 1000,
        normalisation: Literal["imagenet", "caffe"] = "imagenet",
    ) -> None:
        super().__init__()
        sides = [short_side] if isinstance(short_side, int) else list(short_side)
        mean, deviation = _NORMALISATIONS[normalisation]
        self.transform = _Transform(sides, long_side, mean, deviation, size_divisible=32)
        self.reverses_channels = normalisation == "caffe"
        # Convolutions run fastest with channels last, on CPUs and on tensor cores.
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.roi_heads = roi_heads
        self.turns: RemovableHandle | None = None  # of an adversary that is attached in a loop of one's own

    def forward(
        self, images: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Compute losses (in training) or detections (in evaluation).

        Args:
            images: N images, 3 x H_i x W_i, uint8 in [0, 255] or floating point in [0, 1], RGB.
            proposals: N tensors P_i x 4, XYXY pixels of their image; P_i may be 0. In training, where they and the
                targets lie on the host, no update waits for the device.
            targets: N targets with ``boxes`` and ``labels``, and ``adversarial`` where an adversary or jitter takes
                part; needed in training.

        Returns:
            ``{"classification": ..., "box_regression": ...}`` in training, with ``"adversary"`` where there is one;
            a list of detections in evaluation.
        """
        if not self.training:
            features = self.features(images)
            scores, deltas = self.roi_heads.score(features, proposals)
            return self.roi_heads.detect(scores, deltas, proposals, features.sizes)
        if targets is None:
            raise ValueError("targets are needed in training; call eval() first to detect")
        rois = self.roi_heads.sample(proposals, targets)
        return self.roi_heads.losses(self.features(images), rois)

    def features(self, images: Sequence[Tensor]) -> Features:
        """Return the features of images, which are resized, normalised and padded to one batch first."""
        for image in images:
            height, width = image.shape[-2:]
            if min(height, width) * self.transform.max_size < max(height, width):
                fix = "cut it into pieces, or raise detector.long_side"
                raise UserError(f"nothing is left of an image of {width} x {height} pixels when it is resized", fix=fix)
        pixels = [_reduced(image.as_subclass(Tensor)) for image in images]
        pixels = [image if image.is_floating_point() else image.float().div_(255) for image in pixels]
        if self.reverses_channels:
            pixels = [image.flip(0) for image in pixels]
        batch, _ = self.transform(pixels)
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        scales = [
            torch.tensor([w / width, h / height], dtype=batch.tensors.dtype).repeat(2)
            for (h, w), (height, width) in zip(batch.image_sizes, sizes, strict=True)
        ]
        return Features(self.backbone(batch.tensors.contiguous(memory_format=torch.channels_last)), scales, sizes)

    def pool_foreground(
        self, images: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Target], per_image: int
    ) -> tuple[Tensor, Tensor]:
        """Return features (n x C x d x d) and labels (n, 1..K) of at most so many foreground RoIs of each image."""
        sampler = self.roi_heads.sampler
        foreground = type(sampler)(per_image, 1.0, sampler.foreground_iou, sampler.background_iou)
        rois: RoIs = foreground(proposals, targets)
        rois = rois.select(rois.labels > 0)
        pooled = self.roi_heads.roi_pool(self.features(images), rois.boxes, rois.image)
        return pooled, rois.labels.to(pooled.device, non_blocking=True)

    def pool(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Return the features n x C x d x d of boxes (n_i x 4, XYXY pixels of their image, n in all)."""
        image = torch.cat([torch.full_like(box[:, 0], i, dtype=torch.int64) for i, box in enumerate(boxes)])
        pooled: Tensor = self.roi_heads.roi_pool(self.features(images), torch.cat(list(boxes)), image)
        return pooled

    def frozen_head(self) -> FrozenHead:
        """Return the classifier as an adversary sees it."""
        return self.roi_heads.frozen_head()

    def measure_box_targets(self, targets: Iterable[Target], mirrored: bool = False) -> None:
        """Normalise box targets by their mean and deviation over the foreground of targets.

        Args:
            targets: images with ``proposals``, to which the objects' own boxes are added.
            mirrored: whether each image counts as it is and mirrored.
        """
        samples, labels, sampler = [], [], self.roi_heads.sampler
        for target in targets:
            rois = sampler.eligible([target["proposals"]], [target])
            foreground = rois.select(rois.labels > 0)
            samples.append(offsets(foreground.matched, foreground.boxes))  # n x 4
            labels.append(foreground.labels)
            if mirrored:
                samples.append(samples[-1] * samples[-1].new_tensor([-1, 1, 1, 1]))
                labels.append(foreground.labels)
        self.roi_heads.box_coder.measure(torch.cat(samples), torch.cat(labels))

    @property
    def metrics(self) -> dict[str, Tensor]:
        """What the adversary measured in the last update."""
        return self.roi_heads.metrics

    @property
    def box_head_spec(self) -> BoxHeadSpec:
        """What the layers of an adversary begin as: the box head, and the shape of its RoI features."""
        roi_heads = self.roi_heads
        features: int = roi_heads.predictor.cls_score.in_features  # type: ignore[union-attr, assignment]
        channels: int = self.backbone.out_channels  # type: ignore[assignment]
        return BoxHeadSpec(roi_heads.box_head, features, channels, roi_heads.roi_pool.size)


def _reduced(image: Tensor) -> Tensor:
    """Return an image of at most ``_MOST_PIXELS``; larger ones would take gigabytes as floating point."""
    height, width = image.shape[-2:]
    factor = math.ceil(math.sqrt(height * width / _MOST_PIXELS))
    return image if factor == 1 else resize(image, [max(height // factor, 1), max(width // factor, 1)], antialias=True)


def fast_rcnn(
    backbone: Backbone,
    roi_pooling: type[RoIPooling],
    num_classes: int,
    *,
    frozen_stages: int | None = None,
    short_side: int | Sequence[int] = 600,
    long_side: int = 1000,
    normalisation: Literal["imagenet", "caffe"] = "imagenet",
    integral_loss: Sequence[float] = (),
    **roi_heads: Any,
) -> FastRCNN:
    """Build Fast R-CNN on a backbone, with a new predictor.

    Args:
        backbone: the ImageNet network, cut at RoI pooling.
        roi_pooling: the kind of RoI pooling between its halves.
        num_classes: K, the number of classes without background.
        frozen_stages: how many first stages of the backbone stay as they are; its own default when None.
        short_side: as of ``FastRCNN``.
        long_side: as of ``FastRCNN``.
        normalisation: as of ``FastRCNN``.
        integral_loss: the IoUs of the classifiers of an ``IntegralPredictor``; one classifier when empty.
        roi_heads: further arguments of ``RoIHeads``.
    """
    predictor: FastRCNNPredictor | IntegralPredictor = (
        IntegralPredictor(backbone.box_features, num_classes + 1, integral_loss)
        if integral_loss
        else FastRCNNPredictor(backbone.box_features, num_classes + 1)
    )
    # Fast R-CNN, section 2.3: new layers begin with Gaussian weights and zero biases.
    nn.init.normal_(predictor.cls_score.weight, std=0.01)
    nn.init.zeros_(predictor.cls_score.bias)
    frozen = backbone.frozen_stages if frozen_stages is None else frozen_stages
    for stage in list(backbone.body.children())[:frozen]:
        stage.requires_grad_(False)
    backbone.body.out_channels = backbone.channels  # type: ignore[assignment]  # torchvision's name for it
    roi_pool = roi_pooling(backbone.pool_size, backbone.stride, backbone.offset)
    heads = RoIHeads(roi_pool, backbone.box_head, predictor, **roi_heads)
    heads.renew_box_layer()
    return FastRCNN(backbone.body, heads, short_side, long_side, normalisation)
