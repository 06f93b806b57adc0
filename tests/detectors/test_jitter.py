"""Proposal jitter: where each feature comes from against the definition of a turned box, and what must stay as it is.

Most tests pool a ramp, whose two channels say where in the image they lie: bilinear interpolation keeps it exactly, so
that the pooled features are the places that each RoI was read at.
"""

import copy
import math

import numpy as np
import pytest
import torch
from scipy import stats

from afrcnn.adversaries.astn import warp
from afrcnn.detectors.box_coding import BoxCoder
from afrcnn.detectors.jitter import ProposalJitter, turned
from afrcnn.detectors.roi_pooling import RoIAlign, RoIPool
from afrcnn.detectors.sampling import Sample

SIZE = 7
HUGE = (100_000, 100_000)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def places(rois):
    """Pool a ramp without a border: n x 2 x d x d, x and y of the centre of each cell."""
    x1, y1, x2, y2 = torch.cat(list(rois))[..., None].unbind(1)
    steps = (torch.arange(SIZE, dtype=x1.dtype) + 0.5) / SIZE
    x, y = x1 + (x2 - x1) * steps, y1 + (y2 - y1) * steps
    return torch.stack([x[:, None].expand(-1, SIZE, -1), y[:, :, None].expand(-1, -1, SIZE)], dim=1)


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


def random_sample(labels, low=0.0, extent=400.0, dtype=torch.float64):
    labels = torch.as_tensor(labels, dtype=torch.int64)
    corner = low + torch.rand(len(labels), 2, dtype=dtype) * extent
    rois = torch.cat([corner, corner + 10 + torch.rand(len(labels), 2, dtype=dtype) * 200], dim=1)
    return Sample(rois, labels, rois + torch.rand(len(labels), 4, dtype=dtype) * 4 - 2)


def many(count=20_000, box=(50_000.0, 40_000.0, 50_300.0, 40_100.0)):
    rois = torch.tensor([box], dtype=torch.float64).repeat(count, 1)
    return Sample(rois, torch.ones(count, dtype=torch.int64), rois.clone())


def sides(rois):
    return rois[:, 2:] - rois[:, :2]


def centres(rois):
    return (rois[:, :2] + rois[:, 2:]) / 2


def test_factors_are_log_uniform_within_their_limits_and_independent():
    sample = many()
    (jittered,), _ = ProposalJitter(0.5, 0.3, 0, clean_fraction=0)([sample], [HUGE], places)
    width, height = (sides(jittered.rois) / sides(sample.rois)).log().unbind(1)
    scale, ratio = (width + height) / 2, width - height
    for logarithm, limit in ((scale, math.log(1.5)), (ratio, math.log(1.3))):
        assert logarithm.abs().max() <= limit + 1e-9
        assert stats.kstest(logarithm, stats.uniform(-limit, 2 * limit).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(scale, ratio)[0, 1]) < 0.03
    torch.testing.assert_close(centres(jittered.rois), centres(sample.rois))


def test_angles_are_uniform_within_their_limit_and_differ_by_roi():
    _, grid = ProposalJitter(0, 0, 12, clean_fraction=0)([many()], [HUGE], places)
    angles = angles_of(grid)
    assert angles.abs().max() <= 12 + 1e-6
    assert stats.kstest(angles, stats.uniform(-12, 24).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("scale", "aspect_ratio"), [(0.5, 0), (0, 0.5)])
def test_each_limit_of_0_switches_one_change_off(scale, aspect_ratio):
    sample = random_sample([1] * 50, low=1000)
    (jittered,), grid = ProposalJitter(scale, aspect_ratio, 0, clean_fraction=0)([sample], [HUGE], places)
    factors = sides(jittered.rois) / sides(sample.rois)
    kept = factors[:, 0] / factors[:, 1] if scale else factors.prod(dim=1)
    torch.testing.assert_close(kept, torch.ones_like(kept))
    assert ((factors - 1).abs() > 1e-4).all(dim=1).sum() > 45
    assert torch.equal(grid, places([jittered.rois]))


