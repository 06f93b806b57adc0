"""What a stress test costs: its time at seven levels, as a multiple of one evaluation's.

    python benchmarks/stress_cost.py runs/fruit/squeezenet_frcn-seed0 [--rounds 2] [--threads 2]

The two take turns. Seven levels are seven evaluations; what is above seven is the cost of occluding objects.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from afrcnn.commands.evaluate import evaluate
from afrcnn.commands.stress import stress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--occluder", default="photo", choices=["grey", "noise", "photo"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    seconds: dict[str, list[float]] = {"evaluation": [], "stress test": []}
    with tempfile.TemporaryDirectory() as out:
        for _ in range(arguments.rounds):
            began = time.perf_counter()
            evaluate(arguments.run, out=out)
            seconds["evaluation"].append(time.perf_counter() - began)
            began = time.perf_counter()
            stress(arguments.run, occluder=[arguments.occluder], out=out)
            seconds["stress test"].append(time.perf_counter() - began)
    table = Table("what", "seconds", "ratio", title=f"{arguments.run}: {arguments.occluder}, 7 levels")
    plain = statistics.median(seconds["evaluation"])
    for name, times in seconds.items():
        table.add_row(name, f"{statistics.median(times):.1f}", f"{statistics.median(times) / plain:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
