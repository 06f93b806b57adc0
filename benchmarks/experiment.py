"""Does it find what is hidden? Every method on every set, from the same detectors, in the open and under occlusion.

    python benchmarks/experiment.py [--sets fruit cards bccd open_cards] [--methods baseline full] [--seeds 0 1 2]
    python benchmarks/experiment.py --sets fruit_validation cards_validation bccd_validation --methods zero_windows ...

All methods of a seed begin with the same detector (stage one) and train it further by the same schedule. A run that
is done is not repeated, one that was interrupted goes on; several of these commands may work at once. What is left of a
run, in runs/experiment/SET/METHOD-seedN, is what `experiment_tables.py` needs.
"""

from __future__ import annotations

import argparse
import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from afrcnn.data.splits import split_by_occlusion
from afrcnn.detectors.jitter import Pool
from afrcnn.detectors.rcnn import FastRCNN
from afrcnn.evaluation.detect import detect
from afrcnn.evaluation.formats import Detection, write_coco_results
from afrcnn.evaluation.results import evaluate_detections, write_results
from afrcnn.evaluation.subsets import all_subsets
from afrcnn.recipe import Recipe, load_recipe
from afrcnn.robustness import Occlusion, write_stress
from afrcnn.robustness.benchmark import StressedImages, measure
from afrcnn.run import Run, open_split
from afrcnn.training.train import train
from real_photographs import propose
from validation_split import divide, link_proposals

RUNS = Path("runs")
OPEN_CARDS = Path("splits/cards")
VALIDATION = Path("validation")


def split_of_one_s_own(root: Path, train_split: str, test_split: str) -> list[str]:
    """Return the fields of a dataset that is made of another's trainval; `prepare` makes it."""
    fields = {"root": root, "proposals": root / "proposals", "train_split": train_split, "test_split": test_split}
    return [f"--data.{name}={value}" for name, value in fields.items()]


SETS = {
    "fruit": ("fruit", []),
    "cards": ("cards", []),
    "bccd": ("bccd", []),
    # Train on the photographs of cards' trainval whose cards are all in the open, test on the others.
    "open_cards": ("cards", split_of_one_s_own(OPEN_CARDS, "open_trainval", "hidden_trainval")),
    # Four fifths of trainval to train on, the last to choose settings on.
    **{
        f"{name}_validation": (name, split_of_one_s_own(VALIDATION / name, "train", "val"))
        for name in ("fruit", "cards", "bccd")
    },
}
"""By name the folder of the recipe, and what is different in it."""

LEVELS = (0.2, 0.4, 0.6)
"""Shares of the boxes that are hidden in the stress test."""

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
WINDOWS = ["--{0}.mask=window", "--{0}.share=0.6", "--{0}.least_share=0.1", "--{0}.occluder=features"]
CLEAN_END = "--joint.clean_iterations=75"
OCCLUDING = [
    CLEAN_END,
    *PRETRAINED,
    *(field.format("adversary.asdn") for field in WINDOWS),
    "--adversary.asdn.top=0.25",
    "--adversary.least_iou=0.7",
]

FULL = ["--adversary.chain=[asdn,astn]", *OCCLUDING]

