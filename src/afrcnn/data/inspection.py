"""Inspecting image files before anything slow: can they be read, and do they have the sizes of their annotations?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image

from afrcnn.core.errors import UnreadableImageError, UserError
from afrcnn.core.image_warnings import collecting, warn_of
from afrcnn.core.terminal import printable
from afrcnn.data.annotations import count_of
from afrcnn.data.faults import UNREADABLE
from afrcnn.data.image import open_image, read_image, upright_size
from afrcnn.data.target import DetectionDataset

_CUT_OFF = "JPEG files that end too early"
_WRONG_SIZE = "images of another size than their annotations say"
_MISSING = "images that are missing or may not be read"


class _ImageFault(NamedTuple):
    """What is wrong with an image's file.

    Attributes:
        kind: what it is, a plural noun.
        error: the file and what is wrong.
        consequence: a training stops at it, leaves it out, or reads it as it is and warns of it.
    """

    kind: str
    error: UserError
    consequence: Literal["stops", "left out", "read"]


def image_faults(path: Path, size: tuple[int, int], *, decode: bool = False) -> Iterator[_ImageFault]:
    """Yield what is wrong with an image's file.

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
            error = UserError(problem, file=path, fix="correct the size or replace the image")
            yield _ImageFault(_WRONG_SIZE, error, "stops")
        if decode or not whole:
            with collecting() as warnings:
                read_image(path)
            for warning in warnings:
                yield _ImageFault(_CUT_OFF, warning.error, "read")
    except UnreadableImageError as error:
        yield _ImageFault(UNREADABLE, error, "left out")
    except UserError as error:
        yield _ImageFault(_MISSING, error, "stops")


def require_readable(dataset: DetectionDataset, *, strict: bool = False) -> None:
    """Refuse a dataset with an image that would stop a training, at once and not when its turn comes.

    Reads the first and last bytes of every file, and decodes those that do not end as their format does. Warns of
    those that will be left out, and of JPEG files that end too early (``ImageWarning``).

    Args:
        dataset: the images.
        strict: refuse the latter, too.

    Raises:
        UserError: an image is missing, or not of its annotation's size; says how many.
    """
    faults = [
        fault
        for index in range(len(dataset))
        for fault in image_faults(dataset.image_path(index), dataset.image_size(index))
    ]
    if refused := [fault for fault in faults if strict or fault.consequence == "stops"]:
        counts = ", ".join(f"{count} {kind}" for kind, count in Counter(fault.kind for fault in refused).items())
        problem = f"of {count_of(len(dataset), 'image')}: {counts}; the first: {refused[0].error}"
        raise UserError(problem, file=dataset.root, fix=f"`afrcnn check {dataset.root}` lists them")
    for fault in faults:
        warn_of(fault.error, left_out=fault.consequence == "left out")


def announce(dataset: DetectionDataset, heading: str = "data", *, strict: bool = False) -> None:
    """Say in a line what is in a dataset that is to be worked on for long, once it is known to be readable.

    Args:
        dataset: the dataset.
        heading: what it is, in at most seven letters.
        strict: as of :func:`require_readable`.

    Raises:
        UserError: as of :func:`require_readable`.
    """
    require_readable(dataset, strict=strict)
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
