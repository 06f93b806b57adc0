"""The windows of the exhaustive search, and the search against hiding each in turn and asking the head."""

import itertools

import pytest
import torch

from afrcnn.adversaries.window_search import WindowSearch, _sliding_windows
from reference import PlainHead, losses_one_by_one, windows_by_loops

GRIDS = list(itertools.product([6, 7, 14], [2, 3, 5], [1, 2]))


def test_windows_slide_over_the_whole_grid_row_by_row():
    for size, window, stride in [*GRIDS, (1, 1, 1), (6, 6, 3), (6, 1, 1), (7, 5, 5)]:
        masks = _sliding_windows(size, window, stride)
        assert masks.dtype == torch.bool
        assert torch.equal(masks, windows_by_loops(size, window, stride)), (size, window, stride)


def test_no_cell_is_left_out_whatever_the_stride():
    for size in range(1, 15):
        for window in range(1, size + 1):
            for stride in range(1, window + 1):
                assert _sliding_windows(size, window, stride).any(dim=0).all(), (size, window, stride)


def test_the_windows_of_the_release_are_sixteen():
    rows = _sliding_windows(7, 2, 2).any(dim=2)[::4].int().argmax(dim=1)
    assert len(_sliding_windows(7, 2, 2)) == 16
    assert rows.tolist() == [0, 2, 4, 5]


def test_windows_that_cannot_slide_are_refused():
    for size, window, stride in [(7, 8, 1), (7, 0, 1), (7, -1, 1), (7, 2, 0), (2, 3, 1), (7, 2, 3)]:
        for build in (_sliding_windows, WindowSearch):
            with pytest.raises(ValueError, match=f"a window of {window} cells cannot slide by {stride} over all"):
                build(size, window, stride)


def test_the_window_found_is_the_one_whose_hiding_costs_most(tiny):
    """By default d / 3 cells on a side, rounded."""
    for size, window, stride, side in [(6, None, 1, 2), (7, None, 1, 2), (14, None, 2, 5), (7, 2, 2, 2), (6, 3, 1, 3)]:
        detector = tiny.detector(size=size)
        features, labels = tiny.objects(6, size=size)
        masks = windows_by_loops(size, side, stride)
        exact = losses_one_by_one(features, labels, lambda x, d=detector: d.predictor(d.box_head.eval()(x))[0], masks)
        for head in (detector.head, PlainHead(detector.head.logits)):
            hardest, losses = WindowSearch(size, window, stride)(features.requires_grad_(), labels, head)
            assert torch.equal(hardest, masks[exact.argmax(dim=1)]), (size, window, stride)
            torch.testing.assert_close(losses, exact.amax(dim=1))
            assert not losses.requires_grad
