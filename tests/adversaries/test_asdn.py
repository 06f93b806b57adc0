"""ASDN: which cells it hides, what it learns from, and its networks; the losses by plain loops."""

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from afrcnn.adversaries.asdn import ASDN, ConvolutionalASDN, FullyConnectedASDN
from afrcnn.adversaries.base import BoxHeadSpec, Context
from afrcnn.adversaries.mask_sampling import MaskSampling
from reference import Constant, PlainHead, binary_cross_entropy_by_loops, losses_one_by_one, windows_by_loops
from tiny import KINDS


def constant_asdn(tiny, logits, **options):
    asdn = ASDN(tiny.spec(size=logits.shape[-1]), **options)
    asdn.network = Constant(logits)
    return asdn


def test_logits_that_saturate_the_sigmoid_are_still_ranked(tiny):
    logits = torch.randperm(36).view(1, 6, 6) + 100.0
    features, labels = tiny.objects(1)
    hidden = constant_asdn(tiny, logits)(features, labels, tiny.detector().head).features
    mask = (hidden == 0).all(dim=1)
    assert mask.sum() == 12
    assert logits[mask].min() >= 118


def test_the_target_of_pretraining_is_the_window_whose_hiding_costs_most(tiny):
    """By default d / 3 cells on a side, rounded."""
    for size, window, stride, side in [
        (6, None, 1, 2),
        (7, None, 1, 2),
        (14, None, 2, 5),
        (7, 2, 2, 2),
        (6, 3, 1, 3),
    ]:
        detector = tiny.detector(size=size)
        features, labels = tiny.objects(6, size=size)
        logits = torch.randn(6, size, size)
        asdn = constant_asdn(tiny, logits, window=window, stride=stride)
        output = asdn.pretrain(features, labels, detector.head)

        masks = windows_by_loops(size, side, stride)
        losses = losses_one_by_one(features, labels, lambda x, d=detector: d.predictor(d.box_head.eval()(x))[0], masks)
        target = masks[losses.argmax(dim=1)]
        expected = binary_cross_entropy_by_loops(logits, target, torch.ones_like(target))
        assert output.loss.item() == pytest.approx(expected, rel=1e-5), (size, window, stride)
        hardest = losses.amax(dim=1).mean().item()
        assert output.metrics["hardest_window_loss"].item() == pytest.approx(hardest, rel=1e-5)
        output.loss.backward()  # down where the window is not, up where it is
        assert torch.equal(asdn.network.logits.grad < 0, target), (size, window, stride)


def test_pretraining_leaves_the_features_as_they_are(tiny):
    features, labels = tiny.objects()
    output = tiny.adversary("asdn fc").pretrain(features, labels, tiny.detector().head)
    assert torch.equal(output.features, features)


@pytest.mark.parametrize("negatives", [0.0, 0.4])
def test_only_a_fraction_of_the_cells_outside_the_window_gives_a_gradient(tiny, negatives):
    features, labels = tiny.objects(400)
    asdn = constant_asdn(tiny, torch.randn(400, 6, 6), negatives=negatives)
    torch.manual_seed(2)
    loss = asdn.pretrain(features, labels, tiny.detector().head).loss
    loss.backward()
    gradient = asdn.network.logits.grad
    assert ((gradient < 0).flatten(1).sum(1) == 4).all()  # the window's cells always do
    drawn = (gradient > 0).sum().item()
    assert stats.binomtest(drawn, 400 * 32, negatives).pvalue > 1e-3 if negatives else drawn == 0
    expected = binary_cross_entropy_by_loops(asdn.network.logits, gradient < 0, gradient != 0)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_joint_training_hides_the_sampled_cells_in_all_channels_and_nothing_else(tiny):
    features, labels = tiny.objects()
    logits = torch.randn(5, 6, 6)
    detector, asdn = tiny.detector(), constant_asdn(tiny, logits)
    torch.manual_seed(3)
    mask = MaskSampling()(logits)
    torch.manual_seed(3)
    assert torch.equal(asdn(features, labels, detector.head).features, features * ~mask[:, None])


