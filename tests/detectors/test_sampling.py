"""RoI sampling against torchvision's matcher and sampler, and the bounds of Fast R-CNN's section 2.3."""

import pytest
import torch
from scipy.stats import chisquare
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher
from torchvision.ops import box_iou

from afrcnn.detectors.sampling import RoISampler, Sample, draw


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def random_boxes(count, extent=100, side=60):
    corner = torch.randint(0, extent, (count, 2)).float()
    return torch.cat([corner, corner + torch.randint(3, side, (count, 2))], dim=1)


def target(boxes, labels):
    return {"boxes": torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4), "labels": torch.as_tensor(labels)}


EMPTY = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def beside(iou):
    """A box whose IoU with (0, 0, 100, 100) is ``iou``."""
    return [0.0, 0.0, 100.0 * iou, 100.0]


@pytest.mark.parametrize("case", range(30))
def test_matching_agrees_with_torchvision(case):
    torch.manual_seed(case)
    boxes, candidates = random_boxes(1 + case % 7), random_boxes(200)
    overlap, match = RoISampler.match(candidates, boxes)
    expected = Matcher(0.5, 0.5, allow_low_quality_matches=False)(box_iou(boxes, candidates))
    assert torch.equal(overlap >= 0.5, expected >= 0)
    assert torch.equal(match[overlap >= 0.5], expected[expected >= 0])


@pytest.mark.parametrize("case", range(30))
def test_as_many_of_each_kind_are_drawn_as_by_torchvision(case):
    torch.manual_seed(case)
    objects = target(random_boxes(3), [1, 2, 3])
    proposals = random_boxes(20 + 20 * case)
    sample = RoISampler(64, 0.25, 0.5, (0.0, 0.5))(proposals, objects)

    candidates = torch.cat([objects["boxes"], proposals])
    matched = Matcher(0.5, 0.5, allow_low_quality_matches=False)(box_iou(objects["boxes"], candidates))
    positive, negative = BalancedPositiveNegativeSampler(64, 0.25)([torch.where(matched >= 0, 1, 0)])
    assert int((sample.labels > 0).sum()) == int(positive[0].sum())
    assert int((sample.labels == 0).sum()) == int(negative[0].sum())


@pytest.mark.parametrize("case", range(20))
def test_each_roi_is_a_candidate_and_has_the_label_and_the_box_of_the_object_it_covers(case):
    torch.manual_seed(case)
    objects = target(random_boxes(4), [1, 2, 3, 2])
    proposals = random_boxes(300)
    sample = RoISampler(32, 0.25, 0.5, (0.1, 0.5))(proposals, objects)
    candidates = {tuple(box) for box in torch.cat([objects["boxes"], proposals]).tolist()}
    assert len(sample.rois) == len(sample.labels) == len(sample.boxes) <= 32
    for roi, label, box in zip(*sample, strict=True):
        assert tuple(roi.tolist()) in candidates
        overlap = box_iou(roi[None], objects["boxes"])[0]
        if label == 0:
            assert 0.1 <= overlap.max() < 0.5
        else:
            assert overlap.max() >= 0.5
            best = int(overlap.argmax())
            assert label == objects["labels"][best] and torch.equal(box, objects["boxes"][best])


@pytest.mark.parametrize("case", range(20))
def test_eligible_are_all_that_could_be_drawn_each_once(case):
    torch.manual_seed(case)
    objects, proposals = target(random_boxes(4), [1, 2, 3, 2]), random_boxes(100)
    every = RoISampler(8, 0.25, 0.5, (0.1, 0.5)).eligible(proposals, objects)
    overlap = [box_iou(box[None], objects["boxes"])[0] for box in torch.cat([objects["boxes"], proposals])]
    foreground = [int(objects["labels"][iou.argmax()]) for iou in overlap if iou.max() >= 0.5]
    background = [0 for iou in overlap if 0.1 <= iou.max() < 0.5]
    assert every.labels.tolist() == foreground + background
    assert len(every.rois) == len(every.boxes) == len(every.labels)


