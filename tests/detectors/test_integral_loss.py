"""The integral loss against loops over RoIs and IoUs, and what else takes part in a training beside it."""

import copy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

from afrcnn.build import load_detector
from afrcnn.commands.evaluate import evaluate
from afrcnn.core.errors import UserError
from afrcnn.detectors.frozen_head import FrozenHead
from afrcnn.detectors.integral_loss import IntegralPredictor
from afrcnn.detectors.jitter import ProposalJitter
from afrcnn.detectors.ohem import OHEM
from afrcnn.detectors.sampling import RoIs, RoISampler
from afrcnn.recipe import JointRecipe, PretrainingRecipe
from afrcnn.training.train import train_stages
from reference import losses_one_by_one, plain_iou, random_boxes, random_target
from tiny import CLASSES, WIDTH

IOUS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75)


def predictor_of(ious=IOUS, scale=1.0):
    predictor = IntegralPredictor(WIDTH, CLASSES + 1, ious)
    nn.init.normal_(predictor.cls_score.weight, std=scale)
    return predictor


def rois_around(count, largest_shift):
    """RoIs, about a third of them background, that lie up to so many pixels off the object that they match."""
    matched, labels = random_boxes(count), torch.randint(0, CLASSES + 1, (count,)) * (torch.rand(count) < 0.8)
    boxes = matched + largest_shift * (2 * torch.rand(count, 4) - 1)
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    matched = torch.where(labels[:, None] > 0, matched, boxes)
    zeros = torch.zeros_like(labels)
    return RoIs(boxes, labels, matched, zeros, zeros.bool())


def losses_by_loops(predictor, vectors, rois, box_coder):
    """The mean over IoUs of Fast R-CNN's losses, RoI by RoI, from the weights of each classifier."""
    count, classification, box_regression = len(predictor.thresholds), 0.0, 0.0
    weights = predictor.cls_score.weight.view(CLASSES + 1, count, WIDTH)
    biases = predictor.cls_score.bias.view(CLASSES + 1, count)
    for vector, box, label, matched in zip(vectors, rois.boxes, rois.labels.tolist(), rois.matched, strict=True):
        deltas = (predictor.bbox_pred.weight @ vector + predictor.bbox_pred.bias).view(CLASSES + 1, 4)
        goals = box_coder.encode(matched[None], box[None])[0]
        for number, iou in enumerate(predictor.thresholds):
            foreground = label > 0 and (number == 0 or plain_iou(box.tolist(), matched.tolist()) >= iou)
            logits = weights[:, number] @ vector + biases[:, number]
            classification += (logits.exp().sum().log() - logits[label if foreground else 0]) / count
            if foreground:
                for delta, goal in zip(deltas[label], goals, strict=True):
                    error = abs(delta - goal)
                    box_regression += (0.5 * error**2 if error < 1 else error - 0.5) / count
    return classification / len(vectors), box_regression / len(vectors)


@pytest.mark.parametrize("ious", [IOUS, (0.5,), (0.3, 0.9)])
@pytest.mark.parametrize("shift", [0.0, 3.0, 9.0, 40.0])
def test_losses_and_gradients_are_those_of_loops_over_rois_and_ious(tiny, ious, shift):
    roi_heads = tiny.fast_rcnn(integral_loss=ious).roi_heads
    roi_heads.predictor = predictor_of(ious)
    for count in (1, 5, 40):
        rois, vectors = rois_around(count, shift), torch.randn(count, WIDTH)
        losses = roi_heads.box_losses(*roi_heads.predictor(vectors), rois)
        expected = losses_by_loops(roi_heads.predictor, vectors, rois, roi_heads.box_coder)
        for loss, other in zip(losses.values(), expected, strict=True):
            torch.testing.assert_close(loss, torch.as_tensor(other), rtol=1e-4, atol=1e-6)
        parameters = list(roi_heads.predictor.parameters())
        given = torch.autograd.grad(sum(losses.values()), parameters)
        plain = torch.autograd.grad(sum(expected), parameters, allow_unused=True)
        for gradient, other in zip(given, plain, strict=True):
            torch.testing.assert_close(gradient, torch.zeros_like(gradient) if other is None else other)


def test_one_classifier_at_the_foreground_s_iou_has_the_bits_of_fast_r_cnn(tiny):
    heads, plain = tiny.fast_rcnn(integral_loss=(0.5,)).roi_heads, FastRCNNPredictor(WIDTH, CLASSES + 1)
    heads.predictor = predictor_of((0.5,))
    plain.load_state_dict(heads.predictor.state_dict())
    other = copy.deepcopy(heads)
    other.predictor = plain
    assert heads.num_classes == other.num_classes == CLASSES
    rois, vectors = rois_around(30, 20.0), torch.randn(30, WIDTH)
    losses = [module.box_losses(*module.predictor(vectors), rois) for module in (heads, other)]
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[1])


def test_a_roi_is_background_to_each_classifier_whose_iou_it_does_not_reach():
    square = torch.tensor([[0.0, 0, 100, 100]])
    boxes = torch.tensor([[0.0, 0, 100, width] for width in (100, 75, 74, 60, 50, 49, 10)])
    labels = torch.tensor([3, 3, 2, 1, 1, 1, 0])
    matched = torch.where(labels[:, None] > 0, square, boxes)
    rois = RoIs(boxes, labels, matched, torch.zeros_like(labels), labels > 0)
    assert predictor_of().labels(rois).tolist() == [
        [3, 3, 3, 3, 3, 3],
        [3, 3, 3, 3, 3, 3],
        [2, 2, 2, 2, 2, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],  # jittered: what the sampler called foreground stays it to the first
        [0, 0, 0, 0, 0, 0],
    ]
    nobody = rois.select(labels < 0)
    assert predictor_of().labels(nobody).shape == (0, 6)


