from __future__ import annotations

import subprocess
import sys
import textwrap

import cv2
import numpy as np
import pytest

from afrcnn.proposals.selective_search import SelectiveSearch


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 40, (60, 80, 3), dtype=np.uint8)
    for x, y, w, h in ((5, 5, 30, 20), (40, 10, 30, 40), (10, 35, 20, 20), (12, 37, 5, 5)):
        pixels[y : y + h, x : x + w] = rng.integers(60, 256, 3)
    return pixels


def opencv(image: np.ndarray, mode: str) -> set[tuple[int, ...]]:
    """The boxes with the scales of the paper, and its least size of a segment."""
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    search.switchToSelectiveSearchFast() if mode == "fast" else search.switchToSelectiveSearchQuality()
    search.clearGraphSegmentations()
    for k in {"fast": (50, 100), "quality": (50, 100, 150, 300)}[mode]:
        segmentation = cv2.ximgproc.segmentation.createGraphSegmentation()
        segmentation.setK(k)
        segmentation.setMinSize(k)
        segmentation.setSigma(0.8)
        search.addGraphSegmentation(segmentation)
    return {(x, y, x + w, y + h) for x, y, w, h in search.process().tolist() if min(w, h) >= 8}


@pytest.mark.parametrize("mode", ["fast", "quality"])
def test_the_boxes_are_those_of_opencv_with_the_papers_scales_each_once_inside_and_not_too_small(image, mode):
    boxes = SelectiveSearch(mode)(image)
    assert boxes.dtype == np.float32
    assert boxes.shape[1] == 4
    as_set = set(map(tuple, boxes.astype(int).tolist()))
    assert len(as_set) == len(boxes)
    assert as_set == opencv(image, mode)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= (80, 60)).all()


def test_the_smallest_side_is_the_callers_choice(image):
    all_boxes = SelectiveSearch(min_side=1)(image)
    sides = (all_boxes[:, 2:] - all_boxes[:, :2]).min(axis=1)
    assert (sides < 20).any()
    large = SelectiveSearch(min_side=20)(image)
    assert set(map(tuple, large)) == set(map(tuple, all_boxes[sides >= 20]))


def test_an_object_that_stands_out_is_found(image):
    boxes = SelectiveSearch()(image)
    for box in ((5, 5, 35, 25), (40, 10, 70, 50)):
        assert np.abs(boxes - box).max(axis=1).min() <= 1


def test_the_colour_channels_are_not_swapped():
    """Green on red of the same grey is found in HSV; the set of boxes of the swapped image is another."""
    rng = np.random.default_rng(1)
    image = rng.integers(0, 255, (50, 50, 3), dtype=np.uint8)
    assert set(map(tuple, SelectiveSearch()(image).astype(int).tolist())) == opencv(image, "fast")
    assert opencv(image, "fast") != opencv(np.ascontiguousarray(image[:, :, ::-1]), "fast")


def test_large_boxes_tend_to_come_first_as_in_the_paper():
    rng = np.random.default_rng(2)
    image = cv2.resize(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8), (96, 96), interpolation=cv2.INTER_NEAREST)
    boxes = SelectiveSearch()(image)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    half = len(boxes) // 2
    assert half > 20
    assert np.median(areas[:half]) > np.median(areas[half:])


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (7, 7)])
def test_an_image_too_small_for_any_box_has_none(size):
    assert SelectiveSearch()(np.zeros((*size, 3), np.uint8)).shape == (0, 4)


def test_a_flat_image_is_one_box():
    np.testing.assert_array_equal(SelectiveSearch()(np.full((20, 30, 3), 7, np.uint8)), [[0, 0, 30, 20]])


@pytest.mark.parametrize("shape", [(10, 10), (10, 10, 4), (0, 10, 3), (3, 10, 10, 3)])
def test_what_is_not_an_image_is_refused(shape):
    with pytest.raises(ValueError, match="H x W x 3"):
        SelectiveSearch()(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        SelectiveSearch()(np.zeros((10, 10, 3), np.float32))


def test_another_process_finds_the_same_boxes_in_the_same_order(image, tmp_path):
    np.save(tmp_path / "image.npy", image)
    program = f"""
        import cv2, numpy as np
        from afrcnn.proposals.selective_search import SelectiveSearch
        image = np.load({str(tmp_path / "image.npy")!r})
        cv2.setRNGSeed(7)
        SelectiveSearch()(image[::-1].copy())  # moves the C library's rand on
        np.save({str(tmp_path / "boxes.npy")!r}, SelectiveSearch()(image))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "boxes.npy"), SelectiveSearch()(image))
    np.testing.assert_array_equal(SelectiveSearch()(image), SelectiveSearch()(image.copy()))
