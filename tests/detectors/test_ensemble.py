"""Ensembles against the definition: the mean over members, proposal by proposal."""

import pytest
import torch

from afrcnn.detectors.box_coding import BoxCoder
from afrcnn.detectors.ensemble import Ensemble

IMAGES = [(3, 60, 80), (3, 64, 48)]


@pytest.fixture
def build(tiny):
    """Builds a detector whose boxes and scores differ from proposal to proposal."""

    def build(num_classes=3, side=64, **options):
        detector = tiny.fast_rcnn(num_classes, short_side=side, long_side=side, **options)
        torch.nn.init.normal_(detector.roi_heads.predictor.cls_score.weight)
        torch.nn.init.normal_(detector.roi_heads.predictor.bbox_pred.weight)
        return detector.eval()

    return build


def boxes_of(count, size):
    corner = torch.rand(count, 2) * torch.tensor([size[2] - 20, size[1] - 20])
    return torch.cat([corner, corner + 5 + torch.rand(count, 2) * 15], dim=1)


def random_images():
    return [torch.rand(size) for size in IMAGES], [boxes_of(30, IMAGES[0]), boxes_of(7, IMAGES[1])]


def assert_same(detections, expected):
    assert len(detections) == len(expected)
    for one, other in zip(detections, expected, strict=True):
        assert torch.equal(one["labels"], other["labels"])
        torch.testing.assert_close(one["scores"], other["scores"])
        torch.testing.assert_close(one["boxes"], other["boxes"], rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_one_detector_however_often_answers_as_it_does_alone(build):
    images, proposals = random_images()
    detector = build(box_coder=BoxCoder((0.1, 0.0, -0.1, 0.2), (0.2, 0.1, 0.3, 0.1)))
    alone = detector(images, proposals)
    assert sum(len(detections["boxes"]) for detections in alone) > 10
    assert_same(Ensemble([detector])(images, proposals), alone)
    assert_same(Ensemble([detector] * 3)(images, proposals), alone)


@torch.no_grad()
def test_the_answer_is_the_mean_of_probabilities_and_offsets_whatever_their_units_and_sizes_of_images(build):
    for _ in range(3):
        images, proposals = random_images()
        members = [build(), build(side=96, box_coder=BoxCoder((0.1, -0.2, 0.0, 0.1), (0.3, 0.2, 0.4, 0.1)))]
        detections = Ensemble(members)(images, proposals)
        for number, (image, boxes) in enumerate(zip(images, proposals, strict=True)):
            probabilities, offsets = [], []
            for member in members:
                heads = member.roi_heads
                logits, deltas = heads.predictor(heads.box_head(member.pool([image], [boxes])))
                probabilities.append(logits.exp() / logits.exp().sum(dim=1, keepdim=True))
                offsets.append(deltas.view(len(boxes), 4, 4) * heads.box_coder.std + heads.box_coder.mean)
            first = members[0].roi_heads
            deltas = (((offsets[0] + offsets[1]) / 2 - first.box_coder.mean) / first.box_coder.std).flatten(1)
            expected = first.detect((probabilities[0] + probabilities[1]) / 2, deltas, [boxes], [image.shape[1:]])
            assert_same([detections[number]], expected)


@torch.no_grad()
def test_an_image_without_proposals_has_no_detections(build):
    images, proposals = random_images()
    detections = Ensemble([build(), build()])(images, [proposals[0], torch.zeros(0, 4)])
    assert len(detections[0]["boxes"]) > 0
    assert len(detections[1]["boxes"]) == 0


def test_members_of_different_classes_and_none_at_all_are_refused(build):
    for members in ([], [3, 4]):
        with pytest.raises(ValueError, match="needs Fast R-CNNs, all of the same classes"):
            Ensemble([build(count) for count in members])
