"""What limits a detector: train on some images of trainval, change one thing at a time, measure on the rest.

    python benchmarks/validation_split.py ../shared/data/cards validation/cards
    python benchmarks/limits.py cards --root validation/cards [--iterations 500] [--seeds 0] [--threads 1]

Proposals of trainval are used for both. Runs that are done are not repeated.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from afrcnn.commands.evaluate import evaluate
from afrcnn.evaluation.results import read_results
from afrcnn.recipe import load_recipe
from afrcnn.run import Run
from afrcnn.training.train import train_stages
from validation_split import link_proposals

CHANGES = {
    "as in the recipe": [],
    "a third of the iterations": ["--schedule.iterations={third}", "--schedule.decay_at=[{third_decay}]"],
    "shorter side 256 pixels": ["--detector.short_side=[256]", "--detector.long_side=400"],
    "the paper's RoI pooling": ["--detector.pooling=roi_pool"],
    "300 proposals an image": ["--data.proposals_per_image=300"],
    "a third of the learning rate": ["--schedule.learning_rate=0.00033"],
    "three times the learning rate": ["--schedule.learning_rate=0.003"],
    "backbone frozen": ["--detector.frozen_stages=10"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set")
    parser.add_argument("--root", type=Path, required=True, help="folder that validation_split.py made")
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--changes", nargs="+", default=list(CHANGES), choices=list(CHANGES))
    parser.add_argument("--runs", type=Path, default=Path("runs/limits"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    proposals = arguments.root / "proposals"
    link_proposals(Path(f"proposals/{arguments.set}/trainval-fast"), proposals, ("train", "val"))

    table = Table(title=f"{arguments.set}: {arguments.iterations} iterations, validation part of trainval")
    for column in ("change", "mAP 11-point", "COCO AP"):
        table.add_column(column, justify="left" if column == "change" else "right")
    third = arguments.iterations // 3
    for change in arguments.changes:
        fields = [field.format(third=third, third_decay=third * 3 // 4) for field in CHANGES[change]]
        columns: list[tuple[float, float]] = []
        for seed in arguments.seeds:
            folder = arguments.runs / arguments.set / f"{change.replace(' ', '_').replace(chr(39), '')}-seed{seed}"
            if not Run(folder).results_file.is_file():
                base = [
                    f"--data.root={arguments.root}",
                    f"--data.proposals={proposals}",
                    "--data.train_split=train",
                    "--data.test_split=val",
                    f"--schedule.iterations={arguments.iterations}",
                    f"--schedule.decay_at=[{arguments.iterations * 3 // 4}]",
                    f"--seed={seed}",
                ]
                train_stages(load_recipe(f"configs/{arguments.set}/squeezenet_frcn.yaml", base + fields), folder)
                evaluate(folder)
            results = read_results(Run(folder).results_file)
            columns.append((100 * results.mean_ap["11-point"], 100 * results.coco["AP"]))
        table.add_row(change, *(f"{statistics.mean(column):.1f}" for column in zip(*columns, strict=True)))
    Console(width=80).print(table)


if __name__ == "__main__":
    main()
