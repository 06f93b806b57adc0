"""RoI pooling against torchvision's operators and Fast R-CNN's definition."""

import math
from fractions import Fraction

import pytest
import torch
from torchvision import ops

from afrcnn.adversaries.astn import warp
from afrcnn.detectors.roi_pooling import Features, RoIAlign, RoIPool, RoIPoolV2, _cover_of_turned

KINDS = [RoIAlign, RoIPool, RoIPoolV2]


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
    found = RoIAlign(size, 16, 7.5).pool(ours, rois)
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
    pool = RoIAlign(7, 16, 7.5, samples)
    with_gradient = pool.pool(features.clone().requires_grad_(), rois)
    torch.testing.assert_close(pool.pool(features, rois), with_gradient, rtol=1e-4, atol=1e-4)
    expected = ops.roi_align(features, rois, 7, 1 / 16, samples, aligned=True)
    torch.testing.assert_close(with_gradient, expected, rtol=1e-4, atol=1e-4)


def test_alignment_of_a_plane_reads_its_height_at_the_centre_of_each_bin():
    columns = torch.arange(40.0).expand(1, 1, 40, 40).requires_grad_()
    pooled = RoIAlign(5, 8, 3.5).pool(columns, [torch.tensor([[80.0, 80.0, 240.0, 240.0]])])
    expected = 10 + 4 * (torch.arange(5.0) + 0.5) - 0.5  # a cell's value lies at its centre
    torch.testing.assert_close(pooled[0, 0], expected.expand(5, 5))


