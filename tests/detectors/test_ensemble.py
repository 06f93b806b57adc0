"""Ensembles against the definition: the mean over members, proposal by proposal."""

import pytest
import torch

from afrcnn.detectors.backbones import small
from afrcnn.detectors.box_coding import BoxCoder
from afrcnn.detectors.ensemble import Ensemble
from afrcnn.detectors.rcnn import FastRCNN
from afrcnn.detectors.roi_pooling import RoIAlign

IMAGES = [(3, 60, 80), (3, 64, 48)]


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def build(num_classes=3, side=64, spread=1.0, **options):
    """A detector whose boxes and scores differ from proposal to proposal."""
    network = small()
    detector = FastRCNN(
        network, RoIAlign(network.pool_size, network.stride), num_classes, short_side=side, long_side=side, **options
    )
    torch.nn.init.normal_(detector.predictor.cls_score.weight, std=spread)
    torch.nn.init.normal_(detector.predictor.bbox_pred.weight, std=spread)
    return detector.eval()


def boxes_of(count, size):
    corner = torch.rand(count, 2) * torch.tensor([size[2] - 20, size[1] - 20])
    return torch.cat([corner, corner + 5 + torch.rand(count, 2) * 15], dim=1)


@pytest.fixture
def photographs():
    return [torch.rand(size) for size in IMAGES], [boxes_of(30, IMAGES[0]), boxes_of(7, IMAGES[1])]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one["labels"], other["labels"])
        torch.testing.assert_close(one["scores"], other["scores"])
        torch.testing.assert_close(one["boxes"], other["boxes"], rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_one_detector_however_often_answers_as_it_does_alone(photographs):
    detector = build(box_coder=BoxCoder((0.1, 0.0, -0.1, 0.2), (0.2, 0.1, 0.3, 0.1)))
    alone = detector(*photographs)
    assert sum(len(each["boxes"]) for each in alone) > 10
    assert_same(Ensemble([detector])(*photographs), alone)
    assert_same(Ensemble([detector] * 3)(*photographs), alone)


@torch.no_grad()
@pytest.mark.parametrize("case", range(5))
def test_the_answer_is_the_mean_of_probabilities_and_offsets_whatever_their_units_and_sizes_of_images(
    case, photographs
):
    torch.manual_seed(case)
    images, proposals = photographs
    members = [build(), build(side=96, box_coder=BoxCoder((0.1, -0.2, 0.0, 0.1), (0.3, 0.2, 0.4, 0.1)))]
    found = Ensemble(members)(images, proposals)
    for number, (image, boxes) in enumerate(zip(images, proposals, strict=True)):
        probabilities, offsets = [], []
        for member in members:
            logits, deltas = member.predictor(member.head(member.pool([image], [boxes])))
            probabilities.append(logits.exp() / logits.exp().sum(dim=1, keepdim=True))
            offsets.append(deltas.view(len(boxes), 4, 4) * member.box_coder.std + member.box_coder.mean)
        coder = members[0].box_coder
        deltas = (((offsets[0] + offsets[1]) / 2 - coder.mean) / coder.std).flatten(1)
        expected = members[0].detect((probabilities[0] + probabilities[1]) / 2, deltas, [boxes], [image.shape[1:]])
        assert_same([found[number]], expected)


@torch.no_grad()
def test_an_image_without_proposals_has_no_detections(photographs):
    images, proposals = photographs
    found = Ensemble([build(), build()])(images, [proposals[0], torch.zeros(0, 4)])
    assert len(found[0]["boxes"]) > 0 and len(found[1]["boxes"]) == 0


@pytest.mark.parametrize("members", [[], [3, 4]])
def test_members_of_different_classes_and_none_at_all_are_refused(members):
    with pytest.raises(ValueError, match="needs members, all of the same classes"):
        Ensemble([build(count) for count in members])
