"""Do detectors of two methods complement each other? Ensembles of two on the experiment's sets (section 5.4).

    python benchmarks/ensembles.py [--sets fruit cards bccd] [--methods full ohem] [--seeds 0 1 2]

Trains what `experiment.py` trains, measures every pair of two seeds, of one method and of two, and prints a table. What
is done is not repeated, and several of these commands may work at once.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from itertools import chain, combinations, permutations, product
from pathlib import Path

import numpy as np
import torch

from afrcnn.build import open_images
from afrcnn.commands.evaluate import evaluate
from afrcnn.data.target import DetectionDataset
from afrcnn.evaluation.bootstrap import interval, resampled_ap
from afrcnn.evaluation.formats import read_coco_results
from afrcnn.evaluation.matching import Floats, match
from afrcnn.experiment.differences import draw_images
from afrcnn.run import Run
from experiment import METHODS, RUNS, SETS, FeatureCache, claim, fit

Pair = tuple[tuple[str, int], tuple[str, int]]
"""Two detectors, each a method and a seed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["fruit", "cards", "bccd"], choices=list(SETS))
    parser.add_argument("--methods", nargs=2, default=["full", "ohem"], choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cache = FeatureCache()
    one, other = arguments.methods
    pairs = kinds(one, other, arguments.seeds)
    for name in arguments.sets:
        # What another process is at is left to it first, and waited for then.
        for wait in (False, True):
            for method, seed in product(arguments.methods, arguments.seeds):
                train_member(name, method, seed, cache, wait)
        for wait in (False, True):
            for pair in chain.from_iterable(pairs.values()):
                join(name, pair, wait)

    results = {name: measure(name, pairs) for name in arguments.sets}
    print("| ensemble | " + " | ".join(arguments.sets) + " | mean |")
    print("|---|" + "---:|" * (len(arguments.sets) + 1))
    for kind in next(iter(results.values())):
        means = [results[name][kind][0] for name in arguments.sets]
        print(f"| {kind} | " + " | ".join(f"{mean:.1f}" for mean in (*means, statistics.mean(means))) + " |")
    both = f"{one} + {other}"
    for kind in (f"2 x {one}", f"2 x {other}"):
        difference = np.mean([results[name][both] - results[name][kind] for name in arguments.sets], axis=0)
        low, high = interval(difference[1:])
        print(f"{both} against {kind}: {difference[0]:+.1f} ({low:+.1f} to {high:+.1f}, by images)")


def kinds(one: str, other: str, seeds: Sequence[int]) -> dict[str, list[Pair]]:
    """Return all pairs of two seeds, by kind: the seeds of a pair always differ, also where the methods do."""
    return {
        f"2 x {one}": [((one, a), (one, b)) for a, b in combinations(seeds, 2)],
        f"2 x {other}": [((other, a), (other, b)) for a, b in combinations(seeds, 2)],
        f"{one} + {other}": [((one, a), (other, b)) for a, b in permutations(seeds, 2)],
    }


def weights_of(name: str, method: str, seed: int) -> Path:
    return RUNS / "ensembles" / name / f"{method}-seed{seed}"


def joined(name: str, pair: Pair) -> Path:
    return RUNS / "ensembles" / name / "+".join(f"{method}-seed{seed}" for method, seed in pair)


def train_member(name: str, method: str, seed: int, cache: FeatureCache, wait: bool) -> None:
    """Train a detector, unless that is done; another process is waited for, or left to it."""
    folder = weights_of(name, method, seed)
    with claim(folder, wait) as claimed:
        if claimed and not Run(folder).weights_file.is_file():
            fit(name, method, seed, folder, cache).checkpoint_file.unlink()


def join(name: str, pair: Pair, wait: bool) -> None:
    """Measure two detectors together, unless that is done; another process is waited for, or left to it."""
    folder = joined(name, pair)
    with claim(folder, wait) as claimed:
        if claimed and not Run(folder).results_file.is_file():
            first, second = (weights_of(name, *member) for member in pair)
            evaluate(first, overrides=["--data.workers=0"], ensemble=[second], out=folder)


def measure(name: str, pairs: dict[str, list[Pair]]) -> dict[str, Floats]:
    """Return by kind the mean over pairs of the mean AP in percent, on all images and then on drawings of them."""
    (member, _), *_ = chain.from_iterable(pairs.values())
    recipe = Run(weights_of(name, *member)).recipe
    split = recipe.data.test_split
    dataset = open_images(recipe, split)
    results: dict[str, Floats] = {}
    for kind, of_kind in pairs.items():
        files = [Run(joined(name, pair)).detections_file(split) for pair in of_kind]
        results[kind] = np.mean([drawn(file, dataset, seed=list(SETS).index(name)) for file in files], axis=0)
    return results


def drawn(file: Path, dataset: DetectionDataset, seed: int) -> Floats:
    """Return the mean AP in percent of a file of detections on all images, and then on drawings of them."""
    detections = read_coco_results(file, dataset.ids, dataset.category_ids)
    targets = [dataset.target(index) for index in range(len(dataset))]
    return 100 * resampled_ap(match(detections, targets, dataset.classes), draw_images(len(dataset), seed))


if __name__ == "__main__":
    main()
