"""Occluders: what fraction of every box they cover, where, and how they grow."""

from itertools import pairwise

import numpy as np
import pytest

from afrcnn.robustness.occlusion import lay_occluders, occluded_fractions

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
SIZE = (120, 160)
FINE = 8
"""Sub-pixels along a pixel: boxes of the tests lie on them, and areas are counted there."""


def random_boxes(rng, count, least=20, fine=1):
    """Boxes of 20 pixels and more in an image of SIZE, on multiples of 1 / fine."""
    boxes = []
    for _ in range(count):
        width, height = rng.integers(least * fine, 70 * fine, 2)
        x, y = rng.integers(0, SIZE[1] * fine - width + 1), rng.integers(0, SIZE[0] * fine - height + 1)
        boxes.append((x, y, x + width, y + height))
    return np.array(boxes, dtype=float).reshape(-1, 4) / fine


def counted_fractions(covered, boxes):
    """The definition, counted on sub-pixels."""
    fine = np.kron(covered, np.ones((FINE, FINE)))
    fractions = []
    for x1, y1, x2, y2 in np.rint(boxes * FINE).astype(int):
        fractions.append(fine[y1:y2, x1:x2].mean())
    return np.array(fractions)


def lay(rng, boxes, fraction):
    return lay_occluders(boxes, rng.random((len(boxes), 2)), SIZE, fraction)


@pytest.mark.parametrize("fine", [1, FINE], ids=["whole pixels", "fractions of pixels"])
@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_objects_are_occluded_by_the_asked_fraction_however_they_overlap(count, fine):
    rng = np.random.default_rng(count)
    for _ in range(60):
        boxes = random_boxes(rng, count, fine=fine)
        for level in LEVELS:
            fractions = counted_fractions(lay(rng, boxes, level) >= 0, boxes)
            assert np.abs(fractions - level).max() <= 0.01, (boxes, level)


def test_a_box_in_a_box_and_two_equal_boxes_have_the_asked_fraction_too():
    rng = np.random.default_rng(0)
    outer = np.array([10.0, 10, 90, 90])
    for inner in ([10.0, 10, 30, 30], [30.0, 40, 80, 85], [11.0, 11, 89, 89], outer):
        for level in LEVELS:
            boxes = np.array([outer, inner])
            assert np.abs(counted_fractions(lay(rng, boxes, level) >= 0, boxes) - level).max() <= 0.01


def test_in_a_crowd_nothing_is_occluded_more_and_hardly_anything_less():
    rng = np.random.default_rng(3)
    fractions = []
    for _ in range(20):
        boxes = random_boxes(rng, 12)
        fractions += [counted_fractions(lay(rng, boxes, level) >= 0, boxes) - level for level in LEVELS]
    errors = np.concatenate(fractions)
    assert errors.max() <= 0.01
    assert (errors >= -0.01).mean() > 0.98


def test_every_size_from_20_pixels_is_occluded_to_one_point():
    for side in range(20, 61):
        box = np.array([[3.0, 5, 3 + side, 25]])
        for level in LEVELS:
            covered = lay_occluders(box, np.array([[0.3, 0.8]]), SIZE, level) >= 0
            assert abs(covered[5:25, 3 : 3 + side].mean() - level) <= 0.01


def test_occluders_lie_in_the_box_of_their_object():
    rng = np.random.default_rng(4)
    boxes = random_boxes(rng, 5, fine=FINE)
    owners = lay(rng, boxes, 0.5)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        ys, xs = np.nonzero(owners == number)
        assert len(ys)
        assert xs.min() >= x1 and ys.min() >= y1 and xs.max() + 1 <= x2 and ys.max() + 1 <= y2


def test_what_is_occluded_of_a_lone_object_stays_occluded_at_higher_levels():
    rng = np.random.default_rng(5)
    for _ in range(20):
        boxes, anchors = random_boxes(rng, 1), rng.random((1, 2))
        covers = [lay_occluders(boxes, anchors, SIZE, level) >= 0 for level in LEVELS]
        for less, more in pairwise(covers):
            assert more[less].all() and more.sum() > less.sum()


@pytest.mark.parametrize("x", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("y", [0.0, 0.5, 1.0])
def test_the_window_has_the_shape_of_the_box_and_lies_at_its_anchor(x, y):
    box = np.array([[20.0, 10, 120, 60]])
    ys, xs = np.nonzero(lay_occluders(box, np.array([[x, y]]), SIZE, 0.25) >= 0)
    width, height = np.ptp(xs) + 1, np.ptp(ys) + 1
    assert abs(width - 50) <= 2 and abs(height - 25) <= 2
    assert abs(xs.min() - (20 + 50 * x)) <= 2 and abs(ys.min() - (10 + 25 * y)) <= 2


def test_level_zero_covers_nothing_and_images_without_objects_are_left_alone():
    rng = np.random.default_rng(6)
    assert (lay(rng, random_boxes(rng, 4), 0.0) == -1).all()
    assert (lay(rng, np.zeros((0, 4)), 0.5) == -1).all()


def test_boxes_smaller_than_a_pixel_do_not_break_it():
    boxes = np.array([[3.2, 4.1, 3.6, 4.9], [0, 0, 1, 1], [158.5, 118.5, 160, 120]])
    assert lay_occluders(boxes, np.full((3, 2), 0.5), SIZE, 0.5).shape == SIZE


def test_occluded_fractions_are_areas():
    rng = np.random.default_rng(7)
    covered, boxes = rng.random(SIZE) < 0.4, random_boxes(rng, 30, least=2, fine=FINE)
    fractions = occluded_fractions(covered.astype(np.int64) - 1, boxes)
    np.testing.assert_allclose(fractions, counted_fractions(covered, boxes), atol=1e-9)
