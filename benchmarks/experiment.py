"""Does it detect occluded objects? Every method on every set, from the same detectors, on clean and on occluded images.

    python benchmarks/experiment.py [--sets fruit cards bccd open_cards] [--methods baseline full] [--seeds 0 1 2]
    python benchmarks/experiment.py --sets fruit_validation cards_validation bccd_validation --methods zero_windows ...

All methods of a seed begin with the same detector and train it further by the same schedule. A run that
is done is not repeated, one that was interrupted goes on; several of these commands may work at once. What is left of a
run, in runs/experiment/SET/METHOD-seedN, is what `experiment_tables.py` needs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from afrcnn.build import build_detector, load_detector
from afrcnn.core.lock import claimed as claim
from afrcnn.data.splits import split_by_occlusion
from afrcnn.detectors.rcnn import FastRCNN
from afrcnn.experiment.measurement import examine, unless_done
from afrcnn.recipe import Recipe, load_recipe
from afrcnn.run import Run
from afrcnn.training.train import train_stages
from cached_backbone import CachedBackbone
from real_images import propose_splits
from validation_split import divide, link_proposals

RUNS = Path("runs")
OPEN_CARDS = Path("splits/cards")
VALIDATION = Path("validation")


def derived_split(root: Path, train_split: str, test_split: str) -> list[str]:
    """Return the fields of a dataset that is made of another's trainval; `prepare` makes it."""
    fields = {"root": root, "proposals": root / "proposals", "train_split": train_split, "test_split": test_split}
    return [f"--data.{name}={value}" for name, value in fields.items()]


SETS = {
    "fruit": ("fruit", []),
    "cards": ("cards", []),
    "bccd": ("bccd", []),
    # Train on the images of cards' trainval whose cards are all unoccluded, test on the rest.
    "open_cards": ("cards", derived_split(OPEN_CARDS, "unoccluded_trainval", "occluded_trainval")),
    # Four fifths of trainval to train on, the last to choose settings on.
    **{
        f"{name}_validation": (name, derived_split(VALIDATION / name, "train", "val"))
        for name in ("fruit", "cards", "bccd")
    },
}
"""By name the folder of the recipe, and what is different in it."""

JOINT = [
    "--joint.iterations=150",
    "--joint.images_per_iteration=4",
    "--joint.learning_rate=0.002",
    "--joint.decay_at=[105]",
    "--detector.rois_per_image=64",
    "--detector.frozen_stages=10",
    "--data.workers=0",
]
"""What all methods have in common: the last stage's schedule."""

PROPOSALS = {"fruit": 500, "cards": 500, "bccd": 1500}
"""How many an image has, by the recipe's folder: as many as cover the objects of trainval. At an IoU of 0.5, the first
500 cover all fruits and cards, but 83% of the many small cells; 1500 cover 94%, and 2000 95%."""

PRETRAINED = [
    "--pretraining.iterations=60",
    "--pretraining.images_per_iteration=4",
    "--pretraining.learning_rate=0.002",
]
WINDOWS = ["--{0}.mask=window", "--{0}.fraction=[0.1,0.6]", "--{0}.occluder=features"]
CLEAN_END = "--joint.clean_iterations=75"
OCCLUDING = [
    CLEAN_END,
    *PRETRAINED,
    *(field.format("adversaries.asdn") for field in WINDOWS),
    "--adversaries.asdn.top=0.25",
    "--joint.least_iou=0.7",
]

FULL = ["--adversaries=[asdn,astn]", *OCCLUDING]

METHODS = {
    "baseline": [],
    # The paper's own, with the paper's settings (section 4; section 5.2.1 for what it compares with).
    "random_dropout": ["--adversaries=[random_dropout]"],
    "hard_dropout": ["--adversaries=[hard_dropout]"],
    "fixed_asdn": ["--adversaries=[asdn]", "--adversaries.asdn.frozen=true", *PRETRAINED],
    "asdn": ["--adversaries=[asdn]", *PRETRAINED],
    "astn": ["--adversaries=[astn]"],
    "paper_full": ["--adversaries=[asdn,astn]", *PRETRAINED],
    "jitter": [
        "--joint.jitter.scale=0.2",
        "--joint.jitter.aspect_ratio=0.2",
        "--joint.jitter.degrees=10",
    ],
    # Windows that show features of other RoIs, and a clean end; chosen on the validation splits.
    "full": FULL,
    "occluding_asdn": ["--adversaries=[asdn]", *OCCLUDING],
    "occluding_random": [
        CLEAN_END,
        "--joint.least_iou=0.7",
        "--adversaries=[random_dropout]",
        *(field.format("adversaries.random_dropout") for field in WINDOWS),
    ],
    # Today's rivals, with the same clean end.
    "random_erasing": [CLEAN_END, "--data.augmentation.random_erasing=0.5"],
    "cutout": [CLEAN_END, "--data.augmentation.cutout=0.5"],
    "copy_paste": [CLEAN_END, "--data.augmentation.copy_paste=0.5"],
    "dropblock": [CLEAN_END, "--adversaries=[dropblock]"],
    "ohem": ["--detector.ohem=[joint]"],
    # The two that gained most, together; chosen on the validation splits.
    "with_cutout": [*FULL, "--data.augmentation.cutout=0.5"],
}