def test_joint_training_learns_from_the_masks_that_lowered_the_score_by_more_than_the_threshold_alone(tiny):
    weight = 0.1 * torch.randn(4, 8 * 36)
    features, labels = tiny.objects(60)
    logits = torch.randn(60, 6, 6)
    asdn = constant_asdn(tiny, logits, threshold=0.1)
    head = PlainHead(lambda x: x.flatten(1) @ weight.T)
    torch.manual_seed(4)
    output = asdn(features, labels, head)
    output.loss.backward()

    mask = (output.features == 0).all(dim=1)
    drops = []
    for x, y, label in zip(features, output.features, labels, strict=True):
        before, after = ((weight @ z.flatten()).softmax(0)[label].item() for z in (x, y))
        drops.append(before - after)
    hard = torch.tensor(drops) > 0.1
    assert 5 < hard.sum() < 55
    assert torch.equal(asdn.network.logits.grad.flatten(1).any(dim=1), hard)
    assert torch.equal(asdn.network.logits.grad[hard] < 0, mask[hard])
    total = 60 * binary_cross_entropy_by_loops(logits, mask, hard[:, None, None].expand_as(mask))
    assert output.loss.item() == pytest.approx(total / hard.sum().item(), rel=1e-5)
    context = Context(torch.rand(128, 8, 6, 6), torch.zeros(128, dtype=torch.int64))
    for averaged_over, number in (("objects", 60), ("rois", 128 * 36)):  # as in the release, of cells too
        other = constant_asdn(tiny, logits, threshold=0.1, averaged_over=averaged_over, weight=0.5)
        torch.manual_seed(4)
        assert other(features, labels, head, context).loss.item() == pytest.approx(total / number / 2, rel=1e-5)
    assert output.metrics["hard_masks"].item() == pytest.approx(hard.float().mean().item())
    assert output.metrics["score_drop"].item() == pytest.approx(sum(drops) / 60, abs=1e-5)


def test_without_a_hard_mask_the_loss_is_zero_and_so_is_every_gradient(tiny):
    asdn = tiny.adversary("asdn fc")
    asdn.threshold = 1.0
    loss = asdn(*tiny.objects(), tiny.detector().head).loss
    assert loss == 0
    loss.backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in asdn.parameters())


def test_the_loss_of_a_batch_is_the_mean_over_its_objects(tiny):
    """So that processes with parts of a batch need the number of objects alone to agree with one."""
    asdn, detector = tiny.adversary("asdn fc"), tiny.detector()
    asdn.sampling = MaskSampling(top=1 / 3)  # nothing is left to draw
    features, labels = tiny.objects(5)
    parts = [slice(0, 2), slice(2, 5)]
    for learn in (asdn, asdn.pretrain):
        losses = [learn(features[part], labels[part], detector.head).loss for part in parts]
        whole = learn(features, labels, detector.head).loss
        torch.testing.assert_close((2 * losses[0] + 3 * losses[1]) / 5, whole)


def test_the_fully_connected_network_is_the_box_head_given_without_dropout_and_a_logit_a_cell(tiny):
    for kind in KINDS:
        spec = tiny.spec(kind)
        network = ASDN(spec).network
        assert isinstance(network, FullyConnectedASDN)
        features, _ = tiny.objects()
        hidden = spec.layers.eval()(features)
        expected = (hidden @ network.mask.weight.T + network.mask.bias).view(5, 6, 6)
        torch.testing.assert_close(network.train()(features), expected)
        given = {tensor.data_ptr() for tensor in spec.layers.state_dict().values()}
        assert given.isdisjoint(tensor.data_ptr() for tensor in network.state_dict().values()), kind


def test_the_convolutional_network_is_the_releases():
    network = ASDN(BoxHeadSpec(nn.Identity(), 1, channels=512, size=7), network="convolutional").network
    assert isinstance(network, ConvolutionalASDN)
    convolutions = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels, layer.kernel_size) for layer in convolutions] == [
        (512, 256, (3, 3)),
        *[(256, 256, (3, 3))] * 3,
        (256, 1, (3, 3)),
    ]
    for convolution in convolutions:
        fan_in = 9 * convolution.in_channels
        assert convolution.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
        assert not convolution.bias.any()
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
    head = PlainHead(lambda x: x.flatten(1) @ weight.flatten(1).T)
    asdn = tiny.adversary("asdn fc")
    optimizer = torch.optim.SGD(asdn.parameters(), lr=0.02)
    for _ in range(60):
        features, labels = tiny.objects(16)
        loss = asdn.pretrain(features, labels, head).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    heatmap = asdn.network(features)
    assert (heatmap[:, :, :3].mean(dim=(1, 2)) > heatmap[:, :, 3:].mean(dim=(1, 2)) + 0.5).all()
