"""CaffeNet, layer by layer, against what Caffe's documentation says that each layer computes."""

import math

import pytest
import torch
from torch.nn import functional as F

from afrcnn.detectors.caffenet import CaffeNet


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CaffeNet()


def normalised_by_loops(features):
    """x_c / (1 + 1e-4 / 5 * sum of x ** 2 over the five channels around c) ** 0.75, of features N x C x H x W."""
    features, channels = features.double(), features.shape[1]
    result = torch.empty_like(features)
    for channel in range(channels):
        squares = sum(features[:, i] ** 2 for i in range(channel - 2, channel + 3) if 0 <= i < channels)
        result[:, channel] = features[:, channel] / (1 + 1e-4 / 5 * squares) ** 0.75
    return result


def pooled_by_loops(features):
    """The largest of 3 x 3 cells, every second, where one cell of padding is less than anything; sizes rounded up."""
    height, width = features.shape[2:]
    rows, columns = (math.ceil((side + 2 - 3) / 2) + 1 for side in (height, width))
    rows, columns = rows - ((rows - 1) * 2 >= height + 1), columns - ((columns - 1) * 2 >= width + 1)
    cells = [
        features[:, :, max(2 * y - 1, 0) : 2 * y + 2, max(2 * x - 1, 0) : 2 * x + 2].amax((2, 3))
        for y in range(rows)
        for x in range(columns)
    ]
    return torch.stack(cells, dim=2).reshape(*features.shape[:2], rows, columns)


def convolved(features, layer, groups, stride, padding):
    """A convolution whose groups of outputs see their groups of inputs alone."""
    weights, biases = layer.weight.double().chunk(groups), layer.bias.double().chunk(groups)
    inputs = features.chunk(groups, dim=1)
    return torch.cat([F.conv2d(*three, stride, padding) for three in zip(inputs, weights, biases, strict=True)], dim=1)


@torch.no_grad()
def test_the_network_is_what_its_prototxt_says(net):
    images = torch.randn(1, 3, 70, 84) * 60
    features = convolved(images.double(), net.conv1, 1, 4, 5).relu()
    features = normalised_by_loops(pooled_by_loops(features))
    features = convolved(features, net.conv2, 2, 1, 2).relu()
    features = normalised_by_loops(pooled_by_loops(features))
    for layer, groups in ((net.conv3, 1), (net.conv4, 2), (net.conv5, 2)):
        features = convolved(features, layer, groups, 1, 1).relu()
    assert features.shape == (1, 256, 6, 6)
    vector = features.flatten(1)
    for layer in (net.fc6, net.fc7):
        vector = (vector @ layer.weight.double().T + layer.bias.double()).relu()
    assert vector.std() > 0
    torch.testing.assert_close(net(images), vector.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net(images.to(memory_format=torch.channels_last)), vector.float(), rtol=1e-4, atol=1e-5)


def test_its_weights_have_caffes_names_and_shapes(net):
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items() if name.endswith("weight")}
    assert shapes == {
        "conv1.weight": (96, 3, 11, 11),
        "conv2.weight": (256, 48, 5, 5),
        "conv3.weight": (384, 256, 3, 3),
        "conv4.weight": (384, 192, 3, 3),
        "conv5.weight": (256, 192, 3, 3),
        "fc6.weight": (4096, 9216),
        "fc7.weight": (4096, 4096),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_local_response_normalisation_is_the_formula_and_large_squares_do_not_overflow(dtype, net):
    features = (torch.randn(2, 7, 3, 4) * 400).to(dtype)  # of which squares leave float16
    for layout in (torch.contiguous_format, torch.channels_last):
        output = net.norm1(features.contiguous(memory_format=layout))
        assert output.dtype == dtype
        torch.testing.assert_close(output, normalised_by_loops(features).to(dtype))
