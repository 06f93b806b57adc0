"""ASDN: the sampled masks by their definition, the losses by plain loops."""

import math

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from afrcnn.adversaries import ASDN, ConvolutionalASDN, FullyConnectedASDN, MaskSampling


class Constant(nn.Module):
    """The same logits whatever the features."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, features):
        return self.logits


def equation_1(logits, target, counted):
    """Binary cross entropy, a cell at a time: summed over the cells, divided by the objects."""
    total = 0.0
    for heatmap, mask, count in zip(logits.tolist(), target.tolist(), counted.tolist(), strict=True):
        for row in range(len(heatmap)):
            for column in range(len(heatmap)):
                a = 1 / (1 + math.exp(-heatmap[row][column]))
                if count[row][column]:
                    total -= math.log(a) if mask[row][column] else math.log(1 - a)
    return total / len(logits)


@pytest.mark.parametrize("size", [3, 6, 7, 14])
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e3, 1e30])
def test_a_third_of_all_cells_is_hidden_and_all_come_from_the_top_half(size, scale):
    heatmaps = torch.randn(50, size, size, generator=torch.Generator().manual_seed(size)) * scale
    masks = MaskSampling()(heatmaps)
    assert masks.dtype == torch.bool and masks.shape == heatmaps.shape
    assert (masks.flatten(1).sum(1) == size * size // 3).all()
    for heatmap, mask in zip(heatmaps, masks, strict=True):
        assert heatmap[mask].min() >= heatmap.flatten().sort(descending=True).values[size * size // 2 - 1]


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
    assert (
        stats.chisquare(observed[likely], expected[likely] * observed[likely].sum() / expected[likely].sum()).pvalue
        > 1e-3
    )


def test_the_same_state_of_the_generator_gives_the_same_masks():
    heatmaps = torch.randn(8, 7, 7)
    state = torch.get_rng_state()
    masks = MaskSampling()(heatmaps)
    assert not torch.equal(masks, MaskSampling()(heatmaps))
    torch.set_rng_state(state)
    assert torch.equal(masks, MaskSampling()(heatmaps))


def test_the_preset_of_the_release_draws_15_of_the_top_20():
    heatmaps = torch.randn(100, 7, 7)
    masks = MaskSampling(top=20 / 49, share=15 / 49)(heatmaps)
    assert (masks.flatten(1).sum(1) == 15).all()
    ranks = heatmaps.flatten(1).argsort(dim=1, descending=True).argsort(dim=1)
    assert ranks[masks.flatten(1)].max() == 19


@pytest.mark.parametrize("numbers", [(0.5, -0.1), (0.3, 0.4), (1.1, 0.5), (-1, -2)])
def test_impossible_fractions_are_refused(numbers):
    with pytest.raises(ValueError, match="share"):
        MaskSampling(*numbers)


def test_logits_that_saturate_the_sigmoid_are_still_ranked(tiny):
    logits = torch.randperm(36).view(1, 6, 6) + 100.0
    features, labels = tiny.objects(1)
    hidden = ASDN(Constant(logits))(features, labels, tiny.detector().detached).features
    mask = (hidden == 0).all(dim=1)
    assert mask.sum() == 12 and logits[mask].min() >= 118


@pytest.mark.parametrize(
    ("size", "window", "stride", "side"),
    [(6, None, 1, 2), (7, None, 1, 3), (14, None, 2, 5), (7, 2, 2, 2), (6, 3, 1, 3)],
)
def test_the_target_of_pretraining_is_the_window_whose_hiding_costs_most(tiny, size, window, stride, side):
    """By default d / 3 cells on a side, rounded up."""
    detector = tiny.detector(size=size)
    features, labels = tiny.objects(6, size=size)
    logits = torch.randn(6, size, size)
    asdn = ASDN(Constant(logits), window=window, stride=stride)
    hardened = asdn.pretrain(features, labels, detector.detached)

    detector.head.eval()
    targets, hardest = [], []
    for x, label in zip(features, labels, strict=True):
        trials = []
        for top in range(0, size + 1 - side, stride):
            for left in range(0, size + 1 - side, stride):
                mask = torch.zeros(size, size, dtype=torch.bool)
                mask[top : top + side, left : left + side] = True
                loss = F.cross_entropy(detector.predictor(detector.head((x * ~mask)[None]))[0], label[None])
                trials.append((loss.item(), mask))
        loss, mask = max(trials, key=lambda trial: trial[0])
        targets.append(mask)
        hardest.append(loss)
    target = torch.stack(targets)
    assert hardened.loss.item() == pytest.approx(equation_1(logits, target, torch.ones_like(target)), rel=1e-5)
    assert hardened.metrics["hardest_window_loss"].item() == pytest.approx(sum(hardest) / 6, rel=1e-5)
    hardened.loss.backward()  # down where the window is not, up where it is
    assert torch.equal(asdn.network.logits.grad < 0, target)


def test_pretraining_leaves_the_features_as_they_are(tiny):
    features, labels = tiny.objects()
    hardened = tiny.adversary("asdn fc").pretrain(features, labels, tiny.detector().detached)
    assert torch.equal(hardened.features, features)


@pytest.mark.parametrize("negatives", [0.0, 0.4])
def test_only_a_share_of_the_cells_outside_the_window_gives_a_gradient(tiny, negatives):
    features, labels = tiny.objects(400)
    asdn = ASDN(Constant(torch.randn(400, 6, 6)), negatives=negatives)
    torch.manual_seed(2)
    loss = asdn.pretrain(features, labels, tiny.detector().detached).loss
    loss.backward()
    gradient = asdn.network.logits.grad
    assert ((gradient < 0).flatten(1).sum(1) == 4).all()  # the window's cells always do
    drawn = (gradient > 0).sum().item()
    assert stats.binomtest(drawn, 400 * 32, negatives).pvalue > 1e-3 if negatives else drawn == 0
    counted = gradient != 0
    assert loss.item() == pytest.approx(equation_1(asdn.network.logits, gradient < 0, counted), rel=1e-5)


def test_joint_training_hides_the_sampled_cells_in_all_channels_and_nothing_else(tiny):
    features, labels = tiny.objects()
    features += 0.1
    logits = torch.randn(5, 6, 6)
    torch.manual_seed(3)
    mask = MaskSampling()(logits)
    detector = tiny.detector()
    torch.manual_seed(3)
    hidden = ASDN(Constant(logits))(features, labels, detector.detached).features
    assert torch.equal(hidden, features * ~mask[:, None])


def test_joint_training_learns_from_the_masks_that_lowered_the_score_by_more_than_the_threshold_alone(tiny):
    weight = 0.1 * torch.randn(4, 8 * 36)
    features, labels = tiny.objects(60)
    logits = torch.randn(60, 6, 6)
    asdn = ASDN(Constant(logits), threshold=0.1)
    hardened = asdn(features, labels, lambda x: x.flatten(1) @ weight.T)
    hardened.loss.backward()

    mask = (hardened.features == 0).all(dim=1)
    drops = []
    for x, y, label in zip(features, hardened.features, labels, strict=True):
        before, after = ((weight @ z.flatten()).softmax(0)[label].item() for z in (x, y))
        drops.append(before - after)
    hard = torch.tensor(drops) > 0.1
    assert 5 < hard.sum() < 55
    assert torch.equal(asdn.network.logits.grad.flatten(1).any(dim=1), hard)
    assert torch.equal(asdn.network.logits.grad[hard] < 0, mask[hard])
    counted = hard[:, None, None].expand_as(mask)
    assert hardened.loss.item() == pytest.approx(equation_1(logits, mask, counted), rel=1e-5)
    assert hardened.metrics["hard_masks"].item() == pytest.approx(hard.float().mean().item())
    assert hardened.metrics["score_drop"].item() == pytest.approx(sum(drops) / 60, abs=1e-5)


def test_without_a_hard_mask_the_loss_is_zero_and_so_is_every_gradient(tiny):
    asdn = tiny.adversary("asdn fc")
    asdn.threshold = 1.0
    loss = asdn(*tiny.objects(), tiny.detector().detached).loss
    assert loss == 0
    loss.backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in asdn.parameters())


def test_the_loss_of_a_batch_is_the_mean_over_its_objects(tiny):
    """So that processes with parts of a batch need the number of objects alone to agree with one."""
    asdn, detector = tiny.adversary("asdn fc"), tiny.detector()
    asdn.sampling = MaskSampling(top=1 / 3)  # nothing is left to chance
    features, labels = tiny.objects(5)
    parts = [slice(0, 2), slice(2, 5)]
    for learn in (asdn, asdn.pretrain):
        losses = [learn(features[part], labels[part], detector.detached).loss for part in parts]
        whole = learn(features, labels, detector.detached).loss
        torch.testing.assert_close((2 * losses[0] + 3 * losses[1]) / 5, whole)


@pytest.mark.parametrize("kind", ["fully connected", "torchvision", "residual"])
def test_the_fully_connected_network_is_the_head_given_without_dropout_and_a_logit_a_cell(tiny, kind):
    head = tiny.roi_head(kind)
    network = FullyConnectedASDN(head)
    features, _ = tiny.objects()
    hidden = head.layers.eval()(features)
    expected = (hidden @ network.mask.weight.T + network.mask.bias).view(5, 6, 6)
    torch.testing.assert_close(network.train()(features), expected)
    theirs = {tensor.data_ptr() for tensor in head.layers.state_dict().values()}
    assert theirs.isdisjoint(tensor.data_ptr() for tensor in network.state_dict().values())


def test_the_convolutional_network_is_the_releases():
    torch.manual_seed(0)
    network = ConvolutionalASDN(512)
    convolutions = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size) for c in convolutions] == [
        (512, 256, (3, 3)),
        *[(256, 256, (3, 3))] * 3,
        (256, 1, (3, 3)),
    ]
    for convolution in convolutions:
        assert convolution.weight.std().item() == pytest.approx(0.01, rel=0.1) and not convolution.bias.any()
    x = torch.rand(2, 512, 7, 7)
    y = x
    for convolution in convolutions[:-1]:
        y = F.conv2d(y, convolution.weight, convolution.bias, padding=1).clamp(min=0)
    expected = F.conv2d(y, convolutions[-1].weight, convolutions[-1].bias, padding=1)[:, 0]
    torch.testing.assert_close(network(x), expected)


def test_pretraining_learns_which_window_is_hard(tiny):
    """Against a head that sees the left half of the features alone."""
    weight = torch.zeros(4, 8, 6, 6)
    weight[1:, :, :, :3] = 1.0
    asdn = tiny.adversary("asdn fc")
    optimizer = torch.optim.SGD(asdn.parameters(), lr=0.02)
    for _ in range(60):
        features, labels = tiny.objects(16)
        loss = asdn.pretrain(features, labels, lambda x: x.flatten(1) @ weight.flatten(1).T).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    heatmap = asdn.network(features)
    assert (heatmap[:, :, :3].mean(dim=(1, 2)) > heatmap[:, :, 3:].mean(dim=(1, 2)) + 0.5).all()
