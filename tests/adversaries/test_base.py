"""The two invariants between detector and adversary: for every adversary, every chain of two, and some longer."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import TwoMLPHead

from afrcnn.adversaries import DetachedHead
from afrcnn.adversaries.base import HeadCopy, score_drop, true_class_score

JOINT = ["asdn fc", "asdn conv", "asdn occluding", "astn", "random", "hard"]
LONGER = [("asdn fc", "astn", "random"), ("hard", "asdn conv", "astn"), ("astn", "asdn fc", "astn", "asdn conv")]
EVERY = [
    *((name,) for name in [*JOINT, "asdn fc pretraining", "asdn conv pretraining"]),
    *itertools.product(JOINT, repeat=2),
    *LONGER,
]
KINDS = ["fully connected", "torchvision", "residual"]


def build(tiny, names, kind="fully connected"):
    return tiny.adversary(names[0], kind) if len(names) == 1 else tiny.chain(*names, kind=kind)


def is_learning(names):
    return any(name.startswith("as") for name in names)


def step(tiny, names, kind="fully connected", n=5):
    """One training step's losses, with the features a trunk's and the detector's head in training mode."""
    detector, adversary = tiny.detector(kind, dropout=0.0), build(tiny, names, kind)
    trunk = nn.Conv2d(8, 8, 1)
    x, labels = tiny.objects(n)
    features = trunk(x)
    hardened = adversary(features, labels, detector.detached)
    # As in the detector, beside RoIs that no adversary touches, so that batch normalisation has something to see.
    logits, boxes = detector.predictor(detector.head(torch.cat([hardened.features, trunk(torch.rand(4, 8, 6, 6))])))
    detector_loss = F.cross_entropy(logits, torch.cat([labels, torch.zeros(4, dtype=torch.int64)])) + boxes.sum()
    detectors = [trunk.weight, *detector.head.parameters(), *detector.predictor.parameters()]
    return detectors, list(adversary.parameters()), detector_loss, hardened, features


def gradients(loss, tensors):
    return torch.autograd.grad(loss, tensors, allow_unused=True, retain_graph=True) if tensors else ()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", EVERY, ids="+".join)
def test_the_detectors_loss_passes_hard_features_to_the_trunk_and_gives_the_adversary_no_gradient(tiny, names, kind):
    detector, adversary, loss, hardened, features = step(tiny, names, kind)
    assert all(gradient is not None and gradient.any() for gradient in gradients(loss, detector))
    assert all(gradient is None for gradient in gradients(loss, adversary))
    assert gradients(hardened.features.sum(), [features])[0].flatten(1).any(dim=1).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", EVERY, ids="+".join)
