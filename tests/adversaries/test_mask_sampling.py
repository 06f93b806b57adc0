"""From heatmaps to masks: single cells as the paper draws them, and windows in one piece."""

import pytest
import torch
from scipy import stats

from afrcnn.adversaries.mask_sampling import MaskSampling, WindowSampling, build_sampling


def test_a_third_of_all_cells_is_hidden_and_all_come_from_the_top_half():
    for size in (3, 6, 7, 14):
        for scale in (0.0, 1e-3, 1.0, 1e3, 1e30):
            heatmaps = torch.randn(50, size, size) * scale
            masks = MaskSampling()(heatmaps)
            assert masks.dtype == torch.bool
            assert masks.shape == heatmaps.shape
            assert (masks.flatten(1).sum(1) == size * size // 3).all(), (size, scale)
            for heatmap, mask in zip(heatmaps, masks, strict=True):
                top = heatmap.flatten().sort(descending=True).values
                assert heatmap[mask].min() >= top[size * size // 2 - 1], (size, scale)


@pytest.mark.parametrize(
    ("size", "sampling", "top"), [(6, MaskSampling(), 18), (7, MaskSampling(20 / 49, 15 / 49), 20)]
)
def test_all_top_cells_and_all_pairs_of_them_are_hidden_equally_often(size, sampling, top):
    torch.manual_seed(1)
    draws, cells = 20_000, size * size
    heatmap = torch.randperm(cells).float()
    masks = sampling(heatmap.view(1, size, size).expand(draws, -1, -1)).flatten(1).double()
    candidates = heatmap >= cells - top
    assert not masks[:, ~candidates].any()
    drawn = int(masks[0].sum())
    masks = masks[:, candidates]

    # A cell is hidden with probability p; cells of a mask are negatively correlated, which the factor undoes.
    p = drawn / top
    statistic = ((masks.sum(0) - draws * p) ** 2 / (draws * p * (1 - p))).sum().item() * (top - 1) / top
    assert 0.001 < stats.chi2.cdf(statistic, top - 1) < 0.999

    # If masks are uniform over all subsets, so is the number of hidden cells among the first half: hypergeometric.
    law = stats.hypergeom(top, top // 2, drawn)
    observed = torch.bincount(masks[:, : top // 2].sum(1).long(), minlength=top + 1).numpy()
    expected = law.pmf(range(top + 1)) * draws
    likely = expected > 5
    assert observed[expected == 0].sum() == 0
    scaled = expected[likely] * observed[likely].sum() / expected[likely].sum()
    assert stats.chisquare(observed[likely], scaled).pvalue > 1e-3


def test_the_same_state_of_the_generator_gives_the_same_masks():
    heatmaps = torch.randn(8, 7, 7)
    for sampling in (MaskSampling(), WindowSampling()):
        state = torch.get_rng_state()
        masks = sampling(heatmaps)
        assert not torch.equal(masks, sampling(heatmaps))
        torch.set_rng_state(state)
        assert torch.equal(masks, sampling(heatmaps))


def test_the_preset_of_the_release_draws_15_of_the_top_20():
    heatmaps = torch.randn(100, 7, 7)
    masks = MaskSampling(top=20 / 49, fraction=15 / 49)(heatmaps)
    assert (masks.flatten(1).sum(1) == 15).all()
    ranks = heatmaps.flatten(1).argsort(dim=1, descending=True).argsort(dim=1)
    assert ranks[masks.flatten(1)].max() == 19


def sides(mask):
    """Return height and width of a mask, after finding that it is a full rectangle."""
    rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
    height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
    assert height * width == mask.sum()
    return height, width


def test_a_window_is_one_rectangle_of_a_fraction_within_the_limits():
    for size in (6, 7, 14):
        for low, high in ((0.1, 0.6), (0.3, 0.3), (0.02, 0.05), (0.9, 1.0)):
            for mask in WindowSampling((low, high))(torch.randn(300, size, size)):
                height, width = sides(mask)
                # Sides are rounded to whole cells: by half a cell each.
                assert (height - 0.5) * (width - 0.5) <= high * size**2 + 1, (size, low, high)
                assert (height + 0.5) * (width + 0.5) >= low * size**2 - 1, (size, low, high)
                assert max(height, width) <= size


def test_fractions_of_windows_are_spread_evenly_and_sides_differ():
    masks = WindowSampling((0.1, 0.6))(torch.zeros(20_000, 14, 14))
    fractions = masks.flatten(1).float().mean(dim=1)
    assert fractions.mean() == pytest.approx(0.35, abs=0.01)
    assert fractions.quantile(0.25) == pytest.approx(0.225, abs=0.02)
    heights, widths = torch.tensor([sides(mask) for mask in masks[:2000]]).float().unbind(1)
    assert ((heights / widths).log().mean()).abs() < 0.03
    assert (heights > 1.2 * widths).float().mean() > 0.15
    assert (widths > 1.2 * heights).float().mean() > 0.15


def test_one_number_is_the_fraction_of_every_window():
    torch.manual_seed(5)
    masks = WindowSampling(0.3)(torch.zeros(100, 14, 14))
    torch.manual_seed(5)
    assert torch.equal(masks, WindowSampling((0.3, 0.3))(torch.zeros(100, 14, 14)))


def test_a_window_lies_where_the_heatmap_is_highest():
    heatmaps = torch.randn(200, 7, 7)
    masks = WindowSampling((0.2, 0.5), top=0.01)(heatmaps)  # one place alone is left to choose
    for heatmap, mask in zip(heatmaps.sigmoid(), masks, strict=True):
        height, width = sides(mask)
        best = max(
            float(heatmap[y : y + height, x : x + width].mean()) for y in range(8 - height) for x in range(8 - width)
        )
        assert float(heatmap[mask].mean()) == pytest.approx(best, abs=1e-6)


def test_a_window_lies_anywhere_among_the_top_places_and_nowhere_else(monkeypatch):
    monkeypatch.setattr("afrcnn.adversaries.mask_sampling._ASPECT", 1.0)  # squares alone
    heatmap = torch.randn(7, 7)
    masks = WindowSampling((9 / 49, 9 / 49), top=10 / 25)(heatmap.expand(4000, 7, 7))
    means = {}
    for y in range(5):
        for x in range(5):
            means[y, x] = float(heatmap.sigmoid()[y : y + 3, x : x + 3].mean())
    top = set(sorted(means, key=means.__getitem__, reverse=True)[:10])
    places = [tuple(mask.nonzero()[0].tolist()) for mask in masks]
    assert set(places) == top
    counts = torch.tensor([places.count(place) for place in top])
    assert (counts - 400).abs().max() < 100  # five deviations


def test_no_objects_have_no_masks():
    for sampling in (MaskSampling(), WindowSampling()):
        assert sampling(torch.zeros(0, 7, 7)).shape == (0, 7, 7)


def test_impossible_fractions_are_refused():
    for numbers in ((0.5, -0.1), (0.3, 0.4), (1.1, 0.5), (-1, -2)):
        with pytest.raises(ValueError, match="0 <= fraction <= top <= 1 does not hold"):
            MaskSampling(*numbers)
    for numbers in (((0.0, 0.5),), ((0.5, 0.4),), ((0.1, 1.1),), ((0.1, 0.5), 0.0), ((0.1, 0.5), 2), (0.0,)):
        with pytest.raises(ValueError, match="fraction"):
            WindowSampling(*numbers)


def test_a_recipe_s_words_choose_what_is_drawn():
    assert isinstance(build_sampling("cells", 1 / 3, 1 / 2), MaskSampling)
    assert isinstance(build_sampling("window", (0.1, 0.6), 1 / 4), WindowSampling)
    assert isinstance(build_sampling("window", 0.3, 1 / 4), WindowSampling)
    for arguments, problem in (
        (("squares", 0.3, 0.5), "mask is 'squares'; choose cells or window"),
        (("cells", (0.1, 0.6), 0.5), "a range of fractions is for windows"),
    ):
        with pytest.raises(ValueError, match=problem):
            build_sampling(*arguments)