ALL_FOREGROUND = [*FULL, "--joint.least_iou=0"]
SHORT_CLEAN_END = [*ALL_FOREGROUND, "--joint.clean_iterations=45"]
TRIALS = {
    "all_foreground": ALL_FOREGROUND,
    "short_clean_end": SHORT_CLEAN_END,
    "short_clean_end_all_background": [*SHORT_CLEAN_END, "--detector.background_iou=[0,0.5]"],
    "baseline_all_background": ["--detector.background_iou=[0,0.5]"],
    "zero_windows": [*FULL, "--adversaries.asdn.occluder=zeros"],
    "feature_cells": [
        CLEAN_END,
        *METHODS["paper_full"],
        "--adversaries.asdn.occluder=features",
        "--joint.least_iou=0.7",
    ],
    "smaller_windows": [*FULL, "--adversaries.asdn.fraction=[0.1,0.4]"],
    "mostly_clean": [*FULL, "--joint.clean_fraction=0.75"],
    "mined": [*FULL, "--detector.ohem=[joint]"],
    "no_clean_end": [*FULL, "--joint.clean_iterations=0"],
}
"""What was tried on the validation splits besides the methods: full, with one thing changed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS)[:4], choices=list(SETS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=[*METHODS, *TRIALS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cache = FeatureCache()
    for seed in arguments.seeds:
        for name in arguments.sets:
            for method in arguments.methods:
                folder = RUNS / "experiment" / name / f"{method}-seed{seed}"
                with unless_done(Run(folder)) as claimed:
                    if claimed:
                        measure_run(name, method, seed, folder, cache)


def fit(name: str, method: str, seed: int, folder: Path, cache: FeatureCache) -> Run:
    """Train one run."""
    recipe, source = recipe_of(name, method, seed), first_detector(name, seed)
    detector = build_detector(recipe.detector, len(Run(source).classes), pretrained=False)
    return train_stages(recipe, folder, detector=cache.attach(detector, source))


def measure_run(name: str, method: str, seed: int, folder: Path, cache: FeatureCache) -> None:
    """Train and measure one run."""
    run = fit(name, method, seed, folder, cache)
    measure_on_cache(run, first_detector(name, seed), cache)
    # Weights and optimiser of all runs would take 60 GB; those of the first seed stay.
    for file in (run.checkpoint_file, *((run.weights_file, run.adversary_file) if seed else ())):
        file.unlink(missing_ok=True)


def recipe_of(name: str, method: str, seed: int) -> Recipe:
    """Return the recipe of a run; the detector that it begins with is trained first, unless that is done."""
    config, data = SETS[name]
    proposals = f"--data.proposals_per_image={PROPOSALS[config]}"
    fields = [
        f"--init_from={first_detector(name, seed)}",
        f"--seed={seed}",
        proposals,
        *JOINT,
        *(METHODS | TRIALS)[method],
    ]
    return load_recipe(f"configs/{config}/squeezenet_frcn.yaml", [*data, *fields])


def first_detector(name: str, seed: int) -> Path:
    """Return the run of the detector that all methods of a seed begin with; train it, unless that is done."""
    config, data = SETS[name]
    folder = RUNS / name / f"squeezenet_frcn-seed{seed}"
    if not Run(folder).weights_file.is_file():
        with claim(folder, wait=True):
            recipe = load_recipe(f"configs/{config}/squeezenet_frcn.yaml", [*data, f"--seed={seed}"])
            prepare(name, recipe)
            if not Run(folder).weights_file.is_file():
                train_stages(recipe, folder)
    return folder


def prepare(name: str, recipe: Recipe) -> None:
    """Make the proposals that a run needs, and its dataset where that is a subset of another."""
    original = load_recipe(f"configs/{SETS[name][0]}/squeezenet_frcn.yaml")
    propose_splits(original)
    if recipe.data.root == original.data.root:
        return
    if name == "open_cards":
        names = recipe.data.train_split, recipe.data.test_split
        split_by_occlusion(original.data.root, original.data.train_split, names=names, out=recipe.data.root)
    else:
        divide(Path(original.data.root), Path(recipe.data.root))
    assert original.data.proposals is not None and recipe.data.proposals is not None
    store = Path(original.data.proposals) / f"{original.data.train_split}-{original.data.proposal_method}"
    splits = recipe.data.train_split, recipe.data.test_split
    link_proposals(store, Path(recipe.data.proposals), splits, recipe.data.proposal_method)


def measure_on_cache(run: Run, source: Path, cache: FeatureCache) -> None:
    """Measure a trained run; its detector shares the features of all that begin with the run ``source``."""
    detector = cache.attach(load_detector(run), source)
    if run.recipe.engine.precision == "bf16-mixed":
        detector.roi_heads.box_head.to(torch.bfloat16)  # as autocast has it, which would cast fc6 again for each image
    examine(run, detector)


class FeatureCache:
    """Features of images, computed once: where all of the backbone is fixed, all methods of a seed see the same."""

    def __init__(self) -> None:
        self.source: Path | None = None
        self.features: dict[bytes, Tensor] = {}

    def attach(self, detector: nn.Module, source: Path) -> FastRCNN:
        """Let a detector share the features of all that begin with the backbone of the run ``source``."""
        assert isinstance(detector, FastRCNN) and isinstance(detector.backbone, nn.Sequential)
        if source != self.source:
            self.source, self.features = source, {}
        detector.backbone = CachedBackbone(detector.backbone, self.features)
        return detector


if __name__ == "__main__":
    main()
