"""ASDN as the authors' Caffe release runs it, against its rules written out plainly, on the batch of an update."""

from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch

from afrcnn.adversaries.asdn import ASDN, ConvolutionalASDN
from afrcnn.adversaries.base import BoxHeadSpec
from afrcnn.detectors.frozen_head import FrozenHead
from afrcnn.detectors.roi_heads import perturb
from afrcnn.detectors.sampling import RoIs
from afrcnn.recipe import load_recipe
from reference import Constant

RECIPE = load_recipe(Path(__file__).parents[2] / "configs" / "voc07" / "vgg16_asdn_release.yaml")
SIZE, CHANNELS = 7, 8
CELLS = SIZE**2


def released(tiny, logits=None):
    detector = tiny.detector(channels=CHANNELS, size=SIZE, dropout=0.0)
    asdn = ASDN(BoxHeadSpec(detector.box_head, 12, CHANNELS, SIZE), **RECIPE.adversaries["asdn"])
    assert isinstance(asdn.network, ConvolutionalASDN)
    if logits is not None:
        asdn.network = Constant(logits)
    return asdn, detector


def probability(detector, features, label):
    detector.box_head.eval()
    with torch.no_grad():
        scores = detector.predictor(detector.box_head(features[None]))[0][0].double()
    return scores.softmax(0)[label].item()


def gradient(logit, target):
    """Of the binary cross entropy after a sigmoid."""
    return 1 / (1 + exp(-logit)) - target


def test_pretraining_looks_for_the_window_of_the_lowest_probability_and_all_cells_teach(tiny):
    features, labels = tiny.objects(20, channels=CHANNELS, size=SIZE)
    logits = torch.randn(20, SIZE, SIZE)
    asdn, detector = released(tiny, logits)
    loss = asdn.pretrain(features, labels, FrozenHead(detector.box_head, detector.predictor, dropout=True)).loss
    loss.backward()

    total, expected = 0.0, np.zeros((20, SIZE, SIZE))
    for roi in range(20):
        lowest, target = 1e6, None
        for i in range(4):
            for j in range(4):
                x, y = (start - 1 if start + 2 > SIZE else start for start in (2 * i, 2 * j))
                hidden = features[roi].clone()
                hidden[:, x : x + 2, y : y + 2] = 0
                if (score := probability(detector, hidden, labels[roi])) < lowest:
                    lowest, target = score, np.zeros((SIZE, SIZE))
                    target[x : x + 2, y : y + 2] = 1
        for x in range(SIZE):
            for y in range(SIZE):
                logit = logits[roi, x, y].item()
                expected[roi, x, y] = gradient(logit, target[x, y]) / (20 * CELLS)
                total += (log(1 + exp(logit)) - logit * target[x, y]) / (20 * CELLS)
    assert loss.item() == pytest.approx(total, abs=1e-6)
    np.testing.assert_allclose(asdn.network.logits.grad.numpy(), expected, atol=1e-6)


def test_in_joint_training_masks_and_gradients_are_those_of_its_rules(tiny):
    """One image of 128 RoIs, 32 of them objects: 15 of each one's 20 highest cells, and a loss of nearly nothing."""
    features = torch.rand(128, CHANNELS, SIZE, SIZE)
    logits = torch.randn(32, SIZE, SIZE)
    asdn, detector = released(tiny, logits)
    detector.predictor.cls_score.weight.data.mul_(3)
    head = FrozenHead(detector.box_head, detector.predictor, dropout=True)
    # Objects that the detector knows, so that hiding lowers some scores by more than the threshold, others by less.
    labels = torch.cat([1 + head.logits(features[:32])[:, 1:].argmax(dim=1), torch.zeros(96, dtype=torch.int64)])
    boxes, zeros = torch.tensor([[0.0, 0.0, 9.0, 9.0]]).repeat(128, 1), torch.zeros(128, dtype=torch.int64)
    rois = RoIs(boxes, labels, boxes, zeros, torch.ones(128, dtype=torch.bool))
    hidden, loss, metrics = perturb(features, rois, asdn, head)
    loss.backward()

    assert torch.equal(hidden[32:], features[32:])
    total, expected, hard = 0.0, np.zeros((32, SIZE, SIZE)), 0
    for roi in range(32):
        mask = (hidden[roi] == 0).all(dim=0).numpy()
        highest = np.argsort(1 - 1 / (1 + np.exp(-logits[roi].double().numpy().ravel())))[:20]
        assert mask.sum() == 15
        assert set(np.flatnonzero(mask)) <= set(highest)
        assert torch.equal(hidden[roi], features[roi] * torch.from_numpy(~mask))
        before, after = (probability(detector, x[roi], labels[roi]) for x in (features, hidden))
        if not after + 0.1 < before:
            continue
        hard += 1
        for x in range(SIZE):
            for y in range(SIZE):
                logit, scale = logits[roi, x, y].item(), 0.0025 / (128 * CELLS) / 2  # two images of an update
                expected[roi, x, y] = gradient(logit, mask[x, y]) * scale
                total += (log(1 + exp(logit)) - logit * mask[x, y]) * scale
    assert 3 < hard < 30
    assert loss.item() == pytest.approx(total, rel=1e-5)
    np.testing.assert_allclose(asdn.network.logits.grad.numpy(), expected, rtol=1e-4, atol=1e-12)
    assert metrics["hard_masks"].item() == pytest.approx(hard / 32)


def test_dropout_takes_part_in_search_and_scores_and_is_drawn_anew_for_each(tiny):
    detector = tiny.detector(channels=CHANNELS, size=SIZE, dropout=0.5)
    detector.box_head.train()
    features, labels = tiny.objects(40, channels=CHANNELS, size=SIZE)
    head, still = (FrozenHead(detector.box_head, detector.predictor, dropout) for dropout in (True, False))
    masks = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)  # nothing is hidden, twice
    for call in (lambda h: h.losses(features, labels), lambda h: h.losses_without(features, labels, masks)[:, 0]):
        assert not torch.equal(call(head), call(head))
        assert torch.equal(call(still), call(still))
    twice = head.losses_without(features, labels, masks)
    assert not torch.equal(twice[:, 0], twice[:, 1])
    assert all(module.training for module in detector.box_head.modules())  # as it was
    # As many outputs of fc7 are dropped as in training.
    hidden = []
    detector.predictor.register_forward_hook(lambda module, arguments, output: hidden.append(arguments[0]))
    for _ in range(100):
        head.losses_without(features, labels, masks[:1])
        detector.box_head.train()
        detector.predictor(detector.box_head(features))
    searched, trained = ((torch.cat(hidden[start::2]) == 0).float().mean().item() for start in (0, 1))
    assert searched == pytest.approx(trained, abs=0.02)
