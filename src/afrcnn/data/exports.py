"""COCO's JSON as labelling tools export it: beside the images, a file a split or one for all."""

from __future__ import annotations

from pathlib import Path

from afrcnn.data.coco import COCOLayout
from afrcnn.data.folders import WHOLE

_BESIDE = "_annotations.coco.json"
"""Roboflow's file, in the folder of a split's images."""

_WITH_FOLDER = {"result.json": "images", "labels.json": "data"}
"""The files of Label Studio and FiftyOne, and the folders of images beside them."""


class ExportLayout(COCOLayout):
    """Datasets in COCO's format, at the places of tools that export it; otherwise as ``COCOLayout``.

    Roboflow writes ``<split>/_annotations.coco.json`` among the split's images, Label Studio ``result.json`` beside
    ``images``, FiftyOne ``labels.json`` beside ``data``, in a folder for each split or in one. A file that lies in the
    folder itself makes the split ``all``. CVAT's ``annotations/instances_*.json`` is COCO's own layout.
    """

    name = "export"
    signature = "COCO's as exported (_annotations.coco.json, result.json + images/, labels.json + data/)"

    def splits(self, root: Path) -> list[str]:
        """Return the splits of a dataset."""
        return sorted(_split_files(root))

    def split_file(self, root: Path, split: str) -> Path:
        """Return the file that makes a split; of a new one, as Roboflow has it."""
        return _split_files(root).get(split, root / split / _BESIDE)

    def image_folders(self, root: Path, split: str) -> list[Path]:
        """Return the folders that the images of a split may lie in."""
        file = self.split_file(root, split)
        return [file.parent / _WITH_FOLDER.get(file.name, ""), file.parent]


def _split_files(root: Path) -> dict[str, Path]:
    """Return the file of each split."""
    files: dict[str, Path] = {}
    for folder in (root, *sorted(path for path in root.glob("[!.]*") if path.is_dir())):
        places = [folder / _BESIDE]
        places += [folder / name for name, images in _WITH_FOLDER.items() if (folder / images).is_dir()]
        for place in places:
            if place.is_file():
                files.setdefault(WHOLE if folder == root else folder.name, place)
    return files
