"""Online hard example mining against a plain loop: which RoIs, and the gradients of an update that is made of them."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import box_iou

from afrcnn.adversaries import Hardened, Seam
from afrcnn.detectors.backbones import small
from afrcnn.detectors.ohem import hardest
from afrcnn.detectors.rcnn import FastRCNN
from afrcnn.detectors.roi_pooling import RoIAlign
from afrcnn.detectors.sampling import RoISampler, Sample

COUNT = 12


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def random_boxes(count, extent=40, side=24):
    corner = torch.randint(0, extent, (count, 2)).float()
    return torch.cat([corner, corner + torch.randint(4, side, (count, 2))], dim=1)


def random_sample(count):
    labels = torch.randint(0, 4, (count,)).sort(descending=True).values
    return Sample(random_boxes(count), labels, random_boxes(count))


def mined_in_a_loop(samples, losses, count):
    """Take the highest loss of all, strike out what overlaps it in its image, and so on; pairs (image, RoI)."""
    left = [(image, roi) for image, sample in enumerate(samples) for roi in range(len(sample.labels))]
    loss = dict(zip(left, losses.tolist(), strict=True))
    taken = []
    while left and len(taken) < count:
        best = max(left, key=loss.__getitem__)
        taken.append(best)
        image, roi = best
        rois = samples[image].rois
        left = [one for one in left if one[0] != image or box_iou(rois[one[1]][None], rois[roi][None]).item() <= 0.7]
        left = [one for one in left if one != best]
    return [sorted(roi for image, roi in taken if image == wanted) for wanted in range(len(samples))]


@pytest.mark.parametrize("case", range(40))
def test_the_highest_losses_are_taken_of_which_none_overlaps_another(case):
    torch.manual_seed(case)
    samples = [random_sample(count) for count in torch.randint(0, 80, (1 + case % 3,)).tolist()]
    losses = torch.rand(sum(len(sample.labels) for sample in samples))
    count = int(torch.randint(1, 60, ()))
    mined = hardest(samples, losses, count)
    for sample, found, expected in zip(samples, mined, mined_in_a_loop(samples, losses, count), strict=True):
        assert all(torch.equal(values, all_[expected]) for values, all_ in zip(found, sample, strict=True))


def test_an_easy_image_gives_none_and_the_hard_one_all():
    samples = [Sample(torch.tensor([[0.0, 0, 9, 9], [20, 20, 29, 29]]), torch.tensor([1, 0]), torch.zeros(2, 4))] * 2
    easy, hard = hardest(samples, torch.tensor([0.1, 0.2, 0.5, 0.4]), 2)
    assert len(easy.labels) == 0 and easy.rois.shape == (0, 4)
    assert hard.labels.tolist() == [1, 0]


def build():
    network = small(dropout=0.5)
    detector = FastRCNN(
        network,
        RoIAlign(network.pool_size, network.stride),
        3,
        sampler=RoISampler(COUNT // 2, background_iou=(0.0, 0.5)),
        short_side=64,
        long_side=64,
    )
    nn.init.normal_(detector.predictor.cls_score.weight)
    nn.init.normal_(detector.predictor.bbox_pred.weight, std=0.1)
    detector.ohem = True
    return detector.train()


@pytest.fixture
def batch():
    """Two images, proposals of which many cover objects, and targets."""
    images = [torch.rand(3, 64, 64) for _ in range(2)]
    targets = [{"boxes": random_boxes(3, side=30), "labels": torch.randint(1, 4, (3,))} for _ in images]
    proposals = [
        torch.cat([target["boxes"].repeat(4, 1) + torch.randint(-2, 3, (12, 4)), random_boxes(40)])
        for target in targets
    ]
    return images, [boxes.clamp(0, 64) for boxes in proposals], targets


def plainly_mined(detector, images, proposals, targets):
    """The RoIs that should be mined, from the loss of every RoI, with dropout off."""
    detector = copy.deepcopy(detector).eval()
    samples = [detector.sampler.eligible(boxes, target) for boxes, target in zip(proposals, targets, strict=True)]
    losses = []
    for image, sample in zip(images, samples, strict=True):
        with torch.no_grad():
            predictions = detector.predictor(detector.head(detector.pool([image], [sample.rois])))
        for roi, label, box, logits, deltas in zip(*sample, *predictions, strict=True):
            loss = -logits.softmax(dim=0)[label].log()
            if label > 0:
                offsets = detector.box_coder.encode(box[None], roi[None])[0]
                loss = loss + F.smooth_l1_loss(deltas.view(-1, 4)[label], offsets, reduction="sum")
            losses.append(loss)
    chosen = mined_in_a_loop(samples, torch.stack(losses), COUNT)
    return [Sample(*(values[rois] for values in sample)) for sample, rois in zip(samples, chosen, strict=True)]


def step(detector, batch, seed=5):
    """Losses and gradients of one update, and the random state that it leaves."""
    torch.manual_seed(seed)
    losses = detector(*batch)
    sum(losses.values()).backward()
    gradients = {name: value.grad for name, value in detector.named_parameters() if value.grad is not None}
    return losses, gradients, torch.get_rng_state()


def test_an_update_is_the_plain_one_of_just_the_rois_that_are_hardest(batch, monkeypatch):
    detector = build()
    plain = copy.deepcopy(detector)
    expected = plainly_mined(detector, *batch)
    assert sum(len(sample.labels) for sample in expected) == COUNT
    assert 0 < sum(int((sample.labels > 0).sum()) for sample in expected) < COUNT
    plain.ohem = False
    monkeypatch.setattr(plain, "sample", lambda *_: expected)

    losses, gradients, state = step(detector, batch)
    plain_losses, plain_gradients, plain_state = step(plain, batch)
    assert torch.equal(state, plain_state)  # mining draws nothing
    assert gradients.keys() == plain_gradients.keys()
    for name in losses:
        torch.testing.assert_close(losses[name], plain_losses[name])
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, plain_gradients[name])
    assert detector.head.training and detector.head.dropout.training


def test_every_trainable_parameter_has_a_gradient_in_16_bits(batch):
    detector = build()
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector(*batch)
    sum(losses.values()).backward()
    assert all(value.grad is not None and value.grad.any() for value in detector.parameters() if value.requires_grad)


class Noting(nn.Module):
    """An adversary that notes what it is given, and leaves nothing of it."""

    def forward(self, features, labels, head):
        self.labels = labels
        return Hardened(0 * features, features.new_zeros(()), {})


def test_adversaries_meet_the_mined_objects_which_are_mined_as_they_are_in_the_photograph(batch):
    detector = build()
    expected = plainly_mined(detector, *batch)
    detector.seam = Seam(adversary := Noting(), clean_fraction=0.5)
    losses = detector(*batch)
    second = expected[1].labels
    assert len(second[second > 0]) and torch.equal(adversary.labels, second[second > 0])
    assert losses.keys() == {"classification", "box_regression", "adversary"}


def test_in_evaluation_and_without_it_nothing_is_mined(batch):
    detector = build()
    images, proposals, targets = batch
    with_it = detector.eval()(images, proposals)
    detector.ohem = False
    for one, other in zip(with_it, detector(images, proposals), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    sampled = detector.train().sample(proposals, targets)
    assert all(len(sample.labels) <= COUNT // 2 for sample in sampled)


def test_images_without_objects_or_proposals_are_trained_on():
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    for proposals in (torch.zeros(0, 4), random_boxes(20)):
        losses = build()([torch.rand(3, 64, 64)], [proposals], [nothing])
        assert all(loss.isfinite() for loss in losses.values()) and losses["box_regression"] == 0
