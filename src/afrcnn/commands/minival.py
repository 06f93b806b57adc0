"""COCO's trainval35k and minival."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from afrcnn.core.errors import require_dataset
from afrcnn.core.terminal import say

if TYPE_CHECKING:
    from afrcnn.data.minival import MinivalSplit


def minival(dataset: Path | str, images: Path | str) -> tuple[MinivalSplit, MinivalSplit]:
    """Make COCO's trainval35k and minival from its annotations of 2014.

    Writes annotations/instances_trainval35k.json and instances_minival.json beside those of train2014 and val2014. No
    image is moved or copied: they are found in train2014 and val2014 by their names. Minival has the images of a
    published list, trainval35k all others.

    COCO's val2017 has the images of minival, and train2017 those of trainval35k, so that either of its files is a list:
    `afrcnn download coco2017 coco --parts annotations` fetches it.

    Args:
        dataset: folder with COCO's annotations of 2014
        images: list of minival's images: ids, or files' names, one a line, or a JSON file in COCO's format

    Examples:
        afrcnn minival coco coco/annotations/instances_val2017.json
        afrcnn minival coco minival.txt

    Returns:
        Trainval35k and minival.

    Raises:
        UserError: an annotation file or the list is missing or malformed, an image is named twice or is not of val2014,
            or there are other splits of these names; nothing is written then.
    """
    require_dataset(dataset)

    from afrcnn.data.minival import make_minival

    return make_minival(dataset, images)


def show(splits: Sequence[MinivalSplit], *, dataset: Path) -> None:
    """Print what is where, and what comes next."""
    for split in splits:
        say(f"{split.name + ':':12} {split.images} images, {split.objects} objects: {split.file}")
    words = [str(dataset), "--split", *(split.name for split in splits)]
    say(f"next:        afrcnn proposals {shlex.join(words)}, or --import DeepMask's files")
