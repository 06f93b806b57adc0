"""Pictures of false positives."""

import numpy as np

from afrcnn.visualize.false_positives import SIDE, draw_false_positive


def test_pictures_show_the_box_and_what_is_around_it():
    image = np.full((50, 80, 3), 90, np.uint8)
    image[10:30, 40:60] = (250, 0, 0)
    picture = np.asarray(draw_false_positive(image, (40, 10, 60, 30)))
    assert max(picture.shape[:2]) == SIDE
    assert picture[SIDE // 2, SIDE // 2].tolist() == [250, 0, 0]
    assert picture[3, 3].tolist() == [90, 90, 90]
    assert draw_false_positive(image, (79.2, 0, 80, 0.4)).size[0] > 10  # a sliver in a corner
