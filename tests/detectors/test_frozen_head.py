"""The frozen head: the detector's own classifier without its parameters' gradients, and the exact window search."""

import copy
import itertools
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from afrcnn.adversaries import base
from afrcnn.adversaries.base import Head
from afrcnn.adversaries.window_search import _sliding_windows
from afrcnn.detectors import frozen_head
from afrcnn.detectors.backbones import FullyConnectedHead
from afrcnn.detectors.frozen_head import FrozenHead, column_major
from reference import losses_one_by_one, windows_by_loops
from tiny import KINDS

GRIDS = list(itertools.product([6, 7, 14], [2, 3, 5], [1, 2]))
every_kind = pytest.mark.parametrize("kind", KINDS)
with_first_layer = pytest.mark.parametrize("kind", KINDS[:2])


def logits_of(detector):
    """The detector's own class logits in evaluation mode."""
    return lambda features: detector.predictor(detector.box_head.eval()(features))[0]


def constant(detector, dtype):
    """The detector in another type and without gradients, and what it says in evaluation."""
    for module in (detector.box_head, detector.predictor):
        module.to(dtype).requires_grad_(False)
    return detector


@every_kind
def test_scores_and_losses_are_the_evaluated_detectors_while_it_trains(tiny, kind):
    detector = tiny.detector(kind)
    features, labels = tiny.objects()
    expected = logits_of(detector)(features)
    detector.box_head.train()
    torch.testing.assert_close(detector.head.logits(features), expected)
    scores = [(row.exp() / row.exp().sum())[label].item() for row, label in zip(expected, labels, strict=True)]
    assert detector.head.scores(features, labels).tolist() == pytest.approx(scores)
    assert detector.head.losses(features, labels).neg().exp().tolist() == pytest.approx(scores)
    background = detector.head.losses(features, torch.zeros_like(labels))
    torch.testing.assert_close(background, -expected.log_softmax(dim=1)[:, 0])
    assert all(module.training for module in detector.box_head.modules())
    for answer in (detector.head.scores, detector.head.losses):
        assert answer(features[:0], labels[:0]).shape == (0,)


@every_kind
def test_a_head_that_fails_leaves_the_detector_training(tiny, kind):
    detector = tiny.detector(kind)
    with pytest.raises(RuntimeError):
        detector.head.logits(torch.rand(2, 9, 6, 6))
    assert all(module.training for module in detector.box_head.modules())


@every_kind
def test_the_gradient_in_the_features_is_the_detectors_own_and_no_parameter_has_one(tiny, kind):
    detector = tiny.detector(kind)
    features, labels = tiny.objects()
    given = features.clone().requires_grad_()
    F.cross_entropy(logits_of(detector)(given), labels).backward()
    for module in (detector.box_head.train(), detector.predictor):
        module.zero_grad()
    detector.head.losses(features.requires_grad_(), labels).mean().backward()
    torch.testing.assert_close(features.grad, given.grad)
    assert all(
        value.grad is None for module in (detector.box_head, detector.predictor) for value in module.parameters()
    )


def test_a_box_head_derived_from_a_known_one_is_not_taken_for_it(tiny):
    class Doubling(TwoMLPHead):
        def forward(self, x):
            return super().forward(2 * x)

    predictor = tiny.detector().predictor
    assert FrozenHead(Doubling(288, 12), predictor).first_layer is None
    known = TwoMLPHead(288, 12)
    assert FrozenHead(known, predictor).first_layer is known.fc6


