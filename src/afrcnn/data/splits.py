"""Splitting a dataset: by occlusion, to test on images where objects occlude others, or at random, by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from afrcnn.core.atomic import atomic_write, writing
from afrcnn.core.errors import UserError
from afrcnn.data.annotations import AnnotatedImages
from afrcnn.data.layouts import find_layout, open_dataset
from afrcnn.data.overlap import OVERLAP, not_crowds, overlapped
from afrcnn.data.random_split import SEED, TEST_FRACTION, divide
from afrcnn.data.target import require_annotations


@dataclass(frozen=True)
class OcclusionSplit:
    """One of the two splits that a dataset was divided into, with what tells how occluded its objects are.

    Attributes:
        name: the split, as a recipe's ``data.train_split`` or ``data.test_split`` takes it.
        file: the list of its images, or, of COCO's layouts, its annotations.
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
    dataset = require_annotations(open_dataset(root, split, layout))
    targets = [dataset.target(index) for index in range(len(dataset))]
    objects = [not_crowds(target) for target in targets]  # M of each image
    flags = [overlapped(target, overlap) for target in targets]  # M of each image
    occluded = [bool(flag.any() or not real.all()) for flag, real in zip(flags, objects, strict=True)]
    indices = [[index for index, value in enumerate(occluded) if value is wanted] for wanted in (False, True)]
    return _write_splits(
        dataset,
        dict(zip(names or (f"unoccluded_{split}", f"occluded_{split}"), indices, strict=True)),
        layout,
        out,
        overlap=overlap,
        fix=f"split where it is both occluded and unoccluded, or by another overlap than {overlap:g}",
    )


def split_at_random(
    root: Path | str,
    split: str | None = None,
    *,
    fraction: float = TEST_FRACTION,
    seed: int = SEED,
    names: Sequence[str] | None = None,
    layout: str = "auto",
    out: Path | str | None = None,
) -> tuple[OcclusionSplit, OcclusionSplit]:
    """Divide the images of a split, or of a dataset without splits, at random and by class.

    The splits are the same on every machine; see ``afrcnn.data.random_split.divide``. What is there already under their
    names is replaced only by the same.

    Args:
        root: the dataset, in any layout.
        split: the split; the only one that there is when None.
        fraction: of the images to test on, between 0 and 1.
        seed: another seed, another division.
        names: the names of the two new splits; ``trainval`` and ``test`` when None.
        layout: the name of the dataset's layout, or ``"auto"`` to find it.
        out: as of :func:`split_by_occlusion`.

    Returns:
        The split to train on, and the one to test on.

    Raises:
        UserError: the dataset is at fault, not annotated, or has several splits and none is named; the fraction is out
            of range; or there is another split under one of the names; no split is written then.
    """
    names = ("trainval", "test") if names is None else names
    if split is None:
        native = [name for name in find_layout(root, layout).splits(Path(root)) if name not in names]
        if len(native) != 1:
            problem, fix = f"has the splits {', '.join(native)}", "name the one to divide"
            raise UserError(problem if native else "has no images to divide", file=root, field="split", fix=fix)
        [split] = native
    dataset = require_annotations(open_dataset(root, split, layout))
    divided = divide(dataset, fraction, seed)
    return _write_splits(dataset, dict(zip(names, divided, strict=True)), layout, out, overlap=OVERLAP)


def _write_splits(
    dataset: AnnotatedImages,
    divided: Mapping[str, Sequence[int]],
    layout: str,
    out: Path | str | None,
    *,
    overlap: float,
    fix: str | None = None,
) -> tuple[OcclusionSplit, OcclusionSplit]:
    """Write two splits of the images of a dataset, the indices of each by its name.

    Where ``fix`` says what to do about it, a class with objects in one of the two only is refused.
    """
    reader, target_root = find_layout(dataset.root, layout), dataset.root if out is None else Path(out)
    targets = [dataset.target(index) for index in range(len(dataset))]
    objects = [not_crowds(target) for target in targets]  # M of each image
    flags = [overlapped(target, overlap) for target in targets]  # M of each image
    splits, contents = [], []
    for name, indices in divided.items():
        counts = []
        for chosen in (objects, flags):
            labels = Counter(n for i in indices for n in targets[i]["labels"][chosen[i]].tolist())
            counts.append({class_: labels[n] for n, class_ in enumerate(dataset.classes, start=1)})
        ids = [dataset.ids[index] for index in indices]
        splits.append(OcclusionSplit(name, reader.split_file(target_root, name), ids, *counts))
        contents.append(reader.split_content(dataset, indices))
    for new, other in (splits, splits[::-1]):
        absent = [name for name, n in new.objects.items() if n and not other.objects[name]]
        if absent and fix is not None:
            problem = f"all objects of the class {absent[0]} are in images of {new.name}, none in {other.name}"
            raise UserError(problem, file=dataset.root, field=dataset.split, fix=fix)
    for new, content in zip(splits, contents, strict=True):
        taken = new.name in reader.splits(target_root) and not new.file.exists()
        if taken or (new.file.exists() and new.file.read_bytes() != content.encode()):
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
