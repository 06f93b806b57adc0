"""The layouts of datasets: how each is recognised, opened, listed and split.

A further layout is one file with a class as ``_Layout`` describes it, and one entry there and in ``_LAYOUTS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from afrcnn.core.errors import UserError, require_dataset
from afrcnn.data.annotations import AnnotatedImages
from afrcnn.data.coco import COCOLayout
from afrcnn.data.voc import VOCLayout

_Layout = VOCLayout | COCOLayout
"""What a layout knows of itself.

================================  ==================================================================================
``name``                          its name in recipes and on the command line
``signature``                     what it is recognised by, for messages
``linked``                        the folders, besides those of images, that serve all splits of a dataset
``recognises(root)``              whether a folder has this layout
``splits(root)``                  the splits of a dataset
``open(root, split, classes)``    a split; classes are the names of the classes 1..K, by default those annotated
``split_file(root, split)``       the file that makes a split
``split_content(dataset, rows)``  the content of that file for some images of a dataset
================================  ==================================================================================
"""

_LAYOUTS: tuple[_Layout, ...] = (VOCLayout(), COCOLayout())


def find_layout(root: Path | str, layout: str = "auto") -> _Layout:
    """Return a layout by its name, or the one that a folder has.

    Raises:
        UserError: there is no such folder or layout, or the folder has no layout or several.
    """
    require_dataset(root)
    root = Path(root)
    if layout == "auto":
        candidates = [candidate for candidate in _LAYOUTS if candidate.recognises(root)]
        signatures = " and ".join(candidate.signature for candidate in candidates or _LAYOUTS)
        if not candidates:
            raise UserError(f"neither of {signatures} found", file=root, fix="give the folder that holds one of them")
        if len(candidates) > 1:
            raise UserError(f"both of {signatures} found", file=root, fix="say which layout to read")
    else:
        candidates = [candidate for candidate in _LAYOUTS if candidate.name == layout]
        if not candidates:
            *names, last = ("auto", *(candidate.name for candidate in _LAYOUTS))
            raise UserError(f"unknown layout {layout!r}", field="layout", fix=f"choose {', '.join(names)} or {last}")
    return candidates[0]


def open_dataset(
    root: Path | str, split: str, layout: str = "auto", classes: Sequence[str] | None = None
) -> AnnotatedImages:
    """Open a split of a dataset, whichever layout its folder has.

    Args:
        root: the folder.
        split: the split: a list in VOC's ``ImageSets/Main``, or COCO's ``annotations/instances_<split>.json``. Where
            its annotations are not published, the dataset says so: ``annotated``.
        layout: the name of the layout, or ``"auto"`` for the one that the folder has.
        classes: the names of the classes 1..K; by default what the annotations say.

    Returns:
        The split, a ``DetectionDataset``.

    Raises:
        UserError: the folder has no layout or several, or something in it is at fault.
    """
    return find_layout(root, layout).open(Path(root), split, classes)


def list_splits(root: Path | str, layout: str = "auto") -> list[str]:
    """Return the splits that together hold each image of a dataset once, as far as names tell.

    Left out are VOC's lists of single classes (``dog_trainval``), ``train`` and ``val`` where there is ``trainval``,
    and COCO's ``test-dev2017`` where there is ``test2017``.

    Raises:
        UserError: the folder has no layout or several.
    """
    splits = set(find_layout(root, layout).splits(Path(root)))
    splits -= {name for name in splits if name.replace("test-dev", "test") in splits - {name}}
    return sorted(splits - {"train", "val"} if "trainval" in splits else splits, reverse=True)  # trainval before test
