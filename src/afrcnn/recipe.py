"""Recipes: everything that an experiment depends on, as a YAML file with types.

A recipe file need only name what differs from the defaults, which are the paper's (section 5.1) and, where it refers
to them, those of Fast R-CNN, or from other recipes: ``base: FILE``, or a list, of which later ones win, in folders
beside this one's. A run folder holds the resolved recipe with every field.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings
from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from afrcnn.core.errors import UserError, suggest
from afrcnn.core.schema import SchemaError, parse_yaml
from afrcnn.migration import OLD_FIELDS, OLD_SECTIONS, migrate
from afrcnn.shipped import recipe_file

_T = TypeVar("_T")

LayoutName = Literal["auto", "voc", "pairs", "coco", "export", "yolo"]
"""A layout of datasets, or the one that is found."""
_PARSER_ERRORS = (ArgumentError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""What jsonargparse raises: the first for a wrong type, the others where a value is odd in a way that it did not think
of."""

_SEE_HELP = "see `afrcnn train --help` for the fields"

_ADVERSARY_FIELD = re.compile(r"adversaries(?:\.([\w.]+:\w+|\w+)(?:\.(\w+))?)?")
"""An option of adversaries: all of them, one, or an argument of one."""

set_parsing_settings(docstring_parse_attribute_docstrings=True)


@dataclass
class AugmentationRecipe:
    """What hides objects in the training images, as adversaries do in their features."""

    random_erasing: ClosedUnitInterval = 0.0
    """Probability that an image loses a rectangle, wherever it falls."""
    cutout: ClosedUnitInterval = 0.0
    """Probability that every object of an image is partly hidden under grey."""
    cutout_fraction: ClosedUnitInterval = 1 / 3
    """Fraction of an object's box that is hidden."""
    copy_paste: ClosedUnitInterval = 0.0
    """Probability that every object of an image is partly hidden under an object of another training image."""
    stages: list[Literal["detector", "joint"]] = field(default_factory=lambda: ["joint"])
    """Stages whose images are changed; where adversaries act, in the joint one, unless said otherwise."""


@dataclass
class DataRecipe:
    """Images, boxes and proposals."""

    root: str = ""
    """Folder of the dataset, in any layout of docs/data.md."""
    layout: LayoutName = "auto"
    """Layout of the folder; `auto` looks at what is there."""
    classes: list[str] | None = None
    """Names of the classes, in order; all that the annotations name when null."""
    train_split: str = "trainval"
    """Split that is trained on; of a dataset without trainval, train stands for it, and without any split, a random
    four fifths."""
    also: list[str] = field(default_factory=list)
    """Further datasets of the same classes that are trained on together with it, as FOLDER, of the same split, or
    FOLDER:SPLIT; their proposals lie beside them."""
    test_split: str = "test"
    """Split that is evaluated on; of a dataset without test, val or valid stands for it, and without any split, the
    random fifth that is not trained on."""
    val_split: str | None = None
    """Split that the detector is validated on while it trains, of images that are not trained on; none when null."""
    val_fraction: ClosedUnitInterval = 0.0
    """Fraction of the training split's images that is held out, at random by class, and validated on, where no
    val_split is named."""
    proposals: str | None = None
    """Folder that holds a proposal store for each split; `proposals` beside the annotations when null."""
    proposal_method: str | None = "fast"
    """Kind of the proposals, the second half of a store's name <split>-<method>; null for a detector without."""
    proposals_per_image: PositiveInt = 2000
    """How many proposals of an image are used at most, best first."""
    test_proposals: PositiveInt | None = None
    """The same in evaluation, where it is another number (400 on COCO in the paper's Torch baseline)."""
    use_difficult: bool = False
    """Whether objects that VOC marks difficult are trained on."""
    flip: ClosedUnitInterval = 0.5
    """Probability that a training image is mirrored."""
    redraw: bool = False
    """Whether another image is drawn in place of one without a foreground or without a background proposal, as in the
    paper's Torch baseline."""
    augmentation: AugmentationRecipe = field(default_factory=AugmentationRecipe)
    """What hides objects in training images."""
    strict: bool = False
    """Whether damaged images are refused. Otherwise another image is drawn in place of one that cannot be decoded, and
    a JPEG file that ends too early is read with the missing part grey; both are told at the end."""
    workers: NonNegativeInt = 2
    """Processes that read images; 0 reads them in the training process."""

    def for_evaluation(self) -> DataRecipe:
        """Return the fields with the number of proposals that evaluation takes."""
        return replace(self, proposals_per_image=self.test_proposals or self.proposals_per_image)


