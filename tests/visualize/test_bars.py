"""Bars are as long as the changes they show."""

import numpy as np
import pytest

from afrcnn.visualize.bars import draw_changes
from afrcnn.visualize.figure import signed


def test_bars_are_as_long_as_the_changes_and_say_them():
    rng = np.random.default_rng(0)
    changes = {f"$class_{index}$ of a very long name": value for index, value in enumerate(rng.normal(0, 5, 20))}
    axes = draw_changes(changes, "$x$", 20).axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(list(changes.values()))
    assert [text.get_text() for text in axes.texts] == [signed(value) for value in changes.values()]
    assert axes.get_xlim()[0] == -axes.get_xlim()[1]
    assert axes.yaxis_inverted()  # the first class is on top


def test_figures_of_one_limit_have_one_scale():
    one, two = (draw_changes({"a": change}, "x", 7.5).axes[0] for change in (-7.5, 0.1))
    assert one.get_xlim() == two.get_xlim()
