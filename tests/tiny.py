"""Tiny detectors' second halves, and every adversary in a size that they fit."""

from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import FrozenBatchNorm2d

from afrcnn.adversaries import (
    ASDN,
    ASTN,
    Chain,
    ConvolutionalASDN,
    DetachedHead,
    FullyConnectedASDN,
    HardDropout,
    LocalisationNetwork,
    Occluder,
    RandomDropout,
    RoIHead,
    WindowSampling,
)
from afrcnn.data.scene import draw_scene
from afrcnn.detectors.backbones import FullyConnectedHead

WIDTH, CLASSES = 12, 3


def build_detector(kind="fully connected", channels=8, size=6, dropout=0.5):
    """A head with its predictor, both with parameters large enough that objects differ."""
    inputs = channels * size * size
    if kind == "fully connected":
        head = FullyConnectedHead(nn.Linear(inputs, WIDTH), nn.Linear(WIDTH, WIDTH), dropout)
    elif kind == "torchvision":
        head = TwoMLPHead(inputs, WIDTH)
    else:  # as res5: convolutions, both kinds of batch normalisation, average pooling
        head = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(channels, WIDTH, 3, padding=1, bias=False),
                bn1=nn.BatchNorm2d(WIDTH),
                relu=nn.ReLU(inplace=True),
                conv2=nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
                bn2=FrozenBatchNorm2d(WIDTH),
                dropout=nn.Dropout(dropout),
                avgpool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
            )
        )
        head.bn1.running_mean.normal_()
        head.bn1.running_var.uniform_(0.5, 2)
        head.bn2.running_mean.normal_(std=0.1)
    predictor = FastRCNNPredictor(WIDTH, CLASSES + 1)
    nn.init.normal_(predictor.cls_score.weight)
    return SimpleNamespace(head=head, predictor=predictor, detached=DetachedHead(head, predictor))


class Pretraining(nn.Module):
    """Pre-trains an adversary where it is called, so that what holds for a call is tested of pre-training too."""

    def __init__(self, adversary):
        super().__init__()
        self.adversary = adversary

    def forward(self, features, labels, head):
        return self.adversary.pretrain(features, labels, head)


def build_roi_head(kind="fully connected", channels=8, size=6, dropout=0.5):
    return RoIHead(build_detector(kind, channels, size, dropout).head, WIDTH, channels, size)


def build_adversary(name, kind="fully connected", channels=8, size=6):
    """An adversary with layers as a head of some kind has them."""
    head = build_roi_head(kind, channels, size)
    if name == "asdn occluding":
        return ASDN(FullyConnectedASDN(head), WindowSampling(), Occluder(), threshold=-1)
    if name.startswith("asdn"):
        network = FullyConnectedASDN(head) if "fc" in name else ConvolutionalASDN(channels, width=4)
        adversary = ASDN(network, threshold=-1)  # every mask counts, so that there is a gradient to look for
        return Pretraining(adversary) if "pretraining" in name else adversary
    if name == "astn":
        return ASTN(LocalisationNetwork(head), scale=0.1, translation=0.1)
    return {"random": RandomDropout, "hard": HardDropout}[name]()


def build_objects(n=5, channels=8, size=6, dtype=torch.float32):
    """Features of n objects, and their labels."""
    return torch.rand(n, channels, size, size, dtype=dtype), torch.randint(1, CLASSES + 1, (n,))


def build_chain(*names, kind="fully connected"):
    return Chain(**{f"{i}_{name}": build_adversary(name, kind) for i, name in enumerate(names)})


def write_scene(path: Path, seed: int = 0) -> Path:
    """Write a generated image, 80 x 96."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_scene(np.random.default_rng(seed), size=(80, 96)).image).save(path)
    return path
