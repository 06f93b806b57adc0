"""The elements of a page, tables, pictures and sections, and how they become one HTML file that needs no other."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from afrcnn import __version__

PIXELS_PER_INCH = 96
"""CSS pixels, whatever the screen has."""

DARK = "<style>@media screen and (prefers-color-scheme: dark) {text {fill: #ddd}}</style>"
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


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, small print below it, the number that it is sorted by, and whether it is best."""

    text: str
    small: str = ""
    value: float | None = None
    best: bool = False


NOTHING = Cell("\N{EN DASH}")
"""Where a number would stand."""


@dataclass(frozen=True)
class Row:
    """A row of a table: its name, its cells, and whether it is there for reference only."""

    name: str
    cells: Sequence[Cell]
    reference: bool = False


@dataclass(frozen=True)
class Table:
    """A table: what it shows, the heads of its columns, the first of which is that of the rows' names, and its rows."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Row]

    def is_text(self, column: int) -> bool:
        """Tell whether a column of cells, counted from 0, holds words."""
        return any(row.cells[column].value is None and row.cells[column] != NOTHING for row in self.rows)


@dataclass
class Section:
    """A section of a page.

    Attributes:
        title: its title.
        text: what its tables and pictures are.
        tables: its tables.
        pictures: its pictures, by what stands above them.
        listings: further text by its title, as it is, folded away.
        commands: the commands that make what is missing here.
        missing: what else is missing here, and why.
    """

    title: str
    text: str = ""
    tables: list[Table] = field(default_factory=list)
    pictures: dict[str, list[Picture]] = field(default_factory=dict)
    listings: dict[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def drawing(figure: Figure, alternative: str, caption: str = "") -> Picture:
    """Return a figure of lines and letters as SVG: sharp at any size, its letters light where the page is dark."""
    width, height = figure.get_size_inches() * PIXELS_PER_INCH
    # The same figure gives the same bytes: no date, and no names that are drawn at random.
    with BytesIO() as file, mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "afrcnn"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        svg = file.getvalue().decode().replace("<defs>", DARK + "<defs>", 1)
    return Picture(_address(svg.encode(), "svg+xml"), round(width), round(height), alternative, caption)


def photograph(image: Image.Image, alternative: str, caption: str = "") -> Picture:
    """Return an image as WebP, which takes a tenth of what PNG takes for photographs."""
    with BytesIO() as file:
        image.save(file, "WEBP", quality=80, method=6)
        return Picture(_address(file.getvalue(), "webp"), image.width, image.height, alternative, caption)


def render(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return a page as HTML. Everything in it is text: markup in a name is shown, not followed.

    Args:
        title: its title.
        lead: what stands below it.
        sections: its sections, in order.
    """
    templates = Environment(
        loader=PackageLoader("afrcnn.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = templates.get_template("page.html.jinja")
    return page.render(title=title, lead=lead, sections=sections, version=__version__)


def _address(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{b64encode(data).decode()}"