def test_only_foreground_rois_of_adversarial_images_change_and_the_others_keep_their_bits():
    samples = [random_sample(labels, low=1000) for labels in ([1, 2, 0, 0], [3, 0, 1, 0, 2], [0, 0], [2, 2, 0])]
    jittered, grid = ProposalJitter(0.2, 0.2, 10)(samples, [HUGE] * 4, places)
    before = places([sample.rois for sample in samples]).split([4, 5, 2, 3])
    for image, (old, new, cells) in enumerate(zip(samples, jittered, grid.split([4, 5, 2, 3]), strict=True)):
        assert torch.equal(new.labels, old.labels)
        assert torch.equal(new.boxes, old.boxes)
        changes = (old.labels > 0) & (image % 2 == 1)  # of two images, the second
        assert torch.equal((new.rois != old.rois).all(dim=1), changes)
        assert torch.equal(new.rois[~changes], old.rois[~changes])
        assert torch.equal(cells[~changes], before[image][~changes])
        assert (angles_of(cells[changes]).abs() > 1e-6).all()


@pytest.mark.parametrize(("clean_fraction", "expected"), [(0, "1111"), (0.5, "0101"), (0.75, "0001"), (1, "0000")])
def test_images_take_turns_also_one_at_a_time(clean_fraction, expected):
    jitter, sample = ProposalJitter(0.2, 0, 0, clean_fraction), random_sample([1], low=1000)
    changed = [not torch.equal(jitter([sample], [HUGE], places)[0][0].rois, sample.rois) for _ in expected]
    assert changed == [turn == "1" for turn in expected]


@pytest.mark.parametrize("degrees", [1, 10, 45, 180])
def test_turned_rois_are_read_where_the_definition_says(degrees):
    sample = random_sample([1] * 40, low=1000)
    (jittered,), grid = ProposalJitter(0.3, 0.3, degrees, clean_fraction=0)([sample], [HUGE], places)
    for box, cells, angle in zip(jittered.rois, grid, angles_of(grid).deg2rad().tolist(), strict=True):
        # Whatever the angle was, all cells are those of the jittered box turned by it: size, shape and centre too.
        torch.testing.assert_close(cells, turned_places(box, angle), rtol=0, atol=1e-4)


