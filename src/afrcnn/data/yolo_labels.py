"""YOLO's files of boxes: a line an object, with the number of its class and fractions of the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from afrcnn.core.errors import UserError
from afrcnn.data.faults import Faults, collected

_ROUNDING = 0.01
"""How far a number may lie beyond 0 or 1; what is further out is no fraction."""


class YOLOObject(NamedTuple):
    """One object: the number of its class, from 0; its box, x1, y1, x2, y2 in pixels; and its line in the file."""

    number: int
    box: tuple[float, float, float, float]
    line: int


def read_labels(file: Path, size: tuple[int, int], *, keypoints: bool, faults: Faults | None) -> list[YOLOObject]:
    """Read the objects of one image.

    A line has a class and x, y, width and height of its box, x and y in the middle; or a class and the corners of a
    polygon, of which the hull is taken. Boxes end where the image does.

    Args:
        file: the text file; where there is none, there are no objects.
        size: height and width of the image in pixels.
        keypoints: whether lines have keypoints behind the box, which are passed over.
        faults: where mistakes are noted, in place of raising the first.

    Raises:
        UserError: the file cannot be read, or a line is malformed.
    """
    objects = []
    for number, text in enumerate(read_lines(file), start=1):
        if text.strip():
            with collected(faults, "malformed annotations"):
                objects.append(_parse(text.split(), size, keypoints, file, number))
    return objects


def label_line(number: int, box: Sequence[float], size: tuple[int, int]) -> str:
    """Return the line of an object: its class, from 0, and its box (x1, y1, x2, y2 in pixels)."""
    (x1, y1, x2, y2), (height, width) = box, size
    values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return " ".join([str(number), *(f"{value:.9g}" for value in values)]) + "\n"


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text file; none where it is absent.

    Raises:
        UserError: the file is not UTF-8 text.
    """
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read ({error})", file=file, fix="save it as UTF-8 text") from error


def _parse(words: list[str], size: tuple[int, int], keypoints: bool, file: Path, line: int) -> YOLOObject:
    def mistake(problem: str, fix: str = "correct the line") -> UserError:
        return UserError(problem, file=file, field=f"line {line}", fix=fix)

    try:
        class_, *values = map(float, words)
    except ValueError as error:
        raise mistake(f"{' '.join(words)!r:.60} is not a line of numbers") from error
    if not all(map(math.isfinite, (class_, *values))) or class_ != int(class_) or not 0 <= class_ < 2**31:
        raise mistake(f"{' '.join(words)!r:.60} is not a class and finite numbers")
    values = values[:4] if keypoints else values
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise mistake(f"has {len(words)} numbers", "write 5 for a box, or a class and pairs x y for a polygon")
    if min(values) < -_ROUNDING or max(values) > 1 + _ROUNDING:
        problem = f"{max(values, key=abs):g} is not a fraction of the image"
        raise mistake(problem, "divide pixels by its width or height")
    if len(values) == 4:
        x, y, width, height = values
        left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    else:
        left, right, top, bottom = min(values[::2]), max(values[::2]), min(values[1::2]), max(values[1::2])
    rows, columns = size
    clipped = [min(max(value, 0.0), 1.0) for value in (left, top, right, bottom)]
    return YOLOObject(
        int(class_), (clipped[0] * columns, clipped[1] * rows, clipped[2] * columns, clipped[3] * rows), line
    )
