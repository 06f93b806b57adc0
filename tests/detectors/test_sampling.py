"""RoI sampling against torchvision's matcher and sampler, and the bounds of Fast R-CNN's section 2.3."""

import pytest
import torch
from scipy.stats import chisquare
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher
from torchvision.ops import box_iou

from afrcnn.detectors.sampling import RoIs, RoISampler
from reference import random_boxes


def boxes_of(count):
    return random_boxes(count, extent=100, side=60, whole=True)


def target(boxes, labels):
    return {"boxes": torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4), "labels": torch.as_tensor(labels)}


EMPTY = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def beside(iou):
    """A box whose IoU with (0, 0, 100, 100) is ``iou``."""
    return [0.0, 0.0, 100.0 * iou, 100.0]


def test_matching_agrees_with_torchvision():
    for case in range(30):
        boxes, candidates = boxes_of(1 + case % 7), boxes_of(200)
        overlap, match = RoISampler.match(candidates, boxes)
        expected = Matcher(0.5, 0.5, allow_low_quality_matches=False)(box_iou(boxes, candidates))
        assert torch.equal(overlap >= 0.5, expected >= 0), case
        assert torch.equal(match[overlap >= 0.5], expected[expected >= 0]), case


def test_as_many_of_each_kind_are_drawn_as_by_torchvision():
    for case in range(30):
        objects = target(boxes_of(3), [1, 2, 3])
        proposals = boxes_of(20 + 20 * case)
        rois = RoISampler(64, 0.25, 0.5, (0.0, 0.5))([proposals], [objects])

        candidates = torch.cat([objects["boxes"], proposals])
        matched = Matcher(0.5, 0.5, allow_low_quality_matches=False)(box_iou(objects["boxes"], candidates))
        positive, negative = BalancedPositiveNegativeSampler(64, 0.25)([torch.where(matched >= 0, 1, 0)])
        assert int((rois.labels > 0).sum()) == int(positive[0].sum()), case
        assert int((rois.labels == 0).sum()) == int(negative[0].sum()), case


def test_each_roi_is_a_candidate_and_has_the_label_and_the_box_of_the_object_it_covers():
    for case in range(20):
        objects, proposals = target(boxes_of(4), [1, 2, 3, 2]), boxes_of(300)
        rois = RoISampler(32, 0.25, 0.5, (0.1, 0.5))([proposals], [objects])
        candidates = {tuple(box) for box in torch.cat([objects["boxes"], proposals]).tolist()}
        assert len(rois.boxes) == len(rois.labels) == len(rois.matched) <= 32
        for box, label, matched in zip(rois.boxes, rois.labels, rois.matched, strict=True):
            assert tuple(box.tolist()) in candidates
            overlap = box_iou(box[None], objects["boxes"])[0]
            if label == 0:
                assert 0.1 <= overlap.max() < 0.5, case
                assert torch.equal(matched, box)
            else:
                assert overlap.max() >= 0.5, case
                best = int(overlap.argmax())
                assert label == objects["labels"][best]
                assert torch.equal(matched, objects["boxes"][best])


def test_eligible_are_all_that_could_be_drawn_each_once():
    for case in range(20):
        images, proposals = [target(boxes_of(4), [1, 2, 3, 2]), EMPTY], [boxes_of(100), boxes_of(5)]
        every = RoISampler(8, 0.25, 0.5, (0.1, 0.5)).eligible(proposals, images)
        objects = images[0]
        overlap = [box_iou(box[None], objects["boxes"])[0] for box in torch.cat([objects["boxes"], proposals[0]])]
        foreground = [int(objects["labels"][iou.argmax()]) for iou in overlap if iou.max() >= 0.5]
        background = [0 for iou in overlap if 0.1 <= iou.max() < 0.5]
        assert every.labels.tolist() == foreground + background + [0] * 5, case
        assert len(every.boxes) == len(every.matched) == len(every.labels)
        assert every.image.tolist() == [0] * len(foreground + background) + [1] * 5


def test_images_follow_each_other_as_if_each_were_sampled_alone_and_carry_their_turns():
    sampler = RoISampler(16)
    targets = [
        {**target(boxes_of(2), [1, 2]), "adversarial": True},
        target(boxes_of(2), [3, 1]),
        {**EMPTY, "adversarial": False},
        {**target(boxes_of(1), [2]), "adversarial": True},
    ]
    proposals = [boxes_of(count) for count in (100, 0, 50, 30)]
    torch.manual_seed(3)
    rois = sampler(proposals, targets)
    torch.manual_seed(3)
    for image, (boxes, each) in enumerate(zip(proposals, targets, strict=True)):
        alone, of_image = sampler([boxes], [each]), rois.select(rois.image == image)
        for name in ("boxes", "labels", "matched"):
            assert torch.equal(getattr(alone, name), getattr(of_image, name)), (image, name)
        assert (of_image.adversarial == each.get("adversarial", False)).all()
    assert rois.adversarial.dtype == torch.bool
    assert (rois.image.diff() >= 0).all()
    assert rois.angle is None


def test_rois_are_chosen_by_indices_and_by_masks():
    rois = RoISampler(16)([boxes_of(50)], [target(boxes_of(2), [1, 2])])
    turned = rois._replace(angle=torch.rand(len(rois.labels)))
    rows = torch.tensor([3, 0])
    for some in (turned.select(rows), turned.select(torch.arange(len(rois.labels)) == 3)):
        for name, values in zip(RoIs._fields, some, strict=True):
            assert torch.equal(values[0], getattr(turned, name)[3]), name
    assert len(turned.select(rows).labels) == 2
    assert rois.select(rows).angle is None


