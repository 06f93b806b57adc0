"""Pairs of an image and VOC's XML file, in any folders, without lists: what labelImg and Roboflow write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from afrcnn.core.errors import UserError
from afrcnn.data.annotations import AnnotatedImages
from afrcnn.data.faults import Faults, collected
from afrcnn.data.folders import (
    ANNOTATION_FOLDERS,
    IMAGE_FOLDERS,
    WHOLE,
    image_ids,
    list_content,
    list_file,
    listed_splits,
    listed_subset,
    split_of,
    walk,
    walk_images,
)
from afrcnn.data.voc_xml import read_pairs


class PairsLayout:
    """Datasets of images with an XML file of the same name for each, as VOC's are inside.

    The XML file lies beside its image, or in a folder of annotations (``Annotations``, ``annots``, ``xmls``, ...)
    beside that of images (``JPEGImages``, ``images``, ...). Folders called train, valid, test and the like make
    splits. Where there are none, the whole is one split, ``all``. An image without an XML file was not annotated, and
    is left out.
    """

    name = "pairs"
    signature = "pairs of XML files and images (images/ + annots/, or side by side)"
    linked: tuple[str, ...] = ()

    def recognises(self, root: Path) -> bool:
        """Tell whether a folder has this layout: an XML file not too deep in it, and no lists of VOC's."""
        if any(any(root.glob(pattern)) for pattern in ("ImageSets/Main", "*/ImageSets/Main")):
            return False
        candidates = (path for depth in ("", "*/", "*/*/", "*/*/*/") for path in root.glob(f"{depth}*.[xX][mM][lL]"))
        return any(not any(name[0] == "." for name in path.relative_to(root).parts) for path in candidates)

    def splits(self, root: Path) -> list[str]:
        """Return the splits of a dataset."""
        return sorted({split_of(file) or WHOLE for file in walk(root, {".xml"})} | set(listed_splits(root)))

    def open(
        self, root: Path, split: str, classes: Sequence[str] | None = None, faults: Faults | None = None
    ) -> AnnotatedImages:
        """Read a split.

        Args:
            root: the folder.
            split: a folder that is called so, ``all``, or a list of images, ``splits/<split>.txt``.
            classes: the names of the classes 1..K; by default those of all XML files, in alphabetical order.
            faults: where mistakes are noted, in place of raising the first.

        Raises:
            UserError: something in the folder is missing, malformed or contradictory; the message names it.
        """
        annotations, listed = walk(root, {".xml"}), split in listed_splits(root)
        chosen = [file for file in annotations if listed or split == WHOLE or split_of(file) == split]
        images: dict[str, list[str]] = {}
        for image in walk_images(root):
            images.setdefault(PurePosixPath(image).stem, []).append(image)
        files, annotation_files = list[str](), list[str]()
        for file in chosen:
            with collected(faults, "missing images"):
                files.append(_find_image(root, file, images.get(PurePosixPath(file).stem, [])))
                annotation_files.append(file)
        if not files and faults is None:
            raise UserError("the split has no images", file=root, field=split)
        pairs = zip(files, annotation_files, strict=True)
        by_id = dict(zip(image_ids(files), pairs, strict=True))
        dataset = read_pairs(root, by_id, classes, [root / file for file in annotations], True, faults)
        return listed_subset(dataset, list_file(root, split)) if listed else dataset

    def split_file(self, root: Path, split: str) -> Path:
        """Return the file that makes a split."""
        return list_file(root, split)

    def split_content(self, dataset: AnnotatedImages, indices: Sequence[int]) -> str:
        """Return the file of a split of some images of a dataset."""
        return list_content(dataset, indices)


def _find_image(root: Path, annotation: str, candidates: Sequence[str]) -> str:
    """Return the image of an XML file, of those with its stem: beside it, in the folder of images, or the only one."""
    folder = PurePosixPath(annotation).parent
    folders = [folder]
    for at, name in enumerate(folder.parts):
        if name in ANNOTATION_FOLDERS:
            before, after = folder.parts[:at], folder.parts[at + 1 :]
            folders += [PurePosixPath(*before, images, *after) for images in ("", *IMAGE_FOLDERS)]
    for place in folders:
        if matches := [file for file in candidates if PurePosixPath(file).parent == place]:
            return matches[0]
    if len(candidates) != 1:
        problem = f"{len(candidates)} images have its name" if candidates else "the image of this annotation is missing"
        fix = "put it beside the annotation, or into a folder images beside that of annotations"
        raise UserError(problem, file=root / annotation, fix=fix)
    return candidates[0]
