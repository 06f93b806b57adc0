"""The window search against hiding each window in turn and asking the head."""

import copy
import itertools
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from afrcnn.adversaries import DetachedHead, window_search
from afrcnn.adversaries.window_search import sliding_windows, stored_by_input, window_losses
from afrcnn.detectors.backbones import FullyConnectedHead

KINDS = ["fully connected", "torchvision", "residual"]
GRIDS = list(itertools.product([6, 7, 14], [2, 3, 5], [1, 2]))


def plain_search(features, labels, detector, window, stride):
    """For each object and each window, one call of the head in evaluation mode."""
    head, predictor = detector.head.eval(), detector.predictor
    size = features.shape[-1]
    losses = []
    for x, label in zip(features, labels, strict=True):
        for top in range(0, size - window + 1, stride):
            for left in range(0, size - window + 1, stride):
                hidden = x.clone()
                hidden[:, top : top + window, left : left + window] = 0
                losses.append(F.cross_entropy(predictor(head(hidden[None]))[0], label[None]))
    return torch.stack(losses).view(len(features), -1)


def without_gradients(detector, dtype):
    for module in (detector.head, detector.predictor):
        module.to(dtype).requires_grad_(False)
    return detector


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "window", "stride"), GRIDS)
def test_in_float64_the_losses_are_those_of_the_plain_search(tiny, kind, size, window, stride, monkeypatch):
    for bound in ("COPIES", "VECTORS"):  # the three objects in chunks of two and one
        monkeypatch.setattr(window_search, bound, 2 * len(sliding_windows(size, window, stride)))
    monkeypatch.setattr(window_search, "VECTORS_ONWARD", 7)
    monkeypatch.setattr(window_search, "OUTPUTS", 5)  # of 12
    detector = without_gradients(tiny.detector(kind, 2, size), torch.float64)
    features, labels = tiny.objects(3, 2, size, torch.float64)
    losses = window_losses(features, labels, detector.detached, sliding_windows(size, window, stride))
    expected = plain_search(features, labels, detector, window, stride)
    assert losses.dtype == torch.float64
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-9)
    spread = expected.amax(dim=1) - expected.amin(dim=1)
    assert expected.shape[1] == 1 or spread.min() > 1e-4  # the windows do differ


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "window", "stride"), GRIDS)
def test_in_float32_the_hardest_window_is_that_of_the_plain_search_except_at_ties(tiny, kind, size, window, stride):
    detector = without_gradients(tiny.detector(kind, 2, size), torch.float32)
    features, labels = tiny.objects(3, 2, size)
    found = window_losses(features, labels, detector.detached, sliding_windows(size, window, stride)).argmax(dim=1)
    exact = plain_search(features.double(), labels, without_gradients(detector, torch.float64), window, stride)
    best = exact.amax(dim=1)
    tied = best - exact.scatter(1, exact.argmax(dim=1)[:, None], -1).amax(dim=1) < 1e-5
    assert ((found == exact.argmax(dim=1)) | tied).all()
    torch.testing.assert_close(exact.gather(1, found[:, None])[:, 0], best, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_a_first_layer_is_searched_with_and_without_a_bias(tiny, bias):
    head = FullyConnectedHead(nn.Linear(2 * 36, 12, bias=bias), nn.Linear(12, 12))
    detector = tiny.detector(channels=2)
    detector.head, detector.detached = head, DetachedHead(head, detector.predictor)
    without_gradients(detector, torch.float64)
    features, labels = tiny.objects(3, 2, 6, torch.float64)
    losses = window_losses(features, labels, detector.detached, sliding_windows(6, 2))
    torch.testing.assert_close(losses, plain_search(features, labels, detector, 2, 1), rtol=0, atol=1e-9)


def test_fc6_in_two_layers_is_searched_plainly(tiny):
    detector = tiny.detector(channels=2)
    detector.head.fc6 = nn.Sequential(nn.Linear(72, 5, bias=False), nn.Linear(5, 12))
    without_gradients(detector, torch.float64)
    features, labels = tiny.objects(3, 2, 6, torch.float64)
    losses = window_losses(features, labels, detector.detached, sliding_windows(6, 2))
    torch.testing.assert_close(losses, plain_search(features, labels, detector, 2, 1), rtol=0, atol=1e-9)


def test_a_callable_of_the_users_own_is_searched_plainly(tiny):
    weight = torch.randn(4, 2 * 36, dtype=torch.float64)
    features, labels = tiny.objects(3, 2, 6, torch.float64)
    losses = window_losses(features, labels, lambda x: x.flatten(1) @ weight.T, sliding_windows(6, 3))
    for i, (x, label) in enumerate(zip(features, labels, strict=True)):
        for j, mask in enumerate(sliding_windows(6, 3)):
            logits = weight @ (x * ~mask).flatten()
            assert losses[i, j].item() == pytest.approx((logits.logsumexp(0) - logits[label]).item(), abs=1e-9)


@pytest.mark.parametrize(("kind", "bound"), [*zip(KINDS, ["VECTORS", "VECTORS", "COPIES"], strict=True)])
def test_the_search_is_bounded_in_chunks(tiny, kind, bound, monkeypatch):
    detector = tiny.detector(kind)
    features, labels = tiny.objects(20)
    seen = []
    detector.predictor.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    monkeypatch.setattr(window_search, bound, 60)
    windows = sliding_windows(6, 2)  # 25: two objects at once
    losses = window_losses(features, labels, detector.detached, windows)
    assert seen == [50] * 10
    monkeypatch.setattr(window_search, bound, 3)  # fewer than the windows: one object at once
    torch.testing.assert_close(losses, window_losses(features, labels, detector.detached, windows))
    assert seen[10:] == [25] * 20


@pytest.mark.parametrize("kind", KINDS[:2])
def test_few_vectors_at_once_go_through_the_rest_of_the_head(tiny, kind, monkeypatch):
    detector = tiny.detector(kind)
    features, labels = tiny.objects(4)
    windows = sliding_windows(6, 2)
    at_once = window_losses(features, labels, detector.detached, windows)
    seen = []
    detector.predictor.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    monkeypatch.setattr(window_search, "VECTORS_ONWARD", 30)
    torch.testing.assert_close(window_losses(features, labels, detector.detached, windows), at_once)
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


@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_weight_that_is_stored_by_input_is_searched_without_a_copy(tiny, kind):
    detector = tiny.detector(kind, channels=512)
    features, labels = tiny.objects(2, 512)
    weight, windows = detector.head.fc6.weight, sliding_windows(6, 2)
    size = weight.untyped_storage().nbytes()
    with stored_by_input(detector.detached), Allocations(weight, features) as allocations:
        inside = window_losses(features, labels, detector.detached, windows)
    assert max(allocations.sizes) < size / 2
    with Allocations(weight, features) as allocations:
        torch.testing.assert_close(window_losses(features, labels, detector.detached, windows), inside)
    assert max(allocations.sizes) >= size


@pytest.mark.parametrize("kind", KINDS[:2])
@pytest.mark.parametrize(("size", "window", "stride"), GRIDS)
def test_a_weight_that_is_stored_by_input_gives_the_losses_of_the_plain_search(tiny, kind, size, window, stride):
    detector = without_gradients(tiny.detector(kind, 2, size), torch.float64)
    features, labels = tiny.objects(3, 2, size, torch.float64)
    with stored_by_input(detector.detached):
        losses = window_losses(features, labels, detector.detached, sliding_windows(size, window, stride))
    expected = plain_search(features, labels, detector, window, stride)
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("fails", [False, True])
def test_a_weight_is_stored_by_input_for_the_block_alone(tiny, fails):
    detector = tiny.detector()
    weight = detector.head.fc6.weight
    values, stride = weight.detach().clone(), weight.stride()
    with pytest.raises(KeyError) if fails else nullcontext(), stored_by_input(detector.detached):
        assert weight.t().is_contiguous() and detector.head.fc6.weight is weight
        if fails:
            raise KeyError
    assert weight.stride() == stride and weight.is_contiguous()
    assert torch.equal(weight, values)


def test_a_head_is_the_same_with_its_weight_stored_by_input(tiny):
    detector = tiny.detector()
    head = detector.head.eval()
    other = copy.deepcopy(head)
    features, _ = tiny.objects()
    with stored_by_input(detector.detached):
        for same in (head, copy.deepcopy(head)):
            torch.testing.assert_close(same(features), other(features))
            assert head.state_dict().keys() == other.state_dict().keys()
            assert all(torch.equal(value, other.state_dict()[name]) for name, value in same.state_dict().items())
        changed = {name: value + 1 for name, value in other.state_dict().items()}
        head.load_state_dict(changed)
        assert head.fc6.weight.t().is_contiguous()  # values were replaced, not the way they lie
    assert torch.equal(head.fc6.weight, changed["fc6.weight"])


@pytest.mark.parametrize("kind", KINDS[2:])
def test_a_head_without_a_first_linear_layer_is_left_as_it_is(tiny, kind):
    detector = tiny.detector(kind)
    strides = [parameter.stride() for parameter in detector.head.parameters()]
    with stored_by_input(detector.detached), stored_by_input(lambda x: x):
        assert [parameter.stride() for parameter in detector.head.parameters()] == strides


def test_the_search_holds_no_graph_and_no_objects_need_no_search(tiny):
    detector = tiny.detector()
    features, labels = tiny.objects()
    losses = window_losses(features.requires_grad_(), labels, detector.detached, sliding_windows(6, 2))
    assert losses.shape == (5, 25) and not losses.requires_grad
    assert window_losses(features[:0], labels[:0], detector.detached, sliding_windows(6, 2)).shape == (0, 25)


def test_in_sixteen_bits_the_window_found_is_nearly_as_hard_as_the_hardest(tiny):
    detector = tiny.detector(channels=32)
    features, labels = tiny.objects(40, 32)
    windows = sliding_windows(6, 2)
    exact = window_losses(features, labels, detector.detached, windows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = window_losses(features, labels, detector.detached, windows).argmax(dim=1)
    given_up = exact.amax(dim=1) - exact.gather(1, found[:, None])[:, 0]
    assert (given_up < 0.1 * (exact.amax(dim=1) - exact.amin(dim=1))).all()


@pytest.mark.parametrize(("size", "window", "stride"), GRIDS)
def test_windows_slide_over_the_whole_grid_row_by_row(size, window, stride):
    masks = sliding_windows(size, window, stride)
    corners = [(r, c) for r in range(0, size - window + 1, stride) for c in range(0, size - window + 1, stride)]
    assert len(masks) == len(corners)
    for mask, (top, left) in zip(masks.tolist(), corners, strict=True):
        for row, column in itertools.product(range(size), repeat=2):
            inside = top <= row < top + window and left <= column < left + window
            assert mask[row][column] == inside


@pytest.mark.parametrize(("size", "window", "stride"), [(7, 8, 1), (7, 0, 1), (7, -1, 1), (7, 2, 0), (2, 3, 1)])
def test_windows_that_cannot_slide_are_refused(size, window, stride):
    with pytest.raises(ValueError, match=f"no window of {window} cells slides by {stride}"):
        sliding_windows(size, window, stride)


def test_torchvisions_head_is_searched_by_its_first_layer(tiny):
    head = TwoMLPHead(72, 12)
    calls = []
    head.register_forward_hook(lambda *_: calls.append(1))
    features, labels = tiny.objects(2, 2)
    window_losses(features, labels, DetachedHead(head, FastRCNNPredictor(12, 4)), sliding_windows(6, 2))
    assert not calls
