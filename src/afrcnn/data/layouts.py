"""The layouts of datasets: how each is recognised, opened, listed and split.

A further layout is one file with a class as ``_Layout`` describes it, and one entry there and in ``_LAYOUTS``.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from afrcnn.core.errors import UserError, require_dataset
from afrcnn.data.annotations import AnnotatedImages
from afrcnn.data.coco import MADE_BY_MINIVAL, COCOLayout
from afrcnn.data.exports import ExportLayout
from afrcnn.data.faults import Faults, collected
from afrcnn.data.folders import WHOLE, leading_out
from afrcnn.data.pairs import PairsLayout
from afrcnn.data.random_split import SEED, TEST_FRACTION, divide
from afrcnn.data.voc import VOCLayout
from afrcnn.data.yolo import YOLOLayout, yaml_file

_Layout = VOCLayout | PairsLayout | COCOLayout | YOLOLayout
"""What a layout knows of itself.

================================  ==================================================================================
``name``                          its name in recipes and on the command line
``signature``                     what it is recognised by, for messages
``linked``                        the folders, besides those of images, that serve all splits of a dataset
``recognises(root)``              whether a folder has this layout
``splits(root)``                  the splits of a dataset
``open(root, split, classes,      a split; classes are the names of the classes 1..K, by default those annotated;
faults)``                         mistakes are noted in faults, where given
``split_file(root, split)``       the file that makes a split
``split_content(dataset, rows)``  the content of that file for some images of a dataset
``image_file``, ``write``         of the layouts that others are converted to: the place of an image, and the writer
================================  ==================================================================================
"""

_LAYOUTS: tuple[_Layout, ...] = (VOCLayout(), PairsLayout(), COCOLayout(), ExportLayout(), YOLOLayout())

_STAND_INS = {
    "trainval": ("train",),
    "test": ("val", "valid", "validation"),
    "val": ("valid", "validation"),
    "valid": ("val", "validation"),
}
"""What is taken for a split that a dataset does not have, the first that there is: of those that tools make, train is
what one trains on. Never are val's images both in what is trained on and in what is tested on."""

_WITHOUT_SPLITS = (WHOLE, "default")
"""Names of the one split of datasets that have none; CVAT's is default."""

_RANDOM = ("trainval", "test")
"""The random splits of a dataset without splits."""


def find_layout(root: Path | str, layout: str = "auto") -> _Layout:
    """Return a layout by its name, or the one that a folder has.

    Raises:
        UserError: there is no such folder or layout, or the folder has no layout or several.
    """
    require_dataset(root)
    root = Path(root)
    if layout == "auto":
        candidates = [candidate for candidate in _LAYOUTS if candidate.recognises(root)]
        signatures = [candidate.signature for candidate in candidates or _LAYOUTS]
        if not candidates:
            problem = f"no layout of datasets is here; looked for {'; for '.join(signatures)}"
            raise UserError(problem, file=root, fix="give the folder that holds one of them; see docs/data.md")
        if len(candidates) > 1:
            choice = " or ".join(candidate.name for candidate in candidates)
            fix = f"say which layout to read, {choice}: --layout, data.layout in a recipe"
            raise UserError(f"both of {' and '.join(signatures)} found", file=root, fix=fix)
    else:
        candidates = [candidate for candidate in _LAYOUTS if candidate.name == layout]
        if not candidates:
            *names, last = ("auto", *(candidate.name for candidate in _LAYOUTS))
            raise UserError(f"unknown layout {layout!r}", field="layout", fix=f"choose {', '.join(names)} or {last}")
    return candidates[0]


def open_dataset(
    root: Path | str,
    split: str,
    layout: str = "auto",
    classes: Sequence[str] | None = None,
    *,
    field: str | None = None,
    faults: Faults | None = None,
) -> AnnotatedImages:
    """Open a split of a dataset, whichever layout its folder has.

    Another split stands for one that is not there: one that differs in capitals alone; ``train`` for ``trainval``
    (``val`` is left to choose by); ``valid`` for ``val``; and, of a dataset without ``test``, ``val`` for it. A dataset
    without splits has ``trainval`` and ``test``: a random fifth of its images, by class, is ``test``. Which split was
    opened, the dataset says: ``split``.

    Args:
        root: the folder.
        split: the split: a list in VOC's ``ImageSets/Main``, COCO's ``annotations/instances_<split>.json``, a folder,
            or whatever the layout has. Where its annotations are not published, the dataset says so: ``annotated``.
        layout: the name of the layout, or ``"auto"`` for the one that the folder has.
        classes: the names of the classes 1..K; by default what the annotations say.
        field: the recipe's field that names the split, for the message where it is missing.
        faults: where mistakes are noted, in place of raising the first; what is at fault is left out.

    Returns:
        The split, a ``DetectionDataset``.

    Raises:
        UserError: the folder has no layout or several, or something in it is at fault.
    """
    reader, root = find_layout(root, layout), Path(root)
    splits = reader.splits(root)
    name = _choose_split(reader, root, split, splits, field)
    if name in _RANDOM and _is_whole(splits):
        whole = _without_outside(reader.open(root, splits[0], classes, faults), faults)
        dataset = whole.subset(divide(whole, TEST_FRACTION, SEED)[_RANDOM.index(name)])
    else:
        dataset = _without_outside(reader.open(root, name, classes, faults), faults)
    dataset.split, dataset.layout = name, reader.name
    return dataset


