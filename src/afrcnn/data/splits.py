"""Splitting a dataset by what is hidden: train on objects in the open, test on images where some hide others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from afrcnn.core.atomic import atomic_write, writing
from afrcnn.core.errors import UserError
from afrcnn.data import open_dataset
from afrcnn.data.coco import COCODataset
from afrcnn.data.overlap import OVERLAP, overlapped
from afrcnn.data.target import DetectionDataset


@dataclass(frozen=True)
class Part:
    """What went into a part of a dataset.

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


def split_open_hidden(
    root: Path | str,
    split: str,
    *,
    names: tuple[str, str] | None = None,
    overlap: float = OVERLAP,
    layout: Literal["auto", "voc", "coco"] = "auto",
    out: Path | str | None = None,
) -> tuple[Part, Part]:
    """Part the images of a split into those whose objects are all in the open, and the others.

    A detector trained on the first and tested on the second shows whether it finds hidden objects that its training
    never showed. Objects are in the open unless ``afrcnn.data.overlap.overlapped`` says that another one overlaps
    them; an image without objects is open, one with a crowd region is not. The parts depend on the annotations and
    nothing else. What is there already under their names is replaced only by the same.

    Args:
        root: the dataset, in PASCAL VOC or COCO layout.
        split: the split.
        names: the names of the two new splits; ``open_<split>`` and ``hidden_<split>`` when None.
        overlap: the share of a box, in [0, 1], that another one covers at most of an object in the open.
        layout: the dataset's layout, or ``"auto"`` to find it.
        out: a folder to make a dataset of the two splits in, with links to the images and annotations, where ``root``
            is to stay as it is; ``root`` itself when None.

    Returns:
        The open part, to train on, and the hidden one, to test on.

    Raises:
        UserError: the dataset is at fault, a class has objects in one part only, or there is another split under one
            of the names; no split is written then.
    """
    if not 0 <= overlap <= 1:
        raise UserError(f"{overlap} is no share", field="overlap", fix="give a number from 0 to 1")
    dataset = open_dataset(root, split, layout)
    target = Path(root if out is None else out)
    images: tuple[list[int], list[int]] = ([], [])
    for index in range(len(dataset)):
        annotation = dataset.target(index)
        crowd = "iscrowd" in annotation and bool(annotation["iscrowd"].any())
        images[crowd or bool(overlapped(annotation, overlap).any())].append(index)
    parts = [
        _count(dataset, indices, target, name, overlap)
        for indices, name in zip(images, names or (f"open_{split}", f"hidden_{split}"), strict=True)
    ]
    for part, other in (parts, parts[::-1]):
        for class_name, count in part.objects.items():
            if count and not other.objects[class_name]:
                raise UserError(
                    f"all objects of the class {class_name} are in images of {part.name}, none in {other.name}",
                    file=dataset.root,
                    field=split,
                    fix=f"split where it is both in the open and hidden, or by another share than {overlap:g}",
                )
    contents = [_content(dataset, indices) for indices in images]
    for part, content in zip(parts, contents, strict=True):
        if part.file.exists() and part.file.read_bytes() != content.encode():
            raise UserError("another split has this name", file=part.file, fix="choose other names, or remove it")
    if target.resolve() != dataset.root.resolve():
        _link(dataset, target)
    for part, content in zip(parts, contents, strict=True):
        with atomic_write(part.file) as file:
            file.write(content)
    return parts[0], parts[1]


def _count(dataset: DetectionDataset, indices: Sequence[int], root: Path, name: str, overlap: float) -> Part:
    """Count what is in a part."""
    objects, hidden = Counter[int](), Counter[int]()
    for index in indices:
        annotation = dataset.target(index)
        labels = annotation["labels"]
        objects.update(labels[~annotation["iscrowd"]].tolist() if "iscrowd" in annotation else labels.tolist())
        hidden.update(labels[overlapped(annotation, overlap)].tolist())
    coco = isinstance(dataset, COCODataset)
    return Part(
        name,
        root / (f"annotations/instances_{name}.json" if coco else f"ImageSets/Main/{name}.txt"),
        [dataset.ids[index] for index in indices],
        {class_name: objects[label] for label, class_name in enumerate(dataset.classes, start=1)},
        {class_name: hidden[label] for label, class_name in enumerate(dataset.classes, start=1)},
    )


def _content(dataset: DetectionDataset, indices: Sequence[int]) -> str:
    """Return a part's list of images, or its annotations with all that COCO's file says, masks included."""
    if not isinstance(dataset, COCODataset):
        return "".join(f"{dataset.ids[index]}\n" for index in indices)
    content = json.loads(dataset.annotation_file.read_text(encoding="utf-8-sig"))
    # The images stay where they are; from the dataset's folder on, a file is found under any name of a split.
    files = {int(dataset.ids[index]): _relative(dataset, index).as_posix() for index in indices}
    content["images"] = [
        image | {"file_name": files[image["id"]]} for image in content["images"] if image["id"] in files
    ]
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] in files]
    return json.dumps(content)


def _link(dataset: DetectionDataset, target: Path) -> None:
    """Link the folders of a dataset's images, and of VOC's annotations, from another folder."""
    names = {_relative(dataset, index).parts[0] for index in range(len(dataset))}
    if not isinstance(dataset, COCODataset):
        names.add("Annotations")
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
        for name in sorted(names):
            link, source = target / name, (dataset.root / name).resolve()
            if link.resolve() != source:
                link.symlink_to(source)


def _relative(dataset: DetectionDataset, index: int) -> Path:
    return dataset.image_path(index).relative_to(dataset.root)
