"""Curves: what is averaged and drawn."""

import numpy as np

from afrcnn.visualize.curves import _thin, draw_curves, mean_curve


def test_the_mean_of_curves_is_taken_where_all_have_a_point():
    assert mean_curve([[(1, 2.0), (2, 4.0), (4, 9.0)], [(2, 6.0), (1, 0.0), (3, 1.0)]]) == [(1, 1.0), (2, 5.0)]
    assert mean_curve([]) == []


def test_thinned_curves_keep_their_mean_and_their_order():
    for length in (0, 1, 7, 8, 9, 1000):
        rng = np.random.default_rng(length)
        curve = list(zip(np.sort(rng.random(length)), rng.random(length), strict=True))
        short = _thin(curve, 8)
        assert len(short) <= 8, length
        assert [x for x, _ in short] == sorted(x for x, _ in short), length
        if length <= 8:
            np.testing.assert_allclose(np.reshape(short, (-1, 2)), np.reshape(curve, (-1, 2)))
        if length == 1000:
            np.testing.assert_allclose(np.mean(short, axis=0), np.mean(curve, axis=0))


def test_a_method_has_the_same_line_in_every_figure_and_no_two_methods_have_the_same():
    order = [f"$m_{index}$" for index in range(18)]
    curve = [(0.0, 1.0), (1.0, 2.0)]

    def lines(names):
        axes = draw_curves(dict.fromkeys(names, curve), order, "x", "y").axes[0]
        assert [text.get_text() for text in axes.get_legend().get_texts()] == list(names)
        return {line.get_label(): (line.get_color(), line.get_linestyle()) for line in axes.lines}

    everything = lines(order)
    assert len(set(everything.values())) == len(order)
    assert lines(order[3:5]) == {name: everything[name] for name in order[3:5]}
