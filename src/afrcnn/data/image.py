"""Reading images: every format becomes 3 x H x W, uint8, RGB, or one line that names the file."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from afrcnn.core.errors import UserError

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow's decoders raise on broken files of the various formats."""


@contextmanager
def open_image(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """Open an image, of which only the header is read until more is asked for.

    Args:
        path: the image's file.
        content: the file's bytes, where it is not on this machine.

    Raises:
        UserError: the file is missing or not an image, or what the block reads of it is broken.
    """
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            yield image
    except FileNotFoundError as error:
        raise UserError("the image is missing", file=path, fix="restore it or remove it from the split") from error
    except _BROKEN as error:
        problem = f"the image cannot be decoded ({error})"
        raise UserError(problem, file=path, fix="replace the file; it may be truncated") from error


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of the formats that can be read, in lower case, as ``.webp``."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN)


def read_image(
    path: Path, *, upright: bool = False, size: tuple[int, int] | None = None, content: bytes | None = None
) -> tv_tensors.Image:
    """Decode an image.

    Pillow decodes, because it refuses truncated files in every version; OpenCV's older versions fill the
    missing rows with grey, and torchvision's own decoders are to be removed. Greyscale, palette and CMYK
    images are converted, transparency is dropped, and 16-bit greyscale keeps its upper 8 bits.

    Args:
        path: the image's file.
        upright: turn the image as its EXIF says, for images straight from a camera.
        size: height and width that an image's annotation has. It tells whether the tool that wrote the boxes turned
            the image: only where the pixels as they are stored have this size, and turned have not, they stay as
            they are. Most tools show images upright, and so they are taken where the size does not tell.
        content: the file's bytes, where it is not on this machine.

    Returns:
        The image, 3 x H x W, uint8, RGB.

    Raises:
        UserError: the file is missing, truncated, or not an image.
    """
    with open_image(path, content) as image:
        stored = (image.height, image.width)
        turn = upright or (size is not None and not (stored == size != upright_size(image)))
        return F.to_image(to_rgb(image, upright=turn))


def to_rgb(image: Image.Image, *, upright: bool = False) -> Image.Image:
    """Return a picture of Pillow of any mode as RGB; see ``read_image``."""
    if upright:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255 instead of scaling
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def read_image_size(path: Path, *, upright: bool = False) -> tuple[int, int]:
    """Return the height and width of an image in pixels, from the file's header alone.

    Args:
        path: the image's file.
        upright: the size of the image turned as its EXIF says.

    Raises:
        UserError: the file is missing or not an image.
    """
    with open_image(path) as image:
        return upright_size(image) if upright else (image.height, image.width)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the height and width that an opened image has once it is turned as its EXIF says."""
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(5, 9)
    return (image.width, image.height) if turned else (image.height, image.width)
