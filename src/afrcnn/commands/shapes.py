"""Drawing a dataset to try things on."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


def shapes(
    folder: Path | str,
    *,
    trainval: int = 400,
    test: int = 100,
    size: int = 256,
    occlusion: float = 0.5,
    deformation: float = 0.5,
    classes: Sequence[str] = (),
    sides: tuple[float, float] = (48.0, 150.0),
    seed: int = 0,
    jobs: int = 1,
) -> None:
    """Draw a dataset to try things on.

    It has jointed figures on textured grounds, in PASCAL VOC layout, with the occluded fraction and the bend of each
    object in its annotation. The same numbers draw the same set.

    Args:
        folder: folder to write
        trainval: images to train on
        test: images to test on
        size: side of an image, in pixels
        occlusion: how much is occluded, from 0 to 1
        deformation: how far joints bend, from 0 to 1
        classes: figures that are drawn (default: all eight)
        sides: shortest and longest longer side of an object, in pixels of an image of 256
        seed: another seed, another set
        jobs: processes that draw; -1 for all cores

    Examples:
        afrcnn shapes shapes --trainval 400 --test 100
        afrcnn shapes shapes --classes bird fish crab --sides 80 150 --occlusion 0

    Raises:
        UserError: an argument is out of its range, the folder holds something else, or it cannot be written.
    """
    from afrcnn.core.progress import progress
    from afrcnn.data.shapes import generate

    with progress("drawing", trainval + test, "image") as report:
        generate(
            folder,
            trainval=trainval,
            test=test,
            size=size,
            occlusion=occlusion,
            deformation=deformation,
            classes=classes,
            sides=sides,
            seed=seed,
            jobs=jobs,
            progress=report,
        )


def show(_: None, *, folder: Path) -> None:
    """Print where the dataset is, and what comes next."""
    from afrcnn.core.terminal import say

    say(f"dataset: {folder}")
    say(f"next:    afrcnn proposals {shlex.quote(str(folder))}")
