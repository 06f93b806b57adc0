"""Datasets of images with boxes, in PASCAL VOC and COCO layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from afrcnn.core.errors import UserError
from afrcnn.data.coco import COCODataset
from afrcnn.data.target import DetectionDataset, Target
from afrcnn.data.voc import VOCDataset

__all__ = ["COCODataset", "DetectionDataset", "Target", "VOCDataset", "open_dataset"]


def open_dataset(
    root: Path | str,
    split: str,
    layout: Literal["auto", "voc", "coco"] = "auto",
    classes: Sequence[str] | None = None,
) -> DetectionDataset:
    """Open a split of a dataset, whichever layout its folder has.

    Args:
        root: the folder.
        split: the split: a list in VOC's ``ImageSets/Main``, or COCO's ``annotations/instances_<split>.json``.
        layout: the layout, or ``"auto"`` to find it by these two.
        classes: the names of the classes 1..K; by default what the annotations say.

    Returns:
        The split.

    Raises:
        UserError: the folder has neither layout or both, or something in it is at fault.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError("no such folder", file=root, fix="give the folder of a dataset")
    if layout == "auto":
        # One level down, too: a folder of several years is VOC's, and VOCDataset says which one to name.
        voc = any(any(root.glob(pattern)) for pattern in ("ImageSets/Main", "*/ImageSets/Main"))
        coco = any(root.glob("annotations/instances_*.json"))
        if voc == coco:
            raise UserError(
                f"{'both' if voc else 'neither'} of PASCAL VOC's layout (ImageSets/Main/*.txt) and COCO's "
                "(annotations/instances_*.json) found",
                file=root,
                fix="say which layout to read" if voc else "give the folder that holds one of them",
            )
        layout = "voc" if voc else "coco"
    match layout:
        case "voc":
            return VOCDataset(root, split, classes)
        case "coco":
            return COCODataset(root, split, classes)
        case _:
            raise UserError(f"unknown layout {layout!r}", field="layout", fix="choose auto, voc or coco")
