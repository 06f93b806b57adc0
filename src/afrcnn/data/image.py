"""Reading images: every format becomes 3 x H x W, uint8, RGB, or one line that names the file."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from afrcnn.core.errors import UserError

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow's decoders raise on broken files of the various formats."""


@contextmanager
def _open(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            yield image
    except FileNotFoundError as error:
        raise UserError("the image is missing", file=path, fix="restore it or remove it from the split") from error
    except _BROKEN as error:
        problem = f"the image cannot be decoded ({error})"
        raise UserError(problem, file=path, fix="replace the file; it may be truncated") from error


def read_image(path: Path, *, upright: bool = False, content: bytes | None = None) -> tv_tensors.Image:
    """Decode an image.

    Pillow decodes, because it refuses truncated files in every version; OpenCV's older versions fill the
    missing rows with grey, and torchvision's own decoders are to be removed. Greyscale, palette and CMYK
    images are converted, transparency is dropped, and 16-bit greyscale keeps its upper 8 bits.

    Args:
        path: the image's file.
        upright: turn the image as its EXIF says, for images straight from a camera. Those of a dataset stay
            as they are stored, as VOC's and COCO's tools take them.
        content: the file's bytes, where it is not on this machine.

    Returns:
        The image, 3 x H x W, uint8, RGB.

    Raises:
        UserError: the file is missing, truncated, or not an image.
    """
    with _open(path, content) as image:
        return F.to_image(to_rgb(image, upright=upright))


def to_rgb(image: Image.Image, *, upright: bool = False) -> Image.Image:
    """Return a picture of Pillow of any mode as RGB; see ``read_image``."""
    if upright:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255 instead of scaling
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def read_image_size(path: Path) -> tuple[int, int]:
    """Return the height and width of an image in pixels, from the file's header alone.

    Raises:
        UserError: the file is missing or not an image.
    """
    with _open(path) as image:
        return image.height, image.width
