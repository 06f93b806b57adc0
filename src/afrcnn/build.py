"""From a recipe to modules: the one place where a detector, its adversaries and its data are put together."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse.typing import NonNegativeFloat
from torch import nn

from afrcnn.adversaries.asdn import ASDN
from afrcnn.adversaries.astn import ASTN
from afrcnn.adversaries.base import Adversary, BoxHeadSpec
from afrcnn.adversaries.chain import Chain
from afrcnn.adversaries.dropout import DropBlock, HardDropout, RandomDropout
from afrcnn.core.errors import UserError, suggest
from afrcnn.data.annotations import AnnotatedImages
from afrcnn.data.layouts import open_dataset
from afrcnn.data.target import DetectionDataset
from afrcnn.detectors.backbones import BACKBONES, Backbone
from afrcnn.detectors.box_coding import BoxCoder
from afrcnn.detectors.jitter import ProposalJitter
from afrcnn.detectors.ohem import OHEM
from afrcnn.detectors.rcnn import FastRCNN, fast_rcnn
from afrcnn.detectors.roi_pooling import RoIAlign, RoIPool, RoIPooling, RoIPoolV2
from afrcnn.detectors.sampling import RoISampler
from afrcnn.detectors.weights import load_strict, read_state_dict, require_normalisation
from afrcnn.proposals.dataset import WithProposals
from afrcnn.proposals.store import ProposalStore, default_folder
from afrcnn.recipe import DataRecipe, DetectorRecipe, Recipe, in_one_line
from afrcnn.run import Run, dataset_root

_ENTRY_POINTS = "afrcnn.adversaries"
"""Group of entry points in which an installed package names its adversaries."""

OURS: dict[str, type[Adversary]] = {
    "asdn": ASDN,
    "astn": ASTN,
    "random_dropout": RandomDropout,
    "hard_dropout": HardDropout,
    "dropblock": DropBlock,
}
"""Adversaries of ours by their names in recipes."""

_POOLINGS: dict[str, type[RoIPooling]] = {"roi_pool": RoIPool, "roi_pool_v2": RoIPoolV2, "roi_align": RoIAlign}

_Trust = Sequence[str] | Literal["all"]
"""Modules, or packages, from which classes may be imported; ``"all"`` where a person wrote the recipe: in training."""

_FOR_ALL: dict[str, tuple[Any, Any]] = {
    "learning_rate_factor": (NonNegativeFloat, 1.0),
    "frozen": (bool, False),
    "pretrain": (bool | None, None),
}
"""Fields that every adversary has besides its arguments: types and defaults."""


def load_class(name: str, base: type, trust: _Trust, field: str) -> type:
    """Import the class that a recipe names; nothing is imported that is not trusted.

    Args:
        name: an entry point in ``afrcnn.adversaries``, or ``package.module:Class``, also from the current folder.
        base: what it must derive from.
        trust: where it may come from.
        field: the recipe's field that names it.

    Raises:
        UserError: it is not trusted, or there is no such class.
    """
    installed = next(iter(entry_points(group=_ENTRY_POINTS, name=name)), None)
    module, _, attribute = (name if installed is None else installed.value).partition(":")
    if not attribute:
        fix = suggest(name, list(OURS), f"choose {', '.join(OURS)}, or write package.module:Class for one of your own")
        raise UserError(f"there is no {base.__name__} named {name or repr(name)}", field=field, fix=fix)
    if trust != "all" and not any(f"{module}.".startswith(f"{trusted}.") for trusted in trust):
        fix = f"if you know this code and want to run it, add --trust {module}"
        raise UserError(f"names {name}, whose code would run", field=field, fix=fix)
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        loaded = getattr(import_module(module), attribute)
    except Exception as error:  # whatever the import of somebody's module stumbles over
        fix = "correct the name, or start from the folder of the module"
        raise UserError(f"{name} cannot be imported ({error!r})", field=field, fix=fix) from error
    if not (isinstance(loaded, type) and issubclass(loaded, base)):
        problem = f"{name} is not a class that derives from {base.__module__}.{base.__name__}"
        raise UserError(problem, field=field, fix="derive it, or correct the name")
    return loaded


def build_adversary(recipe: Recipe, spec: BoxHeadSpec, trust: _Trust) -> Chain:
    """Build the chain of adversaries that a recipe names; it may be empty.

    Args:
        recipe: the recipe.
        spec: what the layers of the adversaries begin as.
        trust: where classes may be imported from.

    Raises:
        UserError: an adversary is unknown or not trusted, or its arguments are wrong.
    """
    chain: dict[str, Adversary] = {}
    for name, arguments in recipe.adversaries.items():
        field = f"adversaries.{name}"
        if (key := name.rpartition(":")[2]) in chain:
            raise UserError(f"names {key} twice", field="adversaries", fix="name each adversary once")
        build: Any = OURS.get(name) or load_class(name, Adversary, trust, "adversaries")
        checked = _checked_arguments(build, arguments, field)
        general = {argument: checked.pop(argument) for argument in _FOR_ALL}
        try:
            chain[key] = build(spec, **checked)
        except (TypeError, ValueError) as error:
            raise UserError(str(error), field=field, fix="see docs/adversaries.md") from error
        chain[key].learning_rate_factor, chain[key].frozen = general["learning_rate_factor"], general["frozen"]
        if general["pretrain"] is not None:
            chain[key].pretrainable = general["pretrain"]
    return Chain(**chain)


def _checked_arguments(build: type[Adversary], arguments: dict[str, Any], field: str) -> dict[str, Any]:
    """Return an adversary's arguments, all of them, after checking names and types against its constructor."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(build, skip={next(iter(inspect.signature(build).parameters))}, fail_untyped=False)
    for name, (kind, default) in _FOR_ALL.items():
        parser.add_argument(f"--{name}", type=kind, default=default)
    known = parser.get_defaults().as_dict()
    if unknown := [name for name in arguments if name not in known]:
        fix = suggest(unknown[0], list(known), f"choose {', '.join(known)}")
        raise UserError("is not an argument of it", field=f"{field}.{unknown[0]}", fix=fix)
    try:
        checked: dict[str, Any] = parser.parse_object(arguments).as_dict()
    except ArgumentError as error:
        raise UserError(in_one_line(error), field=field, fix="see docs/adversaries.md") from error
    return checked


