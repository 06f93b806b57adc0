"""afrcnn: object detectors trained against adversaries (A-Fast-RCNN, arXiv:1704.03414).

Each command of the command line is a function here: ``download``, ``convert_weights``, ``shapes``, ``check``,
``convert``, ``minival``, ``split``, ``deepmask``, ``propose`` (``afrcnn proposals``), ``recipes``, ``train``,
``evaluate``, ``diagnose``, ``submit``, ``predict``, ``masks``, ``found`` (``afrcnn show``), ``stress``, ``compare``,
``demo``, ``export`` and ``report``.
All names are imported when they are first used: importing the package itself imports no PyTorch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    # name: its module, and its name there where that is another
    "ASDN": "adversaries.asdn",
    "ASTN": "adversaries.astn",
    "Adversary": "adversaries.base",
    "AdversaryOutput": "adversaries.base",
    "Bending": "robustness.stresses",
    "BoxHeadSpec": "adversaries.base",
    "Chain": "adversaries.chain",
    "Context": "adversaries.base",
    "ConvolutionalASDN": "adversaries.asdn",
    "DeepMask": "proposals.deepmask",
    "DropBlock": "adversaries.dropout",
    "Ensemble": "detectors.ensemble",
    "FastRCNN": "detectors.rcnn",
    "FrozenHead": "detectors.frozen_head",
    "FullyConnectedASDN": "adversaries.asdn",
    "HardDropout": "adversaries.dropout",
    "LocalisationNetwork": "adversaries.astn",
    "MaskSampling": "adversaries.mask_sampling",
    "Occlusion": "robustness.stresses",
    "Proposer": "proposals.proposer",
    "RandomDropout": "adversaries.dropout",
    "Recipe": "recipe",
    "Run": "run",
    "SelectiveSearch": "proposals.selective_search",
    "UserError": "core.errors",
    "WindowSampling": "adversaries.mask_sampling",
    "attach": "detectors.attach",
    "box_head_spec": "detectors.attach",
    "check": "commands.check",
    "coco_ap": "evaluation.coco_ap",
    "compare": "commands.compare",
    "convert": "commands.convert",
    "convert_weights": "commands.convert_weights",
    "deepmask": "commands.deepmask",
    "demo": "commands.demo",
    "detach": "detectors.attach",
    "detect_image": "commands.new_images",
    "diagnose": "commands.diagnose",
    "download": "commands.download",
    "evaluate": "commands.evaluate",
    "export": "commands.export",
    "found": "commands.found",
    "load": "commands.load",
    "load_adversary": "build",
    "load_deepmask": "proposals.deepmask",
    "load_detector": "build",
    "load_recipe": "recipe",
    "masks": "commands.masks",
    "mean_loss": "adversaries.base",
    "minival": "commands.minival",
    "open_dataset": "data.layouts",
    "open_split": "build",
    "predict": "commands.predict",
    "pretraining_loss": "detectors.attach",
    "propose": "commands.proposals:proposals",  # afrcnn.proposals is a package
    "recipes": "commands.recipes",
    "report": "commands.report",
    "reproduce": "commands.reproduce",
    "shapes": "commands.shapes",
    "small": "detectors.backbones",
    "split": "commands.split",
    "stress": "commands.stress",
    "stress_test": "robustness.benchmark",
    "submit": "commands.submit",
    "train": "commands.train",
    "voc_ap": "evaluation.voc_ap",
}

__all__ = sorted([*_MODULES, "__version__"])  # noqa: PLE0605  from the one list


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, original = _MODULES[name].partition(":")
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), original or name)
    return value


def __dir__() -> list[str]:
    return __all__
