"""Writing a dataset in another layout: images are copied, and what the layout has no place for is counted."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from afrcnn.core.atomic import writing
from afrcnn.core.errors import UserError
from afrcnn.data.annotations import AnnotatedImages
from afrcnn.data.coco import COCOLayout
from afrcnn.data.layouts import list_splits, open_dataset
from afrcnn.data.target import require_annotations
from afrcnn.data.voc import VOCLayout
from afrcnn.data.yolo import YOLOLayout

_WRITERS: tuple[VOCLayout | COCOLayout | YOLOLayout, ...] = (VOCLayout(), COCOLayout(), YOLOLayout())


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        folder: the new dataset.
        splits: of each split, what is in it, in words.
        lost: what the layout has no place for, and how often that was met.
    """

    folder: Path
    splits: dict[str, str]
    lost: dict[str, int]


def convert_dataset(
    root: Path | str,
    out: Path | str,
    to: Literal["voc", "coco", "yolo"],
    *,
    splits: Sequence[str] = (),
    layout: str = "auto",
    progress: Callable[[int], object] | None = None,
) -> Conversion:
    """Write a dataset in another layout, with copies of its images.

    Images keep the names of their files; where two have one name, those of their splits stand before it. The classes
    are those of all splits, in the order in which they are met. Nothing is written before all annotations have been
    read, and the folder is there when all is in it.

    Args:
        root: the dataset, in any layout.
        out: the folder to write; must be absent or empty.
        to: the layout to write.
        splits: the splits to write; those that hold each image once when empty.
        layout: the name of the dataset's layout, or ``"auto"`` to find it.
        progress: called with the number of images that are written, after each.

    Raises:
        UserError: the dataset is at fault or not annotated, an image cannot be read, or the folder cannot be written.
    """
    out, writer = Path(out), next(writer for writer in _WRITERS if writer.name == to)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError("is not empty", file=out, fix="choose another folder")
    opened = [open_dataset(root, split, layout) for split in splits or list_splits(root, layout)]
    datasets = {dataset.split: require_annotations(dataset) for dataset in opened}
    classes = list(dict.fromkeys(name for dataset in datasets.values() for name in dataset.classes))
    names, lost, done = _names(datasets), Counter[str](), 0
    with ExitStack() as stack:
        with writing(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            private = tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", ignore_cleanup_errors=True)
            # In a private folder, one with the permissions of any other.
            temporary = Path(stack.enter_context(private), out.name)
            temporary.mkdir()
        for split, dataset in datasets.items():
            files = [writer.image_file(split, name) for name in names[split]]
            for index, file in enumerate(files):
                with writing(out):
                    (temporary / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(dataset.image_path(index), temporary / file)
                done += 1
                if progress:
                    progress(done)
            lost.update(writer.write(temporary, split, dataset, files, classes))
        with writing(out):
            temporary.replace(out)
    written = {split: dataset.describe() for split, dataset in datasets.items()}
    return Conversion(out, written, {what: count for what, count in lost.items() if count})


def _names(datasets: Mapping[str, AnnotatedImages]) -> dict[str, list[str]]:
    """Return the names of the files of all images, no two of which have one stem."""
    stems = Counter(Path(file).stem.lower() for dataset in datasets.values() for file in dataset.files)
    names: dict[str, list[str]] = {}
    taken = set[str]()
    for split, dataset in datasets.items():
        names[split] = []
        for number, path in enumerate(map(Path, dataset.files)):
            stem = path.stem if stems[path.stem.lower()] == 1 else f"{split}_{path.stem}"
            stem = stem if stem.lower() not in taken else f"{split}_{number:06}_{path.stem}"
            taken.add(stem.lower())
            names[split].append(f"{stem}{path.suffix}")
    return names