def _build_backbone(recipe: DetectorRecipe, *, pretrained: bool = True) -> Backbone:
    """Build the backbone that a recipe describes; see :func:`build_detector`."""
    build = BACKBONES[recipe.backbone]
    options = {name: value for name in ("dropout", "weights") if (value := getattr(recipe, name)) is not None}
    for name in options:
        if name not in inspect.signature(build).parameters:
            raise UserError(f"{recipe.backbone} has none", field=f"detector.{name}", fix="set it to null")
    if not pretrained:
        options.pop("weights", None)
    elif recipe.weights is not None:
        require_normalisation(recipe.weights, recipe.normalisation)
    return build(**options)


def build_detector(
    recipe: DetectorRecipe, num_classes: int, *, pretrained: bool = True, trust: _Trust = ()
) -> nn.Module:
    """Build the detector that a recipe describes.

    Args:
        recipe: its fields.
        num_classes: K, without background.
        pretrained: whether the backbone has ``recipe.weights``; not needed when trained weights follow.
        trust: where the class of another detector may be imported from.

    Raises:
        UserError: the backbone has no weights or no dropout, weights cannot be loaded or need another normalisation,
            or another detector's class is not trusted, or cannot be built.
    """
    if recipe.model != "fast_rcnn":
        build: Callable[..., nn.Module] = load_class(recipe.model, nn.Module, trust, "detector.model")
        try:
            return build(num_classes=num_classes, **recipe.arguments)
        except (TypeError, ValueError) as error:
            raise UserError(str(error), field="detector.arguments", fix=f"see {recipe.model}") from error
    return fast_rcnn(
        _build_backbone(recipe, pretrained=pretrained),
        _POOLINGS[recipe.pooling],
        num_classes,
        frozen_stages=recipe.frozen_stages,
        short_side=recipe.short_side,
        long_side=recipe.long_side,
        normalisation=recipe.normalisation,
        integral_loss=recipe.integral_loss,
        sampler=RoISampler(
            recipe.rois_per_image,
            recipe.foreground_fraction,
            recipe.foreground_iou,
            recipe.background_iou,
            recipe.replacement,
            recipe.fill_up,
        ),
        box_coder=BoxCoder(by_class=num_classes if recipe.box_targets == "by_class" else 0),
        dropout_in_scores=recipe.dropout_in_scores,
        score_threshold=recipe.score_threshold,
        nms_iou=recipe.nms_iou,
        detections_per_image=recipe.detections_per_image,
    )


def arm(recipe: Recipe, detector: nn.Module, stage: str, chain: Chain | None) -> None:
    """Give a detector what takes part in a stage of its training.

    Args:
        recipe: says what that is.
        detector: the detector; of another class than ours, there is nothing to give.
        stage: ``"detector"``, ``"pretraining"`` or ``"joint"``.
        chain: the adversaries, once they are built.
    """
    if isinstance(detector, FastRCNN):
        roi_heads, jitter, joint = detector.roi_heads, recipe.joint.jitter, stage == "joint"
        ranges = (jitter.scale, jitter.aspect_ratio, jitter.degrees)
        miner = OHEM(recipe.detector.rois_per_image, recipe.detector.ohem_rule == "authors")
        roi_heads.miner = miner if stage in recipe.detector.ohem else None
        roi_heads.jitter = ProposalJitter(*ranges) if joint and any(ranges) else None
        roi_heads.adversary, roi_heads.least_iou = chain, recipe.joint.least_iou
        roi_heads.perturb_background = recipe.joint.perturb_background