@dataclass
class DetectorRecipe:
    """The detector: Fast R-CNN on a backbone, or one of your own."""

    model: str = "fast_rcnn"
    """`fast_rcnn`, or a class of your own, as package.module:Class, which is called with num_classes (K) and
    `arguments`; of the other fields, it has none."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of your own class."""
    backbone: Literal["alexnet", "caffenet", "vgg16", "resnet18", "resnet50", "resnet101", "squeezenet1_0", "small"] = (
        "vgg16"
    )
    """Network that the detector is built on; alexnet is torchvision's, caffenet the paper's."""
    weights: str | None = None
    """ImageNet weights: the name of a torchvision weight enum's member, as DEFAULT, or a .safetensors or .pth file;
    random when null."""
    normalisation: Literal["imagenet", "caffe"] = "imagenet"
    """How images are normalised, which is the weights' matter: RGB by ImageNet's mean and deviation, as torchvision's
    weights need it; or BGR from 0 to 255 minus a mean alone, as Caffe's do, which `afrcnn convert-weights` converts."""
    pooling: Literal["roi_pool", "roi_pool_v2", "roi_align"] = "roi_pool"
    """RoI pooling: Fast R-CNN's in Caffe, that of the paper's Torch baseline, or bilinear RoIAlign."""
    frozen_stages: NonNegativeInt | None = None
    """How many first stages of the backbone are not trained; the paper's choice for the backbone when null."""
    dropout: ClosedUnitInterval | None = None
    """Dropout after fc6 and fc7; the backbone's own when null (0.5 in the paper)."""
    short_side: list[PositiveInt] = field(default_factory=lambda: [600])
    """Length in pixels that the shorter side is resized to; of several, training draws one for each image, and
    evaluation takes the last."""
    long_side: PositiveInt = 1000
    """Bound in pixels on the longer side."""
    rois_per_image: PositiveInt = 128
    """RoIs that an image gives to an update."""
    foreground_fraction: ClosedUnitInterval = 0.25
    """Largest fraction of them that is foreground."""
    foreground_iou: ClosedUnitInterval = 0.5
    """Smallest IoU with an object that makes a proposal foreground."""
    background_iou: tuple[ClosedUnitInterval, ClosedUnitInterval] = (0.1, 0.5)
    """Range of the largest IoU with an object that makes a proposal background."""
    replacement: bool = False
    """Whether a RoI can be drawn several times, as in the paper's Torch baseline."""
    fill_up: bool = True
    """Whether background takes the places that foreground leaves empty, as in Fast R-CNN's Caffe code."""
    integral_loss: list[ClosedUnitInterval] = field(default_factory=list)
    """Integral loss (MultiPath network, section 3.3): IoUs, each with a classifier to which a proposal is background
    below it, as 0.5, 0.55, ..., 0.75 on COCO in the paper's Torch baseline; the first is foreground_iou. One classifier
    when empty."""
    ohem: list[Literal["detector", "joint"]] = field(default_factory=list)
    """Stages whose updates are made of the RoIs with the highest losses among all, rois_per_image on average, and no
    fixed fraction of foreground: online hard example mining."""
    ohem_rule: Literal["paper", "authors"] = "paper"
    """Which of them: as its paper says, the hardest of all images together, or as its authors' code does, as many of
    each image, and of overlapping RoIs the hardest of each label."""
    dropout_in_scores: bool = False
    """Whether dropout is on where RoIs are scored for mining or for an adversary, as in the authors' code of both."""
    box_targets: Literal["fixed", "measured", "by_class"] = "fixed"
    """Normalisation of box targets: Caffe's fixed numbers, or mean and deviation measured on foreground proposals:
    those of the first 1000 training images, or by class those of all, mirrored too, as in the authors' release."""
    score_threshold: ClosedUnitInterval = 0.01
    """Detections with a lower score are dropped."""
    nms_iou: ClosedUnitInterval = 0.3
    """Largest IoU between two detections of a class."""
    detections_per_image: PositiveInt = 100
    """How many detections of an image are kept."""


