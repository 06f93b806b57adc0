"""The elements of a page, tables, pictures and sections, and how they become one HTML file that needs no other."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from math import isnan, nan
from typing import Any, Self

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from afrcnn import __version__
from afrcnn.visualize.curves import Points, draw_curves

_PIXELS_PER_INCH = 96
"""CSS pixels, whatever the screen has."""

_WORDY = 10
"""Points of a curve that are all put into words."""

_DARK = b"<style>@media screen and (prefers-color-scheme: dark) {text {fill: #ddd}}</style>"
"""Letters of a drawing on a dark page; its lines are of colours that are seen on any."""


@dataclass(frozen=True)
class Picture:
    """A picture inside the page.

    Attributes:
        source: the picture as a ``data:`` address.
        width: its width in CSS pixels.
        height: its height.
        alternative: what it shows, in words and numbers, for those who do not see it.
        caption: what is written below it.
    """

    source: str
    width: int
    height: int
    alternative: str
    caption: str = ""

    @classmethod
    def of_figure(cls, figure: Figure, alternative: str, caption: str = "") -> Self:
        """Return a figure of lines and letters."""
        width, height = (round(inches * _PIXELS_PER_INCH) for inches in figure.get_size_inches())
        return cls(_address(_svg(figure), "svg+xml"), width, height, alternative, caption)

    @classmethod
    def of_image(cls, image: Image.Image, alternative: str, caption: str = "") -> Self:
        """Return an image."""
        return cls(_address(_webp(image), "webp"), image.width, image.height, alternative, caption)

    @classmethod
    def of_curves(cls, curves: Mapping[str, Points], x: str, y: str, **options: Any) -> Self:
        """Return a figure of curves of all methods, as ``draw_curves`` draws it, and their numbers in words."""
        shown = {name: curve for name, curve in curves.items() if curve}
        labels = options.get("labels") or {}
        words = "; ".join(f"{labels.get(name, name)}: {_in_words(curve)}" for name, curve in shown.items())
        return cls.of_figure(draw_curves(shown, list(curves), x, y, **options), f"{y}, by {x}. {words}.")


@dataclass(frozen=True)
class Cell:
    """A number in a table.

    Attributes:
        text: what is written.
        small: small print below it.
        value: what it is sorted by.
        best: whether it is the best of its column.
        right: how strong its colour is, in [0, 1], that of what is right.
        wrong: likewise of what is wrong.
    """

    text: str = "\N{EN DASH}"
    small: str = ""
    value: float | None = None
    best: bool = False
    right: float = 0.0
    wrong: float = 0.0

    @classmethod
    def percent(cls, numbers: Sequence[float], written: Callable[[float], str] = "{:.1f}".format) -> Self:
        """Return the mean of numbers in [-1, 1] in percent, and their standard deviation; a dash for none or NaN."""
        mean = 100 * float(np.mean(numbers)) if numbers else nan
        spread = f"± {100 * np.std(numbers, ddof=1):.1f}" if len(numbers) > 1 else ""
        return cls() if isnan(mean) else cls(written(mean), spread, mean)


@dataclass(frozen=True)
class Row:
    """A row of a table: its name, its cells (text, or a number's), and whether it is there for reference only."""

    name: str
    cells: Sequence[Cell | str]
    reference: bool = False


@dataclass(frozen=True)
class Table:
    """A table: what it shows, the heads of its columns, the first of which is that of the rows' names, and its rows."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Row]

    def is_text(self, column: int) -> bool:
        """Tell whether a column of cells, counted from 0, holds text."""
        return any(isinstance(row.cells[column], str) for row in self.rows)


@dataclass
class Section:
    """What a section of the page shows, below its title and text in the page's template.

    Attributes:
        tables: its tables.
        pictures: its pictures, by what stands above them.
        listings: further text by its title, as it is, folded away.
        more: further content by its title, folded away.
        commands: the commands that make what is missing here.
        missing: what else is missing here, and why.
        text: what is to be said of its content, besides the template's words.
    """

    tables: list[Table] = field(default_factory=list)
    pictures: dict[str, list[Picture]] = field(default_factory=dict)
    listings: dict[str, str] = field(default_factory=dict)
    more: dict[str, Section] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    text: str = ""

    @property
    def shown(self) -> bool:
        """Whether there is anything to show: a section without content is left out."""
        return bool(self.tables or any(self.pictures.values()) or self.listings or self.more)


def render(**content: object) -> str:
    """Return the page as HTML. Everything in it is text: markup in a name is shown, not followed.

    Args:
        content: what ``page.html.jinja`` shows: the methods, and each section by its name there.
    """
    templates = Environment(loader=PackageLoader("afrcnn.reporting", "."), autoescape=True, undefined=StrictUndefined)
    templates.trim_blocks = templates.lstrip_blocks = True
    return templates.get_template("page.html.jinja").render(content, version=__version__)


def _svg(figure: Figure) -> bytes:
    """Return a figure of lines and letters as SVG: sharp at any size, its letters light where the page is dark."""
    # The same figure gives the same bytes: no date, and no names that are drawn at random.
    with BytesIO() as file, mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "afrcnn"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        return file.getvalue().replace(b"<defs>", _DARK + b"<defs>", 1)


def _webp(image: Image.Image) -> bytes:
    """Return an image as WebP, which takes a tenth of what PNG takes for a camera's images."""
    with BytesIO() as file:
        image.save(file, "WEBP", quality=80, method=6)
        return file.getvalue()


def _address(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{b64encode(data).decode()}"


def _in_words(curve: Points) -> str:
    """Return the numbers of a curve, or of a long one its ends and extremes."""
    points = [("", point) for point in curve]
    if len(curve) > _WORDY:
        low, *_, high = sorted(curve, key=lambda point: point[::-1])
        points = [points[0], points[-1], ("lowest ", low), ("highest ", high)]
    return ", ".join(f"{name}{y:.3g} at {x:g}" for name, (x, y) in points)
