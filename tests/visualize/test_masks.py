"""Figures of adversaries: cells where they fall on the photograph, and everything written out."""

from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from afrcnn.adversaries.trace import ObjectTrace, TraceStep
from afrcnn.visualize.masks import CONTEXT, draw_masks, rotation, view

WHITE = np.full((90, 120, 3), 255, np.uint8)
BOX = (30.5, 20.0, 72.5, 62.0)


def masked(heatmap=None, mask=None, angles=None, *, name="dog", box=BOX, score=0.9, after=0.25):
    heatmap, mask = (None if cells is None else np.asarray(cells).tolist() for cells in (heatmap, mask))
    return ObjectTrace(name, box, score, (TraceStep("asdn", after, heatmap, mask, angles),))


def pixels_of(figure: Figure) -> np.ndarray:
    with BytesIO() as file:
        figure.savefig(file, format="png")
        return np.asarray(Image.open(file).convert("RGB"))


def colours_of_cells(figure: Figure, column: int, box=BOX, d=7) -> np.ndarray:
    """The drawn colours (d x d x 3) in the middle of each cell of a box, found by the photograph's pixels alone."""
    drawn, axes = pixels_of(figure), figure.axes[column]
    x1, y1, x2, y2 = box
    centres = (np.arange(d) + 0.5) / d
    points = [(x1 + (x2 - x1) * x, y1 + (y2 - y1) * y) for y in centres for x in centres]
    x, y = np.floor(axes.transData.transform(points)).astype(int).T
    return drawn[len(drawn) - 1 - y, x].reshape(d, d, 3).astype(int)


def texts_of(figure: Figure) -> list[str]:
    texts = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        texts += [text.get_text() for text in axes.texts] + [axes.get_title(loc="left"), axes.get_title()]
    return texts


@pytest.mark.parametrize("box", [BOX, (0.0, 0.0, 120.0, 90.0), (100.0, 3.0, 119.0, 85.0), (51.0, 30.0, 54.5, 34.0)])
def test_hidden_cells_are_dark_where_they_fall_on_the_photograph_and_the_others_show_it(box):
    hidden = np.random.default_rng(0).random((7, 7)) < 1 / 3
    shown = colours_of_cells(draw_masks(WHITE, [masked(mask=hidden, box=box)]), 1, box)
    assert (shown[hidden] < 60).all()
    assert (shown[~hidden] > 240).all()


def test_heatmaps_grow_lighter_with_their_values_on_one_scale_for_all_objects():
    heatmap = np.random.default_rng(1).random((7, 7)) / 2
    heatmap[0, 0] = 0.5
    rows = [masked(heatmap), masked(heatmap / 2, box=(40.0, 10.0, 80.0, 80.0))]
    figure = draw_masks(np.zeros_like(WHITE), rows)  # on black, the lightness is the heatmap's alone
    first = colours_of_cells(figure, 2)
    second = colours_of_cells(figure, 3, rows[1].box)
    for colours in (first, second):
        lightness = (colours @ [0.299, 0.587, 0.114]).ravel()
        assert (np.diff(lightness[np.argsort(heatmap.ravel())]) >= -1.5).all()
    assert np.abs(second[0, 0] - first[0, 0]).max() > 30  # half the value is another colour
    bar = figure.axes[4]
    assert bar.get_xlim() == (0, 0.5)


def test_heatmaps_stand_over_the_photograph_in_grey():
    red = np.zeros_like(WHITE)
    red[..., 0] = 255
    figure = draw_masks(red, [masked(np.zeros((7, 7)))])
    photograph, heatmap = (axes.images[0].get_array() for axes in figure.axes[:2])
    np.testing.assert_array_equal(photograph, red[slice(*view(BOX, 120, 90)[1::2]), slice(*view(BOX, 120, 90)[::2])])
    assert (heatmap[..., 0] == heatmap[..., 1]).all()
    assert (red[..., 1] == 0).all()  # the photograph itself is left as it is


