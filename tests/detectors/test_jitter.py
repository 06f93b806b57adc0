"""Proposal jitter: where each feature comes from against the definition of a turned box, and what must stay as it is.

Most tests pool a ramp, whose two channels say where in the image they lie: bilinear interpolation keeps it exactly, so
that the pooled features are the places that each RoI was read at.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from afrcnn.adversaries.astn import warp
from afrcnn.detectors.box_coding import BoxCoder
from afrcnn.detectors.jitter import ProposalJitter
from afrcnn.detectors.roi_pooling import Features, RoIAlign, RoIPool, RoIPooling, _cover_of_turned
from afrcnn.detectors.sampling import RoIs

SIZE = 7
HUGE = (100_000, 100_000)


class Ramp(RoIPooling):
    """Pools a ramp without a border: x and y of the centre of each cell."""

    def pool(self, maps, boxes):
        x1, y1, x2, y2 = torch.cat(boxes)[..., None].unbind(1)
        steps = (torch.arange(SIZE, dtype=x1.dtype) + 0.5) / SIZE
        x, y = x1 + (x2 - x1) * steps, y1 + (y2 - y1) * steps
        return torch.stack([x[:, None].expand(-1, SIZE, -1), y[:, :, None].expand(-1, -1, SIZE)], dim=1)


def features_of(maps, images):
    """Maps of images that the backbone saw as they were given."""
    return Features(maps, [torch.ones(4)] * images, [HUGE] * images)


def places(rois, images=1):
    """Where in the image each cell of the RoIs is read: n x 2 x d x d."""
    return Ramp(SIZE, 1, 0.0)(features_of(torch.zeros(images, 0, 1, 1), images), rois.boxes, rois.image, rois.angle)


def turned_places(box, angle):
    """The definition: cell centres of a box, each turned by an angle (radians, clockwise) about the box's centre."""
    x1, y1, x2, y2 = box.tolist()
    grid = torch.empty(2, SIZE, SIZE, dtype=box.dtype)
    for row in range(SIZE):
        for column in range(SIZE):
            right, down = (x2 - x1) * ((column + 0.5) / SIZE - 0.5), (y2 - y1) * ((row + 0.5) / SIZE - 0.5)
            grid[0, row, column] = (x1 + x2) / 2 + right * math.cos(angle) - down * math.sin(angle)
            grid[1, row, column] = (y1 + y2) / 2 + right * math.sin(angle) + down * math.cos(angle)
    return grid


def angles_of(grid):
    """Read the angles (n, degrees, clockwise) off places n x 2 x d x d: the direction of a row."""
    right = grid[:, :, 0, -1] - grid[:, :, 0, 0]
    return torch.atan2(right[:, 1], right[:, 0]).rad2deg()


def random_rois(*labels, low=0.0, extent=400.0, dtype=torch.float64, adversarial=True):
    """The RoIs of images with these labels; all adversarial, or those that ``adversarial`` says."""
    image = torch.arange(len(labels)).repeat_interleave(torch.tensor([len(label) for label in labels]))
    joined = torch.tensor([label for of_image in labels for label in of_image], dtype=torch.int64)
    corner = low + torch.rand(len(joined), 2, dtype=dtype) * extent
    boxes = torch.cat([corner, corner + 10 + torch.rand(len(joined), 2, dtype=dtype) * 200], dim=1)
    flags = torch.tensor([adversarial] * len(labels) if isinstance(adversarial, bool) else adversarial)
    return RoIs(boxes, joined, boxes + torch.rand(len(joined), 4, dtype=dtype) * 4 - 2, image, flags[image])


def foreground(boxes):
    """Boxes of objects in one adversarial image."""
    labels = torch.ones(len(boxes), dtype=torch.int64)
    return RoIs(boxes, labels, boxes.clone(), 0 * labels, labels.bool())


def many(count=20_000, box=(50_000.0, 40_000.0, 50_300.0, 40_100.0)):
    return foreground(torch.tensor([box], dtype=torch.float64).repeat(count, 1))


def sides(boxes):
    return boxes[:, 2:] - boxes[:, :2]


def centres(boxes):
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def test_factors_are_log_uniform_within_their_limits_and_independent():
    rois = many()
    jittered = ProposalJitter(0.5, 0.3, 0)(rois, [HUGE])
    width, height = (sides(jittered.boxes) / sides(rois.boxes)).log().unbind(1)
    scale, ratio = (width + height) / 2, width - height
    for logarithm, limit in ((scale, math.log(1.5)), (ratio, math.log(1.3))):
        assert logarithm.abs().max() <= limit + 1e-9
        assert stats.kstest(logarithm, stats.uniform(-limit, 2 * limit).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(scale, ratio)[0, 1]) < 0.03
    torch.testing.assert_close(centres(jittered.boxes), centres(rois.boxes))


