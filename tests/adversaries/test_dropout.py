"""Dropout without a network: as many cells as ASDN hides, the hardest window, and blocks."""

import pytest
import torch
from scipy import stats
from torchvision.ops import DropBlock2d

from afrcnn.adversaries.asdn import ASDN
from afrcnn.adversaries.dropout import DropBlock, HardDropout, RandomDropout
from reference import PlainHead, losses_one_by_one, windows_by_loops
from tiny import KINDS

NOTHING = PlainHead(lambda features: features.new_zeros(len(features), 4))
"""A head that tells no class from another."""


def ones(n, channels=1, size=6):
    return torch.ones(n, channels, size, size), torch.ones(n, dtype=torch.int64)


def test_random_dropout_hides_as_many_cells_as_asdn_in_all_channels(tiny):
    for size in (6, 7, 14):
        for fraction in (1 / 3, 15 / 49):
            features, labels = tiny.objects(10, size=size)
            features += 0.1
            hidden = RandomDropout(fraction=fraction)(features, labels, NOTHING).features
            mask = (hidden == 0).all(dim=1)
            assert torch.equal(hidden, features * ~mask[:, None]), (size, fraction)
            asdn = ASDN(tiny.spec(size=size), fraction=fraction)
            expected = asdn.sampling(torch.rand(10, size, size)).flatten(1).sum(1)
            assert torch.equal(mask.flatten(1).sum(1), expected), (size, fraction)


def test_random_dropout_hides_every_cell_equally_often():
    torch.manual_seed(6)
    hidden = RandomDropout()(*ones(20_000), NOTHING).features
    counts = (hidden == 0).flatten(1).sum(0).double()
    statistic = ((counts - 20_000 / 3) ** 2 / (20_000 * 2 / 9)).sum().item() * 35 / 36
    assert 0.001 < stats.chi2.cdf(statistic, 35) < 0.999


def test_random_dropout_hides_windows_anywhere(tiny):
    masks = RandomDropout(mask="window", fraction=4 / 36)(*ones(4000), NOTHING).features[:, 0] == 0
    places = {tuple(mask.nonzero()[0].tolist()) for mask in masks if mask.sum() == 4}
    assert {(y, x) for y in range(5) for x in range(5)} <= places


def test_the_score_drop_is_that_of_the_detector_asked_before_and_after(tiny):
    spec = tiny.spec()
    adversaries = (RandomDropout(), HardDropout(spec), HardDropout(spec, window=3, stride=2), DropBlock(spec))
    for kind in KINDS:
        for adversary in adversaries:
            detector = tiny.detector(kind)
            features, labels = tiny.objects()
            features *= 20  # so that every kind of box head is hurt
            output = adversary(features, labels, detector.head)
            detector.box_head.eval()
            drops = []
            for before, after, label in zip(features, output.features, labels, strict=True):
                scores = [
                    detector.predictor(detector.box_head(x[None]))[0][0].softmax(0)[label] for x in (before, after)
                ]
                drops.append((scores[0] - scores[1]).item())
            assert abs(sum(drops)) > 0.01, kind
            assert output.metrics.keys() == {"score_drop"}
            assert output.metrics["score_drop"].item() == pytest.approx(sum(drops) / 5, abs=1e-5), kind


def test_hard_dropout_hides_the_window_that_costs_most(tiny):
    """By default d / 3 cells on a side, rounded."""
    for size, window, stride, side in [(6, None, 1, 2), (7, None, 1, 2), (14, None, 2, 5), (6, 3, 1, 3), (7, 2, 2, 2)]:
        detector = tiny.detector(size=size)
        features, labels = tiny.objects(size=size)
        hidden = HardDropout(tiny.spec(size=size), window=window, stride=stride)(
            features, labels, detector.head
        ).features
        masks = windows_by_loops(size, side, stride)
        losses = losses_one_by_one(features, labels, lambda x, d=detector: d.predictor(d.box_head.eval()(x))[0], masks)
        assert torch.equal(hidden, features * ~masks[losses.argmax(dim=1)][:, None]), (size, window, stride)


def test_dropblock_is_torchvision_s(tiny):
    for fraction, block, size in ((1 / 3, 3, 7), (0.1, 5, 14), (0.5, 1, 6)):
        features, labels = tiny.objects(size=size)
        torch.manual_seed(3)
        expected = DropBlock2d(fraction, block)(features)
        torch.manual_seed(3)
        dropped = DropBlock(fraction=fraction, block=block)(features, labels, NOTHING).features
        assert torch.equal(dropped, expected), (fraction, block, size)
        assert not torch.equal(expected, features)


def test_what_is_zero_is_made_of_whole_blocks_and_the_rest_is_scaled_to_the_same_mean():
    dropped = DropBlock()(*ones(4, 8, 7), NOTHING).features
    zero = dropped == 0
    assert 0 < zero.float().mean() < 1 / 3 + 0.05
    in_blocks = torch.zeros_like(zero)
    for row in range(5):
        for column in range(5):
            block = (slice(None), slice(None), slice(row, row + 3), slice(column, column + 3))
            in_blocks[block] |= zero[block].flatten(2).all(dim=2)[..., None, None]
    assert torch.equal(in_blocks, zero)
    visible = dropped[~zero]
    assert torch.allclose(visible, visible[0].expand_as(visible))
    assert dropped.mean() == pytest.approx(1, abs=1e-4)
    assert (zero[:, 0] != zero[:, 1]).any()  # channels lose blocks of their own


def test_the_fraction_of_zeros_is_a_little_less_than_asked_for_as_blocks_meet():
    for fraction in (0.1, 1 / 3):
        zero = (DropBlock(fraction=fraction)(*ones(300, 64, 7), NOTHING).features == 0).float().mean(dim=(0, 1))
        seeds = fraction * 49 / (9 * 25)
        # A cell is zero unless none of the blocks that hold it, 1 in the corners to 9 in the middle, was drawn.
        blocks = torch.tensor([[min(r + 1, 3, 7 - r) * min(c + 1, 3, 7 - c) for c in range(7)] for r in range(7)])
        expected = 1 - (1 - seeds) ** blocks
        torch.testing.assert_close(zero, expected, rtol=0, atol=0.02)
        assert 0.7 * fraction < zero.mean() < fraction


def test_dropblock_has_nothing_to_learn_and_the_detectors_gradient_goes_through_what_is_left(tiny):
    features, labels = tiny.objects()
    features.requires_grad_()
    adversary = DropBlock()
    output = adversary(features, labels, tiny.detector().head)
    assert not list(adversary.parameters())
    assert output.loss == 0
    assert not output.loss.requires_grad
    output.features.sum().backward()
    assert torch.equal(features.grad == 0, output.features == 0)


def test_dropblock_keeps_type_and_shape_and_takes_no_objects(tiny):
    for dtype in (torch.float32, torch.bfloat16):
        for count in (0, 5):
            features, labels = tiny.objects(count)
            output = DropBlock()(features.to(dtype), labels, NOTHING)
            assert output.features.dtype == dtype
            assert output.features.shape == features.shape
            assert output.metrics.keys() == ({"score_drop"} if count else set())


def test_a_block_that_has_no_centre_or_does_not_fit_is_refused(tiny):
    for block in (2, 4):
        with pytest.raises(ValueError, match=f"block of {block} cells has no centre"):
            DropBlock(block=block)
    with pytest.raises(ValueError, match="a block of 7 cells does not fit in 6 x 6"):
        DropBlock(tiny.spec(), block=7)