def test_a_quarter_is_foreground_where_there_is_enough_and_it_comes_first():
    proposals = torch.tensor([[0.0, 0, 100, 100]] * 500 + [[0.0, 0, 30, 100]] * 500)
    sample = RoISampler(128)(proposals, target([0, 0, 100, 100], [7]))
    assert sample.labels.tolist() == [7] * 32 + [0] * 96


def test_background_fills_the_place_of_missing_foreground():
    proposals = torch.tensor([[0.0, 0, 30, 100]] * 500)
    sample = RoISampler(128)(proposals, target([0, 0, 100, 100], [7]))  # the object itself is the one foreground
    assert sample.labels.tolist() == [7] + [0] * 127


@pytest.mark.parametrize(
    ("iou", "drawn"), [(0.0, False), (0.09, False), (0.1, True), (0.3, True), (0.49, True), (0.5, False)]
)
def test_the_lower_bound_of_background_belongs_to_it_and_the_upper_does_not(iou, drawn):
    proposals = torch.tensor([beside(iou) if iou else [200.0, 200, 210, 210]])
    sample = RoISampler(128, 0.25, 0.6, (0.1, 0.5))(proposals, target([0, 0, 100, 100], [1]))
    assert (sample.labels == 0).any() == drawn


def test_an_iou_of_just_the_threshold_is_foreground():
    sample = RoISampler(128, 1.0)(torch.tensor([beside(0.5), beside(0.49)]), target([0, 0, 100, 100], [1]))
    assert sorted(sample.labels.tolist()) == [0, 1, 1]


def test_an_image_without_objects_is_background_everywhere():
    sample = RoISampler(8, background_iou=(0.1, 0.5))(random_boxes(20), EMPTY)
    assert sample.labels.tolist() == [0] * 8


def test_an_image_without_proposals_gives_its_objects():
    sample = RoISampler(8)(torch.zeros(0, 4), target(random_boxes(2), [3, 3]))
    assert sample.labels.tolist() == [3, 3]
    assert torch.equal(sample.rois, sample.boxes)


def test_an_image_with_neither_gives_nothing():
    sample = RoISampler(8)(torch.zeros(0, 4), EMPTY)
    assert sample.rois.shape == sample.boxes.shape == (0, 4)
    assert sample.labels.shape == (0,) and sample.labels.dtype == torch.int64


@pytest.mark.parametrize("count", [1, 3, 9])
def test_every_eligible_entry_is_drawn_equally_often(count):
    eligible = torch.tensor([True, False, True, True, True, False, True, True, True, True, True])
    drawn = torch.zeros(len(eligible))
    for _ in range(2000):
        chosen = draw(eligible, count)
        assert len(set(chosen.tolist())) == len(chosen) == count
        drawn[chosen] += 1
    assert not drawn[~eligible].any()
    assert chisquare(drawn[eligible].numpy()).pvalue > 1e-3


def test_the_same_random_state_draws_the_same_rois():
    proposals, objects = random_boxes(500), target(random_boxes(3), [1, 2, 3])
    samples = []
    for _ in range(2):
        torch.manual_seed(5)
        samples.append(RoISampler(32)(proposals, objects))
    assert all(torch.equal(one, other) for one, other in zip(*samples, strict=True))


def test_overlaps_are_each_roi_s_iou_with_its_own_box():
    rois, boxes = random_boxes(40), random_boxes(40)
    overlaps = Sample(rois, torch.ones(40, dtype=torch.int64), boxes).overlaps
    for roi, box, overlap in zip(rois.tolist(), boxes.tolist(), overlaps.tolist(), strict=True):
        width = max(0.0, min(roi[2], box[2]) - max(roi[0], box[0]))
        height = max(0.0, min(roi[3], box[3]) - max(roi[1], box[1]))
        areas = [(one[2] - one[0]) * (one[3] - one[1]) for one in (roi, box)]
        assert overlap == pytest.approx(width * height / (sum(areas) - width * height), abs=1e-5)
    assert Sample(rois[:0], torch.zeros(0, dtype=torch.int64), boxes[:0]).overlaps.shape == (0,)
