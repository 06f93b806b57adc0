"""Splitting the images of a dataset by occlusion."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from afrcnn.core.errors import require_dataset

if TYPE_CHECKING:
    from afrcnn.data.splits import OcclusionSplit


def split(
    dataset: Path | str,
    split: str,
    *,
    names: tuple[str, str] | None = None,
    overlap: float = 0.05,
    layout: Literal["auto", "voc", "coco"] = "auto",
    out: Path | str | None = None,
) -> tuple[OcclusionSplit, OcclusionSplit]:
    r"""Divide a split into images with occluded objects and those without.

    One to train on, the other to test on: does a detector find occluded objects that its training never showed? Shows
    how many objects of each class are where. An object counts as occluded where the box of another one covers more of
    its own than --overlap.

    Args:
        dataset: folder in PASCAL VOC or COCO layout
        split: split to divide
        names: names of the two new splits (default: unoccluded_SPLIT occluded_SPLIT)
        overlap: fraction of an object's box, from 0 to 1
        layout: layout of DATASET (default: what is found)
        out: folder that gets the new splits and links to DATASET's files (default: DATASET)

    Examples:
        afrcnn split cards trainval
        afrcnn proposals cards --split unoccluded_trainval occluded_trainval
        afrcnn train recipe.yaml --data.root cards \
          --data.train_split unoccluded_trainval --data.test_split occluded_trainval

    Returns:
        The two splits, that without occluded objects first.

    Raises:
        UserError: the dataset is at fault, a class has objects in one of the two only, or there is another split
            under one of the names; no split is written then.
    """
    require_dataset(dataset)

    from afrcnn.data.splits import split_by_occlusion

    return split_by_occlusion(dataset, split, names=names, overlap=overlap, layout=layout, out=out)


def show(splits: Sequence[OcclusionSplit], *, dataset: Path, out: Path | None = None) -> None:
    """Print what is where, and what comes next."""
    from rich.console import Console

    from afrcnn.core.terminal import say
    from afrcnn.visualize.tables import split_table

    Console().print(split_table(splits))
    for new in splits:
        say(f"{new.name}: {new.file}")
    words = [str(out or dataset), "--split", *(new.name for new in splits)]
    say(f"next: afrcnn proposals {shlex.join(words)}")
