"""Online hard example mining against a plain loop: which RoIs, and the gradients of an update that is made of them."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import box_iou

from afrcnn.adversaries.base import is_adversarial
from afrcnn.detectors.ohem import OHEM
from afrcnn.detectors.sampling import RoIs, RoISampler
from reference import Zeroing, random_boxes

COUNT = 12


def boxes_of(count, side=24):
    return random_boxes(count, extent=40, side=side, whole=True)


def random_rois(counts):
    image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = torch.randint(0, 4, (len(image),))
    return RoIs(boxes_of(len(image)), labels, boxes_of(len(image)), image, labels > 1)


def mined_in_a_loop(rois, losses, count):
    """Take the highest loss of all, strike out what overlaps it in its image, and so on; the rows, in order."""
    left, taken = list(range(len(losses))), []
    while left and len(taken) < count:
        best = max(left, key=losses.tolist().__getitem__)
        taken.append(best)
        overlap = box_iou(rois.boxes, rois.boxes[best][None])[:, 0]
        left = [row for row in left if rois.image[row] != rois.image[best] or overlap[row] <= 0.7]
        left = [row for row in left if row != best]
    return sorted(taken)


def test_the_highest_losses_are_taken_of_which_none_overlaps_another():
    for case in range(40):
        images = 1 + case % 3
        rois = random_rois(torch.randint(0, 80, (images,)).tolist())
        losses, per_image = torch.rand(len(rois.labels)), int(torch.randint(1, 20, ()))
        mined = OHEM(per_image)(rois, losses, images)
        rows = mined_in_a_loop(rois, losses, per_image * images)
        for name in ("boxes", "labels", "matched", "image", "adversarial"):
            assert torch.equal(getattr(mined, name), getattr(rois, name)[rows]), (case, name)


def test_by_its_authors_code_each_image_gives_as_many_and_overlap_counts_within_a_label():
    """As the loops of their data layer: suppression for each image and label, then the highest losses of each image."""
    for case in range(40):
        images = 1 + case % 3
        rois = random_rois(torch.randint(0, 80, (images,)).tolist())
        losses, per_image = torch.rand(len(rois.labels)), int(torch.randint(1, 20, ()))
        mined = OHEM(per_image, authors=True)(rois, losses, images)
        rows = []
        for image in range(images):
            left = []
            for label in rois.labels[rois.image == image].unique().tolist():
                alone = ((rois.image == image) & (rois.labels == label)).nonzero().flatten()
                left += alone[mined_in_a_loop(rois.select(alone), losses[alone], len(alone))].tolist()
            rows += sorted(left, key=losses.tolist().__getitem__, reverse=True)[:per_image]
        assert sorted(rows) == [
            row for row, box in enumerate(rois.boxes) if any(torch.equal(box, other) for other in mined.boxes)
        ]
        for name in ("boxes", "labels", "matched", "image", "adversarial"):
            assert torch.equal(getattr(mined, name), getattr(rois, name)[sorted(rows)]), (case, name)


def test_an_easy_image_gives_none_and_the_hard_one_all():
    boxes = torch.tensor([[0.0, 0, 9, 9], [20, 20, 29, 29]] * 2)
    rois = RoIs(boxes, torch.tensor([1, 0, 1, 0]), boxes, torch.tensor([0, 0, 1, 1]), torch.zeros(4).bool())
    mined = OHEM(1)(rois, torch.tensor([0.1, 0.2, 0.5, 0.4]), 2)
    assert mined.image.tolist() == [1, 1]
    assert mined.labels.tolist() == [1, 0]
    assert len(OHEM(1)(rois.select(rois.image > 1), torch.zeros(0), 2).labels) == 0


@pytest.fixture
def detector(tiny):
    detector = tiny.fast_rcnn(sampler=RoISampler(COUNT // 2, background_iou=(0.0, 0.5)), miner=OHEM(COUNT // 2))
    detector.roi_heads.box_head.dropout.p = 0.5
    nn.init.normal_(detector.roi_heads.predictor.cls_score.weight)
    nn.init.normal_(detector.roi_heads.predictor.bbox_pred.weight, std=0.1)
    return detector.train()


@pytest.fixture
def batch():
    """Two images, proposals of which many cover objects, and targets."""
    images = [torch.rand(3, 64, 64) for _ in range(2)]
    targets = [{"boxes": boxes_of(3, side=30), "labels": torch.randint(1, 4, (3,))} for _ in images]
    proposals = [
        torch.cat([target["boxes"].repeat(4, 1) + torch.randint(-2, 3, (12, 4)), boxes_of(40)]) for target in targets
    ]
    return images, [boxes.clamp(0, 64) for boxes in proposals], targets


def plainly_mined(detector, images, proposals, targets):
    """The RoIs that should be mined, from the loss of every RoI, with dropout off."""
    detector = copy.deepcopy(detector).eval()
    heads = detector.roi_heads
    rois = heads.sampler.eligible(proposals, targets)
    losses = []
    for number, image in enumerate(images):
        of_image = rois.select(rois.image == number)
        with torch.no_grad():
            logits, deltas = heads.predictor(heads.box_head(detector.pool([image], [of_image.boxes])))
        for row, label in enumerate(of_image.labels):
            loss = -logits[row].softmax(dim=0)[label].log()
            if label > 0:
                offsets = heads.box_coder.encode(of_image.matched[row][None], of_image.boxes[row][None])[0]
                loss = loss + F.smooth_l1_loss(deltas[row].view(-1, 4)[label], offsets, reduction="sum")
            losses.append(loss)
    return rois.select(torch.tensor(mined_in_a_loop(rois, torch.stack(losses), COUNT)))


def step(detector, batch, seed=5):
    """Losses and gradients of one update, and the random state that it leaves."""
    torch.manual_seed(seed)
    losses = detector(*batch)
    sum(losses.values()).backward()
    gradients = {name: value.grad for name, value in detector.named_parameters() if value.grad is not None}
    return losses, gradients, torch.get_rng_state()


def test_an_update_is_the_plain_one_of_just_the_rois_that_are_hardest(detector, batch, monkeypatch):
    plain = copy.deepcopy(detector)
    expected = plainly_mined(detector, *batch)
    assert len(expected.labels) == COUNT
    assert 0 < (expected.labels > 0).sum() < COUNT
    plain.roi_heads.miner = None
    monkeypatch.setattr(plain.roi_heads, "sample", lambda *_: expected)

    losses, gradients, state = step(detector, batch)
    plain_losses, plain_gradients, plain_state = step(plain, batch)
    assert torch.equal(state, plain_state)  # mining draws nothing
    assert gradients.keys() == plain_gradients.keys()
    for name in losses:
        torch.testing.assert_close(losses[name], plain_losses[name])
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, plain_gradients[name])
    assert detector.roi_heads.box_head.training
    assert detector.roi_heads.box_head.dropout.training


def test_every_trainable_parameter_has_a_gradient_in_16_bits(detector, batch):
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector(*batch)
    sum(losses.values()).backward()
    assert all(value.grad is not None and value.grad.any() for value in detector.parameters() if value.requires_grad)


def test_adversaries_are_given_the_mined_objects_which_are_mined_as_they_are_in_the_image(detector, batch):
    expected = plainly_mined(detector, *batch)
    detector.roi_heads.adversary = adversary = Zeroing()
    images, proposals, targets = batch
    targets = [{**target, "adversarial": is_adversarial(number, 0.5)} for number, target in enumerate(targets)]
    losses = detector(images, proposals, targets)
    chosen = (expected.labels > 0) & (expected.image == 1)
    assert chosen.any()
    assert torch.equal(adversary.labels, expected.labels[chosen])
    assert losses.keys() == {"classification", "box_regression", "adversary"}


def test_in_evaluation_and_without_a_miner_nothing_is_mined(detector, batch):
    images, proposals, targets = batch
    with_it = detector.eval()(images, proposals)
    detector.roi_heads.miner = None
    for one, other in zip(with_it, detector(images, proposals), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    rois = detector.train().roi_heads.sample(proposals, targets)
    assert (torch.bincount(rois.image) <= COUNT // 2).all()


def test_images_without_objects_or_proposals_are_trained_on(detector):
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    for proposals in (torch.zeros(0, 4), boxes_of(20)):
        losses = detector([torch.rand(3, 64, 64)], [proposals], [nothing])
        assert all(loss.isfinite() for loss in losses.values())
        assert losses["box_regression"] == 0