@dataclass
class JitterRecipe:
    """Random changes of the proposals, with or without adversaries (section 5.2.1; the paper gives no ranges)."""

    scale: NonNegativeFloat = 0.0
    """Largest factor of enlargement or reduction, minus 1."""
    aspect_ratio: NonNegativeFloat = 0.0
    """Largest factor of the ratio of width to height, or of its inverse, minus 1."""
    degrees: NonNegativeFloat = 0.0
    """Largest rotation either way."""


@dataclass
class ScheduleRecipe:
    """Stochastic gradient descent and its schedule: the detector alone."""

    iterations: PositiveInt = 80_000
    """Number of updates."""
    epochs: PositiveInt | None = None
    """Passes over the training images, in place of `iterations`; the run's recipe has the iterations that they are."""
    images_per_iteration: PositiveInt = 2
    """Images of an update, over all processes."""
    images_at_once: PositiveInt | None = None
    """Images of a process whose gradients are computed together, and added to those of the others of the update; all
    when null. Fewer need less memory."""
    learning_rate: PositiveFloat = 0.001
    """Learning rate of weights at the beginning."""
    decay_at: list[PositiveInt] = field(default_factory=lambda: [60_000])
    """Iterations after which the learning rate is multiplied by `decay_factor`."""
    decay_factor: PositiveFloat = 0.1
    """Factor of each decay."""
    warmup_iterations: NonNegativeInt = 0
    """Iterations in which the learning rate rises linearly to its value."""
    momentum: ClosedUnitInterval = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegativeFloat = 0.0005
    """Weight decay of weights."""
    bias_learning_rate_factor: NonNegativeFloat = 2.0
    """Learning rate of biases as a multiple of that of weights."""
    bias_weight_decay: NonNegativeFloat = 0.0
    """Weight decay of biases."""
    backbone_bias_weight_decay: NonNegativeFloat | None = None
    """Weight decay of the backbone's biases; as of the others when null."""
    log_every: PositiveInt = 20
    """Iterations between two lines of the log."""
    checkpoint_every: PositiveInt = 500
    """Iterations between two checkpoints."""


@dataclass
class PretrainingRecipe(ScheduleRecipe):
    """Adversaries alone, against the frozen detector (section 4.2.1)."""

    iterations: NonNegativeInt = 0
    """Number of updates; none when 0 (10,000 in the paper)."""
    decay_at: list[PositiveInt] = field(default_factory=list)
    """Iterations of this stage after which the learning rate is multiplied by `decay_factor`."""
    foreground_per_image: PositiveInt = 32
    """Foreground proposals that an image gives at most."""


@dataclass
class JointRecipe(ScheduleRecipe):
    """Detector and adversaries together (section 4.2.1)."""

    iterations: NonNegativeInt = 0
    """Number of updates; none when 0 (70,000 in the paper, after 10,000 of the detector alone)."""
    clean_iterations: NonNegativeInt = 0
    """How many of them, the last, see images, proposals and features as they are, without adversaries, jitter and
    augmentation (none in the paper)."""
    clean_fraction: ClosedUnitInterval = 0.5
    """Fraction of the images that no adversary and no jitter touches; of two, one in the paper."""
    adversarial_first: bool = False
    """Whether the first image of a batch is an adversarial one, as in the authors' release, or a clean one."""
    new_box_layer: bool = False
    """Whether the layer that predicts boxes begins anew, as in the authors' release."""
    least_iou: ClosedUnitInterval = 0.0
    """Smallest IoU with its object of a proposal that adversaries perturb; any foreground's in the paper."""
    perturb_background: bool = False
    """Whether adversaries perturb background proposals by the same rule, from which they learn nothing (not in the
    paper): what they leave behind is then no sign of an object."""
    jitter: JitterRecipe = field(default_factory=JitterRecipe)
    """Random changes of the proposals of adversarial images."""
    decay_at: list[PositiveInt] = field(default_factory=list)
    """Iterations of this stage after which the learning rate is multiplied by `decay_factor`."""


