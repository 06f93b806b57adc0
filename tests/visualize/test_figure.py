"""What all figures share: files that are the same every time, views of boxes, and numbers in print."""

import re
from io import BytesIO

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from afrcnn.reporting.elements import _svg, _webp
from afrcnn.reporting.examples import _DOTS_PER_INCH, _pixels
from afrcnn.visualize.figure import _CONTEXT, STYLES, add_axes, percent, signed, view


def drawn():
    figure = Figure((3, 2))
    add_axes(figure, 0.5, 0.4, 2, 1.5).plot([1, 2], [3, 4])
    return figure


def test_axes_stand_where_the_inches_say():
    (axes,) = drawn().axes
    np.testing.assert_allclose(axes.get_position().bounds, (0.5 / 3, 0.2, 2 / 3, 0.75))


def test_drawings_are_the_same_every_time_and_as_large_as_their_figure():
    text = _svg(drawn()).decode()
    assert _svg(drawn()).decode() == text
    assert [float(re.search(rf'{name}="([\d.]+)pt"', text)[1]) for name in ("width", "height")] == [216, 144]


def test_images_keep_their_size_and_nearly_their_colours():
    image = np.zeros((40, 64, 3), np.uint8)
    image[:, 32:] = (200, 60, 30)
    shown = Image.open(BytesIO(_webp(Image.fromarray(image))))
    assert shown.size == (64, 40)
    assert np.abs(np.asarray(shown).astype(int) - image)[:, 40:].max() < 20


def test_a_figure_has_as_many_pixels_as_its_inches_say():
    assert _pixels(drawn()).size == (3 * _DOTS_PER_INCH, 2 * _DOTS_PER_INCH)


def test_no_two_methods_look_alike():
    assert len({tuple(style.values()) for style in STYLES}) == len(STYLES) == 18
    assert len({(style["linestyle"], style["marker"]) for style in STYLES}) == 18  # nor without colour


def test_the_view_holds_the_box_with_context_inside_the_image():
    rng = np.random.default_rng(2)
    for index in range(500):
        width, height = rng.integers(1, 200, 2)
        x1, x2 = np.sort(rng.random(2)) * width
        y1, y2 = np.sort(rng.random(2)) * height
        left, top, right, bottom = view((x1, y1, x2, y2), width, height)
        assert 0 <= left <= x1, index
        assert x2 <= right <= width, index
        assert 0 <= top <= y1, index
        assert y2 <= bottom <= height, index
        side = _CONTEXT * max(x2 - x1, y2 - y1)
        assert right - left >= min(side, width), index
        assert bottom - top >= min(side, height), index
        if max(right - left, bottom - top) < min(width, height):
            assert right - left == bottom - top, index


def test_changes_have_a_sign_and_no_negative_zero():
    assert [signed(value) for value in (1.25, -3, -0.04)] == ["+1.2", "\N{MINUS SIGN}3.0", "+0.0"]


def test_a_fraction_is_printed_in_percent_and_nan_as_a_dash():
    assert [percent(value) for value in (0.1234, 1.0, float("nan"))] == ["12.3", "100.0", "-"]
