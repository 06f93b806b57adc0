"""Masks in one piece, and occluders made of other RoIs' features."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from afrcnn.adversaries import ASDN, Chain, MaskSampling, Occluder, RandomDropout, Seam, WindowSampling


def sides(mask: torch.Tensor) -> tuple[int, int]:
    """Return height and width of a mask, after finding that it is a full rectangle."""
    rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
    height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
    assert height * width == mask.sum()
    return height, width


@pytest.mark.parametrize("size", [6, 7, 14])
@pytest.mark.parametrize("shares", [(0.1, 0.6), (0.3, 0.3), (0.02, 0.05), (0.9, 1.0)])
def test_a_window_is_one_rectangle_of_a_share_within_the_limits(size, shares):
    for mask in WindowSampling(shares)(torch.randn(300, size, size)):
        height, width = sides(mask)
        # Sides are rounded to whole cells: by half a cell each.
        assert (height - 0.5) * (width - 0.5) <= shares[1] * size**2 + 1
        assert (height + 0.5) * (width + 0.5) >= shares[0] * size**2 - 1
        assert max(height, width) <= size


def test_shares_of_windows_are_spread_evenly_and_sides_differ():
    masks = WindowSampling((0.1, 0.6))(torch.zeros(20_000, 14, 14))
    shares = masks.flatten(1).float().mean(dim=1)
    assert shares.mean() == pytest.approx(0.35, abs=0.01)
    assert shares.quantile(0.25) == pytest.approx(0.225, abs=0.02)
    heights, widths = torch.tensor([sides(mask) for mask in masks[:2000]]).float().unbind(1)
    assert ((heights / widths).log().mean()).abs() < 0.03
    assert (heights > 1.2 * widths).float().mean() > 0.15
    assert (widths > 1.2 * heights).float().mean() > 0.15


def test_a_window_lies_where_the_heatmap_is_highest():
    heatmaps = torch.randn(200, 7, 7)
    masks = WindowSampling((0.2, 0.5), top=0.01)(heatmaps)  # one place alone is left to choose
    for heatmap, mask in zip(heatmaps.sigmoid(), masks, strict=True):
        height, width = sides(mask)
        best = max(
            float(heatmap[y : y + height, x : x + width].mean()) for y in range(8 - height) for x in range(8 - width)
        )
        assert float(heatmap[mask].mean()) == pytest.approx(best, abs=1e-6)


def test_a_window_lies_anywhere_among_the_top_places_and_nowhere_else():
    heatmap = torch.randn(7, 7)
    masks = WindowSampling((9 / 49, 9 / 49), top=10 / 25, aspect=1.0)(heatmap.expand(4000, 7, 7))
    means = {}
    for y in range(5):
        for x in range(5):
            means[y, x] = float(heatmap.sigmoid()[y : y + 3, x : x + 3].mean())
    top = set(sorted(means, key=means.__getitem__, reverse=True)[:10])
    places = [tuple(mask.nonzero()[0].tolist()) for mask in masks]
    assert set(places) == top
    counts = torch.tensor([places.count(place) for place in top])
    assert (counts - 400).abs().max() < 100  # five deviations


@pytest.mark.parametrize("numbers", [((0.0, 0.5),), ((0.5, 0.4),), ((0.1, 1.1),), ((0.1, 0.5), 0.0), ((0.1, 0.5), 2)])
def test_impossible_windows_are_refused(numbers):
    with pytest.raises(ValueError, match="share"):
        WindowSampling(*numbers)


def test_no_objects_have_no_windows():
    assert WindowSampling()(torch.zeros(0, 7, 7)).shape == (0, 7, 7)


def test_hidden_cells_show_one_other_roi_of_another_label():
    features, labels = torch.arange(6.0)[:, None, None, None].expand(6, 3, 4, 4), torch.tensor([1, 1, 2, 2, 3, 3])
    others = torch.arange(10.0, 18)[:, None, None, None].expand(8, 3, 4, 4) * torch.ones(3, 1, 1)
    theirs = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    occluder, seen = Occluder(), [set() for _ in range(6)]
    for _ in range(300):
        mask = torch.rand(6, 4, 4) < 0.5
        mask[:, 0, 0], mask[:, 3, 3] = True, False
        occluder.observe(others, theirs)
        hidden = occluder(features, labels, mask)
        for index in range(6):
            assert (hidden[index][:, ~mask[index]] == index).all()
            (shown,) = hidden[index][:, mask[index]].unique().tolist()
            seen[index].add(int(shown) - 10)
    for label, shown in zip(labels.tolist(), seen, strict=True):
        assert shown == {other for other in range(8) if theirs[other] != label}


def test_an_occluder_sees_an_update_once():
    features, labels, mask = torch.ones(2, 1, 2, 2), torch.tensor([1, 1]), torch.ones(2, 2, 2, dtype=torch.bool)
    occluder = Occluder()
    occluder.observe(torch.full((1, 1, 2, 2), 5.0), torch.tensor([0]))
    assert (occluder(features, labels, mask) == 5).all()
    assert (occluder(features, labels, mask) == 0).all()  # no other label among the objects themselves


def test_no_gradient_reaches_what_hides_or_what_is_hidden():
    features = torch.randn(4, 2, 3, 3, requires_grad=True)
    labels, mask = torch.tensor([1, 2, 1, 2]), torch.rand(4, 3, 3) < 0.5
    Occluder()(features, labels, mask).sum().backward()
    assert torch.equal(features.grad, (~mask)[:, None].expand_as(features).float())


def test_nothing_is_hidden_where_there_is_nothing():
    empty = torch.zeros(0, 2, 3, 3)
    assert Occluder()(empty, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3, 3, dtype=torch.bool)).shape == (
        empty.shape
    )


class Plain(nn.Module):
    """An adversary that observes nothing."""

    def forward(self, features, labels, head):
        return features, features.new_zeros(()), {}


@pytest.mark.parametrize("kind", ["asdn", "random"])
def test_the_seam_shows_all_rois_of_an_update_also_to_adversaries_in_a_chain(kind):
    def build():
        if kind == "random":
            return RandomDropout(WindowSampling(), Occluder())
        network = nn.Sequential(nn.Flatten(), nn.Linear(2 * 49, 49), nn.Unflatten(1, (7, 7)))
        return ASDN(network, WindowSampling(), Occluder())

    features = torch.zeros(6, 2, 7, 7)
    features[3:] = torch.tensor([7.0, 8, 9])[:, None, None, None]
    labels = [torch.tensor([0, 0, 0]), torch.tensor([1, 0, 2])]
    seam = Seam(Chain(first=Plain(), second=build()), clean_fraction=0.5)
    hardened, _ = seam(features, labels, lambda x: x.flatten(1)[:, :3], [torch.ones(len(each)) for each in labels])
    assert torch.equal(hardened[:3], features[:3]) and torch.equal(hardened[4], features[4])
    assert hardened[3].unique().tolist() in ([0, 7], [7, 8], [7, 9])
    assert hardened[5].unique().tolist() in ([0, 9], [7, 9], [8, 9])


def test_random_dropout_hides_any_cell_as_often():
    hidden = RandomDropout(MaskSampling(1, 1 / 3))(
        torch.ones(20_000, 1, 7, 7), torch.ones(20_000).long(), lambda x: x.flatten(1)
    )
    torch.testing.assert_close(1 - hidden.features[:, 0].mean(dim=0), torch.full((7, 7), 16 / 49), atol=0.02, rtol=0)
