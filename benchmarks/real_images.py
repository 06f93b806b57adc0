"""Train and evaluate Fast R-CNN on real images over several seeds.

Every run lies in its own folder; a run that is finished is not repeated, one that was interrupted goes on.

    python benchmarks/real_images.py [--sets fruit cards bccd] [--seeds 0 1 2] [--runs runs] [--threads 1]
"""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from afrcnn.build import open_images
from afrcnn.commands.evaluate import evaluate
from afrcnn.evaluation.results import Results, read_results
from afrcnn.proposals.propose import propose
from afrcnn.proposals.selective_search import SelectiveSearch
from afrcnn.recipe import Recipe, load_recipe
from afrcnn.run import Run
from afrcnn.training.train import train_stages


def propose_splits(recipe: Recipe) -> None:
    """Compute the proposals of both splits, unless they are there."""
    assert recipe.data.proposals is not None
    for split in (recipe.data.train_split, recipe.data.test_split):
        folder = Path(recipe.data.proposals) / f"{split}-{recipe.data.proposal_method}"
        if not (folder / "proposals.json").is_file():
            propose(open_images(recipe, split), folder, SelectiveSearch())


def result(recipe: Recipe, folder: Path) -> Results:
    """Train, unless it is done; evaluate, unless it is done."""
    run = Run(folder)
    if not run.results_file.is_file():
        propose_splits(recipe)
        train_stages(recipe, folder)
        evaluate(folder)
    return read_results(run.results_file)


def minutes(folder: Path, log_every: int) -> float:
    """Return the minutes of training by the log's iterations a second."""
    with Run(folder).log_file.open(newline="") as lines:
        return sum(log_every / float(row["iterations_per_second"]) for row in csv.DictReader(lines)) / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["fruit", "cards", "bccd"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    table = Table(title=f"Fast R-CNN, {len(arguments.seeds)} seeds, mean and standard deviation, AP in %")
    for column in ("set", "iterations", "minutes", "mAP 11-point", "mAP area", "COCO AP", "each seed"):
        table.add_column(column, justify="left" if column == "set" else "right")
    for name in arguments.sets:
        results, times = [], []
        for seed in arguments.seeds:
            recipe = load_recipe(f"configs/{name}/squeezenet_frcn.yaml", ["--seed", str(seed)])
            folder = arguments.runs / name / f"squeezenet_frcn-seed{seed}"
            results.append(result(recipe, folder))
            times.append(minutes(folder, recipe.schedule.log_every))
        columns = [
            [100 * run.mean_ap["11-point"] for run in results],
            [100 * run.mean_ap["area"] for run in results],
            [100 * run.coco["AP"] for run in results],
        ]
        cells = [f"{statistics.mean(c):.1f} ± {statistics.stdev(c) if len(c) > 1 else 0:.1f}" for c in columns]
        seeds = " ".join(f"{value:.1f}" for value in columns[0])
        table.add_row(name, str(recipe.schedule.iterations), f"{statistics.mean(times):.1f}", *cells, seeds)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