def test_the_adversarys_loss_teaches_every_parameter_of_it_and_gives_the_detector_no_gradient(tiny, names, kind):
    detector, adversary, _, hardened, features = step(tiny, names, kind)
    assert hardened.loss.shape == () and hardened.loss.requires_grad == is_learning(names)
    if is_learning(names):
        taught = gradients(hardened.loss, adversary)
        assert all(gradient is not None for gradient in taught) and sum(g.abs().sum() for g in taught) > 0
        assert all(gradient is None for gradient in gradients(hardened.loss, [features, *detector]))
    assert not any(metric.requires_grad for metric in hardened.metrics.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", EVERY, ids="+".join)
def test_no_objects_give_a_zero_loss_with_gradients_for_every_parameter(tiny, names, kind):
    _, adversary, detector_loss, hardened, _ = step(tiny, names, kind, n=0)
    assert hardened.features.shape == (0, 8, 6, 6)
    assert hardened.loss == 0
    (detector_loss + hardened.loss).backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in adversary)
    assert all(metric.isfinite().all() for metric in hardened.metrics.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", EVERY, ids="+".join)
def test_the_detector_is_the_same_after_an_adversary_tried_itself_against_it(tiny, names, kind):
    detector, adversary = tiny.detector(kind), build(tiny, names, kind)
    modules = nn.ModuleList([detector.head, detector.predictor])
    for mixed in (True, False):  # a part that the user keeps in evaluation mode stays there
        modules.train(mixed)
        list(detector.head.modules())[-1].train(not mixed)
        modes = [part.training for part in modules.modules()]
        state = {name: tensor.clone() for name, tensor in modules.state_dict().items()}
        identities = [id(tensor) for tensor in modules.state_dict(keep_vars=True).values()]
        features, labels = tiny.objects()
        given = features.clone()
        adversary(features, labels, detector.detached).loss.sum()
        assert modes == [part.training for part in modules.modules()]
        assert identities == [id(tensor) for tensor in modules.state_dict(keep_vars=True).values()]
        assert all(torch.equal(tensor, state[name]) for name, tensor in modules.state_dict().items())
        assert all(parameter.grad is None and parameter.requires_grad for parameter in modules.parameters())
        assert torch.equal(features, given)


@pytest.mark.parametrize("kind", KINDS)
def test_a_detached_head_gives_the_evaluated_detectors_logits_while_it_trains(tiny, kind):
    detector = tiny.detector(kind)
    features, _ = tiny.objects()
    detector.head.eval()
    expected = detector.predictor(detector.head(features))[0]
    detector.head.train()
    torch.testing.assert_close(detector.detached(features), expected)
    assert [part.training for part in detector.head.modules()] == [True] * len(list(detector.head.modules()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_detached_head_that_fails_leaves_the_detector_training(tiny, kind):
    detector = tiny.detector(kind)
    with pytest.raises(RuntimeError):
        detector.detached(torch.rand(2, 9, 6, 6))
    assert all(part.training for part in detector.head.modules())


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_in_the_features_is_the_detectors_own(tiny, kind):
    detector = tiny.detector(kind)
    features, labels = tiny.objects()
    detector.head.eval()
    expected = features.clone().requires_grad_()
    F.cross_entropy(detector.predictor(detector.head(expected))[0], labels).backward()
    detector.head.train()
    F.cross_entropy(detector.detached(features.requires_grad_()), labels).backward()
    torch.testing.assert_close(features.grad, expected.grad)


def test_a_head_derived_from_a_known_one_is_not_taken_for_it(tiny):
    class Doubling(TwoMLPHead):
        def forward(self, x):
            return super().forward(2 * x)

    predictor = tiny.detector().predictor
    assert DetachedHead(Doubling(288, 12), predictor).first_layer is None
    known = TwoMLPHead(288, 12)
    assert DetachedHead(known, predictor).first_layer is known.fc6


def test_the_score_is_the_softmax_of_the_label(tiny):
    logits, labels = torch.randn(4, 3), torch.tensor([1, 2, 1, 2])
    expected = [(row.exp() / row.exp().sum())[label].item() for row, label in zip(logits, labels, strict=True)]
    assert true_class_score(logits, labels).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_drop_of_the_score_is_that_of_each_object_by_itself(tiny, kind):
    detector = tiny.detector(kind)
    features, labels = tiny.objects()
    hardened = features * (torch.rand_like(features) < 0.5)
    drops = score_drop(features.requires_grad_(), hardened, labels, detector.detached)
    detector.head.eval()
    expected = []
    for before, after, label in zip(features, hardened, labels, strict=True):
        first, second = (detector.predictor(detector.head(x[None]))[0][0].exp() for x in (before, after))
        expected.append(first[label] / first.sum() - second[label] / second.sum())
    torch.testing.assert_close(drops, torch.stack(expected))
    assert drops.shape == (5,) and not drops.requires_grad and drops.abs().min() > 0
    assert score_drop(features[:0], hardened[:0], labels[:0], detector.detached).shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copied_head_begins_equal_shares_nothing_and_learns_every_weight(tiny, kind):
    head = tiny.detector(kind).head.requires_grad_(False)
    copy = HeadCopy(head)
    assert all(torch.equal(a, b) for a, b in zip(head.state_dict().values(), copy.state_dict().values(), strict=True))
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    features, _ = tiny.objects()
    expected = head.eval()(features)
    torch.testing.assert_close(copy(features), expected)
    copy(features).square().sum().backward()
    with torch.no_grad():
        for parameter in copy.parameters():
            assert parameter.grad.any()
            parameter.sub_(0.1 * parameter.grad)
    assert all(torch.equal(tensor, before[name]) for name, tensor in head.state_dict().items())
    assert not any(parameter.requires_grad for parameter in head.parameters())
    assert (copy(features) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_copied_head_stays_in_evaluation_mode(tiny, kind, n):
    head = tiny.detector(kind, dropout=0.9).head.train()
    holder = nn.Sequential(HeadCopy(head))
    features, _ = tiny.objects(n)
    for mode in (True, False, True):
        holder.train(mode)
        assert holder[0].training == mode and not any(part.training for part in holder[0].layers.modules())
    state = {name: tensor.clone() for name, tensor in holder.state_dict().items()}
    first = holder(features)
    assert torch.equal(first, holder(features)) and first.shape == (n, 12)
    assert all(torch.equal(tensor, state[name]) for name, tensor in holder.state_dict().items())
    assert all(part.training for part in head.modules())


@pytest.mark.parametrize("names", EVERY, ids="+".join)
def test_sixteen_bits_by_autocast_keep_features_as_they_are_and_losses_finite(tiny, names):
    detector, adversary = tiny.detector(), build(tiny, names)
    features, labels = tiny.objects()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for given in (features, features.bfloat16()):
            hardened = adversary(given.requires_grad_(), labels, detector.detached)
            assert hardened.features.dtype == given.dtype and hardened.features.shape == given.shape
            assert hardened.loss.isfinite()
    if is_learning(names):
        hardened.loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in adversary.parameters())


def test_in_sixteen_bits_a_detached_head_gives_the_detectors_logits_also_after_the_detector_has_changed(tiny):
    detector = tiny.detector(dropout=0.0)
    features, _ = tiny.objects()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = detector.detached(features)
        assert torch.equal(before, detector.predictor(detector.head(features))[0])
    with torch.no_grad():
        detector.head.fc6.weight.mul_(-1)
        detector.predictor.cls_score.weight.add_(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        after = detector.detached(features)
        assert torch.equal(after, detector.predictor(detector.head(features))[0])
    assert not torch.equal(before, after)
    assert detector.detached(features).dtype == torch.float32
