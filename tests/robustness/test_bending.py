"""Bent content: what moves, how far, and what does not."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import center_of_mass

from afrcnn.robustness import bending

STRONGEST = {"rotation": 60.0, "elastic": 0.12}
KINDS = sorted(STRONGEST)
BOXES = np.array([[10.0, 20, 90, 80], [60.0, 50, 120, 150], [70.0, 60, 85, 75], [130.5, 3.2, 159.7, 61.9]])


def bend(image, *arguments):
    """Bend an image H x W x 3."""
    return bending.bend_content(torch.from_numpy(image).permute(2, 0, 1), *arguments).permute(1, 2, 0).numpy()


def generators(boxes, seed=0):
    return [np.random.default_rng([seed, number]) for number in range(len(boxes))]


def noise(height=160, width=160):
    return np.random.default_rng(9).integers(0, 256, (height, width, 3), dtype=np.uint8)


def to_outlines(boxes, height, width):
    """The distance of each pixel to the outline of any box: a plain loop."""
    points = np.array(
        [
            (x, y)
            for x1, y1, x2, y2 in boxes
            for x in range(math.floor(x1), math.ceil(x2))
            for y in range(math.floor(y1), math.ceil(y2))
            if x in (math.floor(x1), math.ceil(x2) - 1) or y in (math.floor(y1), math.ceil(y2) - 1)
        ]
    )
    y, x = np.indices((height, width))
    return np.min([np.hypot(x - a, y - b) for a, b in points], axis=0)


@pytest.mark.parametrize("kind", KINDS)
def test_outside_of_boxes_and_on_their_outlines_nothing_changes(kind):
    image = noise()
    bent = bend(image, BOXES, kind, STRONGEST[kind], generators(BOXES))
    outside = np.ones(image.shape[:2], dtype=bool)
    for x1, y1, x2, y2 in BOXES:
        outside[math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)] = False
    outline = to_outlines(BOXES, 160, 160) == 0
    assert np.array_equal(bent[outside], image[outside])
    assert np.array_equal(bent[outline], image[outline])
    assert (bent != image).any(axis=2)[~outside & ~outline].mean() > 0.4


@pytest.mark.parametrize("kind", KINDS)
def test_content_leaves_no_box_and_enters_none(kind):
    image = np.zeros((160, 160, 3), dtype=np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(BOXES):
        image[math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)] += np.uint8(16 << number)
    inner = to_outlines(BOXES, 160, 160) > 1.5  # next to an outline, pixels are mixed
    for seed in range(5):
        bent = bend(image, BOXES, kind, STRONGEST[kind], generators(BOXES, seed))
        assert np.array_equal(bent[inner], image[inner]), seed


def coordinates(side=240):
    y, x = np.indices((side, side), dtype=np.uint8)
    return np.stack([x, y, np.zeros_like(x)], axis=2)


@pytest.mark.parametrize("strength", [0.03, 0.12])
def test_an_elastic_warp_displaces_by_its_strength_at_most_and_nearly_that(strength):
    image, boxes = coordinates(), np.array([[10.0, 20, 230, 130]])
    lengths = []
    for seed in range(8):
        moved = bend(image, boxes, "elastic", strength, generators(boxes, seed)).astype(float) - image
        lengths.append(np.hypot(moved[..., 0], moved[..., 1]).max())
    assert max(lengths) <= strength * 110 + 1
    assert np.mean(lengths) >= 0.6 * strength * 110


def test_parts_turn_by_the_angle_one_way_or_the_other():
    box = np.array([[20.0, 20, 180, 180]])  # parts of 80 x 80 pixels: their centres lie at 60 and 140
    turns = []
    for seed in range(4):
        for centre_x, centre_y in ((60, 60), (140, 60), (60, 140), (140, 140)):
            image = np.zeros((200, 200, 3), dtype=np.uint8)
            image[centre_y - 2 : centre_y + 3, centre_x + 13 : centre_x + 18] = 255  # 15 pixels to the right
            y, x, _ = center_of_mass(bend(image, box, "rotation", 30.0, generators(box, seed)).astype(float))
            turns.append(math.degrees(math.atan2(y - centre_y, x - centre_x)))
            assert math.hypot(x - centre_x, y - centre_y) == pytest.approx(15, abs=0.5)
    assert np.abs(turns) == pytest.approx(30, abs=2)
    assert min(turns) < 0 < max(turns)


@pytest.mark.parametrize("kind", KINDS)
def test_the_generators_decide_and_nothing_else(kind):
    image = noise()
    bent = [bend(image, BOXES, kind, STRONGEST[kind], generators(BOXES, seed)) for seed in (0, 0, 1)]
    assert np.array_equal(bent[0], bent[1]) and not np.array_equal(bent[0], bent[2])


@pytest.mark.parametrize("kind", KINDS)
def test_strength_zero_and_images_without_objects_stay_as_they_are(kind):
    image = noise()
    assert np.array_equal(bend(image, BOXES, kind, 0.0, generators(BOXES)), image)
    assert np.array_equal(bend(image, np.zeros((0, 4)), kind, STRONGEST[kind], []), image)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_of_a_pixel_and_of_a_row_do_not_break_it(kind):
    boxes = np.array([[0.0, 0, 1, 1], [3.2, 4.1, 3.6, 4.9], [0, 100, 160, 101], [159.5, 100, 160, 160]])
    assert np.array_equal(bend(noise(), boxes, kind, STRONGEST[kind], generators(boxes)), noise())
