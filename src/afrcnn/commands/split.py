"""Splitting the images of a dataset, by occlusion or at random."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from afrcnn.core.errors import UserError, require_dataset
from afrcnn.recipe import LayoutName

if TYPE_CHECKING:
    from afrcnn.data.splits import OcclusionSplit


def split(
    dataset: Path | str,
    split: str | None = None,
    *,
    random: float | None = None,
    seed: int = 0,
    names: tuple[str, str] | None = None,
    overlap: float = 0.05,
    layout: LayoutName = "auto",
    out: Path | str | None = None,
) -> tuple[OcclusionSplit, OcclusionSplit]:
    r"""Divide a split by occlusion or at random.

    By occlusion, into images with occluded objects and those without: one to train on, the other to test on. Does a
    detector find occluded objects that its training never showed? An object counts as occluded where the box of another
    one covers more of its own than --overlap. With --random, into trainval and test, by class and the same on every
    machine. Shows how many objects of each class are where.

    Args:
        dataset: folder of images and boxes, in any layout of docs/data.md
        split: split to divide (default, at random: the only one that there is)
        random: fraction of the images to test on, between 0 and 1
        seed: of --random; another seed, another division
        names: names of the two new splits (default: unoccluded_SPLIT occluded_SPLIT; at random, trainval test)
        overlap: fraction of an object's box, from 0 to 1
        layout: layout of DATASET (default: what is found)
        out: folder that gets the new splits and links to DATASET's files (default: DATASET)

    Examples:
        afrcnn split photos --random 0.2
        afrcnn split cards trainval
        afrcnn proposals cards --split unoccluded_trainval occluded_trainval
        afrcnn train recipe.yaml --data.root cards \
          --data.train_split unoccluded_trainval --data.test_split occluded_trainval

    Returns:
        The two splits, the one to train on first.

    Raises:
        UserError: the dataset is at fault, no split is named, a class has objects in one of the two only, or there is
            another split under one of the names; no split is written then.
    """
    require_dataset(dataset)
    if split is None and random is None:
        raise UserError("names no split", field="split", fix="name the one to divide by occlusion, or add --random 0.2")

    from afrcnn.data.splits import split_at_random, split_by_occlusion

    if random is not None:
        return split_at_random(dataset, split, fraction=random, seed=seed, names=names, layout=layout, out=out)
    assert split is not None
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
