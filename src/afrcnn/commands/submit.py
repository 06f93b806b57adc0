"""Archives for the servers that evaluate detections in test images whose annotations are not published."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Literal

from afrcnn.core.errors import UserError
from afrcnn.evaluation.submission import Submission, write_coco_archive, write_voc_archive
from afrcnn.run import Run, dataset_root


def submit(
    run: Path | str,
    *,
    split: str | None = None,
    out: Path | str | None = None,
    competition: Literal["comp3", "comp4"] = "comp4",
    name: str | None = None,
    evaluated: Path | str | None = None,
    overrides: Sequence[str] = (),
) -> Submission:
    """Write the archive that the VOC or COCO evaluation server takes.

    Packs the detections that `afrcnn evaluate` wrote, and reads the archive back to check it: its files, their lines,
    images of the split alone, boxes, and scores from 0 to 1. The same detections give the same bytes.

    Args:
        run: folder that `afrcnn train` made.
        split: split of the detections (default: the recipe's data.test_split).
        out: file to write (default: results.tar.gz for VOC, detections_SPLIT_NAME_results.zip for COCO, in RUN).
        competition: of VOC; comp3 if VOC's images alone were trained on, comp4 if others were, too, as ImageNet's.
        name: of the method, for COCO (default: RUN's).
        evaluated: folder that `afrcnn evaluate --out` wrote the detections to, as those of an ensemble (default: RUN).
        overrides: fields of the run's recipe to set differently, as ``["--data.root", "elsewhere"]``.

    Examples:
        afrcnn submit runs/VOC2012/vgg16_full-seed0
        afrcnn submit runs/coco/vgg16_full-seed0 --split test-dev2017 --name afrcnn

    Returns:
        The archive and what is in it.

    Raises:
        UserError: there is no run or dataset, it has not been evaluated on the split, or its detections break a rule of
            the server.
    """
    submitted, written = Run(run, overrides), Run(evaluated or run)
    recipe, classes = submitted.recipe, submitted.classes
    root, split = dataset_root(recipe), split or recipe.data.test_split
    source = written.detections_file(split)
    if not source.is_file():
        command = f"afrcnn evaluate {quote(str(run))} --split {quote(split)}"
        command += f" --out {quote(str(evaluated))}" if evaluated else ""
        raise UserError("there are no detections of this split", file=source, fix=f"run `{command}`")
    if name is not None and not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"{name!r} cannot be part of a file's name", field="name", fix="use letters, digits, - and .")

    from afrcnn.data.layouts import open_dataset

    dataset = open_dataset(root, split, recipe.data.layout, classes)
    if dataset.annotation_file is not None:  # COCO's layout
        name = name or re.sub(r"[^\w.-]+", "-", submitted.folder.resolve().name)
        target = Path(out or written.folder / f"detections_{split}_{name}_results.zip")
        return write_coco_archive(target, source, split, name, dataset.ids, dataset.category_ids)
    year = root.resolve().name
    year = year if re.fullmatch(r"VOC20\d\d", year) else "VOC2012"
    target, texts = Path(out or written.folder / "results.tar.gz"), written.detections / "voc"
    return write_voc_archive(target, texts, split, dataset.ids, classes, competition=competition, year=year)


def show(submission: Submission) -> None:
    """Print the archive and what is in it, a fact a line."""
    from afrcnn.core.terminal import say

    first, last = submission.members[0], submission.members[-1]
    say(f"archive:    {submission.file}")
    say(f"files:      {len(submission.members)}, {first}{f' to {Path(last).name}' if last != first else ''}")
    say(f"images:     {submission.images}")
    say(f"detections: {submission.detections}")
    say(f"upload at:  {submission.server}")