def _without_outside(dataset: AnnotatedImages, faults: Faults | None) -> AnnotatedImages:
    """Return a dataset without images that links or ``..`` lead out of it, or whose annotations they do.

    Raises:
        UserError: there is one, and nothing to note it in.
    """
    files = [*dataset.files, *dataset.annotation_files]
    outside = leading_out(dataset.root, dataset.folders, files)
    for place in outside:
        path = dataset.root / files[place]
        with collected(faults, "files outside the dataset"):
            fix = "copy it into the dataset, or link its folder in the dataset's own"
            raise UserError(f"leads out of the dataset, to {path.resolve()}", file=path, fix=fix)
    excluded = {place % len(dataset) for place in outside}
    return dataset.subset([row for row in range(len(dataset)) if row not in excluded]) if excluded else dataset


def dataset_of(path: Path | str, layout: str = "auto") -> tuple[Path, str, list[str]]:
    """Return the folder of a dataset that may be named by one of its files, its layout, and the splits of that file.

    Args:
        path: the folder, YOLO's ``data.yaml``, or one of COCO's JSON files.
        layout: the name of the layout of a folder.

    Returns:
        The folder, the name of the layout (as it was given for a folder), and the splits that the file alone
        describes; none where it describes all.

    Raises:
        UserError: the file does not describe a dataset.
    """
    file = Path(os.path.normpath(path))
    if not file.is_file():
        return Path(path), layout, []
    file = file.absolute() if file.parent == Path() else file  # whose folder's folder has a name then
    for root in (file.parent, file.parent.parent):
        for reader in _LAYOUTS:
            if not reader.recognises(root):
                continue
            if isinstance(reader, YOLOLayout) and yaml_file(root) == file:
                return root, reader.name, []
            splits = [split for split in reader.splits(root) if reader.split_file(root, split) == file]
            if splits and isinstance(reader, COCOLayout):
                return root, reader.name, [] if _is_whole(reader.splits(root)) else splits
    fix = "give the dataset's folder, its data.yaml, or annotations/instances_*.json; see docs/data.md"
    raise UserError("does not describe a dataset", file=path, fix=fix)


def _choose_split(reader: _Layout, root: Path, split: str, splits: Sequence[str], field: str | None) -> str:
    """Return the split that is opened for one that is asked for, as :func:`open_dataset` says."""
    if split in splits or (_is_whole(splits) and split in _RANDOM) or reader.split_file(root, split).is_file():
        return split
    by_name = {name.lower(): name for name in reversed(splits)}
    stand_ins = () if split == "test" and "trainval" in by_name else _STAND_INS.get(split, ())
    for name in (split.lower(), *stand_ins):
        if name in by_name:
            return by_name[name]
    if not splits:
        return split  # whose opening says what is missing
    fix = f"choose one of {', '.join(splits)}" + (f", as --{field} {splits[0]}" if field else "")
    if reader.split_file(root, split).name in MADE_BY_MINIVAL:
        fix = "make it with `afrcnn minival`"
    if split in _RANDOM:
        fix += f"; `afrcnn split {root} --random {TEST_FRACTION:g}` makes {' and '.join(_RANDOM)}"
    raise UserError("the split is missing", file=reader.split_file(root, split), field=field, fix=fix)


def list_splits(root: Path | str, layout: str = "auto") -> list[str]:
    """Return the splits that together hold each image of a dataset once, as far as names tell.

    Left out are VOC's lists of single classes (``dog_trainval``), ``train`` and ``val`` where there is ``trainval``,
    COCO's ``test-dev2017`` where there is ``test2017``, its splits of years where there are ``trainval35k`` and
    ``minival``, and the whole where there are parts. Of a dataset without splits they are the random ones.

    Raises:
        UserError: the folder has no layout or several.
    """
    splits = set(find_layout(root, layout).splits(Path(root)))
    if _is_whole(splits):
        return list(_RANDOM)
    splits -= {WHOLE, *(("default",) if "trainval" in splits else ())}
    splits -= {name for name in splits if name.replace("test-dev", "test") in splits - {name}}
    if {"trainval35k", "minival"} <= splits:
        splits -= {"train2014", "val2014", "train2017", "val2017"}
    return sorted(splits - {"train", "val"} if "trainval" in splits else splits, reverse=True)  # trainval before test


def _is_whole(splits: Collection[str]) -> bool:
    """Tell whether a dataset with these splits has none."""
    return len(splits) == 1 and next(iter(splits)) in _WITHOUT_SPLITS