def mean_softmax(predictor, vectors):
    count, rows = len(predictor.thresholds), []
    for vector in vectors:
        logits = (predictor.cls_score.weight @ vector + predictor.cls_score.bias).view(-1, count).T
        powers = [(row - row.max()).exp() for row in logits]
        rows.append(sum(power / power.sum() for power in powers) / count)
    return torch.stack(rows)


@pytest.mark.parametrize("scale", [0.0, 1.0, 60.0])
def test_in_evaluation_the_probabilities_are_the_mean_over_the_classifiers(scale):
    predictor, vectors = predictor_of(scale=scale).eval().double(), torch.randn(9, WIDTH).double()
    logits, deltas = predictor(vectors)
    torch.testing.assert_close(logits.softmax(dim=1), mean_softmax(predictor, vectors))
    assert logits.isfinite().all()
    assert torch.equal(deltas, predictor.bbox_pred(vectors))


@pytest.mark.parametrize("kind", ["fully connected", "torchvision", "residual"])
def test_an_adversary_sees_the_mean_of_the_classifiers_while_they_train(tiny, kind):
    detector = tiny.detector(kind)
    predictor = predictor_of()
    head = FrozenHead(detector.box_head, predictor)
    features, labels = tiny.objects(6)
    expected = mean_softmax(predictor, copy.deepcopy(detector.box_head).eval()(features)).gather(1, labels[:, None])
    torch.testing.assert_close(head.scores(features, labels), expected.squeeze(1))
    torch.testing.assert_close(head.losses(features, labels), -expected.squeeze(1).log())
    masks = torch.rand(7, 6, 6) < 0.3
    found = head.losses_without(features, labels, masks)
    torch.testing.assert_close(found, losses_one_by_one(features, labels, head.logits, masks), rtol=1e-4, atol=1e-5)
    assert predictor.training


@pytest.mark.parametrize("adversary", ["asdn", "astn", "hard_dropout"])
@pytest.mark.parametrize("extra", ["none", "ohem", "jitter"])
def test_every_classifier_learns_beside_adversaries_mining_and_jitter(tiny, adversary, extra):
    detector = tiny.fast_rcnn(
        integral_loss=IOUS,
        sampler=RoISampler(64, 0.5, background_iou=(0.0, 0.5)),
        miner=OHEM(16) if extra == "ohem" else None,
        jitter=ProposalJitter(0.3, 0.3, 10.0) if extra == "jitter" else None,
    )
    names = {"asdn": "asdn fc", "astn": "astn", "hard_dropout": "hard"}
    spec = detector.box_head_spec
    build = tiny.adversary(names[adversary], channels=spec.channels, size=spec.size)
    detector.roi_heads.adversary = build
    targets = [random_target(3, CLASSES) | {"adversarial": True} for _ in range(2)]
    proposals = [
        torch.cat([target["boxes"], target["boxes"] + 4 * torch.rand(3, 4), random_boxes(20)]) for target in targets
    ]
    losses = detector([torch.rand(3, 64, 64) for _ in targets], proposals, targets)
    assert set(losses) == {"classification", "box_regression", "adversary"}
    assert all(loss.isfinite() for loss in losses.values())
    (losses["classification"] + losses["box_regression"]).backward(retain_graph=True)
    gradient = detector.roi_heads.predictor.cls_score.weight.grad.view(CLASSES + 1, len(IOUS), -1)
    assert gradient.abs().sum(dim=(0, 2)).min() > 0
    assert all(parameter.grad is None for parameter in build.parameters())
    detector.zero_grad()
    (losses["adversary"] + 0 * losses["classification"].detach().requires_grad_()).backward()
    assert all(
        parameter.grad is None or not parameter.grad.any()
        for name, parameter in detector.named_parameters()
        if "adversary" not in name
    )


@pytest.fixture(scope="module")
def integral(recipe):
    """A recipe of all three stages with the integral loss."""
    few = replace(recipe.schedule, iterations=6, decay_at=[])
    return replace(
        recipe,
        detector=replace(recipe.detector, integral_loss=[0.5, 0.6, 0.75]),
        schedule=few,
        pretraining=PretrainingRecipe(iterations=2, learning_rate=0.001),
        joint=JointRecipe(iterations=2, learning_rate=0.001, new_box_layer=True),
        adversaries={"asdn": {}, "astn": {}},
    )


def test_a_recipe_trains_it_in_all_stages_and_what_evaluates_takes_it(integral, run, tmp_path):
    made = train_stages(integral, tmp_path / "integral")
    detector = load_detector(made)
    assert isinstance(detector.roi_heads.predictor, IntegralPredictor)
    assert detector.roi_heads.predictor.thresholds == (0.5, 0.6, 0.75)
    assert load_file(made.weights_file)["roi_heads.predictor.cls_score.weight"].shape[0] == 9
    for name, settings in (("plain", {}), ("svd", {"svd": (16, 8)}), ("both", {"ensemble": [run.folder]})):
        results = evaluate(made.folder, out=tmp_path / name, **settings)
        assert results.detections > 0
        assert results.coco["AP50"] == results.mean_ap["COCO"]


def test_weights_of_one_classifier_are_refused_by_name(integral, run, tmp_path):
    with pytest.raises(UserError, match=r"weights\.safetensors: holds another model than the recipe's.*cls_score"):
        train_stages(replace(integral, init_from=str(run.folder)), tmp_path / "run")
    with pytest.raises(UserError, match=r"another model.*cls_score"):
        evaluate(run.folder, overrides=["--detector.integral_loss=[0.5,0.75]"], out=tmp_path / "out")
