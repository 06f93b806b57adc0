"""ImageNet networks cut at RoI pooling (Fast R-CNN, arXiv:1504.08083, section 2.2)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models
from torchvision.models import WeightsEnum
from torchvision.ops import FrozenBatchNorm2d

from afrcnn.detectors.caffenet import CaffeNet
from afrcnn.detectors.weights import load_weights


@dataclass(frozen=True)
class Backbone:
    """An ImageNet network in two parts, and its facts: what sees the image, and what sees the RoI features of a region.

    Attributes:
        body: images N x 3 x H x W, normalised as those that the weights were trained on, to features
            N x ``channels`` x about H / ``stride`` x about W / ``stride``. Its children are the named stages,
            first to last.
        box_head: RoI features n x ``channels`` x ``pool_size`` x ``pool_size`` to n x ``box_features``.
        channels: channels of the body's features.
        pool_size: cells of the RoI features along each side.
        stride: pixels of the image per cell of the body's features.
        offset: the pixel (0, 1, ..) of the image that the first cell is centred on, along each side; the i-th is on
            offset + i * stride.
        box_features: length of the vector that the box head returns for a region.
        frozen_stages: how many of the body's first stages training leaves as ImageNet made them.
        new_box_head: whether the box head is new, so that ImageNet's weights are not those of it.
    """

    body: nn.Sequential
    box_head: nn.Module
    channels: int
    pool_size: int
    stride: int
    offset: float
    box_features: int
    frozen_stages: int
    new_box_head: bool = False


class FullyConnectedHead(nn.Module):
    """The two fully connected layers fc6 and fc7, each with ReLU and dropout.

    Args:
        fc6: from the flattened RoI features, n x (C * d * d).
        fc7: from the outputs of ``fc6``.
        dropout: the probability that an output of either is dropped in training.
    """

    fc6: nn.Module  # a Linear, or the two that truncated SVD makes of it
    fc7: nn.Module

    def __init__(self, fc6: nn.Linear, fc7: nn.Linear, dropout: float = 0.5) -> None:
        super().__init__()
        self.fc6 = fc6
        self.fc7 = fc7
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Return the fc7 vectors, n x D, of RoI features n x C x d x d."""
        x = features.flatten(start_dim=1)
        x = self.dropout(F.relu(self.fc6(x), inplace=True))
        return self.dropout(F.relu(self.fc7(x), inplace=True))  # type: ignore[no-any-return]


