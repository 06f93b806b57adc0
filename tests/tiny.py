"""Tiny second halves of detectors, and every adversary in a size that they fit."""

from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import FrozenBatchNorm2d

from afrcnn.adversaries.asdn import ASDN, ConvolutionalASDN
from afrcnn.adversaries.astn import ASTN
from afrcnn.adversaries.base import Adversary, BoxHeadSpec
from afrcnn.adversaries.chain import Chain
from afrcnn.adversaries.dropout import DropBlock, HardDropout, RandomDropout
from afrcnn.data.scene import draw_scene
from afrcnn.detectors.backbones import FullyConnectedHead, small
from afrcnn.detectors.frozen_head import FrozenHead
from afrcnn.detectors.rcnn import fast_rcnn
from afrcnn.detectors.roi_pooling import RoIAlign
from afrcnn.reporting.methods import ReportedRun

WIDTH, CLASSES = 12, 3
KINDS = ("fully connected", "torchvision", "residual")
"""Kinds of box heads."""


def build_detector(kind="fully connected", channels=8, size=6, dropout=0.5):
    """A box head with its predictor, both with parameters large enough that objects differ."""
    inputs = channels * size * size
    if kind == "fully connected":
        box_head = FullyConnectedHead(nn.Linear(inputs, WIDTH), nn.Linear(WIDTH, WIDTH), dropout)
    elif kind == "torchvision":
        box_head = TwoMLPHead(inputs, WIDTH)
    else:  # as res5: convolutions, both kinds of batch normalisation, average pooling
        box_head = nn.Sequential(
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
        box_head.bn1.running_mean.normal_()
        box_head.bn1.running_var.uniform_(0.5, 2)
        box_head.bn2.running_mean.normal_(std=0.1)
    predictor = FastRCNNPredictor(WIDTH, CLASSES + 1)
    nn.init.normal_(predictor.cls_score.weight)
    return SimpleNamespace(box_head=box_head, predictor=predictor, head=FrozenHead(box_head, predictor))


class Pretraining(Adversary):
    """Pre-trains an adversary where it is called, so that what holds for a call is tested of pre-training too."""

    def __init__(self, adversary):
        super().__init__()
        self.adversary = adversary

    def forward(self, features, labels, head, context=None):
        return self.adversary.pretrain(features, labels, head)


def build_spec(kind="fully connected", channels=8, size=6, dropout=0.5):
    return BoxHeadSpec(build_detector(kind, channels, size, dropout).box_head, WIDTH, channels, size)


def build_adversary(name, kind="fully connected", channels=8, size=6):
    """An adversary with layers as a box head of some kind has them.

    Every mask of ASDN counts, so that there is a gradient to look for.
    """
    spec = build_spec(kind, channels, size)
    if name.startswith("asdn"):
        occluding = {"mask": "window", "fraction": (0.1, 0.6), "occluder": "features"} if "occluding" in name else {}
        adversary = ASDN(spec, threshold=-1, **occluding)
        if "conv" in name:
            adversary.network = ConvolutionalASDN(spec, width=4)
        return Pretraining(adversary) if "pretraining" in name else adversary
    if name == "astn":
        return ASTN(spec, scale=0.1, translation=0.1)
    return {"random": RandomDropout, "hard": HardDropout, "dropblock": DropBlock}[name](spec)


def build_chain(*names, kind="fully connected"):
    return Chain(**{f"{i}_{name}": build_adversary(name, kind) for i, name in enumerate(names)})


def build_objects(n=5, channels=8, size=6, dtype=torch.float32):
    """Features of n objects, and their labels."""
    return torch.rand(n, channels, size, size, dtype=dtype), torch.randint(1, CLASSES + 1, (n,))


def build_fast_rcnn(num_classes=CLASSES, backbone=None, **options):
    """Fast R-CNN on the small network, for images of about 64 pixels."""
    return fast_rcnn(backbone or small(), RoIAlign, num_classes, **{"short_side": 64, "long_side": 64, **options})


def write_scene(path: Path, seed: int = 0) -> Path:
    """Write a generated image, 80 x 96."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_scene(np.random.default_rng(seed), size=(80, 96)).image).save(path)
    return path


def build_reported_run(folder, recipe, results=None, stress=None):
    """A run whose files need not be there."""
    run = ReportedRun(folder)
    run.recipe, run.results, run.stress = recipe, results, stress
    return run
