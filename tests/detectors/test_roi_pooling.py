"""RoI pooling against torchvision's operators and Fast R-CNN's definition."""

import math

import pytest
import torch
from torchvision import ops

from afrcnn.adversaries.astn import warp
from afrcnn.detectors.roi_pooling import Features, RoIAlign, RoIPool, _cover_of_turned


def random_rois(count, width=160.0, height=96.0):
    """Boxes within, across and beyond the border of an image, from a hundredth of a pixel to twice the image."""
    size = torch.tensor([width, height])
    centre = torch.rand(count, 2) * size * 1.4 - size * 0.2
    half = 0.005 + torch.rand(count, 2) ** 3 * size
    return torch.cat([centre - half, centre + half], dim=1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("counts", [(40, 25), (0, 30), (30, 0), (0, 0), (600, 1)])
@pytest.mark.parametrize("size", [7, 2])
def test_alignment_and_its_gradient_agree_with_torchvision(size, counts, layout):
    features = torch.randn(2, 5, 6, 10, dtype=torch.float64).contiguous(memory_format=layout)
    rois = [random_rois(count).double() for count in counts]
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    found = RoIAlign(size, stride=16).pool(ours, rois)
    expected = ops.roi_align(theirs, rois, size, 1 / 16, 2, aligned=True)
    assert found.shape == (sum(counts), 5, size, size)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)

    upstream = torch.randn(expected.shape, dtype=torch.float64)
    found.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 3])
def test_alignment_without_gradient_is_the_same(samples):
    features, rois = torch.randn(1, 4, 9, 11), [random_rois(50)]
    pool = RoIAlign(7, 16, samples)
    with_gradient = pool.pool(features.clone().requires_grad_(), rois)
    torch.testing.assert_close(pool.pool(features, rois), with_gradient, rtol=1e-4, atol=1e-4)
    expected = ops.roi_align(features, rois, 7, 1 / 16, samples, aligned=True)
    torch.testing.assert_close(with_gradient, expected, rtol=1e-4, atol=1e-4)


def test_alignment_of_a_plane_reads_its_height_at_the_centre_of_each_bin():
    columns = torch.arange(40.0).expand(1, 1, 40, 40).requires_grad_()
    pooled = RoIAlign(5, stride=8).pool(columns, [torch.tensor([[80.0, 80.0, 240.0, 240.0]])])
    expected = 10 + 4 * (torch.arange(5.0) + 0.5) - 0.5  # a cell's value lies at its centre
    torch.testing.assert_close(pooled[0, 0], expected.expand(5, 5))


@pytest.mark.parametrize("pool", [RoIAlign, RoIPool])
def test_bfloat16_features_stay_so_and_come_close(pool):
    features = torch.randn(2, 8, 6, 10)
    rois = [random_rois(20), random_rois(20)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pool(7, 16).pool(features.bfloat16(), rois)
    assert pooled.dtype == torch.bfloat16
    torch.testing.assert_close(pooled.float(), pool(7, 16).pool(features, rois), rtol=0.02, atol=0.05)


def max_pool(features, roi, size, scale):
    """One RoI by Fast R-CNN's definition: inclusive pixels, each scaled and rounded to a cell (half away from zero)."""
    height, width = features.shape[1:]
    x1, y1, x2, y2 = (
        math.floor(abs(v * scale) + 0.5) * (1 if v >= 0 else -1) for v in (roi[0], roi[1], roi[2] - 1, roi[3] - 1)
    )
    bin_h, bin_w = max(y2 - y1 + 1, 1) / size, max(x2 - x1 + 1, 1) / size
    pooled = torch.zeros(features.shape[0], size, size)
    for i in range(size):
        for j in range(size):
            top, bottom = (min(max(v + y1, 0), height) for v in (math.floor(i * bin_h), math.ceil((i + 1) * bin_h)))
            left, right = (min(max(v + x1, 0), width) for v in (math.floor(j * bin_w), math.ceil((j + 1) * bin_w)))
            if bottom > top and right > left:
                pooled[:, i, j] = features[:, top:bottom, left:right].amax(dim=(1, 2))
    return pooled


@pytest.mark.parametrize("size", [2, 4])  # powers of two: bins whose borders floating point holds exactly
def test_max_pooling_is_fast_rcnn_s(size):
    features = torch.randn(2, 3, 6, 10)
    rois = [random_rois(60).round(), random_rois(60)]
    found = RoIPool(size, 16).pool(features, rois)
    expected = [
        max_pool(image, roi.tolist(), size, 1 / 16) for image, part in zip(features, rois, strict=True) for roi in part
    ]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=0)