@dataclass
class EngineRecipe:
    """The machine: devices, processes and precision, handed to Lightning Fabric."""

    accelerator: str = "auto"
    """Kind of device: auto, cpu, gpu, ..."""
    devices: PositiveInt = 1
    """Processes on each machine, a device each."""
    nodes: PositiveInt = 1
    """Machines."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Arithmetic of forward and backward passes; weights are always float32."""


@dataclass
class Recipe:
    """An experiment, in up to three stages: `schedule`, `pretraining`, `joint`."""

    data: DataRecipe = field(default_factory=DataRecipe)
    detector: DetectorRecipe = field(default_factory=DetectorRecipe)
    adversaries: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the detector competes with in joint training, in order, each with its arguments: `asdn`, `astn`,
    `random_dropout`, `hard_dropout`, `dropblock`, or one of your own, by its entry point in `afrcnn.adversaries` or as
    package.module:Class. All know learning_rate_factor, frozen (joint training leaves it as pre-training made it) and
    pretrain (whether it is trained alone first). One field, as --adversaries.asdn.top 0.25."""
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    pretraining: PretrainingRecipe = field(default_factory=PretrainingRecipe)
    joint: JointRecipe = field(default_factory=JointRecipe)
    engine: EngineRecipe = field(default_factory=EngineRecipe)
    evaluate_every: PositiveInt = 500
    """Iterations of a stage between two measurements of AP on data.val_split, where there is one; evaluation and
    prediction take the detector of the highest AP in the last stage."""
    patience: PositiveInt | None = None
    """How many measurements in a row without a higher AP end the last stage before its iterations are done; never when
    null."""
    init_from: str | None = None
    """A trained detector that takes the place of the first stage: a run folder or a .safetensors file of weights."""
    seed: NonNegativeInt = 0
    """Seed of everything random."""


@cache
def recipe_parser(**kwargs: Any) -> ArgumentParser:
    """Return a parser with an option for each field of a recipe, as ``--data.root``; made once: it takes 0.1 s."""
    parser = ArgumentParser(exit_on_error=False, **kwargs)
    parser.add_class_arguments(Recipe)
    return parser


def load_recipe(file: Path | str | Sequence[Path | str], overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and check the type of every field.

    Args:
        file: the YAML file, or the name of a recipe that ships with the package; or several, of which later ones win
            where both say something.
        overrides: fields to set differently, as on a command line: ``["--data.root", "VOC2007", "--seed=1"]``.

    Raises:
        UserError: the file is missing or not valid YAML; a field is unknown or of a wrong type; two fields contradict.
    """
    files = [recipe_file(one) for one in ([file] if isinstance(file, str | Path) else file)]
    return _checked(_read_together(files), overrides, files[-1])


def parse_recipe(text: str, overrides: Sequence[str], file: Path | str) -> Recipe:
    """Read a recipe from a text in YAML that names no other recipes, as :func:`dump_recipe` writes it.

    Args:
        text: the recipe.
        overrides: as of :func:`load_recipe`.
        file: what holds the text, for messages.

    Raises:
        UserError: as of :func:`load_recipe`.
    """
    try:
        written = parse_yaml(text)
    except SchemaError as error:
        raise UserError(f"holds a recipe that is not valid YAML ({error})", file=file, fix="write it again") from error
    if not isinstance(written, dict):
        raise _not_a_section(file)
    return _checked(written, overrides, file)


