"""Truncated SVD against numpy's singular value decomposition."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from afrcnn.core.errors import UserError
from afrcnn.detectors.backbones import FullyConnectedHead, resnet18
from afrcnn.detectors.svd import _truncate, truncate_detector
from tiny import build_fast_rcnn

SHAPES = [(40, 7), (7, 40), (24, 24), (1, 9), (9, 1)]  # inputs, outputs


def product(layers: nn.Sequential) -> np.ndarray:
    """The matrix that two layers without nonlinearity amount to, in float64."""
    return (layers[1].weight.detach().double() @ layers[0].weight.detach().double()).numpy()


def test_full_rank_reproduces_the_layer():
    for inputs, outputs in SHAPES:
        linear = nn.Linear(inputs, outputs)
        x = torch.randn(5, inputs)
        truncated = _truncate(linear, min(inputs, outputs))
        torch.testing.assert_close(truncated(x), linear(x), rtol=1e-5, atol=1e-5)


def test_no_matrix_of_that_rank_is_nearer():
    """Eckart and Young: the least squared error is the sum of the squared singular values left out."""
    for (inputs, outputs), decay in itertools.product(SHAPES, (0.0, 0.8)):
        linear = nn.Linear(inputs, outputs)
        with torch.no_grad():
            linear.weight.mul_(torch.exp(-decay * torch.arange(inputs)))  # singular values over many magnitudes
        weight = linear.weight.detach().double().numpy()
        singular = np.linalg.svd(weight, compute_uv=False)
        for rank in range(1, min(inputs, outputs) + 1):
            matrix = product(_truncate(linear, rank))
            assert np.linalg.matrix_rank(matrix, tol=1e-6 * singular[0]) <= rank
            error, least = np.linalg.norm(weight - matrix), np.linalg.norm(singular[rank:])
            assert error == pytest.approx(least, rel=1e-4, abs=1e-6 * singular[0]), (inputs, outputs, decay, rank)


def test_a_layer_without_rank_to_lose_and_one_of_zeros_survive():
    linear = nn.Linear(12, 8)
    with torch.no_grad():
        linear.weight.copy_(torch.outer(torch.arange(8.0), torch.ones(12)))
    np.testing.assert_allclose(product(_truncate(linear, 1)), linear.weight.detach().numpy(), atol=1e-5)
    nn.init.zeros_(linear.weight)
    assert product(_truncate(linear, 3)).max() == 0


def test_the_two_layers_hold_rank_times_inputs_plus_outputs_weights_and_one_bias():
    linear = nn.Linear(30, 20)
    truncated = _truncate(linear, 4)
    assert sum(p.numel() for p in truncated.parameters()) == 4 * (30 + 20) + 20
    torch.testing.assert_close(truncated[1].bias, linear.bias)
    assert truncated[1].bias.data_ptr() != linear.bias.data_ptr()
    assert sum(p.numel() for p in _truncate(nn.Linear(30, 20, bias=False), 4).parameters()) == 4 * (30 + 20)


def test_the_layer_keeps_its_dtype_and_can_be_trained_on():
    truncated = _truncate(nn.Linear(6, 5).bfloat16(), 2)
    assert {p.dtype for p in truncated.parameters()} == {torch.bfloat16}
    assert all(p.requires_grad and p.is_leaf for p in truncated.parameters())


def test_an_impossible_rank_is_refused_with_the_range():
    for rank in (0, -1, 6):
        with pytest.raises(UserError, match="from 1 to 5"):
            _truncate(nn.Linear(9, 5), rank)


def with_box_head(box_head):
    """A detector with some box head."""
    detector = build_fast_rcnn()
    detector.roi_heads.box_head = box_head
    return detector.eval()


def test_a_box_head_is_truncated_where_it_stands():
    head = FullyConnectedHead(nn.Linear(3 * 4 * 4, 20), nn.Linear(20, 20)).eval()
    features = torch.randn(6, 3, 4, 4)
    whole = head(features)
    truncate_detector(with_box_head(head), fc6=20, fc7=20)
    torch.testing.assert_close(head(features), whole, rtol=1e-5, atol=1e-5)
    assert head.fc6[0].weight.shape == (20, 48)
    with pytest.raises(UserError, match="already"):
        truncate_detector(with_box_head(head), fc6=2, fc7=2)


def test_a_box_head_stays_whole_where_one_rank_is_impossible():
    head = FullyConnectedHead(nn.Linear(48, 20), nn.Linear(20, 10))
    with pytest.raises(UserError, match="from 20 to 10"):
        truncate_detector(with_box_head(head), fc6=5, fc7=11)
    assert isinstance(head.fc6, nn.Linear)


def test_a_detector_without_fully_connected_layers_is_refused():
    with torch.device("meta"):
        backbone = resnet18()
    for detector in (with_box_head(backbone.box_head), nn.Linear(3, 3)):
        with pytest.raises(UserError, match="fc6 and fc7"):
            truncate_detector(detector)