def test_angles_are_uniform_within_their_limit_and_differ_by_roi():
    jittered = ProposalJitter(0, 0, 12)(many(), [HUGE])
    angles = angles_of(places(jittered))
    torch.testing.assert_close(angles, jittered.angle.rad2deg())
    assert angles.abs().max() <= 12 + 1e-6
    assert stats.kstest(angles, stats.uniform(-12, 24).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("scale", "aspect_ratio"), [(0.5, 0), (0, 0.5)])
def test_each_limit_of_0_switches_one_change_off(scale, aspect_ratio):
    rois = random_rois([1] * 50, low=1000)
    jittered = ProposalJitter(scale, aspect_ratio, 0)(rois, [HUGE])
    factors = sides(jittered.boxes) / sides(rois.boxes)
    constant = factors[:, 0] / factors[:, 1] if scale else factors.prod(dim=1)
    torch.testing.assert_close(constant, torch.ones_like(constant))
    assert ((factors - 1).abs() > 1e-4).all(dim=1).sum() > 45
    assert jittered.angle is None


def test_only_foreground_rois_of_adversarial_images_change_and_the_others_keep_their_bits():
    for flags in ([False, True, False, True], [True, True, False, False], [False] * 4, [True] * 4):
        rois = random_rois([1, 2, 0, 0], [3, 0, 1, 0, 2], [0, 0], [2, 2, 0], low=1000, adversarial=flags)
        given = rois.boxes.clone()
        jittered = ProposalJitter(0.2, 0.2, 10)(rois, [HUGE] * 4)
        changes = (rois.labels > 0) & torch.tensor(flags)[rois.image]
        assert torch.equal((jittered.boxes != rois.boxes).all(dim=1), changes), flags
        assert torch.equal(jittered.boxes[~changes], rois.boxes[~changes])
        before, after = places(rois, 4), places(jittered, 4)
        assert torch.equal(after[~changes], before[~changes])
        assert (angles_of(after[changes]).abs() > 1e-6).all()
        assert not jittered.angle[~changes].any()
        for name in ("labels", "matched", "image", "adversarial"):
            assert getattr(jittered, name) is getattr(rois, name)
        assert torch.equal(rois.boxes, given)


def test_turned_rois_are_read_where_the_definition_says():
    for degrees in (1, 10, 45, 180):
        jittered = ProposalJitter(0.3, 0.3, degrees)(random_rois([1] * 40, low=1000), [HUGE])
        grid = places(jittered)
        for box, cells, angle in zip(jittered.boxes, grid, angles_of(grid).deg2rad().tolist(), strict=True):
            # Whatever the angle was, all cells are those of the jittered box turned by it: size, shape and centre too.
            torch.testing.assert_close(cells, turned_places(box, angle), rtol=0, atol=1e-4)


@pytest.mark.parametrize("degrees", [-180, -100, -90, -30, -10, 0, 5, 10, 45, 90, 135])
def test_covers_are_the_smallest_boxes_around_turned_ones_and_angles_are_true_in_pixels(degrees):
    boxes = torch.tensor([[10.0, 20, 110, 45], [0, 0, 30, 90], [5, 5, 6, 300], [7, 7, 27, 27]], dtype=torch.float64)
    covers, theta = _cover_of_turned(boxes, torch.full((4,), math.radians(degrees), dtype=torch.float64))
    for box, cover, matrix in zip(boxes.numpy(), covers.numpy(), theta.numpy(), strict=True):
        x, y = (box[:2] + box[2:]) / 2
        t = math.radians(degrees)
        corners = {}
        for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            right, down = a * (box[2] - box[0]) / 2, b * (box[3] - box[1]) / 2
            corners[a, b] = (
                x + right * math.cos(t) - down * math.sin(t),
                y + right * math.sin(t) + down * math.cos(t),
            )
        points = np.array(list(corners.values()))
        np.testing.assert_allclose(cover, [*points.min(axis=0), *points.max(axis=0)], atol=1e-9)
        for normalised, corner in corners.items():
            place = matrix @ [*normalised, 1]
            half = (cover[2:] - cover[:2]) / 2
            np.testing.assert_allclose((cover[:2] + cover[2:]) / 2 + place * half, corner, atol=1e-9)


