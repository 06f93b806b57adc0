"""Which objects others overlap, against pixels and against published counts of real images."""

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from afrcnn.data.layouts import open_dataset
from afrcnn.data.overlap import intersection_over_foreground, overlapped


def target(boxes, **columns):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(100, 100)),
        "labels": torch.ones(len(boxes), dtype=torch.int64),
        **{name: torch.tensor(value) for name, value in columns.items()},
    }


def test_iof_is_that_of_the_pixels():
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 20, (40, 2))
    boxes = np.hstack([corner, corner + rng.integers(1, 12, (40, 2))])
    pixels = np.zeros((40, 32, 32), dtype=bool)
    for mask, (x1, y1, x2, y2) in zip(pixels, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    expected = [[(one & other).sum() / one.sum() for other in pixels] for one in pixels]
    boxes = torch.from_numpy(boxes).double()
    np.testing.assert_allclose(intersection_over_foreground(boxes, boxes).numpy(), expected, rtol=1e-12)


def test_the_fraction_of_the_objects_own_box_counts_not_that_of_the_other():
    assert overlapped(target([[0, 0, 10, 10], [0, 0, 100, 100]])).tolist() == [True, False]


def test_an_object_overlapped_by_just_the_limit_is_unoccluded():
    boxes = [[0, 0, 20, 10], [19, 0, 39, 10]]
    assert overlapped(target(boxes), overlap=0.05).tolist() == [False, False]
    assert overlapped(target(boxes), overlap=0.049).tolist() == [True, True]


def test_two_small_overlaps_do_not_add_up():
    assert not overlapped(target([[0, 0, 100, 10], [0, 0, 4, 50], [96, 0, 100, 50]]))[0]


def test_equal_boxes_overlap_each_other_and_a_lone_one_nothing():
    assert overlapped(target([[0, 0, 10, 10]] * 2)).tolist() == [True, True]
    assert overlapped(target([[0, 0, 10, 10]])).tolist() == [False]
    assert overlapped(target([])).tolist() == []


def test_crowds_neither_overlap_nor_are_overlapped():
    flags = overlapped(target([[0, 0, 50, 50], [0, 0, 90, 90], [10, 10, 20, 20]], iscrowd=[False, True, False]))
    assert flags.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("name", "objects", "occluded", "images", "unoccluded_images"),
    [("cards", 527, 126, 296, 235), ("fruit", 465, 281, 240, 150), ("bccd", 3941, 2402, 292, None)],
)
def test_counts_on_real_images_are_those_of_their_readme(shared, name, objects, occluded, images, unoccluded_images):
    """The README takes VOC's corners for continuous coordinates: a box is a pixel narrower and lower than here."""
    dataset = open_dataset(shared / "data" / name, "trainval")
    flags = []
    for index in range(len(dataset)):
        annotation = dataset.target(index)
        boxes = annotation["boxes"]
        flags.append(overlapped({"boxes": tv_tensors.wrap(boxes + torch.tensor([1.0, 1, 0, 0]), like=boxes)}))
    assert (sum(map(len, flags)), sum(int(flag.sum()) for flag in flags), len(flags)) == (objects, occluded, images)
    if unoccluded_images is not None:
        assert sum(not flag.any() for flag in flags) == unoccluded_images