def _checked(written: dict[str, Any], overrides: Sequence[str], file: Path | str) -> Recipe:
    """Return the recipe that a mapping and overrides make, every name and type checked."""
    parser = recipe_parser()
    written, options = migrate(written, _split_overrides(overrides))
    named = _named(written, Recipe, file)
    adversaries = _adversaries(named.pop("adversaries", None), options, file)
    words = [word for name, value in options if not name.startswith("adversaries") for word in (f"--{name}", value)]
    try:
        namespace = parser.parse_object(named)
    except _PARSER_ERRORS as error:
        raise UserError(in_one_line(error), file=file, fix=_SEE_HELP) from error
    try:
        namespace = parser.parse_args(words, namespace=namespace)
    except _PARSER_ERRORS as error:
        raise UserError(in_one_line(error), fix=_SEE_HELP) from error
    recipe = replace(_plain_numbers(Recipe(**vars(parser.instantiate(namespace)))), adversaries=adversaries)
    _refuse_contradictions(recipe, file)
    return recipe


def _read(file: Path, above: Sequence[Path] = ()) -> Any:
    """Return what a file says, and what its bases say where it says nothing.

    Raises:
        UserError: a file is missing or not valid YAML, or a recipe is its own base.
    """
    if file.resolve() in above:
        raise UserError("is its own base", file=file, field="base", fix="name other recipes")
    try:
        written = parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot be read ({error})", file=file, fix="name a recipe; `afrcnn recipes` lists those that ship"
        ) from error
    except SchemaError as error:
        raise UserError(f"is not valid YAML ({error})", file=file, fix="mend that line") from error
    if not isinstance(written, dict) or "base" not in written:
        return written
    bases = written.pop("base")
    files = [file.parent / str(base) for base in (bases if isinstance(bases, list) else [bases])]
    return _merge(_read_together(files, (*above, file.resolve())), written)


def _read_together(files: Sequence[Path], above: Sequence[Path] = ()) -> dict[str, Any]:
    """Return what files say together; of a field, what the last of them says."""
    merged: dict[str, Any] = {}
    for file in files:
        said = _read(file, above)
        if not isinstance(said, dict | None):
            raise _not_a_section(file)
        merged = _merge(merged, said or {})
    return merged


def _merge(below: Any, above: Any) -> Any:
    """Return what two recipes say together: section by section, and of a field what is above."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return below if above is None and isinstance(below, dict) else above
    return below | {name: _merge(below.get(name), value) for name, value in above.items()}


def _split_overrides(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Return the names of fields, without dashes, and their values as text; a field is known, or refused by name.

    Raises:
        UserError: a word is not a field of a recipe, or the last has no value.
    """
    options: list[tuple[str, str]] = []
    words = iter(overrides)
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not is_field(name.removesuffix("+")):
            fix = suggest(word, [f"--{known}" for known in field_names()], _SEE_HELP)
            raise UserError("is not a field of a recipe", field=word.partition("=")[0], fix=fix)
        if not equals and (value := next(words, "")) == "":
            raise UserError("has no value", field=word, fix=f"write {word} VALUE")
        options.append((name, value))
    return options


def field_names(section: type = Recipe, above: str = "") -> list[str]:
    """Return the full names of all fields of a recipe, as ``data.root``."""
    names: list[str] = []
    for item in fields(section):
        names.append(f"{above}{item.name}")
        nested: Any = item.default_factory
        if is_dataclass(nested):
            names += field_names(nested, f"{names[-1]}.")  # type: ignore[arg-type]
    return names


def is_field(name: str) -> bool:
    """Tell whether a name, as ``data.root``, is that of a recipe's field, now or in older recipes."""
    head = name.partition(".")[0]
    return head in (*OLD_SECTIONS, "adversaries") or name in (*OLD_FIELDS, *field_names())


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML with every field."""
    return yaml.safe_dump(asdict(recipe), sort_keys=False, allow_unicode=True)


def _plain_numbers(value: _T) -> _T:
    """Return a value in which the numbers of jsonargparse's restricted types are Python's own."""
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{name: _plain_numbers(item) for name, item in vars(value).items()})
    if isinstance(value, list | tuple):
        return type(value)(_plain_numbers(item) for item in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (int if isinstance(value, int) else float)(value)  # type: ignore[return-value]
    return value


def _named(written: Any, section: type, file: Path | str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what a file says of a section, every name in it a field's; a section without fields is empty.

    The parser of jsonargparse lets a name pass that has nothing, or an empty mapping, below it.
    """
    if not isinstance(written, dict | None):
        raise _not_a_section(file, ".".join(above) or None)
    known: dict[str, Any] = {item.name: item.default_factory for item in fields(section)}
    named: dict[str, Any] = dict(written or {})
    for name, value in named.items():
        if name not in known:
            fix = suggest(str(name), list(known), _SEE_HELP)
            raise UserError("is not a field of a recipe", file=file, field=".".join([*above, str(name)]), fix=fix)
        if is_dataclass(known[name]):
            named[name] = _named(value, known[name], file, (*above, name))
    return named


