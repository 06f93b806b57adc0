"""Figures of the exhaustive search: a panel for each window, the hardest marked."""

import numpy as np
from matplotlib.patches import Rectangle

from afrcnn.adversaries.trace import SearchTrace
from afrcnn.visualize.windows import draw_windows

WINDOWS = tuple((row, column, 2, 2) for row in (0, 1) for column in (0, 1, 2))


def traced(hardest, name="cat"):
    losses = tuple(0.25 * (place == hardest) + 0.5 for place in range(6))
    return SearchTrace(name, (10.0, 20.0, 50.0, 50.0), 0.25, WINDOWS, losses, hardest, 4)


def texts(figure):
    return [text.get_text() for text in figure.texts]


def test_each_object_has_a_panel_for_each_window_with_its_loss_and_the_hardest_is_framed():
    image = np.zeros((60, 80, 3), np.uint8)
    figure = draw_windows(image, [traced(4), traced(0, "a $dog$")], left_out=3)
    assert len(figure.axes) == 2 * 7
    assert [axes.get_title(loc="left") for axes in (figure.axes[0], figure.axes[7])] == ["cat", "a $dog$"]
    assert texts(figure).count("0.50") == 10
    assert [text.get_weight() for text in figure.texts if text.get_text() == "0.75"] == ["bold", "bold"]
    assert any("loss 0.25, nothing hidden\nloss 0.75, hardest window hidden" in text for text in texts(figure))
    assert "3 more detected, not shown (--boxes)" in texts(figure)
    framed = [
        number
        for number, axes in enumerate(figure.axes)
        if any(isinstance(patch, Rectangle) and patch.get_linewidth() == 2.5 for patch in axes.patches)
    ]
    assert framed == [1 + 4, 8 + 0]
    figure.canvas.draw()


def test_a_window_covers_its_cells_of_the_box():
    figure = draw_windows(np.zeros((60, 80, 3), np.uint8), [traced(0)])
    hidden = [axes.patches[0].get_bbox().extents.tolist() for axes in figure.axes[1:]]
    assert hidden == [
        [10.0 + 10 * column, 20.0 + 7.5 * row, 30.0 + 10 * column, 35.0 + 7.5 * row] for row, column, _, _ in WINDOWS
    ]


def test_panels_stand_as_the_windows_lie():
    figure = draw_windows(np.zeros((60, 80, 3), np.uint8), [traced(0)])
    places = [axes.get_position(original=True) for axes in figure.axes[1:]]
    assert len({round(place.x0, 6) for place in places}) == 3
    assert len({round(place.y0, 6) for place in places}) == 2
    assert places[0].y0 > places[3].y0


def test_without_objects_the_image_alone_is_drawn():
    assert draw_windows(np.zeros((9, 9, 3), np.uint8), []).axes[0].get_title() == "nothing detected"
