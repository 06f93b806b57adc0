"""Make a copy of a VOC-layout dataset, by links, whose trainval is divided into train and val.

Settings are chosen on val; test is only for the numbers that are reported.

    python benchmarks/validation_split.py ../shared/data/cards validation/cards
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def divide(source: Path, folder: Path, fraction: float = 0.2, seed: int = 0) -> None:
    """Link ``source``'s images and annotations into ``folder`` and write train and val, disjoint, of trainval."""
    sets = folder / "ImageSets" / "Main"
    sets.mkdir(parents=True, exist_ok=True)
    for name in ("JPEGImages", "Annotations"):
        link = folder / name
        if not link.exists():
            link.symlink_to((source / name).resolve())
    ids = sorted((source / "ImageSets" / "Main" / "trainval.txt").read_text().split())
    held = set(np.random.default_rng(seed).permutation(len(ids))[: round(len(ids) * fraction)].tolist())
    for split, belongs in (("train", lambda i: i not in held), ("val", lambda i: i in held)):
        (sets / f"{split}.txt").write_text("".join(f"{image}\n" for i, image in enumerate(ids) if belongs(i)))


def link_proposals(store: Path, folder: Path, splits: Sequence[str], method: str = "fast") -> None:
    """Let a store of all images serve subsets of them in another folder, too: its boxes are looked up by image."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        link = folder / f"{split}-{method}"
        if not link.exists():
            link.symlink_to(store.resolve())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    divide(arguments.source, arguments.folder)
