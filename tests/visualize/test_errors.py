"""Bars, tables and sheets of false positives."""

import io
import re

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from afrcnn.evaluation.diagnosis import ErrorChange, Errors
from afrcnn.evaluation.error_kinds import KINDS
from afrcnn.evaluation.false_positives import FalsePositive
from afrcnn.evaluation.tide import TideErrors
from afrcnn.visualize.errors import draw_errors
from afrcnn.visualize.false_positives import draw_false_positive, draw_sheet
from afrcnn.visualize.tables import change_table, error_tables, tide_table

NAMES = ("AP", *(f"without {kind}" for kind in KINDS), "placed right")


def errors_of(*counts):
    total = sum(counts)
    fractions = [count / total if total else np.nan for count in counts]
    by_kind = dict(zip(KINDS, counts, strict=True))
    ap = dict(zip(NAMES, (0.5, 0.75, 0.6, 0.55, 1.0, np.nan), strict=True))
    return Errors(total, total, 0, by_kind, dict(zip(KINDS, fractions, strict=True)), by_kind, ap)


ERRORS = {"$class_1$ of a very long name": errors_of(1, 2, 0, 1), "pottedplant": errors_of(0, 0, 0, 0)}
ERRORS["all classes"] = errors_of(12345, 100000, 0, 12345)


def lines_of(*tables):
    console = Console(file=io.StringIO(), width=80)
    for table in tables:
        console.print(table)
    return console.file.getvalue().splitlines()


def test_bars_are_as_long_as_the_fractions():
    axes = draw_errors({"one": ERRORS, "two": ERRORS}, list(ERRORS)).axes[0]
    widths = np.array([[bar.get_width() for bar in kind] for kind in axes.containers])
    assert widths[:, 0] == pytest.approx([25, 50, 0, 25])
    assert (widths[:, 2:4] == 0).all()  # no false positive
    assert widths[:, 4:].sum(axis=0) == pytest.approx(100)
    assert [text.get_text() for text in axes.texts[:1]] == ["25"]
    assert len(axes.get_yticks()) == 6
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(KINDS)


def test_bars_lie_inside_the_figure():
    figure = draw_errors({"one": {"all classes": errors_of(1, 1, 1, 1)}}, ["all classes"])
    box = figure.get_tightbbox()
    assert box.x0 >= 0
    assert box.x1 <= figure.get_size_inches()[0]
    assert box.y1 <= figure.get_size_inches()[1]


def test_tables_say_counts_fractions_and_aps_in_80_columns():
    lines = lines_of(*error_tables({"pottedplant": errors_of(1, 2, 0, 1), "all classes": ERRORS["all classes"]}, "run"))
    assert max(map(len, lines)) <= 80
    assert re.search(r"pottedplant +│ +4 +│ +1 +25\.0 +│ +2 +50\.0 +│ +0 +0\.0 +│ +1 +25\.0", "\n".join(lines))
    assert re.search(r"pottedplant +│ +50\.0 +│ +75\.0 +│ +60\.0 +│ +55\.0 +│ +100\.0 +│ +-", "\n".join(lines))


def test_a_change_has_its_sign_and_its_interval():
    changes = dict.fromkeys((*KINDS, *NAMES), ErrorChange(-0.0123, -0.05, 0.02)) | {"other": ErrorChange(*[np.nan] * 3)}
    text = "\n".join(lines_of(change_table("animals", [ERRORS["all classes"], ERRORS["pottedplant"]], changes)))
    assert "-1.2 │ -5.0 to +2.0" in text.replace("\N{MINUS SIGN}", "-")
    assert re.search(r"other +│ +0\.0 +│ +- │ +- │ +- │", text)


def test_tide_has_a_pair_of_columns_a_run():
    tide = TideErrors(0.5, {"class": 3, "missed": 12}, {"class": 0.125, "missed": 0.2})
    text = "\n".join(lines_of(tide_table({"one": tide, "two": tide})))
    assert re.search(r"class +│ +3 +│ +12\.5 +│ +3 +│ +12\.5", text)


@pytest.mark.parametrize(("count", "size"), [(1, (240, 1)), (4, (930, 1)), (5, (930, 2))])
def test_a_sheet_has_four_columns(count, size):
    error = FalsePositive(0, "cat" * 40, 0.9, (2.0, 2.0, 20.0, 20.0), 0.0, "other", "dog", 0.3)
    image = np.full((40, 40, 3), 90, np.uint8)
    sheet = draw_sheet([draw_false_positive(image, error.box)] * count, [error] * count)
    assert isinstance(sheet, Image.Image)
    assert (sheet.width, sheet.height // 240) == size
    assert sheet.getpixel((15, 15)) == (90, 90, 90)
    below = np.asarray(sheet.convert("L"))[232:258]
    assert below.min() == 0  # letters
