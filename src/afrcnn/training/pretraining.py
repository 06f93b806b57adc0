"""Adversaries in a training: built from a recipe, and trained alone against a frozen detector."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import torch
from torch import Tensor, nn

from afrcnn.adversaries import (
    ASDN,
    ASTN,
    Chain,
    ConvolutionalASDN,
    DropBlock,
    FullyConnectedASDN,
    HardDropout,
    LocalisationNetwork,
    MaskSampling,
    Occluder,
    RandomDropout,
    RoIHead,
    WindowSampling,
)
from afrcnn.adversaries.base import Hardened
from afrcnn.build import build_network
from afrcnn.core.distributed import mean_count
from afrcnn.core.errors import UserError
from afrcnn.data.target import Target
from afrcnn.detectors.attach import roi_head_of
from afrcnn.detectors.jitter import ProposalJitter
from afrcnn.detectors.rcnn import FastRCNN
from afrcnn.detectors.sampling import RoISampler
from afrcnn.recipe import AdversaryRecipe, ASDNRecipe, ASTNRecipe, DetectorRecipe, RandomDropoutRecipe

ENTRY_POINTS = "afrcnn.adversaries"
"""Group of entry points in which an installed package names its adversaries."""

NEW_HEADS = ("squeezenet1_0", "small")
"""Backbones whose fc6 and fc7 ImageNet has not taught."""


def build_adversary(recipe: AdversaryRecipe, head: RoIHead) -> Chain:
    """Build the chain of adversaries that a recipe names; it may be empty.

    Args:
        recipe: its fields.
        head: what the layers of the adversaries begin as.

    Raises:
        UserError: an adversary is unknown, or its fields are wrong.
    """
    if stray := [name for name in recipe.own if name not in recipe.chain]:
        raise UserError(f"{stray[0]} is not in adversary.chain", field="adversary.own", fix="use its name in the chain")
    chain = Chain()
    for name in recipe.chain:
        key = key_of(name)
        if key in chain:
            raise UserError(f"names {key} twice", field="adversary.chain", fix="name each adversary once")
        try:
            chain[key] = _build(name, recipe, head)
        except (TypeError, ValueError) as error:
            field = name if hasattr(recipe, name) else "own"
            raise UserError(str(error), field=f"adversary.{field}", fix="see `afrcnn train --help`") from error
    return chain


def build_jitter(recipe: AdversaryRecipe) -> ProposalJitter | None:
    """Build the random changes of proposals that a recipe names, if any."""
    ranges = recipe.jitter.scale, recipe.jitter.aspect_ratio, recipe.jitter.degrees
    return ProposalJitter(*ranges, recipe.clean_fraction) if any(ranges) else None


def initial_head(recipe: DetectorRecipe, detector: FastRCNN) -> RoIHead:
    """Return the layers that an adversary's own begin as (section 4.2.1): ImageNet's, or else the detector's."""
    head = roi_head_of(detector)
    if recipe.weights is None or recipe.backbone in NEW_HEADS:
        return head
    return head._replace(layers=build_network(recipe).head)


def learners(recipe: AdversaryRecipe, chain: Chain) -> dict[str, nn.Module]:
    """Return the adversaries of a chain that the second stage trains.

    Raises:
        UserError: there is none, or the recipe names one that is not in the chain.
    """
    own = [name for name, adversary in chain.items() if hasattr(adversary, "pretrain")]
    names = own if recipe.pretrained is None else [key_of(name) for name in recipe.pretrained]
    if unknown := [name for name in names if name not in chain]:
        raise UserError(
            f"{unknown[0]} is not in adversary.chain", field="adversary.pretrained", fix=f"choose of {', '.join(chain)}"
        )
    if not any(True for name in names for _ in chain[name].parameters()):
        raise UserError(
            f"there is nothing to learn alone for {', '.join(chain)}",
            field="pretraining.iterations",
            fix="set it to 0, or name others in adversary.pretrained",
        )
    return {name: chain[name] for name in names}


def freeze(recipe: AdversaryRecipe, chain: Chain) -> None:
    """Leave fixed adversaries as pre-training made them (section 5.2.1)."""
    if "asdn" in chain and recipe.asdn.fixed:
        chain["asdn"].requires_grad_(False)


def key_of(name: str) -> str:
    """Return the name of an adversary in its chain, in logs and in files: the last part of a dotted path."""
    return name.rpartition(".")[2]