def test_a_square_turned_clockwise_by_a_right_angle_shows_its_content_turned_counterclockwise():
    square, pattern = torch.tensor([[10.0, 20, 80, 90]]), torch.rand(1, 3, SIZE, SIZE)
    for degrees, quarters in ((90, 1), (180, 2), (-90, -1)):
        cover, theta = _cover_of_turned(square, torch.tensor([math.radians(degrees)]))
        torch.testing.assert_close(cover, square)
        torch.testing.assert_close(warp(pattern, theta[:, None]), pattern.rot90(quarters, (2, 3)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("with_gradient", [True, False])
def test_a_smooth_picture_pooled_in_turned_rois_is_the_picture_at_the_turned_cells(with_gradient):
    stride, cells = 16, 60
    centre = (torch.arange(cells) + 0.5) * stride

    def picture(x, y):
        return torch.stack([(x / 300 + y / 200).sin(), x / 100, y / 100, (x * y / 1e5).cos()])

    maps = picture(*torch.meshgrid(centre, centre, indexing="xy"))[None].requires_grad_(with_gradient)
    rois = random_rois([1] * 30, low=200, extent=300, dtype=torch.float32)
    jittered = ProposalJitter(0.2, 0.2, 45)(rois, [(960, 960)])
    pooled = RoIAlign(SIZE, stride, (stride - 1) / 2)(
        features_of(maps, 1), jittered.boxes, jittered.image, jittered.angle
    )
    for box, values in zip(jittered.boxes, pooled.detach(), strict=True):
        angle = math.atan2(*(values[1:3, 0, -1] - values[1:3, 0, 0]).flip(0).tolist())
        expected = picture(*turned_places(box, angle))
        torch.testing.assert_close(values[1:3], expected[1:3], rtol=0, atol=1e-4)  # ramps: to rounding
        torch.testing.assert_close(values, expected, rtol=0, atol=0.02)


def boxes_at_a_border(count=300):
    """Boxes within an image of 300 x 200 pixels, many of which touch its border."""
    extent = torch.tensor([300.0, 200.0], dtype=torch.float64)
    corners = (torch.rand(count, 2, 2, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1) * extent
    boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
    return boxes[(sides(boxes) >= 2).all(dim=1)]


def test_jittered_rois_are_clipped_to_their_image():
    boxes, jitter = boxes_at_a_border(), ProposalJitter(0.5, 0.5, 20)
    torch.manual_seed(1)
    clipped = jitter(foreground(boxes), [(200, 300)])
    torch.manual_seed(1)
    unclipped = jitter(foreground(boxes + 1000), [HUGE]).boxes - 1000
    expected = unclipped.numpy().clip([0, 0, 0, 0], [300, 200, 300, 200])
    np.testing.assert_allclose(clipped.boxes, expected, atol=1e-9)
    assert not torch.equal(clipped.boxes, unclipped)


def test_box_targets_are_those_of_the_jittered_rois_and_lead_back_to_the_object():
    rois = random_rois([1] * 60, low=50)
    jittered = ProposalJitter(0.3, 0.3, 15)(rois, [(700, 700)])
    targets = BoxCoder((0.0,) * 4, (1.0,) * 4).double().encode(jittered.matched, jittered.boxes)
    for roi, box, target in zip(jittered.boxes.tolist(), rois.matched.tolist(), targets.tolist(), strict=True):
        x, y, w, h = (roi[0] + roi[2]) / 2, (roi[1] + roi[3]) / 2, roi[2] - roi[0], roi[3] - roi[1]
        dx, dy, dw, dh = target
        x, y, w, h = x + w * dx, y + h * dy, w * math.exp(dw), h * math.exp(dh)
        np.testing.assert_allclose([x - w / 2, y - h / 2, x + w / 2, y + h / 2], box, atol=1e-9)


def test_rois_that_would_have_less_than_a_pixel_left_stay_as_they_are():
    boxes = torch.tensor([[10.0, 10, 11, 11], [50, 50, 50.5, 90], [-400, -400, -380, -380], [199.5, 10, 240, 60]])
    rois = foreground(boxes.repeat(200, 1))._replace(matched=boxes.repeat(200, 1) + 1)
    jittered = ProposalJitter(9, 9, 30)(rois, [(200, 200)])
    stayed = (jittered.boxes == rois.boxes).all(dim=1)
    assert (sides(jittered.boxes)[~stayed] >= 1).all()
    assert stayed.view(200, 4)[:, 2].all()  # outside the image: nothing would be left
    assert 0 < stayed.view(200, 4)[:, 0].sum() < 200
    assert BoxCoder().encode(jittered.matched, jittered.boxes).isfinite().all()
    assert places(jittered).isfinite().all()


@pytest.mark.parametrize("kind", [RoIAlign, RoIPool])
def test_without_rotation_the_features_are_those_of_the_jittered_rois_bit_for_bit(kind):
    maps, pooling = torch.randn(2, 5, 20, 20, requires_grad=True), kind(SIZE, 16, 7.5)
    rois = random_rois([1, 2, 0], [1, 2, 0], extent=100, dtype=torch.float32)
    jittered = ProposalJitter(0.4, 0.4, 0)(rois, [(320, 320)] * 2)
    pooled = pooling(features_of(maps, 2), jittered.boxes, jittered.image, jittered.angle)
    assert torch.equal(pooled, pooling.pool(maps, list(jittered.boxes.split(3))))
    assert not torch.equal(jittered.boxes, rois.boxes)


def test_all_zeros_give_back_the_same_bits_and_draw_nothing():
    maps, align = torch.randn(1, 5, 20, 20), RoIAlign(SIZE, 16, 7.5)
    rois = random_rois([1, 2, 0, 3], low=-30, dtype=torch.float32)  # also beyond the image
    state = torch.get_rng_state()
    jittered = ProposalJitter(0, 0, 0)(rois, [(320, 320)])
    assert torch.equal(jittered.boxes, rois.boxes)
    pooled = align(features_of(maps, 1), jittered.boxes, jittered.image, jittered.angle)
    assert torch.equal(pooled, align.pool(maps, [rois.boxes]))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", [RoIAlign, RoIPool])
@pytest.mark.parametrize("degrees", [0, 20])
def test_the_gradient_that_reaches_the_image_s_features_is_exact(kind, degrees):
    maps, pooling = torch.randn(2, 4, 20, 20, requires_grad=True), kind(SIZE, 16, 7.5)
    rois = random_rois([1, 2, 0], [1, 2, 0], extent=100, dtype=torch.float32)
    jittered = ProposalJitter(0.4, 0.4, degrees)(rois, [(320, 320)] * 2)
    pooled = pooling(features_of(maps, 2), jittered.boxes, jittered.image, jittered.angle)
    upstream = torch.randn(pooled.shape)
    pooled.backward(upstream)
    # Pooling and warping scale with the features: <upstream, J features> = <J^T upstream, features>.
    assert maps.grad.abs().sum() > 0
    torch.testing.assert_close((maps.grad * maps).sum(), (upstream * pooled).sum(), rtol=1e-3, atol=1e-3)


def test_rois_depend_on_the_generator_alone():
    rois, state = random_rois([1, 2, 0], low=1000), torch.get_rng_state()
    first = ProposalJitter(0.2, 0.2, 10)(rois, [HUGE])
    torch.set_rng_state(state)
    second = ProposalJitter(0.2, 0.2, 10)(rois, [HUGE])
    assert torch.equal(first.boxes, second.boxes)
    assert torch.equal(first.angle, second.angle)
    assert not torch.equal(first.boxes, rois.boxes)
    assert not torch.equal(ProposalJitter(0.2, 0.2, 10)(rois, [HUGE]).boxes, second.boxes)
    assert not ProposalJitter(0.2, 0.2, 10).state_dict()


def test_images_without_foreground_or_rois_pass():
    for labels in (([], []), ([], [0, 0]), ([0], [0]), ([0, 0], []), ([], [1]), ([1], [])):
        rois = random_rois(*labels, low=1000)
        jittered = ProposalJitter(0.2, 0.2, 10)(rois, [HUGE] * 2)
        assert places(jittered, 2).shape == (sum(map(len, labels)), 2, SIZE, SIZE), labels
        assert jittered.boxes.shape == rois.boxes.shape
        assert torch.equal(jittered.boxes[rois.labels == 0], rois.boxes[rois.labels == 0]), labels


def test_in_16_bits_places_keep_their_precision():
    rois, grids = random_rois([1] * 20, low=1000, dtype=torch.float32), []
    for enabled in (False, True):
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            grids.append(places(ProposalJitter(0.2, 0.2, 10)(rois, [HUGE])))
    assert torch.equal(*grids)
