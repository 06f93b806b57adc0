"""Checking a dataset: all that is wrong with it, with counts and examples, before an hour is lost."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import joblib
from PIL import ExifTags

from afrcnn.core.errors import UserError
from afrcnn.core.workers import end_with_parent
from afrcnn.data.annotations import AnnotatedImages, count_of
from afrcnn.data.faults import ODD_AREAS, UNREADABLE, Faults
from afrcnn.data.folders import walk_images
from afrcnn.data.image import fingerprint, open_image, upright_size
from afrcnn.data.inspection import _ImageFault, image_faults
from afrcnn.data.layouts import find_layout, list_splits, open_dataset

_SHORT_SIDE, _LONG_SIDE, _CELL = 600, 1000, 16
"""What Fast R-CNN resizes images to, and the side of a cell of its features, in pixels."""


_Consequence = Literal["error", "left out", "note"]

_CheckedFile = tuple[list[_ImageFault], bytes | None, str | None]
"""What is wrong with an image, its fingerprint, and how EXIF turns it; None where it cannot be decoded or is not."""

_CONSEQUENCES: dict[str, _Consequence] = {UNREADABLE: "left out", ODD_AREAS: "note"}
"""Of faults that do not stop a training."""


@dataclass(frozen=True)
class Finding:
    """One kind of thing that is wrong, or that one should know.

    Attributes:
        kind: what it is, a plural noun.
        messages: one for each time that it was met, the file first.
        consequence: a training would stop at it, would go on without it, or it is no more than a note.
    """

    kind: str
    messages: tuple[str, ...]
    consequence: _Consequence


@dataclass(frozen=True)
class DatasetCheck:
    """What a check of a dataset found.

    Attributes:
        layout: how the layout was recognised.
        splits: of each split that could be opened, what is in it, in words.
        findings: those that stop a training first.
    """

    layout: str
    splits: dict[str, str]
    findings: tuple[Finding, ...]

    @property
    def stops(self) -> bool:
        """Whether something would stop a training."""
        return any(finding.consequence == "error" for finding in self.findings)

    @property
    def leaves_out(self) -> bool:
        """Whether a training would go on without some of the images, and say so at its end."""
        return any(finding.consequence == "left out" for finding in self.findings)


def check_dataset(
    root: Path | str,
    layout: str = "auto",
    progress: Callable[[int, int], object] | None = None,
    *,
    jobs: int = 1,
) -> DatasetCheck:
    """Read all annotations of a dataset and decode all its images, and tell everything that is wrong.

    Args:
        root: the folder.
        layout: the name of the layout, or ``"auto"`` for the one that the folder has.
        progress: called with the number of images that have been decoded, and of all.
        jobs: processes that decode images; -1 is one for each core. What is found is the same, in the same order.

    Raises:
        UserError: the folder has no layout or several.
    """
    reader, faults, notes = find_layout(root, layout), Faults(), Faults()
    datasets: dict[str, AnnotatedImages] = {}
    for split in list_splits(root, layout):
        try:
            datasets[split] = open_dataset(root, split, layout, faults=faults)
        except UserError as error:
            faults.add("splits that cannot be opened", error)
    if not datasets and not faults.messages:
        faults.add("splits that cannot be opened", UserError("has no split", file=root))
    _check_images(datasets, faults, notes, progress, jobs)
    _check_classes(datasets, notes)
    _check_objects(datasets, notes)
    used = {dataset.image_path(index).resolve() for dataset in datasets.values() for index in range(len(dataset))}
    folders = {Path(file).parent for dataset in datasets.values() for file in dataset.files}
    for image in walk_images(Path(root)):
        if Path(image).parent in folders and (Path(root) / image).resolve() not in used:
            notes.add("images that no split has", Path(root) / image)
    for folder, inner, _ in os.walk(root):
        for path in (Path(folder, name) for name in inner if Path(folder) != Path(root)):
            if path.is_symlink() and not path.resolve().is_relative_to(Path(root).resolve()):
                notes.add("links to folders outside the dataset, which are passed over", f"{path}: {path.resolve()}")
    findings = [
        Finding(kind, tuple(dict.fromkeys(messages)), _CONSEQUENCES.get(kind, "error"))
        for kind, messages in faults.messages.items()
    ]
    findings += [Finding(kind, tuple(dict.fromkeys(messages)), "note") for kind, messages in notes.messages.items()]
    findings.sort(key=lambda finding: get_args(_Consequence).index(finding.consequence))
    return DatasetCheck(
        reader.signature, {split: dataset.describe() for split, dataset in datasets.items()}, tuple(findings)
    )


def _check_images(
    datasets: Mapping[str, AnnotatedImages],
    faults: Faults,
    notes: Faults,
    progress: Callable[[int, int], object] | None,
    jobs: int,
) -> None:
    """Decode all images; note those that are broken, turned by EXIF, or there twice."""
    images = [(split, dataset, index) for split, dataset in datasets.items() for index in range(len(dataset))]
    copies = defaultdict[bytes, list[tuple[str, Path]]](list)
    files = [(dataset.image_path(index).absolute(), dataset.image_size(index)) for _, dataset, index in images]
    checked = zip(images, _check_files(files, jobs), strict=True)
    for done, ((split, dataset, index), (problems, key, orientation)) in enumerate(checked, start=1):
        path = dataset.image_path(index)
        for kind, error, consequence in problems:
            # Under its name as it was given, which another process may not find.
            named = UserError(error.problem, file=path, field=error.field, fix=error.fix)
            (notes if consequence == "read" else faults).add(kind, named)
        if key is not None:
            copies[key].append((split, path))
        if orientation is not None:
            notes.add("images that EXIF turns", f"{path}: {orientation}")
        annotation = dataset.root / dataset.annotation_files[index]
        if dataset.annotated and not annotation.is_file():
            notes.add("images without a file of boxes, taken to show no object", path)
        if progress:
            progress(done, len(images))
    for places in copies.values():
        first = dict(reversed(places))  # of each split, the first with this content
        for split, path in places:
            if path != first[split]:
                notes.add("images that are there twice", f"{path}: has the content of {first[split]}")
        (split, path), *further = dict.fromkeys((split, first[split]) for split, _ in places)
        for other, copy in further:
            notes.add("images that are in two splits", f"{copy} of {other}: has the content of {path} of {split}")


def _check_files(files: Sequence[tuple[Path, tuple[int, int]]], jobs: int) -> Iterator[_CheckedFile]:
    """Yield what :func:`_check_file` tells of each image, in order, by some processes.

    Raises:
        UserError: one of them has ended.
    """
    options = {} if jobs == 1 else {"initializer": end_with_parent}
    with joblib.parallel_config(backend="loky", n_jobs=jobs, **options):
        try:
            yield from joblib.Parallel(return_as="generator")(joblib.delayed(_check_file)(*file) for file in files)
        except BrokenProcessPool as error:
            problem = "a worker that decodes images has ended; the memory may be full"
            raise UserError(problem, fix="start again with fewer, as --jobs 1") from error


def _check_file(path: Path, size: tuple[int, int]) -> _CheckedFile:
    """Return what is wrong with an image, and, where it can be decoded, its fingerprint and how EXIF turns it."""
    problems = list(image_faults(path, size, decode=True))
    if any(consequence == "left out" for _, _, consequence in problems) or not path.is_file():
        return problems, None, None
    return problems, fingerprint(path), _orientation(path, size)


def _orientation(path: Path, size: tuple[int, int]) -> str | None:
    """Return how EXIF turns an image, and how its boxes are understood; None where it does not."""
    with open_image(path) as image:
        stored, upright = (image.height, image.width), upright_size(image)
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation in range(2, 9):
        if stored == upright:
            reading = "its size does not tell whether boxes are of it upright; so they are taken"
        else:
            reading = "its boxes are of it as stored" if size == stored else "its boxes are of it upright"
        return f"orientation {orientation}; {reading}"
    return None


def _check_classes(datasets: Mapping[str, AnnotatedImages], notes: Faults) -> None:
    """Note classes that look like one, and those that are in one split alone, or nowhere."""
    counts = {split: dataset.object_counts() for split, dataset in datasets.items() if dataset.annotated}
    names = list(dict.fromkeys(name for of_split in counts.values() for name in of_split))
    by_key = defaultdict[str, list[str]](list)
    for name in names:
        by_key[re.sub(r"[\W_]+", "", name.casefold()).removesuffix("s") or name].append(name)
    for spellings in by_key.values():
        if len(spellings) > 1:
            totals = (f"{name!r} ({sum(of_split.get(name, 0) for of_split in counts.values())})" for name in spellings)
            notes.add("classes under several spellings", " and ".join(totals))
    for name in names:
        splits = [split for split, of_split in counts.items() if of_split.get(name)]
        if not splits:
            notes.add("classes without any object", name)
        elif len(splits) < len(counts) and len(splits) == 1:
            notes.add("classes with objects in one split alone", f"{name}: {splits[0]}")


def _check_objects(datasets: Mapping[str, AnnotatedImages], notes: Faults) -> None:
    """Note objects that are annotated twice, or too small to be seen."""
    small = f"objects smaller than a cell ({_CELL} pixels, in images of {_SHORT_SIDE})"
    for dataset in datasets.values():
        for index in range(len(dataset)):
            target, (height, width) = dataset.target(index), dataset.image_size(index)
            scale = min(_SHORT_SIDE / min(height, width), _LONG_SIDE / max(height, width))
            objects = Counter(_objects(dataset, target["labels"].tolist(), target["boxes"].tolist()))
            path = dataset.image_path(index)
            for (name, (x1, y1, x2, y2)), count in objects.items():
                box = f"{path}: {name} from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g})"
                if max(x2 - x1, y2 - y1) * scale < _CELL:
                    notes.add(small, box)
                if count > 1:
                    notes.add("objects that are annotated several times", f"{box}, {count_of(count, 'time')}")


def _objects(
    dataset: AnnotatedImages, labels: Iterable[int], boxes: Iterable[list[float]]
) -> list[tuple[str, tuple[float, ...]]]:
    """Return class and box of each object."""
    return [(dataset.classes[label - 1], tuple(box)) for label, box in zip(labels, boxes, strict=True)]
