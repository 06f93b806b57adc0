"""ASTN: warps against scipy, bounds under extreme numbers, and what it learns against a frozen head."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

from afrcnn.adversaries.astn import ASTN, _affine, _Confine, _degrees_of, warp
from afrcnn.adversaries.base import BoxHeadSpec
from reference import PlainHead
from tiny import KINDS


class Constant(nn.Module):
    """The same raw numbers whatever the features."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers = nn.Parameter(numbers)

    def forward(self, features):
        return self.numbers


def logits(features):
    """Four classes, background first, from fixed weights."""
    weight = torch.randn(4, features[0].numel(), generator=torch.Generator().manual_seed(5), dtype=features.dtype)
    return features.flatten(1) @ weight.T


HEAD = PlainHead(logits)


def constant_astn(numbers, channels=8, blocks=4, **options):
    """An ASTN whose network answers with given numbers (n x blocks * 4, or n x blocks x 4)."""
    spec = BoxHeadSpec(nn.Identity(), 1, channels, size=7)
    astn = ASTN(spec, blocks=blocks, **options)
    astn.localisation = Constant(numbers.flatten(1))
    return astn


def bent_by_scipy(image, degrees, factor=1.0, shift=(0.0, 0.0)):
    """Turn clockwise on the screen, enlarge and move (fractions of the side: right, down), about the centre."""
    d = len(image)
    t = math.radians(degrees)
    # Rows and columns of the output, relative to the centre, back to those of the input.
    back = np.array([[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]]) / factor
    centre = np.array([(d - 1) / 2] * 2)
    offset = centre - back @ (centre + np.array([shift[1], shift[0]]) * d)
    padded = np.pad(image, d)  # bilinear with zeros outside, also within half a cell of the border
    return ndimage.affine_transform(padded, back, offset=offset + d - back @ [d, d], order=1)[d:-d, d:-d]


def test_zero_angles_return_the_input():
    for size, blocks in itertools.product((6, 7, 14), (1, 2, 4, 8)):
        features = torch.rand(3, 8, size, size)
        astn = constant_astn(torch.zeros(3, blocks * 4), blocks=blocks, scale=0.5, translation=0.5)
        bent = astn(features, torch.ones(3, dtype=torch.int64), HEAD).features
        torch.testing.assert_close(bent, features, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("factor", "shift"), [(1.0, (0.0, 0.0)), (1.3, (0.1, -0.2)), (0.7, (0.0, 0.3))])
def test_warps_are_those_of_scipy(factor, shift):
    for size, degrees in itertools.product((6, 7, 14), (-90, -10, -3, 5, 10, 30, 180)):
        x = torch.randn(1, 1, size, size, dtype=torch.float64)
        theta = _affine(
            torch.full((1, 1), math.radians(degrees), dtype=torch.float64),
            torch.full((1, 1), factor, dtype=torch.float64),
            2 * torch.tensor(shift, dtype=torch.float64).view(1, 1, 2),
        )
        expected = bent_by_scipy(x[0, 0].numpy(), degrees, factor, shift)
        np.testing.assert_allclose(warp(x, theta)[0, 0].numpy(), expected, atol=1e-9, err_msg=f"{size}, {degrees}")
        assert math.remainder(_degrees_of(theta).item() - degrees, 360) == pytest.approx(0, abs=1e-9)


def test_a_positive_angle_turns_clockwise_on_the_screen():
    x = torch.zeros(1, 1, 7, 7)
    x[0, 0, 0, 3] = 1  # top centre
    quarter = _affine(torch.full((1, 1), math.pi / 2), torch.ones(1, 1), torch.zeros(1, 1, 2))
    row, column = divmod(int(warp(x, quarter).argmax()), 7)
    assert (row, column) == (3, 6)  # right centre
    assert _degrees_of(quarter).item() == pytest.approx(90)


