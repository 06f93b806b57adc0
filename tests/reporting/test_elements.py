"""The page keeps what it is given: text stays text, pictures stay what they are."""

import base64
import re
from io import BytesIO

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from afrcnn.reporting.elements import Cell, Row, Section, Table, drawing, photograph, render

HOSTILE = "<script>alert('&\"')</script>"
ESCAPED = "&lt;script&gt;alert(&#39;&amp;&#34;&#39;)&lt;/script&gt;"


def figure(title):
    drawn = Figure((3, 2))
    axes = drawn.add_subplot()
    axes.plot([1, 2], [3, 4])
    axes.set_title(title, parse_math=False)
    return drawn


def test_markup_in_names_is_shown_and_not_followed():
    picture = drawing(figure(HOSTILE), HOSTILE, HOSTILE)
    table = Table(HOSTILE, [HOSTILE, HOSTILE], [Row(HOSTILE, [Cell(HOSTILE, HOSTILE, 1.0)])])
    section = Section(
        HOSTILE, HOSTILE, [table], {HOSTILE: [picture]}, {HOSTILE: HOSTILE}, commands=[HOSTILE], missing=[HOSTILE]
    )
    page = render(HOSTILE, HOSTILE, [section])
    assert HOSTILE not in page
    assert page.count(ESCAPED) >= 17
    svg = base64.b64decode(picture.source.partition(",")[2]).decode()
    assert "<script" not in svg


def test_drawings_are_the_same_every_time_and_as_large_as_they_say():
    one, two = drawing(figure("x"), "words"), drawing(figure("x"), "words")
    assert one == two
    svg = base64.b64decode(one.source.partition(",")[2]).decode()
    width, height = (float(re.search(rf'{name}="([\d.]+)pt"', svg)[1]) * 96 / 72 for name in ("width", "height"))
    assert (one.width, one.height) == (round(width), round(height)) == (288, 192)


def test_photographs_keep_their_size_and_nearly_their_colours():
    pixels = np.zeros((40, 64, 3), np.uint8)
    pixels[:, 32:] = (200, 60, 30)
    picture = photograph(Image.fromarray(pixels), "words")
    shown = Image.open(BytesIO(base64.b64decode(picture.source.partition(",")[2])))
    assert shown.size == (picture.width, picture.height) == (64, 40)
    assert np.abs(np.asarray(shown).astype(int) - pixels)[:, 40:].max() < 20
