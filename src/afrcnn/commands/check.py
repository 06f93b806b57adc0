"""Checking a dataset before it is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from afrcnn.core.errors import UserError, require_named
from afrcnn.core.terminal import say
from afrcnn.recipe import LayoutName

if TYPE_CHECKING:
    from afrcnn.data.checking import DatasetCheck

_EXAMPLES = 3
"""How many examples of each kind are shown."""


def check(dataset: Path | str, *, layout: LayoutName = "auto", jobs: int = 1) -> tuple[DatasetCheck, list[str]]:
    """Tell everything that is wrong with a dataset.

    Reads all annotations and decodes all images. Shows, with counts and the first examples: broken images and files of
    boxes, boxes outside their image or without area, unknown classes, wrong sizes; and what a training would not stop
    at: images turned by EXIF, images that are there twice or in two splits, classes under two spellings or in one split
    alone, objects that are too small; and what fraction of the objects proposals cover, where there are some. Ends with
    status 1 if something would stop a training, or if it would leave images out.

    Args:
        dataset: folder of images and boxes, in any layout of docs/data.md, or its data.yaml or one of its COCO files
        layout: layout of DATASET (default: what is found)
        jobs: images decoded at a time, each in a process; -1 is one for each core

    Examples:
        afrcnn check photos
        afrcnn check photos/data.yaml --jobs 8

    Returns:
        What was found, and a line about each store of proposals.

    Raises:
        UserError: there is no such folder, or it has no layout or several.
    """
    require_named(dataset)

    from collections.abc import Callable
    from contextlib import ExitStack

    from afrcnn.core.progress import progress
    from afrcnn.data.checking import check_dataset
    from afrcnn.data.layouts import dataset_of

    dataset, layout_name, _ = dataset_of(dataset, layout)

    with ExitStack() as stack:
        reports: list[Callable[[int], None]] = []

        def report(done: int, total: int) -> None:
            if not reports:
                reports.append(stack.enter_context(progress("checking", total, "image")))
            reports[0](done)

        result = check_dataset(dataset, layout_name, report, jobs=jobs)
    return result, [] if result.stops else _coverage(Path(dataset), list(result.splits), layout_name)


def show(result: tuple[DatasetCheck, list[str]], *, dataset: Path) -> int:
    """Print what was found; return 1 if something would stop a training, or be left out."""
    checked, coverage = result
    say(f"{dataset}: {checked.layout}")
    for line in (*checked.splits.values(), *coverage):
        say(f"  {line}")
    for finding in checked.findings:
        say(f"{finding.consequence}: {len(finding.messages):,} {finding.kind}")
        for message in finding.messages[:_EXAMPLES]:
            say(f"  {message}")
    without = ", which would leave images out" if checked.leaves_out else ""
    say("this would stop a training" if checked.stops else f"nothing would stop a training{without}")
    return int(checked.stops or checked.leaves_out)


def _coverage(root: Path, splits: list[str], layout: str) -> list[str]:
    """Return a line about each store of proposals beside the dataset: what fraction of the objects it covers."""
    from afrcnn.data.layouts import open_dataset
    from afrcnn.proposals.recall import recall
    from afrcnn.proposals.store import ProposalStore

    lines = []
    for split in splits:
        dataset = open_dataset(root, split, layout)
        for folder in sorted((root / "proposals").glob(f"{split}-*")) if dataset.annotated else ():
            try:
                result = recall(dataset, ProposalStore(folder), ious=(0.5,), counts=(2000,))
            except UserError as error:
                lines.append(f"proposals {folder.name}: {error}")
            else:
                fraction = f"{100 * result.overall[0, 0]:.1f}%"
                lines.append(f"proposals {folder.name}: cover {fraction} of the objects, at an IoU of 0.5")
    return lines
