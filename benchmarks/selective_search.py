"""Selective search on two cores against one: the same images, in one run, alternating.

    python benchmarks/selective_search.py [DATASET...]

Takes 20 images of each dataset (VOC or COCO layout; by default those beside the checkout, in
``../shared/data``), and searches them three times with one job and three times with two. Every timing is a
whole call of ``afrcnn.proposals.propose.propose``: hashing, searching, journal and store. What is not timed is the
start of the worker processes, once a run of the program (2 to 5 seconds to import torch).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from afrcnn.data.layouts import open_dataset
from afrcnn.data.target import DetectionDataset
from afrcnn.proposals.propose import propose
from afrcnn.proposals.selective_search import SelectiveSearch

ROUNDS, IMAGES = 3, 20
SHARED = Path(os.environ.get("AFRCNN_SHARED", Path(__file__).parents[2] / "shared")) / "data"


class Head:
    """The first images of several datasets, as far as ``propose`` looks at them."""

    def __init__(self, datasets: list[DetectionDataset], count: int) -> None:
        self.root = datasets[0].root
        self.paths = [d.image_path(i) for d in datasets for i in range(min(count, len(d)))]
        self.ids = [str(path) for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def image_path(self, index: int) -> Path:
        return self.paths[index]


def seconds(images: Head, jobs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        propose(images, folder, SelectiveSearch(), jobs=jobs)  # type: ignore[arg-type]
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", type=Path, metavar="DATASET")
    arguments = parser.parse_args()
    roots = arguments.datasets or [SHARED / name for name in ("fruit", "cards", "bccd")]
    images = Head([open_dataset(root, "trainval") for root in roots], IMAGES)
    seconds(Head([open_dataset(roots[0], "trainval")], 4), jobs=2)  # starts the workers
    print(f"{len(images)} images, fast; {os.cpu_count()} cores")
    print(f"{'round':>6} {'1 job, s':>10} {'2 jobs, s':>10} {'ratio':>7}")
    ratios = []
    for number in range(1, ROUNDS + 1):
        one, two = seconds(images, 1), seconds(images, 2)
        ratios.append(one / two)
        print(f"{number:>6} {one:>10.1f} {two:>10.1f} {ratios[-1]:>7.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}; target at least 1.8")


if __name__ == "__main__":
    main()