@pytest.mark.parametrize("blocks", [1, 2, 4, 8])
def test_angles_are_those_that_the_network_asks_for_block_by_block(blocks):
    angles = torch.tensor([[-10.0, -2.5, 0.0, 7.0, 1.5, -8.0, 3.0, 5.0], [9.0, 1.0, -6.0, 4.0, 2.0, 0.5, -7.0, -3.0]])
    angles = angles[:, :blocks]
    numbers = torch.zeros(2, blocks, 4)
    numbers[..., 0] = angles / 10
    features = torch.rand(2, 8, 7, 7)
    astn = constant_astn(numbers, blocks=blocks)
    output = astn(features, torch.ones(2, dtype=torch.int64), HEAD)
    torch.testing.assert_close(astn.explain(features)["angles"], angles)
    for i in range(2):
        for channel in range(8):  # 8 / blocks channels a block, in order
            expected = bent_by_scipy(features[i, channel].numpy(), angles[i, channel * blocks // 8].item())
            np.testing.assert_allclose(output.features[i, channel].detach().numpy(), expected, atol=1e-5)
    assert output.metrics["absolute_angle"].item() == pytest.approx(angles.abs().mean().item(), abs=1e-3)
    assert output.metrics["angles_at_limit"].item() == pytest.approx(1 / angles.numel())  # the first alone


def test_turning_one_block_leaves_the_others():
    numbers = torch.zeros(1, 4, 4)
    numbers[0, 2, 0] = 3
    features = torch.rand(1, 8, 7, 7)
    bent = constant_astn(numbers)(features, torch.ones(1, dtype=torch.int64), HEAD).features
    torch.testing.assert_close(bent[:, [0, 1, 2, 3, 6, 7]], features[:, [0, 1, 2, 3, 6, 7]], rtol=0, atol=1e-6)
    assert (bent[:, 4:6] - features[:, 4:6]).abs().max() > 0.01


@pytest.mark.parametrize("size", [1e0, 1e3, 1e30, math.inf])
@pytest.mark.parametrize(("degrees", "scale", "translation"), [(10, 0, 0), (5, 0.2, 0.1), (0, 0.5, 0.0), (45, 0, 0.25)])
def test_no_number_of_the_network_exceeds_the_limits(size, degrees, scale, translation):
    numbers = torch.randn(100, 4, 4).sign() * size
    astn = constant_astn(numbers, degrees=degrees, scale=scale, translation=translation)
    theta = astn.transformation(numbers)
    linear, offset = theta[..., :2], theta[..., 2:]
    determinant = torch.linalg.det(linear)
    assert theta.isfinite().all()
    assert (torch.atan2(linear[..., 1, 0], linear[..., 0, 0]).rad2deg().abs() <= degrees + 1e-4).all()
    factor = determinant.rsqrt()
    assert (factor <= (1 + scale) * (1 + 1e-5)).all()
    assert (factor >= (1 - 1e-5) / (1 + scale)).all()
    shift = -torch.linalg.solve(linear, offset) / 2  # as a fraction of the side
    assert (shift.abs() <= translation + 1e-5).all()
    if size > 1:  # and they are reached
        assert torch.atan2(linear[..., 1, 0], linear[..., 0, 0]).rad2deg().abs().max() > 0.999 * degrees - 1e-6
        assert shift.abs().max() > 0.999 * translation - 1e-6


def test_by_default_features_are_only_turned():
    theta = constant_astn(torch.zeros(1, 16)).transformation(torch.randn(20, 4, 4) * 10)
    assert not theta[..., 2].any()
    torch.testing.assert_close(torch.linalg.det(theta[..., :2]), torch.ones(20, 4))


def test_the_loss_is_the_cross_entropy_of_background(tiny):
    detector = tiny.detector()
    features, labels = tiny.objects()
    astn = tiny.adversary("astn")
    output = astn(features, labels, detector.head)
    detector.box_head.eval()
    scores = detector.predictor(detector.box_head(output.features))[0].softmax(dim=1)
    assert output.loss.item() == pytest.approx(-scores[:, 0].log().mean().item(), rel=1e-5)
    before = detector.predictor(detector.box_head(features))[0].softmax(dim=1)
    drop = [(before[i, label] - scores[i, label]).item() for i, label in enumerate(labels)]
    assert output.metrics["score_drop"].item() == pytest.approx(sum(drop) / len(drop), abs=1e-6)


def test_the_loss_of_a_general_adversary_leads_away_from_the_true_class(tiny):
    """Section 3: minus the detector's own loss."""
    detector = tiny.detector()
    features, labels = tiny.objects(7)
    astn = ASTN(tiny.spec(), objective="true_class")
    output = astn(features, labels, detector.head)
    logits = detector.predictor(detector.box_head.eval()(output.features))[0]
    assert output.loss.item() == pytest.approx(-F.cross_entropy(logits, labels).item(), rel=1e-5)


@pytest.mark.parametrize(("scale", "translation"), [(0.0, 0.0), (0.3, 0.2)])
def test_every_number_gives_the_localisation_network_the_gradient_of_finite_differences(scale, translation):
    # Smooth and zero at the border, so that bilinear interpolation has hardly a kink to step over.
    bump = torch.linspace(0, math.pi, 7, dtype=torch.float64).sin()
    slope = torch.linspace(-1, 1, 7, dtype=torch.float64) * torch.randn(2, 8, 1, 1, dtype=torch.float64)
    features = 0.3 * bump * bump[:, None] * (1 + slope + slope.flip(1).mT)
    labels = torch.ones(2, dtype=torch.int64)
    numbers = torch.randn(2, 4, 4) * 0.3

    def build(numbers):
        return constant_astn(numbers, scale=scale, translation=translation)

    astn = build(numbers)
    astn(features, labels, HEAD).loss.backward()
    gradient = astn.localisation.numbers.grad.view(2, 4, 4)
    used = [True, scale > 0, translation > 0, translation > 0]
    assert gradient.flatten(0, 1).any(dim=0).tolist() == used
    for i, block, number in itertools.product(range(2), range(4), range(4)):
        losses = []
        for step in (3e-4, -3e-4):
            moved = numbers.clone()
            moved[i, block, number] += step
            losses.append(build(moved)(features, labels, HEAD).loss.item())
        expected = (losses[0] - losses[1]) / 6e-4
        assert gradient[i, block, number].item() == pytest.approx(expected, rel=0.01, abs=3e-3)


def test_learning_raises_the_score_of_background_of_a_frozen_detector(tiny):
    def score(features):
        return logits(features).log_softmax(dim=1)[:, 0].mean().item()

    astn = tiny.adversary("astn")
    astn.scale = astn.translation = 0.0
    features, labels = tiny.objects(8, size=3)
    features = 0.3 * F.interpolate(features, 6, mode="bilinear")  # smooth, as the features of images are
    optimizer = torch.optim.SGD(astn.parameters(), lr=0.05, momentum=0.9)
    first = astn(features, labels, HEAD)
    assert score(first.features) == pytest.approx(score(features), abs=0.01)
    for _ in range(40):
        output = astn(features, labels, HEAD)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert score(output.features) > score(features) + 0.05
    assert 1 < output.metrics["absolute_angle"] <= 10


def test_in_sixteen_bits_coordinates_keep_their_precision():
    features = torch.rand(4, 8, 14, 14).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        head = PlainHead(lambda x: x[:, :4, 0, 0].float())
        bent = constant_astn(torch.zeros(4, 16))(features, torch.ones(4, dtype=torch.int64), head)
    torch.testing.assert_close(bent.features, features, rtol=1e-3, atol=1e-5)  # a bit of bfloat16 is 4e-3


def test_the_localisation_network_begins_as_the_box_head_given_without_dropout_and_near_the_identity(tiny):
    for kind, blocks in itertools.product(KINDS, (1, 2, 8)):
        spec = tiny.spec(kind)
        astn = ASTN(spec, blocks=blocks)
        network = astn.localisation
        features, labels = tiny.objects()
        hidden = spec.layers.eval()(features)
        expected = hidden @ network.transformation.weight.T + network.transformation.bias
        torch.testing.assert_close(network.train()(features), expected)
        assert network(features).shape == (5, 4 * blocks)
        assert astn(features, labels, HEAD).metrics["absolute_angle"] < 1
        given = {tensor.data_ptr() for tensor in spec.layers.state_dict().values()}
        assert given.isdisjoint(tensor.data_ptr() for tensor in network.state_dict().values()), kind


def test_the_gradient_of_the_detectors_loss_passes_the_warp_to_the_features():
    numbers = torch.randn(1, 16)
    features = torch.rand(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    astn = constant_astn(numbers, channels=4)
    labels = torch.ones(1, dtype=torch.int64)
    assert torch.autograd.gradcheck(lambda x: astn(x, labels, HEAD).features, features)


def test_a_number_beyond_its_bound_has_a_gradient_only_if_that_leads_back():
    numbers = torch.tensor([-2.0, -2.0, -0.5, 0.5, 2.0, 2.0, 1.0, 1.0], requires_grad=True)
    descent = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0])  # the way that descent takes
    confined = _Confine.apply(numbers)
    assert confined.tolist() == [-1, -1, -0.5, 0.5, 1, 1, 1, 1]
    confined.backward(-descent)
    assert (-numbers.grad).tolist() == [1, 0, 1, -1, 0, -1, 0, -1]