def test_a_quarter_is_foreground_where_there_is_enough_and_it_comes_first():
    proposals = torch.tensor([[0.0, 0, 100, 100]] * 500 + [[0.0, 0, 30, 100]] * 500)
    rois = RoISampler(128)([proposals], [target([0, 0, 100, 100], [7])])
    assert rois.labels.tolist() == [7] * 32 + [0] * 96


def test_background_fills_the_place_of_missing_foreground():
    proposals = torch.tensor([[0.0, 0, 30, 100]] * 500)
    rois = RoISampler(128)([proposals], [target([0, 0, 100, 100], [7])])  # the object itself is the one foreground
    assert rois.labels.tolist() == [7] + [0] * 127


def test_the_lower_bound_of_background_belongs_to_it_and_the_upper_does_not():
    for iou, drawn in ((0.0, False), (0.09, False), (0.1, True), (0.3, True), (0.49, True), (0.5, False)):
        proposals = torch.tensor([beside(iou) if iou else [200.0, 200, 210, 210]])
        rois = RoISampler(128, 0.25, 0.6, (0.1, 0.5))([proposals], [target([0, 0, 100, 100], [1])])
        assert (rois.labels == 0).any() == drawn, iou


def test_an_iou_of_just_the_threshold_is_foreground():
    rois = RoISampler(128, 1.0)([torch.tensor([beside(0.5), beside(0.49)])], [target([0, 0, 100, 100], [1])])
    assert sorted(rois.labels.tolist()) == [0, 1, 1]


def test_an_image_without_objects_is_background_everywhere():
    rois = RoISampler(8, background_iou=(0.1, 0.5))([boxes_of(20)], [EMPTY])
    assert rois.labels.tolist() == [0] * 8


def test_an_image_without_proposals_gives_its_objects():
    rois = RoISampler(8)([torch.zeros(0, 4)], [target(boxes_of(2), [3, 3])])
    assert rois.labels.tolist() == [3, 3]
    assert torch.equal(rois.boxes, rois.matched)


def test_an_image_with_neither_gives_nothing():
    rois = RoISampler(8)([torch.zeros(0, 4)], [EMPTY])
    assert rois.boxes.shape == rois.matched.shape == (0, 4)
    assert rois.labels.shape == (0,)
    assert rois.labels.dtype == rois.image.dtype == torch.int64


@pytest.mark.parametrize("count", [1, 3, 9])
def test_every_eligible_entry_is_drawn_equally_often(count):
    eligible = torch.tensor([True, False, True, True, True, False, True, True, True, True, True])
    drawn = torch.zeros(len(eligible))
    for _ in range(2000):
        chosen = RoISampler()._draw(eligible, count)
        assert len(set(chosen.tolist())) == len(chosen) == count
        drawn[chosen] += 1
    assert not drawn[~eligible].any()
    assert chisquare(drawn[eligible].numpy()).pvalue > 1e-3


def test_with_replacement_as_many_are_drawn_and_some_of_them_twice():
    """As many as there are, or as asked for, whichever is less; each as often (MultiPathNet)."""
    eligible = torch.arange(40) % 4 > 0  # 30
    drawn = torch.zeros(40)
    for count, expected in ((10, 10), (30, 30), (100, 30)):
        for _ in range(300):
            chosen = RoISampler(replacement=True)._draw(eligible, count)
            assert len(chosen) == expected
            drawn.index_add_(0, chosen, torch.ones(expected))
    assert len(set(chosen.tolist())) < 30
    assert not drawn[~eligible].any()
    assert chisquare(drawn[eligible].numpy()).pvalue > 1e-3
    assert not len(RoISampler(replacement=True)._draw(torch.zeros(3, dtype=torch.bool), 5))


def test_background_does_not_fill_up_where_it_is_told_not_to():
    proposals = torch.tensor([[0.0, 0, 30, 100]] * 500)
    rois = RoISampler(128, fill_up=False)([proposals], [target([0, 0, 100, 100], [7])])
    assert rois.labels.tolist() == [7] + [0] * 96


def test_an_image_has_both_kinds_where_its_proposals_give_foreground_and_background():
    near, far = torch.tensor([[0.0, 0, 90, 100]]), torch.tensor([[0.0, 0, 30, 100]])
    sampler, objects = RoISampler(), target([0, 0, 100, 100], [1])
    for proposals, expected in ((near, False), (far, True), (torch.cat([near, far]), True), (torch.empty(0, 4), False)):
        assert sampler.has_both_kinds(objects | {"proposals": proposals}) == expected
    assert not sampler.has_both_kinds(EMPTY | {"proposals": far})


def test_the_same_random_state_draws_the_same_rois():
    proposals, objects = boxes_of(500), target(boxes_of(3), [1, 2, 3])
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(RoISampler(32)([proposals], [objects]))
    assert torch.equal(drawn[0].boxes, drawn[1].boxes)
    assert not torch.equal(drawn[0].boxes, RoISampler(32)([proposals], [objects]).boxes)


def test_the_iou_is_each_roi_s_with_its_matched_box():
    boxes, matched, none = boxes_of(40), boxes_of(40), torch.zeros(40, dtype=torch.int64)
    rois = RoIs(boxes, none, matched, none, none.bool())
    for box, match, iou in zip(boxes.tolist(), matched.tolist(), rois.iou.tolist(), strict=True):
        width = max(0.0, min(box[2], match[2]) - max(box[0], match[0]))
        height = max(0.0, min(box[3], match[3]) - max(box[1], match[1]))
        areas = [(corners[2] - corners[0]) * (corners[3] - corners[1]) for corners in (box, match)]
        assert iou == pytest.approx(width * height / (sum(areas) - width * height), abs=1e-5)
    assert rois.select(none[:0]).iou.shape == (0,)
