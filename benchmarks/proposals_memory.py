"""Memory of a data loader that reads proposals of 100,000 images x 1000: what it takes beyond the images.

    python benchmarks/proposals_memory.py [--images 100000] [--proposals 1000]

Writes a store of that size (1.6 GB) into a temporary folder, and reads all of it in random order through a
``DataLoader`` with two workers; then the same images without proposals, for the baseline. Linux only: memory
is read from ``/proc``, of the main process and the workers together. RSS counts pages that they share once for
each of them, PSS once in all.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from afrcnn.data.image import fingerprint
from afrcnn.data.target import Target
from afrcnn.proposals.dataset import WithProposals
from afrcnn.proposals.store import Proposals, ProposalStore

WORKERS, BATCH, SIDE = 2, 8, 64


class Blank:
    """A dataset of many ids that share one small image, so that proposals are what is measured."""

    classes: tuple[str, ...] = ("object",)
    category_ids: tuple[int, ...] = (1,)
    annotation_file: Path | None = None
    annotated: bool = True

    def __init__(self, root: Path, count: int) -> None:
        self.root = root
        self.ids = [f"{index:06d}" for index in range(count)]
        Image.new("RGB", (SIDE, SIDE)).save(root / "blank.png")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, Target]:
        return tv_tensors.Image(torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)), self.target(index)

    def target(self, index: int) -> Target:
        boxes = tv_tensors.BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=(SIDE, SIDE))
        return {"boxes": boxes, "labels": torch.zeros(0, dtype=torch.int64), "image_id": self.ids[index]}

    def image_path(self, index: int) -> Path:
        return self.root / "blank.png"

    def image_size(self, index: int) -> tuple[int, int]:
        return SIDE, SIDE


def random_proposals(dataset: Blank, count: int) -> Iterator[tuple[str, bytes, Proposals]]:
    rng = np.random.default_rng(0)
    digest = fingerprint(dataset.image_path(0))
    for image_id in dataset.ids:
        boxes = rng.random((count, 4), dtype=np.float32) * (SIDE // 2 - 1)
        boxes[:, 2:] += SIDE // 2
        yield image_id, digest, Proposals(boxes)


def memory() -> np.ndarray:
    """Return RSS and PSS of this process and its workers, in MB."""
    total = np.zeros(2)
    for pid in [os.getpid(), *(child.pid for child in active_children())]:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = {line.split()[0]: float(line.split()[1]) for line in lines[1:]}
        total += (fields["Rss:"] / 1024, fields["Pss:"] / 1024)
    return total


def peak(dataset: Blank | WithProposals) -> tuple[np.ndarray, int, float]:
    """Read a dataset once; return the highest memory seen, how many proposals came, and the seconds."""
    highest, stop = memory(), threading.Event()

    def watch() -> None:
        nonlocal highest
        while not stop.wait(0.1):
            highest = np.maximum(highest, memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start, seen = time.perf_counter(), 0
    loader = DataLoader(
        dataset, batch_size=BATCH, shuffle=True, num_workers=WORKERS, collate_fn=list, multiprocessing_context="spawn"
    )
    for batch in loader:
        seen += sum(len(target["proposals"]) for _, target in batch if "proposals" in target)
    stop.set()
    watcher.join()
    return highest, seen, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--proposals", type=int, default=1000)
    arguments = parser.parse_args()
    count, proposals = arguments.images, arguments.proposals
    with tempfile.TemporaryDirectory() as temporary:
        images = Blank(Path(temporary), count)
        store = ProposalStore.write(
            images.root / "store", random_proposals(images, proposals), method="random", parameters={}
        )
        size = (store.folder / "boxes.npy").stat().st_size / 2**20
        print(f"{count} images x {proposals} proposals, {size:.0f} MB; {WORKERS} workers, random order")
        baseline, _, without = peak(images)
        with_proposals, seen, taken = peak(WithProposals(images, store))
    print(f"{seen} proposals read in {taken:.0f} s ({without:.0f} s without proposals)")
    print(f"{'peak, MB':<22} {'RSS':>8} {'PSS':>8}")
    for name, row in (
        ("without proposals", baseline),
        ("with proposals", with_proposals),
        ("beyond the images", with_proposals - baseline),
    ):
        print(f"{name:<22} {row[0]:>8.0f} {row[1]:>8.0f}")
    print("target: under 500 MB beyond the images")


if __name__ == "__main__":
    main()
