"""Reading images: every format becomes 3 x H x W, uint8, RGB, or one line that names the file."""

from __future__ import annotations

import hashlib
import io
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from afrcnn.core.errors import UnreadableImageError, UserError
from afrcnn.core.image_warnings import warn_of

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow's decoders raise on broken files of the various formats."""


_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"

_MOST_ELONGATED = 500
"""The largest ratio of an image's sides: detectors see the longer one as some 1000 pixels."""


@contextmanager
def open_image(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """Open an image, of which only the header is read until more is asked for.

    Args:
        path: the image's file.
        content: the file's bytes, where it is not on this machine.

    Raises:
        UnreadableImageError: the file is not an image, or what the block reads of it is broken.
        UserError: the file is missing or may not be read.
    """
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            yield image
    except FileNotFoundError as error:
        raise UserError("the image is missing", file=path, fix="restore it or remove it from the split") from error
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's error, not a decoder's
            raise UserError(f"the image cannot be read ({error.strerror})", file=path, fix="try again") from error
        problem = f"the image cannot be decoded ({error})"
        raise UnreadableImageError(problem, file=path, fix="replace the file; it may be truncated") from error


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of the formats that can be read, in lower case, as ``.webp``."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN)


def read_image(
    path: Path,
    *,
    upright: bool = False,
    size: tuple[int, int] | None = None,
    most_pixels: int | None = None,
    content: bytes | None = None,
) -> tv_tensors.Image:
    """Decode an image.

    Pillow decodes, because it refuses truncated files in every version, and torchvision's own decoders are to be
    removed. A JPEG that ends too early gets its end marker, as libjpeg's own reader of files gives it one: what is
    missing becomes grey, as other readers show it, with a warning (``ImageWarning``). Greyscale, palette and CMYK
    images are converted, transparency is dropped, 16-bit greyscale keeps its upper 8 bits, and floating point from 0
    to 1 is scaled to 0 to 255.

    Args:
        path: the image's file.
        upright: turn the image as its EXIF says, for images straight from a camera.
        size: height and width that an image's annotation has. It tells whether the tool that wrote the boxes turned
            the image: only where the pixels as they are stored have this size, and turned have not, they stay as
            they are. Most tools show images upright, and so they are taken where the size does not tell.
        most_pixels: an image of more is decoded at 1/2, 1/3, ... of its width and height, so that it has at most so
            many; as it is when None.
        content: the file's bytes, where it is not on this machine.

    Returns:
        The image, 3 x H x W, uint8, RGB.

    Raises:
        UnreadableImageError: the file is truncated, or not an image; it is a line; or its numbers are no brightness.
        UserError: the file is missing or may not be read; or ends too early, where that is refused (``refusing``).
    """
    try:
        return _decode(path, upright, size, most_pixels, content)
    except UnreadableImageError:
        data = path.read_bytes() if content is None else content
        if not data.startswith(_JPEG_START):
            raise
        image = _decode(path, upright, size, most_pixels, data + _JPEG_END)
    problem = "the image ends too early, and what is missing is grey"
    warn_of(UserError(problem, file=path, fix="replace the file"), left_out=False)
    return image


def _decode(
    path: Path, upright: bool, size: tuple[int, int] | None, most_pixels: int | None, content: bytes | None
) -> tv_tensors.Image:
    """Decode an image that is whole; see :func:`read_image`."""
    with open_image(path, content) as image:
        _refuse_lines(path, image.size)
        stored = (image.height, image.width)
        turn = upright or (size is not None and not (stored == size != upright_size(image)))
        if most_pixels is not None and (factor := _factor(image.size, most_pixels)) > 1:
            image.draft("RGB", (image.width // factor, image.height // factor))  # JPEG alone, by a power of two
            image = _reduced(image, most_pixels)  # noqa: PLW2901  what is left of it
        try:
            return F.to_image(to_rgb(image, upright=turn))
        except ValueError as error:
            if image.mode != "F":
                raise
            raise UnreadableImageError(str(error), file=path, fix="save it with 8 bits a channel") from error


def to_rgb(image: Image.Image, *, upright: bool = False) -> Image.Image:
    """Return a picture of Pillow of any mode as RGB; see ``read_image``.

    Raises:
        ValueError: its numbers are no brightness.
    """
    if upright:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255 instead of scaling
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(to_uint8(np.asarray(image))).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # which copies, too


def to_uint8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return pixels as uint8: as they are, or floating point in [0, 1] scaled to 0 to 255.

    Raises:
        ValueError: they are neither.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind != "f" or not ((pixels >= 0) & (pixels <= 1)).all():  # NaN is neither
        raise ValueError(f"pixels are uint8 from 0 to 255, or floating point from 0 to 1; these are {pixels.dtype}")
    scaled: NDArray[np.uint8] = np.rint(pixels * 255).astype(np.uint8)
    return scaled


def _refuse_lines(path: Path, size: tuple[int, int]) -> None:
    """Refuse an image that is so narrow that nothing is left of it where its longer side is as detectors see it."""
    if max(size) > _MOST_ELONGATED * min(size):
        problem = f"the image is {size[0]} x {size[1]} pixels, a line in which nothing can be detected"
        raise UnreadableImageError(problem, file=path, fix="cut it into pieces, or remove it from the split")


def _reduced(image: Image.Image, most_pixels: int) -> Image.Image:
    """Return an image of at most so many pixels, by a whole factor, in a mode that can be averaged."""
    factor = _factor(image.size, most_pixels)
    if factor == 1:
        return image
    plain = image if image.mode in ("L", "RGB", "F") or image.mode.startswith("I") else image.convert("RGB")
    return (
        plain.reduce(factor)
        if not plain.mode.startswith("I")
        else plain.resize((plain.width // factor, plain.height // factor), Image.Resampling.NEAREST)
    )


def _factor(size: tuple[int, int], most_pixels: int) -> int:
    """Return the smallest whole factor by which an image is reduced to at most so many pixels."""
    factor = max(math.floor(math.sqrt(math.prod(size) / most_pixels)), 1)
    while math.prod(math.ceil(side / factor) for side in size) > most_pixels:
        factor += 1
    return factor


def fingerprint(file: Path) -> bytes:
    """Return 16 bytes that change whenever the content of a file does (BLAKE2b).

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return hashlib.blake2b(file.read_bytes(), digest_size=16).digest()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=file, fix="restore the image") from error


def read_image_size(path: Path, *, upright: bool = False) -> tuple[int, int]:
    """Return the height and width of an image in pixels, from the file's header alone.

    Args:
        path: the image's file.
        upright: the size of the image turned as its EXIF says.

    Raises:
        UnreadableImageError: the file is not an image.
        UserError: the file is missing or may not be read.
    """
    with open_image(path) as image:
        return upright_size(image) if upright else (image.height, image.width)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the height and width that an opened image has once it is turned as its EXIF says."""
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(5, 9)
    return (image.width, image.height) if turned else (image.height, image.width)
