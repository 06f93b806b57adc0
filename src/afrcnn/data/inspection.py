"""Inspecting image files before anything slow: can they be read, and do they have the sizes of their annotations?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from afrcnn.core.errors import UserError
from afrcnn.core.terminal import printable
from afrcnn.data.annotations import count_of
from afrcnn.data.image import open_image, read_image, upright_size
from afrcnn.data.target import DetectionDataset

UNREADABLE = "unreadable images"
_WRONG_SIZE = "images of another size than their annotations say"


def image_faults(path: Path, size: tuple[int, int], *, decode: bool = False) -> Iterator[tuple[str, str]]:
    """Yield what would stop a training at an image: the kind, and a message that names the file.

    Args:
        path: the image's file.
        size: the height and width that its annotation has.
        decode: decode it whatever it looks like; otherwise only where its end does not look whole.
    """
    try:
        with open_image(path) as image:
            sizes, whole = {(image.height, image.width), upright_size(image)}, _looks_whole(image, path)
        if size not in sizes:
            (height, width), *_ = sizes
            problem = f"is {width} x {height} pixels, but its annotation says {size[1]} x {size[0]}"
            yield _WRONG_SIZE, str(UserError(problem, file=path, fix="correct the size or replace the image"))
        if decode or not whole:
            read_image(path)
    except UserError as error:
        yield UNREADABLE, str(error)


def require_readable(dataset: DetectionDataset) -> None:
    """Refuse a dataset with an image that would stop a training, at once and not when its turn comes.

    Reads the first and last bytes of every file, and decodes those that do not end as their format does.

    Raises:
        UserError: an image is missing, truncated, of no known format, or not of its annotation's size; says how many.
    """
    faults = [
        fault
        for index in range(len(dataset))
        for fault in image_faults(dataset.image_path(index), dataset.image_size(index))
    ]
    if faults:
        counts = ", ".join(f"{count} {kind}" for kind, count in Counter(kind for kind, _ in faults).items())
        problem = f"of {count_of(len(dataset), 'image')}: {counts}; the first: {faults[0][1]}"
        raise UserError(problem, file=dataset.root, fix=f"`afrcnn check {dataset.root}` lists them")


def announce(dataset: DetectionDataset, heading: str = "data") -> None:
    """Say in a line what is in a dataset that is to be worked on for long, once it is known to be readable.

    Args:
        dataset: the dataset.
        heading: what it is, in at most seven letters.

    Raises:
        UserError: as of :func:`require_readable`.
    """
    require_readable(dataset)
    print(printable(f"{heading + ':':8} {dataset.describe()}"), flush=True)


def _looks_whole(image: Image.Image, path: Path) -> bool:
    """Tell whether a file ends as its format does, of the formats that have an end."""
    with path.open("rb") as file:
        start = file.read(12)
        length = file.seek(0, 2)
        file.seek(max(0, length - 12))
        end = file.read()
    if image.format == "JPEG":
        return end.endswith(b"\xff\xd9")
    if image.format == "PNG":
        return end[4:8] == b"IEND"
    return image.format == "WEBP" and int.from_bytes(start[4:8], "little") + 8 <= length
