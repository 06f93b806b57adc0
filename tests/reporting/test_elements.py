"""The page keeps what it is given: text stays text, pictures stay what they are."""

import base64
import re
from io import BytesIO

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from afrcnn.recipe import DataRecipe, Recipe
from afrcnn.reporting.elements import Cell, Picture, Row, Section, Table, render
from afrcnn.reporting.finding import Headline
from afrcnn.reporting.methods import Method
from tiny import build_reported_run

HOSTILE = "<script>alert('&\"')</script>"
ESCAPED = "&lt;script&gt;alert(&#39;&amp;&#34;&#39;)&lt;/script&gt;"

SECTIONS = [
    "found_and_missed",
    "confusions",
    "by_score",
    "summary",
    "by_class",
    "changes_by_class",
    "by_subset",
    "by_stress",
    "adversary_examples",
    "false_positive_examples",
    "training_curves",
    "recipe_fields",
    "paper_table",
]


def figure(title):
    drawn = Figure((3, 2))
    axes = drawn.add_subplot()
    axes.plot([1, 2], [3, 4])
    axes.set_title(title, parse_math=False)
    return drawn


def data_of(picture):
    return base64.b64decode(picture.source.partition(",")[2])


def page_of(section, name="name"):
    recipe = Recipe(data=DataRecipe(root=name, classes=["a"]))
    runs = (build_reported_run("run", recipe),)
    methods = [Method(name, runs)] * 2
    return rendered(methods, section, Headline(name, (name,), methods[0], ""))


def rendered(methods, section, finding=None):
    finding = finding or Headline("", (), methods[0], "")
    return render(methods=methods, finding=finding, figure=[], **dict.fromkeys(SECTIONS, section))


def test_markup_in_names_is_shown_and_not_followed():
    picture = Picture.of_figure(figure(HOSTILE), HOSTILE, HOSTILE)
    table = Table(HOSTILE, [HOSTILE, HOSTILE, HOSTILE], [Row(HOSTILE, [Cell(HOSTILE, HOSTILE, 1.0), HOSTILE])])
    section = Section([table], {HOSTILE: [picture]}, {HOSTILE: HOSTILE}, commands=[HOSTILE], missing=[HOSTILE])
    section.text, section.more = HOSTILE, {HOSTILE: Section([table])}
    page = page_of(section, HOSTILE)
    assert HOSTILE not in page
    assert page.count(ESCAPED) >= 16 * len(SECTIONS)
    assert "<script" not in data_of(picture).decode()


def test_drawings_are_the_same_every_time_and_as_large_as_they_say():
    one, two = (Picture.of_figure(figure("x"), "words") for _ in range(2))
    assert one == two
    assert (one.width, one.height) == (288, 192)


def test_images_keep_their_size():
    picture = Picture.of_image(Image.fromarray(np.zeros((40, 64, 3), np.uint8)), "words")
    assert Image.open(BytesIO(data_of(picture))).size == (picture.width, picture.height) == (64, 40)


def test_curves_tell_every_point_or_of_many_the_ends_and_extremes_in_words():
    short, long = [(0.0, 1.0), (10.0, 2.5)], [(float(x), float((x - 7) ** 2)) for x in range(20)]
    picture = Picture.of_curves({"short": short, "none": [], "long": long}, "iteration", "loss")
    assert picture.alternative == (
        "loss, by iteration. short: 1 at 0, 2.5 at 10; long: 49 at 0, 144 at 19, lowest 0 at 7, highest 144 at 19."
    )


def test_the_address_of_a_picture_says_its_format():
    assert Picture.of_figure(figure("x"), "words").source.startswith("data:image/svg+xml;base64,")


def test_a_table_knows_its_columns_of_text():
    table = Table(
        "caption", ["name", "text", "number"], [Row("a", ["b", Cell("1", value=1.0)]), Row("c", ["", Cell()])]
    )
    assert [table.is_text(column) for column in (0, 1)] == [True, False]


def test_a_section_without_content_is_left_out_of_page_and_contents():
    run = build_reported_run("run", Recipe(data=DataRecipe(root="x", classes=["a"])))
    methods = [Method("m", (run,))]
    assert rendered(methods, Section()).count("<h2>") == 0
    text = rendered(methods, Section(pictures={"": []}, commands=["afrcnn evaluate run"]))
    assert re.findall("<h2>(.*?)</h2>", text) == ["Not shown"]
    assert "#section-" not in text
    table = Table("numbers", ["method", "n"], [Row("m", [Cell("1", value=1.0)])])
    text = rendered(methods, Section([table]))
    links = re.findall('href="#(section-[0-9]+)"', text)
    assert links == re.findall('id="(section-[0-9]+)"', text)
    assert len(links) == len(SECTIONS) - 1  # all but the strips, which lead the page


def test_cells_are_shaded_by_their_fraction_of_the_row():
    table = Table("matrix", ["object", "a", "b"], [Row("a", [Cell("3", value=3, right=0.75), Cell("1", wrong=0.25)])])
    text = page_of(Section([table]))
    assert '<td data-value="3" class="right" style="--of-row: 0.75">3' in text
    assert '<td class="wrong" style="--of-row: 0.25">1' in text