@pytest.mark.parametrize("pool", KINDS)
def test_bfloat16_features_stay_so_and_come_close(pool):
    features = torch.randn(2, 8, 6, 10)
    rois = [random_rois(20), random_rois(20)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pool(7, 16, 7.5).pool(features.bfloat16(), rois)
    assert pooled.dtype == torch.bfloat16
    torch.testing.assert_close(pooled.float(), pool(7, 16, 7.5).pool(features, rois), rtol=0.02, atol=0.05)


def round_as_c(value):
    """Half away from zero."""
    return math.floor(abs(value) + 0.5) * (1 if value >= 0 else -1)


def max_pool(features, roi, size, stride, v2):
    """One RoI (x1, y1, and its last pixel, as the backbone saw them), bin by bin, by either definition."""
    height, width = features.shape[1:]
    x1, y1, x2, y2 = (round_as_c(v / stride) for v in roi)
    if v2:  # the last cell is exclusive, and borders are rounded
        x2, y2 = x2 - 1, y2 - 1
    first, last = (round_half_up, round_half_up) if v2 else (math.floor, math.ceil)
    bin_h, bin_w = Fraction(max(y2 - y1 + 1, 1), size), Fraction(max(x2 - x1 + 1, 1), size)
    pooled = torch.zeros(features.shape[0], size, size)
    for i in range(size):
        for j in range(size):
            top, bottom = (min(max(v + y1, 0), height) for v in (first(i * bin_h), last((i + 1) * bin_h)))
            left, right = (min(max(v + x1, 0), width) for v in (first(j * bin_w), last((j + 1) * bin_w)))
            if bottom > top and right > left:
                pooled[:, i, j] = features[:, top:bottom, left:right].amax(dim=(1, 2))
    return pooled


def round_half_up(value):
    return math.floor(value + Fraction(1, 2))


@pytest.mark.parametrize("kind", [RoIPool, RoIPoolV2])
@pytest.mark.parametrize("size", [2, 4])  # powers of two: bins whose borders floating point holds exactly
def test_max_pooling_and_its_gradient_are_those_of_a_plain_loop(kind, size):
    maps = torch.randn(2, 3, 6, 10)
    rois = [random_rois(60).round(), random_rois(60)]
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    found = kind(size, 16, 7.5).pool(ours, rois)
    v2 = kind is RoIPoolV2
    expected = torch.stack(
        [max_pool(image, roi, size, 16, v2) for image, of in zip(theirs, rois, strict=True) for roi in of.tolist()]
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    upstream = torch.randn(expected.shape)
    found.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [6, 7, 14])
def test_pooling_v_2_is_that_of_a_plain_loop_for_any_number_of_cells(size):
    maps, rois = torch.randn(1, 2, 38, 63), random_rois(300, 1000.0, 600.0)
    expected = torch.stack([max_pool(maps[0], roi, size, 16, v2=True) for roi in rois.tolist()])
    assert torch.equal(RoIPoolV2(size, 16, 7.5).pool(maps, [rois]), expected)


def test_bins_of_v_2_do_not_overlap_and_those_of_a_small_box_are_empty():
    maps = torch.ones(1, 1, 20, 20, requires_grad=True)
    RoIPoolV2(7, 16, 7.5).pool(maps, [torch.tensor([[32.0, 32.0, 240.0, 240.0]])]).sum().backward()
    assert maps.grad.sum() == 49
    assert maps.grad.max() == 1  # no cell is the maximum of two bins
    pooled = RoIPoolV2(7, 16, 7.5).pool(maps, [torch.tensor([[32.0, 32.0, 80.0, 80.0]])])  # 3 x 3 cells
    assert pooled.sum() == 9


@pytest.mark.parametrize("kind", [RoIPool, RoIPoolV2])
def test_the_last_pixel_is_one_of_the_image_as_given(kind):
    """Fast R-CNN scales inclusive coordinates, so that the scale, not 1, is taken off a box that ends after them."""
    maps, scale = torch.randn(1, 4, 38, 50), 600 / 333
    boxes = random_rois(200, 440.0, 333.0)
    features = Features(maps, [torch.full((4,), scale)], [(333, 440)])
    found = kind(4, 16, 7.5)(features, boxes, torch.zeros(200, dtype=torch.int64))
    inclusive = (boxes - torch.tensor([0.0, 0.0, 1.0, 1.0])) * scale
    expected = [max_pool(maps[0], roi, 4, 16, kind is RoIPoolV2) for roi in inclusive.tolist()]
    assert torch.equal(found, torch.stack(expected))


def test_max_pooling_takes_all_of_a_cell_that_a_box_ends_with():
    features = torch.zeros(1, 1, 4, 4)
    features[0, 0, 1, 1] = 1.0
    pooled = RoIPool(1, 16, 7.5).pool(features, [torch.tensor([[0.0, 0.0, 23.0, 23.0], [0.0, 0.0, 24.0, 24.0]])])
    # The last pixel of the first box, 23, is rounded to cell 1 (23 / 16 = 1.44), that of the second, 24, to 2.
    assert pooled.flatten().tolist() == [1.0, 1.0]
    assert RoIPool(1, 16, 7.5).pool(features, [torch.tensor([[0.0, 0.0, 7.0, 7.0]])]).item() == 0.0


@pytest.mark.parametrize("offset", [0.0, 7.5, 17.0])
def test_alignment_reads_a_cell_where_it_lies(offset):
    """Of cells that hold the place that they are centred on, every bin reads its own centre."""
    place = (offset + 16 * torch.arange(30.0)).expand(1, 1, 30, 30)
    pooled = RoIAlign(5, 16, offset).pool(place, [torch.tensor([[100.0, 100.0, 300.0, 300.0]])])
    centres = 100 + 40 * (torch.arange(5.0) + 0.5) - 0.5  # of pixels, whose first is 0
    torch.testing.assert_close(pooled[0, 0], centres.expand(5, 5))


@pytest.mark.parametrize("pool", KINDS)
def test_each_image_s_rois_read_that_image(pool):
    features = torch.stack([torch.full((3, 8, 8), float(value)) for value in (1, 2, 3)])
    inside = torch.tensor([[32.0, 32.0, 96.0, 96.0]])
    pooled = pool(4, 16, 7.5).pool(features, [inside.repeat(2, 1), inside[:0], inside])
    torch.testing.assert_close(pooled.amax(dim=(1, 2, 3)), torch.tensor([1.0, 1.0, 3.0]))


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_in_pixels_of_the_images_as_given_are_read_where_the_backbone_saw_them(kind):
    maps = torch.randn(3, 4, 8, 8)
    seen = [random_rois(count, 128.0, 128.0) for count in (5, 0, 2)]
    scales = [torch.tensor([2.0, 0.5, 2.0, 0.5]), torch.ones(4), torch.full((4,), 4.0)]
    given = torch.cat([boxes / scale for boxes, scale in zip(seen, scales, strict=True)])
    image = torch.tensor([0] * 5 + [2] * 2)
    pooling = kind(7, 16, 7.5)
    features = Features(maps, scales, [(1, 1)] * 3)
    last = torch.tensor([0, 0, kind.last_pixel, kind.last_pixel])
    exact = [(boxes / scale - last) * scale for boxes, scale in zip(seen, scales, strict=True)]
    assert torch.equal(pooling(features, given, image), pooling.pool(maps, exact))
    assert torch.equal(pooling(features, given, image, torch.zeros(7)), pooling.pool(maps, exact))
    assert pooling(features, given[:0], image[:0]).shape == (0, 4, 7, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_turned_roi_is_the_warped_pooling_of_its_cover_and_the_others_keep_their_bits(kind):
    maps, boxes, image = torch.randn(2, 4, 8, 8), random_rois(6), torch.tensor([0, 0, 0, 1, 1, 1])
    features, pooling = Features(maps, [torch.ones(4)] * 2, [(128, 128)] * 2), kind(7, 16, 7.5)
    angle = torch.tensor([0.0, 0.2, 0.0, -0.1, 0.0, 3.0])
    straight, turned = pooling(features, boxes, image), pooling(features, boxes, image, angle)
    assert torch.equal(turned[[0, 2, 4]], straight[[0, 2, 4]])
    cover, theta = _cover_of_turned(boxes, angle)
    expected = warp(pooling(features, cover, image), theta[:, None])
    torch.testing.assert_close(turned[[1, 3, 5]], expected[[1, 3, 5]])
