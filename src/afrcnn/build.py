"""Modules built from recipes, and the trained ones of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from afrcnn.adversaries import Chain
from afrcnn.core.errors import UserError
from afrcnn.data import open_dataset
from afrcnn.detectors import backbones
from afrcnn.detectors.attach import roi_head_of
from afrcnn.detectors.backbones import Network
from afrcnn.detectors.rcnn import FastRCNN
from afrcnn.detectors.roi_pooling import RoIAlign, RoIPool
from afrcnn.detectors.sampling import RoISampler
from afrcnn.detectors.weights import read_state_dict
from afrcnn.proposals.store import ProposalStore, WithProposals, default_folder
from afrcnn.recipe import DetectorRecipe, Recipe
from afrcnn.run import Run
from afrcnn.training.checkpoint import fill


def build_detector(recipe: DetectorRecipe, num_classes: int, *, pretrained: bool = True) -> FastRCNN:
    """Build the detector that a recipe describes.

    Args:
        recipe: its fields.
        num_classes: K, without background.
        pretrained: whether the backbone is filled with ``recipe.weights``; not needed when trained weights follow.

    Raises:
        UserError: the backbone has no ImageNet weights or no dropout, or the weights cannot be loaded.
    """
    network = build_network(recipe, pretrained=pretrained)
    pooling = RoIPool if recipe.pooling == "roi_pool" else RoIAlign
    return FastRCNN(
        network,
        pooling(network.pool_size, network.stride),
        num_classes,
        sampler=RoISampler(
            recipe.rois_per_image, recipe.foreground_fraction, recipe.foreground_iou, recipe.background_iou
        ),
        frozen_stages=recipe.frozen_stages,
        short_side=recipe.short_side,
        long_side=recipe.long_side,
        score_threshold=recipe.score_threshold,
        nms_iou=recipe.nms_iou,
        detections_per_image=recipe.detections_per_image,
    )


def build_network(recipe: DetectorRecipe, *, pretrained: bool = True) -> Network:
    """Build the backbone that a recipe describes; see :func:`build_detector`."""
    build: Callable[..., Network] = getattr(backbones, recipe.backbone)
    options = {"dropout": recipe.dropout, "weights": recipe.weights}
    options = {name: value for name, value in options.items() if value is not None}
    if "dropout" in options and recipe.backbone.startswith("resnet"):
        raise UserError(
            f"{recipe.backbone} has no fully connected layers", field="detector.dropout", fix="set it to null"
        )
    if "weights" in options and recipe.backbone == "small":
        raise UserError("there are none for the small network", field="detector.weights", fix="set it to null")
    if not pretrained:
        options.pop("weights", None)
    return build(**options)


def load_detector(run: Run) -> FastRCNN:
    """Return the trained detector of a run, in evaluation mode, on the CPU.

    Raises:
        UserError: there is no run, or its training is not finished.
    """
    recipe = run.recipe
    if not run.weights_file.is_file():
        raise UserError(
            "has no trained weights yet", file=run.folder, fix="finish the training with the same `afrcnn train`"
        )
    detector = build_detector(recipe.detector, len(run.classes), pretrained=False)
    fill(detector, read_state_dict(run.weights_file), run.weights_file)
    return detector.eval()


def load_adversary(run: Run, detector: FastRCNN, trust: Sequence[str] = ()) -> Chain:
    """Return the trained adversaries of a run, in evaluation mode, on the CPU.

    Those without parameters, as random dropout, need no training: an override can name them for any run.

    Args:
        run: the run.
        detector: its detector, which says what the adversaries' layers are like.
        trust: modules that adversaries may be imported from.

    Raises:
        UserError: there is no run, its recipe names no adversary, or the adversaries are not trained.
    """
    from afrcnn.training.pretraining import build_adversary  # noqa: PLC0415  it builds networks, too

    recipe = run.recipe
    if not recipe.adversary.chain:
        raise UserError(
            "has no adversary",
            file=run.folder,
            field="adversary.chain",
            fix="train with one, as by --adversary.chain [asdn,astn], or name [hard_dropout], which learns nothing",
        )
    chain = build_adversary(recipe.adversary, roi_head_of(detector))
    if chain.state_dict():
        if not run.adversary_file.is_file():
            raise UserError(
                f"has no trained {' and '.join(chain)}",
                file=run.folder,
                fix="train them: --pretraining.iterations or --joint.iterations above 0",
            )
        fill(chain, read_state_dict(run.adversary_file), run.adversary_file)
    return chain.eval()


def open_split(recipe: Recipe, split: str) -> WithProposals:
    """Open a split of a recipe's dataset together with its proposals.

    Raises:
        UserError: the dataset or its proposals are missing or wrong.
    """
    data = recipe.data
    if not data.root:
        raise UserError("is not set", field="data.root", fix="name the dataset's folder: --data.root FOLDER")
    dataset = open_dataset(data.root, split, data.layout, data.classes)
    folder = (
        default_folder(dataset.root, split, data.proposal_method)
        if data.proposals is None
        else Path(data.proposals) / f"{split}-{data.proposal_method}"
    )
    return WithProposals(dataset, ProposalStore(folder), data.proposals_per_image)