METHODS = {
    "baseline": [],
    # The paper's own, with the paper's settings (section 4; section 5.2.1 for what it compares with).
    "random_dropout": ["--adversary.chain=[random_dropout]"],
    "hard_dropout": ["--adversary.chain=[hard_dropout]"],
    "fixed_asdn": ["--adversary.chain=[asdn]", "--adversary.asdn.fixed=true", *PRETRAINED],
    "asdn": ["--adversary.chain=[asdn]", *PRETRAINED],
    "astn": ["--adversary.chain=[astn]"],
    "paper_full": ["--adversary.chain=[asdn,astn]", *PRETRAINED],
    "jitter": [
        "--adversary.jitter.scale=0.2",
        "--adversary.jitter.aspect_ratio=0.2",
        "--adversary.jitter.degrees=10",
    ],
    # Windows behind which other RoIs are seen, and a clean end; chosen on validation parts of trainval.
    "full": FULL,
    "occluding_asdn": ["--adversary.chain=[asdn]", *OCCLUDING],
    "occluding_random": [
        CLEAN_END,
        "--adversary.least_iou=0.7",
        "--adversary.chain=[random_dropout]",
        *(field.format("adversary.random_dropout") for field in WINDOWS),
    ],
    # Today's rivals, with the same clean end.
    "random_erasing": [CLEAN_END, "--data.augmentation.random_erasing=0.5"],
    "cutout": [CLEAN_END, "--data.augmentation.cutout=0.5"],
    "copy_paste": [CLEAN_END, "--data.augmentation.copy_paste=0.5"],
    "dropblock": [CLEAN_END, "--adversary.chain=[dropblock]"],
    "ohem": ["--detector.ohem=[joint]"],
    # The two that gained most, together; chosen on validation parts of trainval.
    "with_cutout": [*FULL, "--data.augmentation.cutout=0.5"],
}

