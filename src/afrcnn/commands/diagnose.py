"""Diagnosis of the false positives of a run: what kinds they are, what they cost, and what a baseline has not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from afrcnn.core.errors import UserError
from afrcnn.run import Run, dataset_root

if TYPE_CHECKING:
    from afrcnn.data.target import DetectionDataset
    from afrcnn.evaluation.diagnosis import ErrorChange, Errors
    from afrcnn.evaluation.false_positives import FalsePositive
    from afrcnn.evaluation.tide import TideErrors

_DRAWINGS = 1000
"""Of the images, for the intervals."""


@dataclass(frozen=True)
class _RunDiagnosis:
    """What is wrong with the detections of a run, and of a baseline; ``diagnosis.json`` holds the same fields.

    Attributes:
        split: the split.
        top: number of the most confident detections of each class; None for as many as it has objects.
        similar: sets of similar classes.
        groups: the rows of several classes, that of all last.
        errors: by run, the baseline second, and by class or group, its false positives.
        changes: by class or group, what differs from the baseline; empty without one.
        tide: TIDE's errors by run; empty where hotcoco is not installed.
        images: ids of the images that false positives are in, by index.
        new_false_positives: those that the baseline has not, the most confident first; empty without one.
    """

    split: str
    top: int | None
    similar: tuple[tuple[str, ...], ...]
    groups: tuple[str, ...]
    errors: dict[str, dict[str, Errors]]
    changes: dict[str, dict[str, ErrorChange]]
    tide: dict[str, TideErrors]
    images: dict[int, str]
    new_false_positives: list[FalsePositive]


def diagnose(
    run: Path | str,
    *,
    against: Path | str | None = None,
    similar: Sequence[str] = (),
    top: int | None = None,
    score: float = 0.5,
    crops: int = 12,
    split: str | None = None,
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
) -> _RunDiagnosis:
    """Tell what kinds of errors the false positives of a run are.

    Sorts the detections that `afrcnn evaluate` wrote as Hoiem et al. (ECCV 2012) do: a false positive is badly placed
    or a second one, on an object of a similar class, on another object, or on background. Shows how many of the most
    confident are of each kind, and VOC's AP by area without each kind; TIDE's six errors, too, where hotcoco is
    installed. Writes diagnosis.json and errors.png.

    With --against, shows what differs from a baseline, with intervals of a bootstrap over images, and writes
    false_positives.png: the most confident ones where the baseline sees nothing of the class.

    Args:
        run: folder that `afrcnn train` made.
        against: run to compare with, of the same classes.
        similar: group of similar classes, as cat,dog; one word for each group (default: those of PASCAL VOC for its
            classes, none for others).
        top: number of the most confident detections of each class to look at (default: as many as it has objects).
        score: lowest score, from 0 to 1, at which something counts as seen, by the run and by the baseline.
        crops: how many false positives are drawn at most.
        split: split that was evaluated (default: the recipe's data.test_split).
        out: folder to write to (default: RUN/diagnosis).
        overrides: fields of the recipes to set differently, as ``["--data.root", "elsewhere"]``.

    Examples:
        afrcnn diagnose runs/full
        afrcnn diagnose runs/full --against runs/frcn
        afrcnn diagnose run --similar king,queen,jack ace,ten --top 100

    Raises:
        UserError: a run has no detections in the split, the baseline knows other classes, a group names an unknown
            class, a number is out of range, or the dataset is missing, wrong or not annotated.
    """
    for wrong, field, value, fix in (
        (top is not None and top < 1, "top", top, "choose 1 or more"),
        (crops < 1, "crops", crops, "choose 1 or more"),
        (not 0 <= score <= 1, "score", score, "choose from 0 to 1"),
    ):
        if wrong:
            raise UserError(f"{value:g} is out of range", field=field, fix=fix)
    runs = [Run(folder, overrides) for folder in (run, against) if folder is not None]
    if against is not None and Path(run).resolve() == Path(against).resolve():
        raise UserError("is the run itself", file=against, field="against", fix="name another run")
    recipe, classes = runs[0].recipe, runs[0].classes
    split = split or recipe.data.test_split
    for one in runs:
        one.require_classes_of(runs[0], "compare runs of the same classes")
        if not one.detections_file(split).is_file():
            problem, fix = f"has no detections in {split}", f"run `afrcnn evaluate {one.folder} --split {split}` first"
            raise UserError(problem, file=one.folder, fix=fix)
    dataset_root(recipe)

    from afrcnn.build import open_images
    from afrcnn.data.target import require_annotations
    from afrcnn.evaluation.bootstrap import resample
    from afrcnn.evaluation.diagnosis import diagnose_errors, error_changes
    from afrcnn.evaluation.error_kinds import class_groups
    from afrcnn.evaluation.false_positives import new_false_positives
    from afrcnn.evaluation.formats import read_coco_results
    from afrcnn.evaluation.matching import match
    from afrcnn.evaluation.tide import tide_errors

    groups, images = class_groups(classes, similar), require_annotations(open_images(recipe, split))
    targets = [images.target(index) for index in range(len(images))]
    names = Run.names(runs)
    detections = [read_coco_results(one.detections_file(split), images.ids, images.category_ids) for one in runs]
    matches = [match(detected, targets, classes) for detected in detections]
    diagnoses = [diagnose_errors(of_run, groups, top) for of_run in matches]
    tide = [tide_errors(detected, targets, classes, images.ids) for detected in detections]
    new, changes = [], {}
    if against is not None:
        changes = error_changes(diagnoses[0], diagnoses[1], resample(len(images), _DRAWINGS))
        new = new_false_positives(matches[0], matches[1], similar=groups.similar, score=score)
    result = _RunDiagnosis(
        split=split,
        top=top,
        similar=groups.similar,
        groups=tuple(diagnoses[0].rows)[len(classes) :],
        errors={name: diagnosis.errors for name, diagnosis in zip(names, diagnoses, strict=True)},
        changes=changes,
        tide={name: errors for name, errors in zip(names, tide, strict=True) if errors},
        images={error.image: images.ids[error.image] for error in new},
        new_false_positives=new,
    )
    _write(result, images, crops, runs[0].diagnosis if out is None else Path(out))
    return result


def show(result: _RunDiagnosis, *, run: Path, out: Path | None = None) -> None:
    """Print tables of the errors, and where figures and numbers are."""
    from rich.console import Console

    from afrcnn.core.terminal import say
    from afrcnn.visualize.tables import change_table, error_tables, tide_table

    console = Console()
    for name, errors in result.errors.items():
        for table in error_tables(errors, name):
            console.print(table)
    for row in result.groups if result.changes else ():
        console.print(change_table(row, [errors[row] for errors in result.errors.values()], result.changes[row]))
    if result.tide:
        console.print(tide_table(result.tide))
    else:
        print("TIDE's errors: not shown, hotcoco is not installed")
    folder = out or Run(run).diagnosis
    say(f"errors:  {folder / 'errors.png'}")
    if result.new_false_positives:
        say(f"new:     {folder / 'false_positives.png'}, of {len(result.new_false_positives)}")
    say(f"numbers: {folder / 'diagnosis.json'}")


def _write(result: _RunDiagnosis, images: DetectionDataset, crops: int, out: Path) -> None:
    """Write the figure, the pictures of at most so many false positives, and the numbers into a folder."""
    from afrcnn.core.atomic import atomic_write
    from afrcnn.evaluation.results import write_record
    from afrcnn.visualize.errors import draw_errors
    from afrcnn.visualize.false_positives import draw_false_positive, draw_sheet

    by_row = next(iter(result.errors.values()))
    with atomic_write(out / "errors.png", "wb") as file:
        draw_errors(result.errors, result.groups if len(result.groups) > 1 else list(by_row)).savefig(
            file, format="png"
        )
    sheet, shown = out / "false_positives.png", result.new_false_positives[:crops]
    sheet.unlink(missing_ok=True)  # of another baseline
    if shown:
        pixels = (images[error.image][0].permute(1, 2, 0).numpy() for error in shown)
        pictures = [draw_false_positive(image, error.box) for image, error in zip(pixels, shown, strict=True)]
        with atomic_write(sheet, "wb") as file:
            draw_sheet(pictures, shown).save(file, format="png")
    write_record(out / "diagnosis.json", result)
