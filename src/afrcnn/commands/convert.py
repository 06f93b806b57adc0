"""Writing a dataset in another layout."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from afrcnn.core.errors import require_dataset
from afrcnn.core.terminal import say
from afrcnn.recipe import LayoutName

if TYPE_CHECKING:
    from afrcnn.data.convert import Conversion


def convert(
    dataset: Path | str,
    out: Path | str,
    *,
    to: Literal["voc", "coco", "yolo"] = "voc",
    split: Sequence[str] = (),
    layout: LayoutName = "auto",
) -> Conversion:
    """Write a dataset in another layout.

    Copies the images and writes their boxes, classes and flags as PASCAL VOC, COCO or YOLO have them. What the layout
    has no place for is told, with counts. No conversion is needed to train: every layout is read in place.

    Args:
        dataset: folder of images and boxes, in any layout of docs/data.md
        out: folder to write; must be absent or empty
        to: layout to write
        split: splits to write (default: all, but no image twice)
        layout: layout of DATASET (default: what is found)

    Examples:
        afrcnn convert photos photos-coco --to coco

    Returns:
        What was written, and what was lost.

    Raises:
        UserError: the dataset is at fault, or the folder is not empty or cannot be written.
    """
    require_dataset(dataset)

    from afrcnn.data.convert import convert_dataset

    return convert_dataset(dataset, out, to, splits=split, layout=layout)


def show(conversion: Conversion) -> None:
    """Print what was written, what was lost, and what comes next."""
    for words in conversion.splits.values():
        say(words)
    for what, count in conversion.lost.items():
        say(f"lost: {count:,} {what}")
    say(f"dataset: {conversion.folder}")
    say(f"next:    afrcnn proposals {shlex.quote(str(conversion.folder))}")