def test_max_pooling_takes_all_of_a_cell_that_a_box_ends_with():
    features = torch.zeros(1, 1, 4, 4)
    features[0, 0, 1, 1] = 1.0
    pooled = RoIPool(1, 16).pool(features, [torch.tensor([[0.0, 0.0, 24.0, 24.0], [0.0, 0.0, 25.0, 25.0]])])
    # The last pixel of the first box, 23, is rounded to cell 1 (23 / 16 = 1.44), as that of the second, 24, to 2.
    assert pooled.flatten().tolist() == [1.0, 1.0]
    assert RoIPool(1, 16).pool(features, [torch.tensor([[0.0, 0.0, 8.0, 8.0]])]).item() == 0.0


@pytest.mark.parametrize("pool", [RoIAlign, RoIPool])
def test_each_image_s_rois_read_that_image(pool):
    features = torch.stack([torch.full((3, 8, 8), float(value)) for value in (1, 2, 3)])
    inside = torch.tensor([[32.0, 32.0, 96.0, 96.0]])
    pooled = pool(4, 16).pool(features, [inside.repeat(2, 1), inside[:0], inside])
    torch.testing.assert_close(pooled.amax(dim=(1, 2, 3)), torch.tensor([1.0, 1.0, 3.0]))


@pytest.mark.parametrize("kind", [RoIAlign, RoIPool])
def test_boxes_in_pixels_of_the_images_as_given_are_read_where_the_backbone_saw_them(kind):
    maps = torch.randn(3, 4, 8, 8)
    seen = [random_rois(count, 128.0, 128.0) for count in (5, 0, 2)]
    scales = [torch.tensor([2.0, 0.5, 2.0, 0.5]), torch.ones(4), torch.full((4,), 4.0)]
    given = torch.cat([boxes / scale for boxes, scale in zip(seen, scales, strict=True)])
    image = torch.tensor([0] * 5 + [2] * 2)
    pooling = kind(7, 16)
    features = Features(maps, scales, [(1, 1)] * 3)
    exact = [(boxes / scale) * scale for boxes, scale in zip(seen, scales, strict=True)]
    assert torch.equal(pooling(features, given, image), pooling.pool(maps, exact))
    assert torch.equal(pooling(features, given, image, torch.zeros(7)), pooling.pool(maps, exact))
    assert pooling(features, given[:0], image[:0]).shape == (0, 4, 7, 7)


@pytest.mark.parametrize("kind", [RoIAlign, RoIPool])
def test_a_turned_roi_is_the_warped_pooling_of_its_cover_and_the_others_keep_their_bits(kind):
    maps, boxes, image = torch.randn(2, 4, 8, 8), random_rois(6), torch.tensor([0, 0, 0, 1, 1, 1])
    features, pooling = Features(maps, [torch.ones(4)] * 2, [(128, 128)] * 2), kind(7, 16)
    angle = torch.tensor([0.0, 0.2, 0.0, -0.1, 0.0, 3.0])
    straight, turned = pooling(features, boxes, image), pooling(features, boxes, image, angle)
    assert torch.equal(turned[[0, 2, 4]], straight[[0, 2, 4]])
    cover, theta = _cover_of_turned(boxes, angle)
    expected = warp(pooling(features, cover, image), theta[:, None])
    torch.testing.assert_close(turned[[1, 3, 5]], expected[[1, 3, 5]])
