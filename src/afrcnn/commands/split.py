"""A split of a dataset, divided into images with occluded objects and those without."""

# ruff: noqa: PLC0415
from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from afrcnn.core.errors import UserError

if TYPE_CHECKING:
    from afrcnn.data.splits import Part


def split(
    dataset: Path | str,
    split: str,
    *,
    names: tuple[str, str] | None = None,
    overlap: float = 0.05,
    layout: Literal["auto", "voc", "coco"] = "auto",
    out: Path | str | None = None,
) -> Sequence[Part]:
    r"""Divide a split into images with occluded objects and those without.

    One to train on, the other to test on: does a detector find occluded objects that its training never showed? Shows
    how many objects of each class are where. An object is occluded where the box of another one covers more of its own
    than --overlap.

    Args:
        dataset: folder in PASCAL VOC or COCO layout.
        split: split to divide.
        names: names of the new splits (default: open_SPLIT hidden_SPLIT).
        overlap: fraction of a box, from 0 to 1.
        layout: layout of DATASET (default: what is found).
        out: folder that gets the new splits and links to DATASET's files (default: DATASET).

    Examples:
        afrcnn split cards trainval
        afrcnn proposals cards --split open_trainval hidden_trainval
        afrcnn train recipe.yaml --data.root cards \
          --data.train_split open_trainval --data.test_split hidden_trainval
    """
    if not Path(dataset).is_dir():
        raise UserError("no such folder", file=dataset, fix="give the folder of a dataset")

    from afrcnn.data.splits import split_open_hidden

    return split_open_hidden(dataset, split, names=names, overlap=overlap, layout=layout, out=out)


def show(parts: Sequence[Part], *, dataset: Path, out: Path | None = None) -> None:
    """Print what is where, and what comes next."""
    from rich.console import Console

    from afrcnn.reporting.split_table import split_table

    Console().print(split_table(parts))
    for part in parts:
        print(f"{part.name}: {part.file}")
    names = " ".join(shlex.quote(part.name) for part in parts)
    print(f"next: afrcnn proposals {shlex.quote(str(out or dataset))} --split {names}")