class _Scale(nn.Module):
    """Multiply features by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, features: Tensor) -> Tensor:
        """Return ``features`` times the factor."""
        return features * self.factor

    def extra_repr(self) -> str:
        """Show the factor where the module is printed."""
        return f"{self.factor:g}"


def alexnet(weights: str | Path | None = None, *, dropout: float = 0.5) -> Backbone:
    """Build torchvision's AlexNet: conv1 to conv5, RoI features of 6 x 6, fc6 and fc7; all of it is trained.

    The pads are those of Fast R-CNN's CaffeNet, 5, 1 and 1 in conv1 and the two poolings, so that cells lie on
    multiples of the stride. With those that ImageNet was learned with, they lie 15 pixels further.

    Args:
        weights: ImageNet weights, as :func:`~afrcnn.detectors.weights.load_weights` takes them, or random.
        dropout: after fc6 and fc7.
    """
    model = _torchvision(models.alexnet, weights, classifier="classifier.6.")
    model.features[0].padding = (5, 5)
    model.features[2].padding = model.features[5].padding = 1
    stages = _slices(model.features, conv1=3, conv2=6, conv3=8, conv4=10, conv5=12)
    box_head = FullyConnectedHead(model.classifier[1], model.classifier[4], dropout)
    return Backbone(
        stages, box_head, channels=256, pool_size=6, stride=16, offset=0.0, box_features=4096, frozen_stages=0
    )


def caffenet(weights: str | Path | None = None, *, dropout: float = 0.5) -> Backbone:
    """Build CaffeNet, the paper's AlexNet: conv1 to conv5, RoI features of 6 x 6, fc6 and fc7; all of it is trained.

    Args:
        weights: a file that ``afrcnn convert-weights`` made of Caffe's weights, whose images are normalised as
            Caffe's, or random.
        dropout: after fc6 and fc7.
    """
    model = _loaded(CaffeNet, None, weights, ignore="fc8.")
    stages = _slices(model, conv1=4, conv2=8, conv3=10, conv4=12, conv5=14)
    box_head = FullyConnectedHead(model.fc6, model.fc7, dropout)
    return Backbone(
        stages, box_head, channels=256, pool_size=6, stride=16, offset=0.0, box_features=4096, frozen_stages=0
    )


def vgg16(weights: str | Path | None = None, *, dropout: float = 0.5) -> Backbone:
    """Build VGG16: conv1 to conv5, RoI features of 7 x 7, fc6 and fc7; conv1 and conv2 are frozen.

    Args:
        weights: ImageNet weights, as :func:`~afrcnn.detectors.weights.load_weights` takes them, or random.
        dropout: after fc6 and fc7.
    """
    model = _torchvision(models.vgg16, weights, classifier="classifier.6.")
    stages = _slices(model.features, conv1=5, conv2=10, conv3=17, conv4=24, conv5=30)
    box_head = FullyConnectedHead(model.classifier[0], model.classifier[3], dropout)
    return Backbone(
        stages, box_head, channels=512, pool_size=7, stride=16, offset=7.5, box_features=4096, frozen_stages=2
    )


def resnet18(weights: str | Path | None = None) -> Backbone:
    """Build ResNet-18, cut as :func:`resnet50` is."""
    return _resnet(models.resnet18, weights, channels=256, features=512)


def resnet50(weights: str | Path | None = None) -> Backbone:
    """Build ResNet-50: conv1 to res4, RoI features of 14 x 14, res5 and average pooling as the box head.

    Batch normalisation keeps its ImageNet statistics, scale and shift everywhere; conv1 and res2 are frozen
    (Deep Residual Learning, arXiv:1512.03385, appendix A). Random weights have no such statistics: their
    activations grow with depth, and they serve to test and to time alone.

    Args:
        weights: ImageNet weights, as :func:`~afrcnn.detectors.weights.load_weights` takes them, or random.
    """
    return _resnet(models.resnet50, weights, channels=1024, features=2048)


def resnet101(weights: str | Path | None = None) -> Backbone:
    """Build ResNet-101, cut as :func:`resnet50` is."""
    return _resnet(models.resnet101, weights, channels=1024, features=2048)


def squeezenet1_0(weights: str | Path | None = None, *, dropout: float = 0.5, width: int = 1024) -> Backbone:
    """Build SqueezeNet 1.0: conv1 to fire9, RoI features of 7 x 7, new fc6 and fc7; conv1 is frozen.

    Without batch normalisation, the features that ImageNet taught fire9 have a deviation of about 30, and a
    new layer on top of them diverges; the last stage of the body divides them by it. conv1 and the poolings have pads,
    so that cells lie on multiples of the stride; without, as ImageNet was learned, they lie 17 pixels further.

    Args:
        weights: ImageNet weights, as :func:`~afrcnn.detectors.weights.load_weights` takes them, or random.
        dropout: after fc6 and fc7.
        width: the outputs of fc6 and of fc7.
    """
    model = _torchvision(models.squeezenet1_0, weights, classifier="classifier.")
    model.features[0].padding = (3, 3)
    for pooling in (model.features[2], model.features[6], model.features[11]):
        pooling.padding, pooling.ceil_mode = 1, False
    stages = _slices(model.features, conv1=3, fire2=4, fire3=5, fire4=7, fire5=8, fire6=9, fire7=10, fire8=12, fire9=13)
    stages.add_module("scale", _Scale(1 / 30))
    box_head = FullyConnectedHead(nn.Linear(512 * 7 * 7, width), nn.Linear(width, width), dropout)
    return Backbone(
        stages,
        box_head,
        512,
        pool_size=7,
        stride=16,
        offset=0.0,
        box_features=width,
        frozen_stages=1,
        new_box_head=True,
    )


def small(*, dropout: float = 0.0) -> Backbone:
    """Build a network that learns from scratch on a CPU within minutes, for small images of simple things.

    Five convolutions with group normalisation (arXiv:1803.08494), which does not depend on how few images
    make a batch; RoI features of 7 x 7; fc6 and fc7 of 256.

    Args:
        dropout: after fc6 and fc7.
    """

    def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.GroupNorm(outputs // 16, outputs),
            nn.ReLU(inplace=True),
        )

    stages = nn.Sequential(
        OrderedDict(
            conv1=stage(3, 32, stride=2),
            conv2=stage(32, 64, stride=2),
            conv3=stage(64, 128, stride=2),
            conv4=stage(128, 128, stride=1),
            conv5=stage(128, 128, stride=1),
        )
    )
    box_head = FullyConnectedHead(nn.Linear(128 * 7 * 7, 256), nn.Linear(256, 256), dropout)
    return Backbone(
        stages, box_head, 128, pool_size=7, stride=8, offset=0.0, box_features=256, frozen_stages=0, new_box_head=True
    )


def _resnet(build: Callable[..., Any], weights: str | Path | None, channels: int, features: int) -> Backbone:
    model = _torchvision(build, weights, classifier="fc.", norm_layer=FrozenBatchNorm2d)
    conv1 = OrderedDict(conv1=model.conv1, bn1=model.bn1, relu=model.relu, maxpool=model.maxpool)
    stages = nn.Sequential(
        OrderedDict(conv1=nn.Sequential(conv1), layer1=model.layer1, layer2=model.layer2, layer3=model.layer3)
    )
    box_head = nn.Sequential(OrderedDict(layer4=model.layer4, avgpool=model.avgpool, flatten=nn.Flatten()))
    return Backbone(
        stages, box_head, channels, pool_size=14, stride=16, offset=0.0, box_features=features, frozen_stages=2
    )


def _slices(layers: nn.Sequential, **ends: int) -> nn.Sequential:
    """Group consecutive layers into named stages, each up to its (exclusive) end; layers keep their names."""
    starts, children = [0, *ends.values()], list(layers.named_children())
    stages = [nn.Sequential(OrderedDict(children[start:end])) for start, end in pairwise(starts)]
    return nn.Sequential(OrderedDict(zip(ends, stages, strict=True)))


def _torchvision(build: Callable[..., Any], weights: str | Path | None, classifier: str, **options: Any) -> Any:
    """Build a model of torchvision; names that begin with ``classifier`` (its last layer) are not loaded."""
    return _loaded(partial(build, **options), models.get_model_weights(build), weights, classifier)


def _loaded(
    build: Callable[[], Any], published: type[WeightsEnum] | None, weights: str | Path | None, ignore: str
) -> Any:
    """Build a model with weights, or random ones."""
    if weights is None:
        return build()
    with torch.device("meta"):  # random numbers that the weights replace cost seconds in VGG16
        model = build()
    model.to_empty(device="cpu")
    load_weights(model, weights, published, ignore=(ignore,))
    return model


BACKBONES: dict[str, Callable[..., Backbone]] = {
    build.__name__: build for build in (alexnet, caffenet, vgg16, resnet18, resnet50, resnet101, squeezenet1_0, small)
}
"""The backbones by their names in recipes."""
