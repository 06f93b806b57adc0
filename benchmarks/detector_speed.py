"""Time a training step and an inference of Fast R-CNN against torchvision's GeneralizedRCNN, in one run.

Both have the same backbone, head, predictor, images, proposals, number of RoIs, pooling (RoIAlign, 2 x 2 samples a bin)
and optimiser; torchvision's region proposal network is replaced by one that hands on the given proposals, at no cost.
Steps alternate, so that whatever else the machine does meets both; the ratio of medians is printed.

    python benchmarks/detector_speed.py [--backbones vgg16 squeezenet1_0] [--threads 2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from afrcnn.detectors import backbones
from afrcnn.detectors.rcnn import FastRCNN, fast_rcnn
from afrcnn.detectors.roi_pooling import RoIAlign
from afrcnn.detectors.sampling import RoISampler

CLASSES = 20
ROIS_PER_IMAGE = 128
PROPOSALS = 1000
SIDES = {"vgg16": (600, 800), "alexnet": (600, 800), "resnet50": (600, 800), "squeezenet1_0": (320, 500)}


class GivenProposals(nn.Module):
    """In the place of a region proposal network: the proposals that were given, resized with the images."""

    proposals: list[Tensor]
    sizes: list[tuple[int, int]]

    def forward(
        self, images: ImageList, features: dict[str, Tensor], targets: list[dict[str, Tensor]] | None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        resized = [
            boxes * boxes.new_tensor([new[1] / old[1], new[0] / old[0]]).repeat(2)
            for boxes, new, old in zip(self.proposals, images.image_sizes, self.sizes, strict=True)
        ]
        return resized, {}


class NamedOutput(nn.Module):
    """A backbone with the output that torchvision's RoI heads expect."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return OrderedDict([("0", self.body(x))])


def peers(backbone: str) -> tuple[FastRCNN, GeneralizedRCNN]:
    """Build both detectors with the same weights."""
    network = getattr(backbones, backbone)()
    short, long = SIDES[backbone]
    twin = copy.deepcopy(network)
    detector = fast_rcnn(
        network,
        RoIAlign,
        CLASSES,
        sampler=RoISampler(ROIS_PER_IMAGE, 0.25, 0.5, (0.0, 0.5)),
        short_side=short,
        long_side=long,
        score_threshold=0.05,
    )
    for stage in list(twin.body.children())[: twin.frozen_stages]:
        stage.requires_grad_(False)
    predictor = FastRCNNPredictor(twin.box_features, CLASSES + 1)
    predictor.load_state_dict(detector.roi_heads.predictor.state_dict())
    heads = RoIHeads(
        MultiScaleRoIAlign(["0"], twin.pool_size, 2),
        twin.box_head,
        predictor,
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=ROIS_PER_IMAGE,
        positive_fraction=0.25,
        bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
        score_thresh=0.05,
        nms_thresh=0.3,
        detections_per_img=100,
    )
    mean, std = detector.transform.image_mean, detector.transform.image_std
    transform = GeneralizedRCNNTransform(short, long, mean, std, size_divisible=32)
    return detector, GeneralizedRCNN(NamedOutput(twin.body), GivenProposals(), heads, transform)


def scene(size: tuple[int, int], seed: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return an image, proposals, a third of them around objects, and the objects."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(3, *size, generator=generator)
    limit = torch.tensor([size[1], size[0]])

    def boxes(count: int) -> Tensor:
        corner = torch.rand(count, 2, generator=generator) * limit * 0.6
        return torch.cat([corner, corner + 20 + torch.rand(count, 2, generator=generator) * limit * 0.35], dim=1)

    objects = boxes(5)
    near = objects.repeat(PROPOSALS // 15, 1)
    near = near + torch.randn(near.shape, generator=generator) * 4
    proposals = torch.cat([near, boxes(PROPOSALS - len(near))])
    labels = torch.randint(1, CLASSES + 1, (5,), generator=generator)
    return image, proposals, {"boxes": objects, "labels": labels}


def compare(backbone: str, precision: str, rounds: int) -> list[tuple[str, float, float]]:
    """Return (what, our seconds, torchvision's seconds), medians, for a training step and for inference."""
    detector, peer = peers(backbone)
    images, proposals, targets = (
        list(column) for column in zip(*(scene((375, 500), seed) for seed in (1, 2)), strict=True)
    )
    peer.rpn.proposals, peer.rpn.sizes = proposals, [(375, 500)] * 2
    runs: dict[str, Callable[[], object]] = {
        "afrcnn": lambda: detector(images, proposals, targets if detector.training else None),
        "torchvision": lambda: peer(images, targets if peer.training else None),
    }
    optimizers = {
        name: torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1e-6, momentum=0.9, fused=True)
        for name, model in (("afrcnn", detector), ("torchvision", peer))
    }

    def autocast() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed")

    def step(name: str) -> None:
        with autocast():
            losses = runs[name]()
        loss = torch.stack([value.float() for value in losses.values()]).sum()  # type: ignore[attr-defined]
        optimizers[name].zero_grad()
        loss.backward()
        optimizers[name].step()

    @torch.inference_mode()
    def infer(name: str) -> None:
        with autocast():
            runs[name]()

    rows = []
    for what, call in (("training step", step), ("inference", infer)):
        for model in (detector, peer):
            model.train(call is step)
        seconds: dict[str, list[float]] = {"afrcnn": [], "torchvision": []}
        for round_ in range(rounds + 1):
            for name, times in seconds.items():
                began = time.perf_counter()
                call(name)
                if round_:  # the first is warm-up
                    times.append(time.perf_counter() - began)
        rows.append((what, statistics.median(seconds["afrcnn"]), statistics.median(seconds["torchvision"])))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["vgg16", "squeezenet1_0"], choices=list(SIDES))
    parser.add_argument("--precisions", nargs="+", default=["32-true", "bf16-mixed"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    table = Table(
        title=f"2 images, {2 * ROIS_PER_IMAGE} RoIs (inference {2 * PROPOSALS}), CPU, {arguments.threads} threads"
    )
    for column in ("backbone", "precision", "", "afrcnn s", "torchvision s", "ratio"):
        table.add_column(column, justify="right" if "s" in column[-2:] or column == "ratio" else "left")
    for backbone in arguments.backbones:
        for precision in arguments.precisions:
            for what, new, peer in compare(backbone, precision, arguments.rounds):
                table.add_row(backbone, precision, what, f"{new:.3f}", f"{peer:.3f}", f"{new / peer:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