ALL_FOREGROUND = [*FULL, "--adversary.least_iou=0"]
SHORT_CLEAN_END = [*ALL_FOREGROUND, "--joint.clean_iterations=45"]
TRIALS = {
    "all_foreground": ALL_FOREGROUND,
    "short_clean_end": SHORT_CLEAN_END,
    "short_clean_end_all_background": [*SHORT_CLEAN_END, "--detector.background_iou=[0,0.5]"],
    "baseline_all_background": ["--detector.background_iou=[0,0.5]"],
    "zero_windows": [*FULL, "--adversary.asdn.occluder=zeros"],
    "feature_cells": [
        CLEAN_END,
        *METHODS["paper_full"],
        "--adversary.asdn.occluder=features",
        "--adversary.least_iou=0.7",
    ],
    "smaller_windows": [*FULL, "--adversary.asdn.share=0.4"],
    "mostly_clean": [*FULL, "--adversary.clean_fraction=0.75"],
    "mined": [*FULL, "--detector.ohem=[joint]"],
    "no_clean_end": [*FULL, "--joint.clean_iterations=0"],
}
"""What was tried on the validation parts besides the methods: full, with one thing changed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS)[:4], choices=list(SETS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=[*METHODS, *TRIALS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    photographs = Photographs()
    for seed in arguments.seeds:
        for name in arguments.sets:
            for method in arguments.methods:
                folder = RUNS / "experiment" / name / f"{method}-seed{seed}"
                if not is_done(folder):
                    with claim(folder) as mine:
                        if mine and not is_done(folder):
                            run(name, method, seed, folder, photographs)


def run(name: str, method: str, seed: int, folder: Path, photographs: Photographs) -> None:
    """Train and measure one run."""
    source = stage_one(name, seed)
    with photographs.of(source):
        train(recipe_of(name, method, seed), folder)
        examine(folder)
    # Weights and optimiser of all runs would take 60 GB; those of the first seed stay.
    finished = Run(folder)
    for file in (finished.checkpoint_file, *(finished.weights_files if seed else ())):
        file.unlink(missing_ok=True)


def recipe_of(name: str, method: str, seed: int) -> Recipe:
    """Return the recipe of a run; the detector that it begins with is trained first, unless that is done."""
    config, data = SETS[name]
    proposals = f"--data.proposals_per_image={PROPOSALS[config]}"
    fields = [f"--init_from={stage_one(name, seed)}", f"--seed={seed}", proposals, *JOINT, *(METHODS | TRIALS)[method]]
    return load_recipe(f"configs/{config}/squeezenet_frcn.yaml", [*data, *fields])


def stage_one(name: str, seed: int) -> Path:
    """Return the run of the detector that all methods of a seed begin with; train it, unless that is done."""
    config, data = SETS[name]
    folder = RUNS / name / f"squeezenet_frcn-seed{seed}"
    if not Run(folder).weights_file.is_file():
        with claim(folder, wait=True):
            recipe = load_recipe(f"configs/{config}/squeezenet_frcn.yaml", [*data, f"--seed={seed}"])
            prepare(name, recipe)
            if not Run(folder).weights_file.is_file():
                train(recipe, folder)
    return folder


def prepare(name: str, recipe: Recipe) -> None:
    """Make the proposals that a run needs, and its dataset where that is a part of another."""
    original = load_recipe(f"configs/{SETS[name][0]}/squeezenet_frcn.yaml")
    propose(original)
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


def examine(folder: Path) -> None:
    """Write detections at all levels of occlusion, and what they are worth, as `evaluate` and `stress` write it."""
    run = Run(folder)
    recipe = run.recipe()
    split = recipe.data.test_split
    dataset = open_split(recipe, split)
    detector = run.detector()
    detector.head.to(torch.bfloat16)  # as autocast has it, which would cast fc6 again for each photograph
    find = partial(detect, detector, engine=recipe.engine, workers=0)
    found: list[Detection] = []

    def keep(images: StressedImages) -> Sequence[Detection]:
        found.extend(find(images))
        return found

    stress = measure(keep, dataset, dataset.dataset, [Occlusion("photo", levels=(0.0, *LEVELS))], seed=0)
    for number, level in enumerate((0.0, *LEVELS)):
        mine = found[number :: 1 + len(LEVELS)]
        file = run.detections / (f"{split}-hidden-{level:g}.json" if level else f"{split}.json")
        write_coco_results(file, mine, dataset.ids, range(1, len(dataset.classes) + 1))
    write_stress(folder / "stress.json", replace(stress, split=split))
    clean = found[:: 1 + len(LEVELS)]
    results = evaluate_detections(clean, dataset.dataset, subsets=all_subsets(dataset.dataset))
    write_results(run.results_file, replace(results, split=split))


def is_done(folder: Path) -> bool:
    """Tell whether a run has its results, which are written last."""
    return Run(folder).results_file.is_file()


class Photographs:
    """Features of photographs, computed once: where the whole trunk is fixed, all methods of a seed see the same.

    Each photograph goes through the trunk alone, in training as in evaluation, and not padded to the size of another.
    """

    limit = 1500
    """How many are kept: a set's, mirrored and hidden in part; no more where images are changed at random."""

    def __init__(self) -> None:
        self.detector: Path | None = None
        self.features: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}

    @contextmanager
    def of(self, detector: Path) -> Iterator[None]:
        """For a block, let all detectors that begin with that one's trunk share the features."""
        if detector != self.detector:
            self.detector, self.features = detector, {}

        def known_pooling(model: FastRCNN, images: Sequence[Tensor]) -> Pool:
            return self.pooling(model, images)

        original = FastRCNN.pooling
        FastRCNN.pooling = known_pooling  # type: ignore[method-assign]
        try:
            yield
        finally:
            FastRCNN.pooling = original  # type: ignore[method-assign]

    def pooling(self, model: FastRCNN, images: Sequence[Tensor]) -> Pool:
        """As ``FastRCNN.pooling``."""
        assert not any(weight.requires_grad for weight in model.trunk.parameters())
        known = [self.compute(model, image) for image in images]

        def pool(rois: Sequence[Tensor]) -> Tensor:
            parts = zip(known, rois, strict=True)
            return torch.cat(
                [model.roi_pooling(features, model.resize([roi], [scale])) for (features, scale), roi in parts]
            )

        return pool

    def compute(self, model: FastRCNN, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the trunk's features of an image (3 x H x W, uint8), and its scale."""
        key = (*image.shape, sha256(memoryview(image.contiguous().numpy())).digest())
        found = self.features.get(key)
        if found is None:
            # Whether they are known must make no difference: neither to what is drawn later, nor to gradients.
            with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.no_grad():
                batch, (scale,) = model.prepare([image.clone()])
                found = model.trunk(batch), scale
            if len(self.features) < self.limit:
                self.features[key] = found
        return found


@contextmanager
def claim(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Hold a run for this process, and say whether no other does; a process that dies holds it no longer."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


if __name__ == "__main__":
    main()