def test_in_sixteen_bits_a_frozen_head_gives_the_detectors_logits_also_after_the_detector_has_changed(tiny):
    detector = tiny.detector(dropout=0.0)
    features, labels = tiny.objects()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = detector.head.logits(features)
        assert torch.equal(before, detector.predictor(detector.box_head(features))[0])
        assert detector.head.scores(features, labels).dtype == torch.float32
        assert detector.head.losses(features, labels).dtype == torch.float32
    with torch.no_grad():
        detector.box_head.fc6.weight.mul_(-1)
        detector.predictor.cls_score.weight.add_(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        after = detector.head.logits(features)
        assert torch.equal(after, detector.predictor(detector.box_head(features))[0])
    assert not torch.equal(before, after)
    assert detector.head.logits(features).dtype == torch.float32


@pytest.mark.parametrize(("kind", "is_column_major"), [*itertools.product(KINDS[:2], (False, True)), (KINDS[2], False)])
def test_in_float64_the_search_is_the_plain_one(tiny, kind, is_column_major, monkeypatch):
    """Both ways: as sums over cells, and by default one by one."""
    monkeypatch.setattr(frozen_head, "_VECTORS_ONWARD", 7)
    monkeypatch.setattr(frozen_head, "_OUTPUTS", 5)  # of 12
    for size, window, stride in GRIDS:
        masks = _sliding_windows(size, window, stride)
        monkeypatch.setattr(frozen_head, "_VECTORS", 2 * len(masks))  # the three objects in chunks of two and one
        monkeypatch.setattr(base, "_COPIES", 2 * len(masks))
        detector = constant(tiny.detector(kind, 2, size), torch.float64)
        features, labels = tiny.objects(3, 2, size, torch.float64)
        with column_major(detector.head) if is_column_major else nullcontext():
            losses = detector.head.losses_without(features, labels, masks)
        by_default = Head.losses_without(detector.head, features, labels, masks)
        expected = losses_one_by_one(features, labels, logits_of(detector), windows_by_loops(size, window, stride))
        assert losses.dtype == by_default.dtype == torch.float64
        torch.testing.assert_close(losses, expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(by_default, expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(losses, by_default, rtol=0, atol=1e-9)
        spread = expected.amax(dim=1) - expected.amin(dim=1)
        assert expected.shape[1] == 1 or spread.min() > 1e-5, (size, window, stride)  # the windows do differ


@every_kind
def test_in_float32_the_hardest_window_is_that_of_the_plain_search_except_at_ties(tiny, kind):
    for size, window, stride in GRIDS:
        detector = constant(tiny.detector(kind, 2, size), torch.float32)
        features, labels = tiny.objects(3, 2, size)
        masks = _sliding_windows(size, window, stride)
        hardest = detector.head.losses_without(features, labels, masks).argmax(dim=1)
        constant(detector, torch.float64)
        exact = losses_one_by_one(features.double(), labels, logits_of(detector), masks)
        best = exact.amax(dim=1)
        tied = best - exact.scatter(1, exact.argmax(dim=1)[:, None], -1).amax(dim=1) < 1e-5
        assert ((hardest == exact.argmax(dim=1)) | tied).all(), (size, window, stride)
        torch.testing.assert_close(exact.gather(1, hardest[:, None])[:, 0], best, rtol=0, atol=1e-5)


def test_first_layers_without_bias_and_in_two_are_searched_too(tiny):
    for fc6 in (nn.Linear(72, 12, bias=False), nn.Sequential(nn.Linear(72, 5, bias=False), nn.Linear(5, 12))):
        detector = tiny.detector(channels=2)
        detector.box_head.fc6 = fc6
        constant(detector, torch.float64)
        features, labels = tiny.objects(3, 2, 6, torch.float64)
        masks = _sliding_windows(6, 2)
        expected = losses_one_by_one(features, labels, logits_of(detector), masks)
        losses = detector.head.losses_without(features, labels, masks)
        torch.testing.assert_close(losses, expected, rtol=0, atol=1e-9)


def test_masks_of_any_shape_are_searched(tiny):
    for kind in KINDS:
        detector = constant(tiny.detector(kind, 2), torch.float64)
        features, labels = tiny.objects(3, 2, 6, torch.float64)
        masks = torch.rand(9, 6, 6) < 0.4
        masks[0], masks[1] = True, False  # everything, and nothing
        expected = losses_one_by_one(features, labels, logits_of(detector), masks)
        losses = detector.head.losses_without(features, labels, masks)
        torch.testing.assert_close(losses, expected, rtol=0, atol=1e-9)


@every_kind
def test_the_search_is_bounded_in_chunks(tiny, kind, monkeypatch):
    detector = tiny.detector(kind)
    features, labels = tiny.objects(20)
    seen = []
    detector.predictor.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    masks = _sliding_windows(6, 2)  # 25: two objects at once
    module, bound = (base, "_COPIES") if kind == "residual" else (frozen_head, "_VECTORS")
    monkeypatch.setattr(module, bound, 60)
    losses = detector.head.losses_without(features, labels, masks)
    assert seen == [50] * 10
    monkeypatch.setattr(module, bound, 3)  # fewer than the windows: one object at once
    torch.testing.assert_close(losses, detector.head.losses_without(features, labels, masks))
    assert seen[10:] == [25] * 20


@with_first_layer
def test_few_vectors_at_once_go_through_the_rest_of_the_box_head(tiny, kind, monkeypatch):
    detector = tiny.detector(kind)
    features, labels = tiny.objects(4)
    masks = _sliding_windows(6, 2)
    at_once = detector.head.losses_without(features, labels, masks)
    seen = []
    detector.predictor.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    monkeypatch.setattr(frozen_head, "_VECTORS_ONWARD", 30)
    torch.testing.assert_close(detector.head.losses_without(features, labels, masks), at_once)
    assert seen == [25] * 4


class Allocations(TorchDispatchMode):
    """Remembers how many bytes the tensors had that operators returned, other than views of given ones."""

    def __init__(self, *given):
        super().__init__()
        self.given = {tensor.untyped_storage().data_ptr() for tensor in given}
        self.sizes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self.given:
                self.sizes.append(tensor.untyped_storage().nbytes())
        return result


@with_first_layer
def test_a_column_major_weight_is_searched_without_a_copy(tiny, kind):
    detector = tiny.detector(kind, channels=512)
    features, labels = tiny.objects(2, 512)
    weight, masks = detector.box_head.fc6.weight, _sliding_windows(6, 2)
    size = weight.untyped_storage().nbytes()
    with column_major(detector.head), Allocations(weight, features) as allocations:
        inside = detector.head.losses_without(features, labels, masks)
    assert max(allocations.sizes) < size / 2
    with Allocations(weight, features) as allocations:
        torch.testing.assert_close(detector.head.losses_without(features, labels, masks), inside)
    assert max(allocations.sizes) >= size


@pytest.mark.parametrize("fails", [False, True])
def test_a_weight_is_column_major_for_the_block_alone(tiny, fails):
    detector = tiny.detector()
    weight = detector.box_head.fc6.weight
    values, stride = weight.detach().clone(), weight.stride()
    with pytest.raises(KeyError) if fails else nullcontext(), column_major(detector.head):
        assert weight.t().is_contiguous()
        assert detector.box_head.fc6.weight is weight
        if fails:
            raise KeyError
    assert weight.stride() == stride
    assert weight.is_contiguous()
    assert torch.equal(weight, values)


def test_a_box_head_is_the_same_with_its_weight_column_major(tiny):
    detector = tiny.detector()
    box_head = detector.box_head.eval()
    other = copy.deepcopy(box_head)
    features, _ = tiny.objects()
    with column_major(detector.head):
        for same in (box_head, copy.deepcopy(box_head)):
            torch.testing.assert_close(same(features), other(features))
            assert box_head.state_dict().keys() == other.state_dict().keys()
            assert all(torch.equal(value, other.state_dict()[name]) for name, value in same.state_dict().items())
        changed = {name: value + 1 for name, value in other.state_dict().items()}
        box_head.load_state_dict(changed)
        assert box_head.fc6.weight.t().is_contiguous()  # values were replaced, not the way they lie
    assert torch.equal(box_head.fc6.weight, changed["fc6.weight"])


def test_a_box_head_without_a_first_linear_layer_is_left_as_it_is(tiny):
    detector = tiny.detector("residual")
    strides = [parameter.stride() for parameter in detector.box_head.parameters()]
    with column_major(detector.head):
        assert [parameter.stride() for parameter in detector.box_head.parameters()] == strides


def test_the_search_holds_no_graph_and_no_objects_need_no_search(tiny):
    for kind in KINDS:
        detector = tiny.detector(kind)
        features, labels = tiny.objects()
        masks = _sliding_windows(6, 2)
        losses = detector.head.losses_without(features.requires_grad_(), labels, masks)
        assert losses.shape == (5, 25)
        assert not losses.requires_grad
        assert detector.head.losses_without(features[:0], labels[:0], masks).shape == (0, 25)


def test_in_sixteen_bits_the_window_found_is_nearly_as_hard_as_the_hardest(tiny):
    detector = tiny.detector(channels=32)
    features, labels = tiny.objects(40, 32)
    masks = _sliding_windows(6, 2)
    exact = detector.head.losses_without(features, labels, masks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hardest = detector.head.losses_without(features, labels, masks).argmax(dim=1)
    given_up = exact.amax(dim=1) - exact.gather(1, hardest[:, None])[:, 0]
    assert (given_up < 0.1 * (exact.amax(dim=1) - exact.amin(dim=1))).all()


def test_a_box_head_with_fc6_first_is_searched_by_that_layer_alone():
    for box_head in (TwoMLPHead(72, 12), FullyConnectedHead(nn.Linear(72, 12), nn.Linear(12, 12))):
        calls = []
        box_head.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        features, labels = torch.rand(2, 2, 6, 6), torch.tensor([1, 2])
        FrozenHead(box_head, FastRCNNPredictor(12, 4)).losses_without(features, labels, _sliding_windows(6, 2))
        assert not calls