def _build(name: str, recipe: AdversaryRecipe, head: RoIHead) -> nn.Module:
    match name:
        case "asdn":
            return _build_asdn(recipe.asdn, head)
        case "astn":
            return _build_astn(recipe.astn, head)
        case "random_dropout":
            return RandomDropout(_sampling(recipe.random_dropout, top=1.0), _occluder(recipe.random_dropout))
        case "hard_dropout":
            _refuse_large(recipe.hard_dropout.window, head)
            return HardDropout(recipe.hard_dropout.window, recipe.hard_dropout.stride)
        case "dropblock":
            if recipe.dropblock.block > head.size:
                raise ValueError(f"a block of {recipe.dropblock.block} cells does not fit in {head.size} x {head.size}")
            return DropBlock(recipe.dropblock.share, recipe.dropblock.block)
        case _:
            return _own(name)(head, **recipe.own.get(name, {}))


def _build_asdn(recipe: ASDNRecipe, head: RoIHead) -> ASDN:
    _refuse_large(recipe.window, head)
    network = FullyConnectedASDN(head) if recipe.network == "fully_connected" else ConvolutionalASDN(head.channels)
    return ASDN(
        network,
        _sampling(recipe, recipe.top),
        _occluder(recipe),
        window=recipe.window,
        stride=recipe.stride,
        threshold=recipe.threshold,
        negatives=recipe.negatives,
    )


def _sampling(recipe: ASDNRecipe | RandomDropoutRecipe, top: float) -> MaskSampling | WindowSampling:
    if recipe.mask == "window":
        least = recipe.share if recipe.least_share is None else recipe.least_share
        return WindowSampling((least, recipe.share), top)
    if recipe.least_share is not None:
        raise ValueError("least_share is for windows; set mask to window, or least_share to null")
    return MaskSampling(top, recipe.share)


def _occluder(recipe: ASDNRecipe | RandomDropoutRecipe) -> Occluder | None:
    return Occluder() if recipe.occluder == "features" else None


def _build_astn(recipe: ASTNRecipe, head: RoIHead) -> ASTN:
    if head.channels % recipe.blocks:
        raise ValueError(f"{head.channels} channels cannot be divided into {recipe.blocks} blocks")
    return ASTN(
        LocalisationNetwork(head, recipe.blocks),
        blocks=recipe.blocks,
        degrees=recipe.degrees,
        scale=recipe.scale,
        translation=recipe.translation,
    )


def _refuse_large(window: int | None, head: RoIHead) -> None:
    if window is not None and window > head.size:
        raise ValueError(f"a window of {window} cells does not fit in features of {head.size} x {head.size}")


def _own(name: str) -> type[nn.Module]:
    """Return a user's class by the name of an entry point, or by its dotted path from the current folder."""
    installed = entry_points(group=ENTRY_POINTS, name=name)
    module, _, attribute = name.rpartition(".")
    fix = (
        "choose asdn, astn, random_dropout, hard_dropout, dropblock, or write package.module.Class for one of your own"
    )
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found = next(iter(installed)).load() if installed else getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"there is no adversary {name} ({error})", field="adversary.chain", fix=fix) from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UserError(f"{name} is no class of nn.Module", field="adversary.chain", fix=fix)
    return found


class Pretraining(nn.Module):
    """The second stage (section 4.2.1): adversaries learn alone, and the detector is a constant to them.

    What they measured in the last update is in ``metrics``.

    Args:
        adversaries: those that learn, by name.
        detector: no part of this module, so that nothing here trains it.
        foreground_per_image: how many foreground RoIs an image gives at most.
    """

    def __init__(self, adversaries: dict[str, nn.Module], detector: FastRCNN, foreground_per_image: int) -> None:
        super().__init__()
        self.adversaries = nn.ModuleDict(adversaries)
        self.metrics: dict[str, Tensor] = {}
        sampler = detector.sampler
        self.sampler = RoISampler(foreground_per_image, 1.0, sampler.foreground_iou, sampler.background_iou)
        self.pool, self.head = detector.pool, detector.detached_head()

    def forward(
        self, images: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Return the adversaries' losses, each a mean over the foreground RoIs of all processes."""
        with torch.no_grad():
            rois, labels = self.sample(proposals, targets)
            features = self.pool(images, rois)
        share = len(labels) / mean_count(len(labels), features.device)
        losses, self.metrics = {}, {}
        for name, adversary in self.adversaries.items():
            learn = getattr(adversary, "pretrain", adversary)
            hardened = Hardened(*learn(features, labels, self.head))
            losses[f"adversary/{name}"] = hardened.loss * share
            self.metrics |= {f"{name}/{metric}": value for metric, value in hardened.metrics.items()}
        return losses

    def sample(self, proposals: Sequence[Tensor], targets: Sequence[Target]) -> tuple[list[Tensor], Tensor]:
        """Draw foreground RoIs: boxes by image, and the labels (n, 1..K) of all."""
        samples = [self.sampler(boxes, target) for boxes, target in zip(proposals, targets, strict=True)]
        labels = torch.cat([sample.labels for sample in samples])
        return [sample.rois[sample.labels > 0] for sample in samples], labels[labels > 0]
