"""Detections drawn over images."""

import numpy as np
import pytest

from afrcnn.visualize.detections import _class_colour, _overlap, _place, _text_colour, draw_detections
from reference import found


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """The ratio of WCAG 2.2, from its definition."""

    def luminance(colour: tuple[int, ...]) -> float:
        red, green, blue = (
            value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in np.array(colour) / 255
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_every_side_of_a_box_is_drawn_inside_it_in_its_class_colour() -> None:
    image = np.full((200, 300, 3), 128, np.uint8)
    picture = np.asarray(draw_detections(image, found([[40, 60, 240, 160]], [0.9], [2]), ["cat", "dog"]))
    colour = _class_colour(2)
    for y, x in ((60, 200), (159, 100), (120, 40), (120, 239)):
        assert tuple(picture[y, x]) == colour
    for y, x in ((160, 100), (120, 39), (120, 240), (110, 140)):
        assert tuple(picture[y, x]) == (128, 128, 128)


def test_the_image_itself_is_left_as_it_is() -> None:
    image = np.full((100, 100, 3), 7, np.uint8)
    picture = draw_detections(image, found([[10, 30, 80, 90]], [0.9], [1]), ["cat"])
    assert (image == 7).all()
    assert picture.size == (100, 100)
    assert not (np.asarray(picture) == 7).all()


def test_without_detections_the_picture_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    assert (np.asarray(draw_detections(image, found([], [], []), ["cat"])) == image).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (1200, 40)])
def test_images_smaller_than_their_label_are_drawn_too(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    box = [0.0, 0.0, size[1], size[0]]
    assert draw_detections(image, found([box], [1.0], [1]), ["a rather long name"]).size == size[::-1]


def test_labels_lie_inside_the_picture() -> None:
    for seed in range(20):
        draw = np.random.default_rng(seed)
        width, height = draw.integers(100, 400, 2)
        x1, y1 = draw.uniform(0, width - 1), draw.uniform(0, height - 1)
        box = (x1, y1, draw.uniform(x1, width), draw.uniform(y1, height))
        left, top, right, bottom = _place((80, 14), box, (width, height), [])
        assert (right - left, bottom - top) == (80, 14), seed
        assert left >= 0, seed
        assert top >= 0, seed
        assert right <= width, seed
        assert bottom <= height, seed


def test_labels_of_the_same_box_do_not_cover_each_other() -> None:
    taken: list[tuple[int, int, int, int]] = []
    for _ in range(8):  # four rows, two columns
        taken.append(_place((60, 14), (100.0, 100.0, 240.0, 200.0), (400, 400), taken))
    for first, place in enumerate(taken):
        assert not any(_overlap(place, other) for other in taken[first + 1 :])


def test_overlap_is_the_number_of_shared_pixels() -> None:
    draw = np.random.default_rng(0)
    for _ in range(50):
        x1, y1, x3, y3 = draw.integers(0, 15, 4).tolist()
        one, other = (x1, y1, x1 + 6, y1 + 4), (x3, y3, x3 + 3, y3 + 8)
        grids = []
        for left, top, right, bottom in (one, other):
            grid = np.zeros((40, 40), bool)
            grid[top:bottom, left:right] = True
            grids.append(grid)
        assert _overlap(one, other) == (grids[0] & grids[1]).sum()


def test_text_contrasts_with_the_colour_of_every_class() -> None:
    for label in range(1, 81):
        colour = _class_colour(label)
        assert contrast(colour, _text_colour(colour)) >= 4.5  # WCAG 2.2, level AA
        assert contrast(colour, _text_colour(colour)) == max(contrast(colour, t) for t in ((0,) * 3, (255,) * 3))


def test_the_first_twenty_classes_have_colours_of_their_own() -> None:
    colours = np.array([_class_colour(label) for label in range(1, 21)])
    distance = np.abs(colours[:, None] - colours[None]).sum(axis=2) + 1000 * np.eye(20, dtype=int)
    assert distance.min() > 20
