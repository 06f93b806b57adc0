"""Dropout without a network: as many cells as ASDN hides, and the hardest window."""

import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from afrcnn.adversaries import ASDN, DropBlock, HardDropout, MaskSampling, RandomDropout


@pytest.mark.parametrize("size", [6, 7, 14])
@pytest.mark.parametrize("share", [1 / 3, 15 / 49])
def test_random_dropout_hides_as_many_cells_as_asdn_in_all_channels(tiny, size, share):
    features, labels = tiny.objects(10, size=size)
    features += 0.1
    hidden = RandomDropout(MaskSampling(1, share))(features, labels, lambda x: x[:, :4, 0, 0]).features
    mask = (hidden == 0).all(dim=1)
    assert torch.equal(hidden, features * ~mask[:, None])
    asdn = ASDN(torch.nn.Flatten(1, 1), MaskSampling(share=share))
    expected = asdn.sampling(torch.rand(10, size, size)).flatten(1).sum(1)
    assert torch.equal(mask.flatten(1).sum(1), expected)


def test_random_dropout_hides_every_cell_equally_often(tiny):
    torch.manual_seed(6)
    features = torch.ones(20_000, 1, 6, 6)
    hidden = RandomDropout()(features, torch.ones(20_000, dtype=torch.int64), lambda x: x.flatten(1)).features
    counts = (hidden == 0).flatten(1).sum(0).double()
    statistic = ((counts - 20_000 / 3) ** 2 / (20_000 * 2 / 9)).sum().item() * 35 / 36
    assert 0.001 < stats.chi2.cdf(statistic, 35) < 0.999


def test_random_dropout_is_repeated_by_the_state_of_the_generator(tiny):
    features, labels = tiny.objects()
    head = tiny.detector().detached
    state = torch.get_rng_state()
    first = RandomDropout()(features, labels, head).features
    assert not torch.equal(first, RandomDropout()(features, labels, head).features)
    torch.set_rng_state(state)
    assert torch.equal(first, RandomDropout()(features, labels, head).features)


@pytest.mark.parametrize("build", [RandomDropout, HardDropout, lambda: HardDropout(3, 2), DropBlock])
@pytest.mark.parametrize("kind", ["fully connected", "torchvision", "residual"])
def test_the_score_drop_is_that_of_the_detector_asked_before_and_after(tiny, build, kind):
    detector = tiny.detector(kind)
    features, labels = tiny.objects()
    features *= 20  # so that every kind of head is hurt
    hardened = build()(features, labels, detector.detached)
    detector.head.eval()
    drops = []
    for before, after, label in zip(features, hardened.features, labels, strict=True):
        scores = [detector.predictor(detector.head(x[None]))[0][0].softmax(0)[label] for x in (before, after)]
        drops.append((scores[0] - scores[1]).item())
    assert abs(sum(drops)) > 0.01
    assert hardened.metrics.keys() == {"score_drop"}
    assert hardened.metrics["score_drop"].item() == pytest.approx(sum(drops) / 5, abs=1e-5)


@pytest.mark.parametrize(
    ("size", "window", "stride", "side"),
    [(6, None, 1, 2), (7, None, 1, 3), (14, None, 2, 5), (6, 3, 1, 3), (7, 2, 2, 2)],
)
def test_hard_dropout_hides_the_window_that_costs_most(tiny, size, window, stride, side):
    """By default d / 3 cells on a side, rounded up."""
    detector = tiny.detector(size=size)
    features, labels = tiny.objects(size=size)
    hidden = HardDropout(window, stride)(features, labels, detector.detached).features
    detector.head.eval()
    for x, label, found in zip(features, labels, hidden, strict=True):
        trials = []
        for top in range(0, size + 1 - side, stride):
            for left in range(0, size + 1 - side, stride):
                y = x.clone()
                y[:, top : top + side, left : left + side] = 0
                loss = F.cross_entropy(detector.predictor(detector.head(y[None]))[0], label[None])
                trials.append((loss.item(), y))
        assert torch.equal(found, max(trials, key=lambda trial: trial[0])[1])