def test_names_scores_and_angles_are_written_out():
    steps = (TraceStep("asdn", 0.5, None, None, None), TraceStep("my_own", 0.25, None, None, [7.25, -9.96, 0.0, -0.01]))
    shown = texts_of(draw_masks(WHITE, [ObjectTrace("$x$ & späte Häsin", BOX, 0.875, steps)], left_out=3))
    for text in ("$x$ & späte Häsin", "before", "0.88", "after ASDN", "0.50", "after my own", "0.25"):
        assert text in shown
    assert [text for text in shown if text.endswith("°")] == ["+7.2°", "-10.0°", "+0.0°", "+0.0°"]
    assert any(text.startswith("3 more") for text in shown)


def test_dials_turn_clockwise_by_the_angle():
    figure = draw_masks(WHITE, [masked(angles=[30.0])])
    before, turned = (patch.get_xy()[:-1] for patch in figure.axes[1].patches)
    centre = before.mean(axis=0)
    corners = [complex(*corner) for corner in (turned - centre)], [complex(*corner) for corner in (before - centre)]
    degrees = np.degrees(np.angle(np.array(corners[0]) / np.array(corners[1])))
    np.testing.assert_allclose(degrees, 30)  # with y downwards, as here, growing angles are clockwise
    assert figure.axes[1].yaxis_inverted()
    np.testing.assert_allclose(rotation(90) @ (0, -1), (1, 0), atol=1e-12)  # up becomes right


def test_the_figure_has_a_row_for_each_object_and_a_panel_for_each_thing_to_see():
    cells = np.eye(7)
    one = pixels_of(draw_masks(WHITE, [masked(mask=cells > 0)]))
    two = pixels_of(draw_masks(WHITE, [masked(mask=cells > 0)] * 2))
    three = pixels_of(draw_masks(WHITE, [masked(mask=cells > 0)] * 3))
    all_three = pixels_of(draw_masks(WHITE, [masked(cells, cells > 0, [1.0] * 4)]))
    assert one.shape[1] == two.shape[1] < all_three.shape[1]
    assert len(one) == len(all_three) < len(two)
    assert abs((len(three) - len(two)) - (len(two) - len(one))) <= 1
    # Nothing but scores, of an adversary that nobody knows.
    assert pixels_of(draw_masks(WHITE, [masked()])).shape[1] < one.shape[1]


def test_without_objects_the_photograph_is_drawn_and_the_figure_says_so():
    figure = draw_masks(WHITE, [])
    assert "nothing detected" in texts_of(figure)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), WHITE)


@pytest.mark.parametrize("blocks", [1, 2, 8, 64])
def test_any_number_of_blocks_has_a_dial_each_inside_the_panel(blocks):
    figure = draw_masks(WHITE, [masked(angles=[10.0] * blocks)])
    pixels_of(figure)
    axes = figure.axes[1]
    panel = axes.get_window_extent()
    assert len(axes.patches) == 2 * blocks
    for patch in [*axes.patches, *axes.texts]:
        extent = patch.get_window_extent()
        assert panel.x0 - 3 <= extent.x0 and extent.x1 <= panel.x1 + 3
        assert panel.y0 - 3 <= extent.y0 and extent.y1 <= panel.y1 + 3


def test_the_view_holds_the_box_with_context_inside_the_image():
    rng = np.random.default_rng(2)
    for _ in range(500):
        width, height = rng.integers(1, 200, 2)
        x1, x2 = np.sort(rng.random(2)) * width
        y1, y2 = np.sort(rng.random(2)) * height
        left, top, right, bottom = view((x1, y1, x2, y2), width, height)
        assert 0 <= left <= x1 and x2 <= right <= width
        assert 0 <= top <= y1 and y2 <= bottom <= height
        side = CONTEXT * max(x2 - x1, y2 - y1)
        assert right - left >= min(side, width)
        assert bottom - top >= min(side, height)
        if max(right - left, bottom - top) < min(width, height):
            assert right - left == bottom - top
