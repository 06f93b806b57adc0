"""Splitting a dataset by occlusion: train on unoccluded objects, test on images where some occlude others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from afrcnn.core.atomic import atomic_write, writing
from afrcnn.core.errors import UserError
from afrcnn.data.annotations import AnnotatedImages
from afrcnn.data.layouts import find_layout
from afrcnn.data.overlap import OVERLAP, not_crowds, overlapped
from afrcnn.data.target import require_annotations


@dataclass(frozen=True)
class OcclusionSplit:
    """One of the two splits of a dataset by occlusion.

    Attributes:
        name: the split, as a recipe's ``data.train_split`` or ``data.test_split`` takes it.
        file: the list of its images (VOC layout) or its annotations (COCO layout).
        ids: its images, in the order of the split they come from.
        objects: by class, the number of its objects, crowd regions left out.
        overlapped: by class, how many of these another object overlaps.
    """

    name: str
    file: Path
    ids: list[str]
    objects: dict[str, int]
    overlapped: dict[str, int]


def split_by_occlusion(
    root: Path | str,
    split: str,
    *,
    names: Sequence[str] | None = None,
    overlap: float = OVERLAP,
    layout: str = "auto",
    out: Path | str | None = None,
) -> tuple[OcclusionSplit, OcclusionSplit]:
    """Divide the images of a split into those whose objects are all unoccluded, and the others.

    A detector trained on the first and tested on the second shows whether it finds occluded objects that its training
    never showed. Objects are unoccluded unless ``afrcnn.data.overlap.overlapped`` says that another one overlaps
    them; an image without objects is unoccluded, one with a crowd region is not. The splits depend on the annotations
    and nothing else. What is there already under their names is replaced only by the same.

    Args:
        root: the dataset, in any layout.
        split: the split.
        names: the names of the two new splits; ``unoccluded_<split>`` and ``occluded_<split>`` when None.
        overlap: the fraction of a box, in [0, 1], that another one covers at most of an unoccluded object.
        layout: the name of the dataset's layout, or ``"auto"`` to find it.
        out: a folder to make a dataset of the two splits in, with links to the images and annotations, where ``root``
            is to stay as it is; ``root`` itself when None.

    Returns:
        The unoccluded split, to train on, and the occluded one, to test on.

    Raises:
        UserError: the dataset is at fault or not annotated, a class has objects in one of the two only, or there is
            another split under one of the names; no split is written then.
    """
    if not 0 <= overlap <= 1:
        raise UserError(f"{overlap} is not a valid fraction", field="overlap", fix="give a number from 0 to 1")
    reader, target_root = find_layout(root, layout), Path(root if out is None else out)
    dataset = require_annotations(reader.open(Path(root), split))
    targets = [dataset.target(index) for index in range(len(dataset))]
    objects = [not_crowds(target) for target in targets]  # M of each image
    flags = [overlapped(target, overlap) for target in targets]  # M of each image
    occluded = [bool(flag.any() or not real.all()) for flag, real in zip(flags, objects, strict=True)]
    splits, contents = [], []
    for name, wanted in zip(names or (f"unoccluded_{split}", f"occluded_{split}"), (False, True), strict=True):
        indices = [index for index, value in enumerate(occluded) if value is wanted]
        ids = [dataset.ids[index] for index in indices]
        counts = []
        for chosen in (objects, flags):
            labels = Counter(n for i in indices for n in targets[i]["labels"][chosen[i]].tolist())
            counts.append({class_: labels[n] for n, class_ in enumerate(dataset.classes, start=1)})
        splits.append(OcclusionSplit(name, reader.split_file(target_root, name), ids, *counts))
        contents.append(reader.split_content(dataset, indices))
    for new, other in (splits, splits[::-1]):
        if absent := [name for name, n in new.objects.items() if n and not other.objects[name]]:
            problem = f"all objects of the class {absent[0]} are in images of {new.name}, none in {other.name}"
            fix = f"split where it is both occluded and unoccluded, or by another overlap than {overlap:g}"
            raise UserError(problem, file=dataset.root, field=split, fix=fix)
    for new, content in zip(splits, contents, strict=True):
        if new.file.exists() and new.file.read_bytes() != content.encode():
            raise UserError("another split has this name", file=new.file, fix="choose other names, or remove it")
    if target_root.resolve() != dataset.root.resolve():
        _link(dataset, reader.linked, target_root)
    for new, content in zip(splits, contents, strict=True):
        with atomic_write(new.file) as file:
            file.write(content)
    return splits[0], splits[1]


def _link(dataset: AnnotatedImages, linked: Sequence[str], root: Path) -> None:
    """Link what holds a dataset's images and their annotations, and what else serves all its splits, from elsewhere."""
    files = dataset.files if dataset.annotation_file else [*dataset.files, *dataset.annotation_files]
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
        for name in sorted({Path(file).parts[0] for file in files} | set(linked)):
            link, source = root / name, (dataset.root / name).resolve()
            if link.resolve() != source and source.exists():
                link.symlink_to(source)