def initial_spec(recipe: Recipe, detector: nn.Module, *, resumed: bool) -> BoxHeadSpec:
    """Return what an adversary's own layers begin as (section 4.2.1): ImageNet's box head, or else the detector's.

    Args:
        recipe: names ImageNet's weights.
        detector: the detector as it is.
        resumed: whether a checkpoint has the adversary's weights, so that it need not begin from ImageNet's.
    """
    assert isinstance(detector, FastRCNN)  # or else `check` has refused the recipe
    spec = detector.box_head_spec
    if recipe.detector.weights is None or resumed:
        return spec
    with torch.device("meta"):  # takes no memory: only its facts are wanted
        backbone = _build_backbone(recipe.detector, pretrained=False)
    return spec if backbone.new_box_head else spec._replace(layers=_build_backbone(recipe.detector).box_head)


def verify(recipe: Recipe, num_classes: int, trust: _Trust) -> None:
    """Refuse a recipe whose detector or adversaries cannot be built; takes no memory for their weights.

    Raises:
        UserError: as of :func:`build_detector` and :func:`build_adversary`.
    """
    with torch.device("meta"), suppress(NotImplementedError):  # which another's class may raise on this device
        detector = build_detector(recipe.detector, num_classes, pretrained=False, trust=trust)
        if not recipe.adversaries:
            return
        if not isinstance(detector, FastRCNN):
            fix = "leave adversaries empty, or use attach in a loop of your own"
            raise UserError(f"do not fit {recipe.detector.model}", field="adversaries", fix=fix)
        chain = build_adversary(recipe, detector.box_head_spec, trust)
        if recipe.pretraining.iterations:
            pretrainable(chain)


def pretrainable(chain: Chain) -> dict[str, Adversary]:
    """Return the adversaries of a chain that the second stage trains.

    Raises:
        UserError: there is none.
    """
    chosen = {name: adversary for name, adversary in chain.items() if adversary.pretrainable}
    if not any(True for adversary in chosen.values() for _ in adversary.parameters()):
        names = ", ".join(name for name, _ in chain.items())
        fix = "set it to 0, or set pretrain: true for an adversary that learns"
        raise UserError(f"there is nothing to train alone in {names}", field="pretraining.iterations", fix=fix)
    return chosen


def load_detector(run: Run, trust: _Trust = ()) -> nn.Module:
    """Return the trained detector of a run, in evaluation mode, on the CPU.

    Args:
        run: the run; its overrides count.
        trust: where the class of another detector than ours may be imported from.

    Raises:
        UserError: there is no run, its training is not finished, or its class is not trusted.
    """
    recipe, weights = run.recipe, run.trained()
    detector = build_detector(recipe.detector, len(run.classes), pretrained=False, trust=trust)
    load_strict(detector, read_state_dict(weights), weights)
    return detector.eval()


def load_adversary(run: Run, detector: nn.Module, trust: _Trust = ()) -> Chain:
    """Return the trained adversaries of a run, in evaluation mode, on the CPU.

    Those without parameters, as random dropout, need no training: an override can name them for any run.

    Args:
        run: the run; its overrides count.
        detector: the run's, which says what the adversaries' layers are like.
        trust: where their classes may be imported from, besides ours.

    Raises:
        UserError: there is no run, its recipe names no adversary, one is not trusted, or they are not trained.
    """
    if not run.recipe.adversaries or not isinstance(detector, FastRCNN):
        fix = "train with one, as by --adversaries [asdn,astn], or name [hard_dropout], which learns nothing"
        raise UserError("has no adversary", file=run.folder, field="adversaries", fix=fix)
    chain = build_adversary(run.recipe, detector.box_head_spec, trust)
    if chain.state_dict():
        if not run.adversary_file.is_file():
            names = " and ".join(name for name, _ in chain.items())
            fix = "train them: --pretraining.iterations or --joint.iterations above 0"
            raise UserError(f"has no trained {names}", file=run.folder, fix=fix)
        load_strict(chain, read_state_dict(run.adversary_file), run.adversary_file)
    chain.eval()
    return chain


def open_images(recipe: Recipe, split: str) -> AnnotatedImages:
    """Open a split of a recipe's dataset, without proposals.

    Raises:
        UserError: the dataset is missing or wrong.
    """
    data, field = recipe.data, "data.test_split" if split == recipe.data.test_split else None
    return open_dataset(dataset_root(recipe), split, data.layout, data.classes, field=field)


def open_split(recipe: Recipe, split: str) -> DetectionDataset:
    """Open a split as :func:`open_images` does, together with its proposals where the recipe names some."""
    return with_proposals(open_images(recipe, split), recipe.data.for_evaluation(), recipe.data.proposals)


def with_proposals(dataset: AnnotatedImages, data: DataRecipe, stores: str | None) -> DetectionDataset:
    """Return a dataset together with its proposals, where a recipe names some.

    Args:
        dataset: the images.
        data: the recipe's fields.
        stores: the folder of the proposal stores; ``proposals`` beside the annotations when None.

    Raises:
        UserError: there are none, or they are for other images.
    """
    if data.proposal_method is None:
        return dataset
    folder = default_folder(dataset.root, dataset.split, data.proposal_method, stores)
    return WithProposals(dataset, ProposalStore(folder), data.proposals_per_image)