def _not_a_section(file: Path | str, field: str | None = None) -> UserError:
    fix = "write `data:` with `root: FOLDER` below it"
    return UserError("is not a section of fields", file=file, field=field, fix=fix)


def _adversaries(written: Any, options: Sequence[tuple[str, str]], file: Path | str) -> dict[str, dict[str, Any]]:
    """Return the adversaries that a file names, as options change them."""
    named = _mapping_of_mappings(written, "adversaries", file)
    for option, text in options:
        path = _ADVERSARY_FIELD.fullmatch(option)
        if path is None:
            continue
        try:
            value = parse_yaml(text)
        except SchemaError as error:
            raise UserError(f"{text!r} is not valid YAML", field=option, fix="write a value, as 0.25") from error
        name, argument = path.groups()
        if name is None:
            # A list of names chooses among those that are there, or adds them as they are by default.
            chosen = {str(key): named.get(str(key)) for key in value} if isinstance(value, list) else value
            named = _mapping_of_mappings(chosen, option, None)
        elif argument is None:
            named |= _mapping_of_mappings({name: value}, option, None)
        else:
            named.setdefault(name, {})[argument] = value
    return named


def _mapping_of_mappings(value: Any, field: str, file: Path | str | None) -> dict[str, dict[str, Any]]:
    named = {} if value is None else value
    if not isinstance(named, dict) or not all(isinstance(arguments, dict | None) for arguments in named.values()):
        fix = "write `asdn: {top: 0.25}` or `asdn: {}` below it"
        raise UserError("does not map names to arguments", file=file, field=field, fix=fix)
    return {str(name): {str(key): item for key, item in (arguments or {}).items()} for name, arguments in named.items()}


def _refuse_contradictions(recipe: Recipe, file: Path | str) -> None:
    """Refuse fields that are possible one by one and impossible together."""
    low, high = recipe.detector.background_iou
    if not low < high <= recipe.detector.foreground_iou:
        raise UserError(
            f"{low:g} to {high:g} is not a range below foreground_iou, {recipe.detector.foreground_iou:g}",
            file=file,
            field="detector.background_iou",
            fix="choose low < high <= foreground_iou",
        )
    thresholds, first = recipe.detector.integral_loss, recipe.detector.foreground_iou
    if thresholds and (thresholds[0] != first or thresholds != sorted(set(thresholds))):
        problem = f"{', '.join(f'{iou:g}' for iou in thresholds)} do not rise from foreground_iou, {first:g}"
        fix = f"write [{first:g}, ...], each larger than the one before, or [] for one classifier"
        raise UserError(problem, file=file, field="detector.integral_loss", fix=fix)
    if not recipe.detector.short_side:
        raise UserError("is empty", file=file, field="detector.short_side", fix="write [600], say")
    if recipe.data.classes == []:
        raise UserError("is empty", file=file, field="data.classes", fix="name some, or set it to null for all")
    if recipe.data.val_fraction == 1:
        raise UserError("leaves nothing to train on", file=file, field="data.val_fraction", fix="choose less than 1")
    if recipe.patience is not None and recipe.data.val_split is None and not recipe.data.val_fraction:
        fix = "set data.val_split or data.val_fraction, or leave it null"
        raise UserError("nothing is validated", file=file, field="patience", fix=fix)
    if recipe.seed >= 2**63:
        raise UserError(f"{recipe.seed} is too large", file=file, field="seed", fix="choose less than 2**63")


def in_one_line(error: Exception) -> str:
    """Return what a parser says is wrong, naming the field first."""
    return re.sub(r'^Parser key "(.*?)":\s*', r"\1: ", str(error))