@pytest.mark.parametrize("degrees", [-180, -100, -90, -30, -10, 0, 5, 10, 45, 90, 135])
def test_covers_are_the_smallest_boxes_around_turned_ones_and_angles_are_true_in_pixels(degrees):
    boxes = torch.tensor([[10.0, 20, 110, 45], [0, 0, 30, 90], [5, 5, 6, 300], [7, 7, 27, 27]], dtype=torch.float64)
    covers, theta = turned(boxes, torch.full((4,), math.radians(degrees), dtype=torch.float64))
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
        cover, theta = turned(square, torch.tensor([math.radians(degrees)]))
        torch.testing.assert_close(cover, square)
        torch.testing.assert_close(warp(pattern, theta[:, None]), pattern.rot90(quarters, (2, 3)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("with_gradient", [True, False])
def test_a_smooth_picture_pooled_in_turned_rois_is_the_picture_at_the_turned_cells(with_gradient):
    stride, cells = 16, 60
    centre = (torch.arange(cells) + 0.5) * stride

    def picture(x, y):
        return torch.stack([(x / 300 + y / 200).sin(), x / 100, y / 100, (x * y / 1e5).cos()])

    features = picture(*torch.meshgrid(centre, centre, indexing="xy"))[None].requires_grad_(with_gradient)
    align = RoIAlign(SIZE, stride)
    sample = random_sample([1] * 30, low=200, extent=300, dtype=torch.float32)
    (jittered,), found = ProposalJitter(0.2, 0.2, 45, clean_fraction=0)(
        [sample], [(960, 960)], lambda rois: align(features, list(rois))
    )
    for box, values in zip(jittered.rois, found.detach(), strict=True):
        angle = math.atan2(*(values[1:3, 0, -1] - values[1:3, 0, 0]).flip(0).tolist())
        expected = picture(*turned_places(box, angle))
        torch.testing.assert_close(values[1:3], expected[1:3], rtol=0, atol=1e-4)  # ramps: to rounding
        torch.testing.assert_close(values, expected, rtol=0, atol=0.02)


def rois_at_a_border(count=300):
    """Boxes within an image of 300 x 200 pixels, many of which touch its border."""
    extent = torch.tensor([300.0, 200.0], dtype=torch.float64)
    corners = (torch.rand(count, 2, 2, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1) * extent
    rois = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
    rois = rois[(sides(rois) >= 2).all(dim=1)]
    return Sample(rois, torch.ones(len(rois), dtype=torch.int64), rois.clone())


def test_jittered_rois_are_clipped_to_their_image():
    sample = rois_at_a_border()
    jitter = ProposalJitter(0.5, 0.5, 20, clean_fraction=0)
    torch.manual_seed(1)
    (clipped,), _ = jitter([sample], [(200, 300)], places)
    torch.manual_seed(1)
    away = sample._replace(rois=sample.rois + 1000)
    (unclipped,), _ = jitter([away], [HUGE], places)
    expected = (unclipped.rois - 1000).numpy().clip([0, 0, 0, 0], [300, 200, 300, 200])
    np.testing.assert_allclose(clipped.rois, expected, atol=1e-9)
    assert not torch.equal(clipped.rois, unclipped.rois - 1000)


def test_box_targets_are_those_of_the_jittered_rois_and_lead_back_to_the_object():
    sample = random_sample([1] * 60, low=50)
    (jittered,), _ = ProposalJitter(0.3, 0.3, 15, clean_fraction=0)([sample], [(700, 700)], places)
    targets = BoxCoder((0.0,) * 4, (1.0,) * 4).double().encode(jittered.boxes, jittered.rois)
    for roi, box, target in zip(jittered.rois.tolist(), sample.boxes.tolist(), targets.tolist(), strict=True):
        x, y, w, h = (roi[0] + roi[2]) / 2, (roi[1] + roi[3]) / 2, roi[2] - roi[0], roi[3] - roi[1]
        dx, dy, dw, dh = target
        x, y, w, h = x + w * dx, y + h * dy, w * math.exp(dw), h * math.exp(dh)
        np.testing.assert_allclose([x - w / 2, y - h / 2, x + w / 2, y + h / 2], box, atol=1e-9)


def test_rois_that_would_have_less_than_a_pixel_left_stay_as_they_are():
    boxes = torch.tensor([[10.0, 10, 11, 11], [50, 50, 50.5, 90], [-400, -400, -380, -380], [199.5, 10, 240, 60]])
    sample = Sample(boxes.repeat(200, 1), torch.ones(800, dtype=torch.int64), boxes.repeat(200, 1) + 1)
    (jittered,), grid = ProposalJitter(9, 9, 30, clean_fraction=0)([sample], [(200, 200)], places)
    stayed = (jittered.rois == sample.rois).all(dim=1)
    assert (sides(jittered.rois)[~stayed] >= 1).all()
    assert stayed.view(200, 4)[:, 2].all()  # outside the image: nothing would be left
    assert 0 < stayed.view(200, 4)[:, 0].sum() < 200
    assert BoxCoder().encode(jittered.boxes, jittered.rois).isfinite().all()
    assert grid.isfinite().all()


@pytest.mark.parametrize("kind", [RoIAlign, RoIPool])
def test_without_rotation_the_features_are_those_of_the_jittered_rois_bit_for_bit(kind):
    features, pooling, calls = torch.randn(2, 5, 20, 20, requires_grad=True), kind(SIZE, 16), []
    samples = [random_sample([1, 2, 0], extent=100, dtype=torch.float32) for _ in range(2)]

    def pool(rois):
        calls.append(rois)
        return pooling(features, list(rois))

    jittered, found = ProposalJitter(0.4, 0.4, 0)(samples, [(320, 320)] * 2, pool)
    assert len(calls) == 1
    assert torch.equal(found, pooling(features, [sample.rois for sample in jittered]))
    assert not torch.equal(jittered[1].rois, samples[1].rois)


def test_all_zeros_give_back_the_same_bits_and_draw_nothing():
    features, align = torch.randn(1, 5, 20, 20), RoIAlign(SIZE, 16)
    sample = random_sample([1, 2, 0, 3], low=-30, dtype=torch.float32)  # also beyond the image
    state = torch.get_rng_state()
    (jittered,), found = ProposalJitter(0, 0, 0, clean_fraction=0)(
        [sample], [(320, 320)], lambda rois: align(features, list(rois))
    )
    assert all(torch.equal(old, new) for old, new in zip(sample, jittered, strict=True))
    assert torch.equal(found, align(features, [sample.rois]))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", [RoIAlign, RoIPool])
@pytest.mark.parametrize("degrees", [0, 20])
def test_the_gradient_that_reaches_the_image_s_features_is_exact(kind, degrees):
    features, pooling = torch.randn(2, 4, 20, 20, requires_grad=True), kind(SIZE, 16)
    samples = [random_sample([1, 2, 0], extent=100, dtype=torch.float32) for _ in range(2)]
    _, found = ProposalJitter(0.4, 0.4, degrees, clean_fraction=0)(
        samples, [(320, 320)] * 2, lambda rois: pooling(features, list(rois))
    )
    upstream = torch.randn(found.shape)
    found.backward(upstream)
    # Pooling and warping scale with the features: <upstream, J features> = <J^T upstream, features>.
    assert features.grad.abs().sum() > 0
    torch.testing.assert_close((features.grad * features).sum(), (upstream * found).sum(), rtol=1e-3, atol=1e-3)


def test_rois_depend_on_the_generator_and_the_saved_state_alone():
    jitter = ProposalJitter(0.2, 0.2, 10)
    samples = [random_sample([1, 2, 0], low=1000)]
    jitter(samples, [HUGE], places)  # the turn is now the second image's
    state, saved = torch.get_rng_state(), copy.deepcopy(jitter.state_dict())
    (first,), features = jitter(samples, [HUGE], places)

    resumed = ProposalJitter(0.2, 0.2, 10)
    resumed.load_state_dict(saved)
    torch.set_rng_state(state)
    (second,), again = resumed(samples, [HUGE], places)
    assert torch.equal(first.rois, second.rois)
    assert torch.equal(features, again)
    assert not torch.equal(first.rois, samples[0].rois)

    resumed.load_state_dict(saved)
    assert not torch.equal(resumed(samples, [HUGE], places)[0][0].rois, second.rois)


@pytest.mark.parametrize("labels", [([], []), ([], [0, 0]), ([0], [0]), ([0, 0], []), ([], [1]), ([1], [])])
def test_images_without_foreground_or_rois_pass(labels):
    samples = [random_sample(label, low=1000) for label in labels]
    jittered, grid = ProposalJitter(0.2, 0.2, 10, clean_fraction=0)(samples, [HUGE] * 2, places)
    assert grid.shape == (sum(map(len, labels)), 2, SIZE, SIZE)
    for old, new in zip(samples, jittered, strict=True):
        assert new.rois.shape == old.rois.shape
        assert torch.equal(new.rois[old.labels == 0], old.rois[old.labels == 0])


def test_in_16_bits_places_keep_their_precision():
    sample = random_sample([1] * 20, low=1000, dtype=torch.float32)
    jitter = ProposalJitter(0.2, 0.2, 10, clean_fraction=0)
    found = []
    for enabled in (False, True):
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(jitter([sample], [HUGE], places)[1])
    assert torch.equal(*found)
