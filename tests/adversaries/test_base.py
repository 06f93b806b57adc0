"""The two invariants between detector and adversary: for every adversary, every chain of two, and some longer."""

import itertools
from fractions import Fraction
from math import ceil

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from afrcnn.adversaries.asdn import ASDN
from afrcnn.adversaries.astn import ASTN
from afrcnn.adversaries.base import Adversary, BoxHeadCopy, is_adversarial, score_drop
from afrcnn.adversaries.dropout import RandomDropout
from reference import PlainHead, adversarial_by_counting, losses_one_by_one, windows_by_loops
from tiny import KINDS

JOINT = ["asdn fc", "asdn conv", "asdn occluding", "astn", "random", "hard"]
LONGER = [("asdn fc", "astn", "random"), ("hard", "asdn conv", "astn"), ("astn", "asdn fc", "astn", "asdn conv")]
EVERY = [
    *((name,) for name in [*JOINT, "dropblock", "asdn fc pretraining", "asdn conv pretraining"]),
    *itertools.product(JOINT, repeat=2),
    *LONGER,
]
every_kind = pytest.mark.parametrize("kind", KINDS)


def build(tiny, names, kind="fully connected"):
    return tiny.adversary(names[0], kind) if len(names) == 1 else tiny.chain(*names, kind=kind)


def is_learning(names):
    return any(name.startswith("as") for name in names)


def step(tiny, names, kind="fully connected", n=5):
    """One training step's losses, with the features a backbone's and the detector's box head in training mode."""
    detector, adversary = tiny.detector(kind, dropout=0.0), build(tiny, names, kind)
    backbone = nn.Conv2d(8, 8, 1)
    x, labels = tiny.objects(n)
    features = backbone(x)
    output = adversary(features, labels, detector.head)
    # As in the detector, beside RoIs that no adversary touches, so that batch normalisation has something to see.
    pooled = torch.cat([output.features, backbone(torch.rand(4, 8, 6, 6))])
    logits, boxes = detector.predictor(detector.box_head(pooled))
    detector_loss = F.cross_entropy(logits, torch.cat([labels, torch.zeros(4, dtype=torch.int64)])) + boxes.sum()
    detectors = [backbone.weight, *detector.box_head.parameters(), *detector.predictor.parameters()]
    return detectors, list(adversary.parameters()), detector_loss, output, features


def gradients(loss, tensors):
    return torch.autograd.grad(loss, tensors, allow_unused=True, retain_graph=True) if tensors else ()


@every_kind
def test_the_detectors_loss_passes_hard_features_to_the_backbone_and_gives_the_adversary_no_gradient(tiny, kind):
    for names in EVERY:
        detector, adversary, loss, output, features = step(tiny, names, kind)
        assert all(gradient is not None and gradient.any() for gradient in gradients(loss, detector)), names
        assert all(gradient is None for gradient in gradients(loss, adversary)), names
        assert gradients(output.features.sum(), [features])[0].flatten(1).any(dim=1).all(), names


@every_kind
def test_the_adversarys_loss_teaches_every_parameter_of_it_and_gives_the_detector_no_gradient(tiny, kind):
    for names in EVERY:
        detector, adversary, _, output, features = step(tiny, names, kind)
        assert output.loss.shape == (), names
        assert output.loss.requires_grad == is_learning(names), names
        if is_learning(names):
            taught = gradients(output.loss, adversary)
            assert all(gradient is not None for gradient in taught), names
            assert sum(gradient.abs().sum() for gradient in taught) > 0, names
            assert all(gradient is None for gradient in gradients(output.loss, [features, *detector])), names
        assert not any(metric.requires_grad for metric in output.metrics.values()), names


@every_kind
def test_no_objects_give_a_zero_loss_with_gradients_for_every_parameter(tiny, kind):
    for names in EVERY:
        _, adversary, detector_loss, output, _ = step(tiny, names, kind, n=0)
        assert output.features.shape == (0, 8, 6, 6), names
        assert output.loss == 0, names
        (detector_loss + output.loss).backward()
        assert all(parameter.grad is not None and not parameter.grad.any() for parameter in adversary), names
        assert all(metric.isfinite().all() for metric in output.metrics.values()), names


@every_kind
def test_the_detector_is_the_same_after_an_adversary_tried_itself_against_it(tiny, kind):
    for number, names in enumerate(EVERY):
        detector, adversary = tiny.detector(kind), build(tiny, names, kind)
        modules = nn.ModuleList([detector.box_head, detector.predictor]).train(number % 2 == 0)
        list(detector.box_head.modules())[-1].train(number % 2 == 1)  # what the user keeps in another mode stays there
        modes = [module.training for module in modules.modules()]
        state = {name: tensor.clone() for name, tensor in modules.state_dict().items()}
        identities = [id(tensor) for tensor in modules.state_dict(keep_vars=True).values()]
        features, labels = tiny.objects()
        given = features.clone()
        adversary(features, labels, detector.head).loss.sum()
        assert modes == [module.training for module in modules.modules()], names
        assert identities == [id(tensor) for tensor in modules.state_dict(keep_vars=True).values()], names
        assert all(torch.equal(tensor, state[name]) for name, tensor in modules.state_dict().items()), names
        assert all(parameter.grad is None and parameter.requires_grad for parameter in modules.parameters()), names
        assert torch.equal(features, given), names


def test_sixteen_bits_by_autocast_keep_features_as_they_are_and_losses_finite(tiny):
    for names in EVERY:
        detector, adversary = tiny.detector(), build(tiny, names)
        features, labels = tiny.objects()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for given in (features, features.bfloat16()):
                output = adversary(given.requires_grad_(), labels, detector.head)
                assert output.features.dtype == given.dtype, names
                assert output.features.shape == given.shape, names
                assert output.loss.isfinite(), names
        if is_learning(names):
            output.loss.backward()
            assert all(parameter.grad.isfinite().all() for parameter in adversary.parameters()), names


def test_the_state_of_the_generator_repeats_every_adversary(tiny):
    for name in [*JOINT, "dropblock"]:
        adversary, detector = tiny.adversary(name), tiny.detector()
        features, labels = tiny.objects(20)
        state = torch.get_rng_state()
        first = adversary(features, labels, detector.head)
        draws = not torch.equal(state, torch.get_rng_state())
        again = adversary(features, labels, detector.head)
        assert torch.equal(first.features, again.features) != draws, name
        torch.set_rng_state(state)
        repeated = adversary(features, labels, detector.head)
        assert torch.equal(first.features, repeated.features), name
        assert torch.equal(first.loss, repeated.loss), name


def test_an_adversary_learns_at_the_stages_rate_and_only_asdn_is_trained_alone_first(tiny):
    assert (Adversary.learning_rate_factor, Adversary.frozen, Adversary.pretrainable) == (1.0, False, False)
    for adversary in (tiny.adversary("astn"), tiny.adversary("random"), tiny.chain("asdn fc", "astn")):
        assert (adversary.learning_rate_factor, adversary.frozen, adversary.pretrainable) == (1.0, False, False)
    asdn = tiny.adversary("asdn fc")
    assert (asdn.learning_rate_factor, asdn.frozen, asdn.pretrainable) == (1.0, False, True)
    asdn.learning_rate_factor, asdn.frozen, asdn.pretrainable = 0.1, True, False
    assert "learning_rate_factor" not in asdn.state_dict()
    assert (ASDN.learning_rate_factor, ASDN.frozen, ASDN.pretrainable) == (1.0, False, True)


def test_by_default_an_adversary_is_pretrained_as_it_is_trained(tiny):
    detector, astn = tiny.detector(), tiny.adversary("astn")
    features, labels = tiny.objects()
    assert torch.equal(astn.pretrain(features, labels, detector.head).loss, astn(features, labels, detector.head).loss)


def test_an_adversary_explains_where_it_would_hide_or_how_it_would_turn(tiny):
    features, _ = tiny.objects()
    asdn, astn = tiny.adversary("asdn fc"), tiny.adversary("astn")
    nn.init.normal_(asdn.network.mask.weight)
    nn.init.normal_(astn.localisation.transformation.weight)
    heatmap, angles = asdn.explain(features)["heatmap"], astn.explain(features)["angles"]
    torch.testing.assert_close(heatmap, asdn.network(features).sigmoid())
    numbers = astn.localisation(features).view(5, 4, 4)[..., 0]
    torch.testing.assert_close(angles, numbers.clamp(-1, 1) * 10, rtol=1e-4, atol=1e-4)
    assert not heatmap.requires_grad
    assert not angles.requires_grad
    assert tiny.adversary("random").explain(features) == {}
    explained = tiny.chain("asdn fc", "random", "astn").explain(features)
    assert {name: value.shape for name, value in explained.items()} == {
        "0_asdn fc/heatmap": (5, 6, 6),
        "2_astn/angles": (5, 4),
    }


def test_turns_are_those_of_a_counter_however_many_images_make_an_update():
    for fraction in map(Fraction, ("0", "1/2", "1", "1/3", "2/3", "7/10", "1/10", "2/7", "99/100")):
        expected = adversarial_by_counting(fraction, 840)
        for images in (1, 2, 3, 4, 8, 12):
            turns = []
            for update in range(840 // images):
                turns += [is_adversarial(update * images + image, float(fraction)) for image in range(images)]
            assert turns == expected, (fraction, images)
        assert expected[0] == (fraction == 0)


def test_where_the_first_is_adversarial_turns_are_those_of_clean_ones_in_their_place():
    for fraction in map(Fraction, ("0", "1/2", "1", "1/3", "7/10", "2/7")):
        turns = [is_adversarial(number, float(fraction), first=True) for number in range(840)]
        assert turns == [not turn for turn in adversarial_by_counting(1 - fraction, 840)], fraction
        assert turns[0] == (fraction < 1)


def test_turns_of_several_processes_are_those_of_one():
    for processes, images in ((2, 1), (2, 2), (4, 1), (3, 5)):
        for fraction in (0.0, 0.5, 1 / 3, 1.0):
            turns = []
            for update in range(60 // (processes * images)):
                for rank in range(processes):
                    first = (update * processes + rank) * images
                    turns += [is_adversarial(first + image, fraction) for image in range(images)]
            assert turns == adversarial_by_counting(Fraction(fraction).limit_denominator(1000), 60)[: len(turns)]


def test_the_clean_fraction_holds_over_long_runs_exactly():
    for fraction in map(Fraction, ("0", "1", "1/2", "1/3", "2/3", "1/10", "7/100", "2/7", "999/1000")):
        clean = 0
        for number in range(2000):
            clean += not is_adversarial(number, float(fraction))
            assert clean == ceil((number + 1) * fraction), (fraction, number)


def test_a_head_of_ones_own_hides_masks_one_by_one_however_many_are_at_once(tiny, monkeypatch):
    weight = torch.randn(4, 2 * 36, dtype=torch.float64)
    features, labels = tiny.objects(5, 2, 6, torch.float64)
    masks, seen = windows_by_loops(6, 3), []

    def logits(x):
        seen.append(len(x))
        return x.flatten(1) @ weight.T

    expected = losses_one_by_one(features, labels, logits, masks)
    for copies, at_once in ((256, [80]), (40, [32, 32, 16]), (3, [16] * 5)):
        monkeypatch.setattr("afrcnn.adversaries.base._COPIES", copies)
        seen.clear()
        losses = PlainHead(logits).losses_without(features.requires_grad_(), labels, masks)
        torch.testing.assert_close(losses, expected, rtol=0, atol=1e-9)
        assert not losses.requires_grad
        assert seen == at_once
    assert PlainHead(logits).losses_without(features[:0], labels[:0], masks).shape == (0, 16)


def test_every_adversary_works_against_a_head_of_ones_own(tiny):
    weight = torch.randn(4, 8 * 36)
    for names in EVERY:
        adversary = build(tiny, names)
        output = adversary(*tiny.objects(), PlainHead(lambda x: x.flatten(1) @ weight.T))
        assert output.loss.isfinite(), names
        assert output.features.isfinite().all(), names


def test_the_score_drop_is_that_of_each_object_by_itself(tiny):
    for kind in KINDS:
        detector = tiny.detector(kind)
        features, labels = tiny.objects()
        perturbed = features * (torch.rand_like(features) < 0.5)
        drops = score_drop(features.requires_grad_(), perturbed, labels, detector.head)
        detector.box_head.eval()
        expected = []
        for before, after, label in zip(features, perturbed, labels, strict=True):
            first, second = (detector.predictor(detector.box_head(x[None]))[0][0].exp() for x in (before, after))
            expected.append(first[label] / first.sum() - second[label] / second.sum())
        torch.testing.assert_close(drops, torch.stack(expected))
        assert drops.shape == (5,)
        assert not drops.requires_grad
        assert drops.abs().min() > 0
        assert score_drop(features[:0], perturbed[:0], labels[:0], detector.head).shape == (0,)


@every_kind
def test_a_copied_box_head_begins_equal_has_its_own_weights_and_learns_each(tiny, kind):
    box_head = tiny.detector(kind).box_head.requires_grad_(False)
    copy = BoxHeadCopy(box_head)
    before = {name: tensor.clone() for name, tensor in box_head.state_dict().items()}
    assert all(torch.equal(a, b) for a, b in zip(before.values(), copy.state_dict().values(), strict=True))
    features, _ = tiny.objects()
    expected = box_head.eval()(features)
    torch.testing.assert_close(copy(features), expected)
    copy(features).square().sum().backward()
    with torch.no_grad():
        for parameter in copy.parameters():
            assert parameter.grad.any()
            parameter.sub_(0.1 * parameter.grad)
    assert all(torch.equal(tensor, before[name]) for name, tensor in box_head.state_dict().items())
    assert not any(parameter.requires_grad for parameter in box_head.parameters())
    assert (copy(features) - expected).abs().max() > 1e-3


@every_kind
def test_a_copied_box_head_stays_in_evaluation_mode(tiny, kind):
    for n in (0, 1, 5):
        box_head = tiny.detector(kind, dropout=0.9).box_head.train()
        holder = nn.Sequential(BoxHeadCopy(box_head))
        features, _ = tiny.objects(n)
        for mode in (True, False, True):
            holder.train(mode)
            assert holder[0].training == mode
            assert not any(module.training for module in holder[0].layers.modules())
        state = {name: tensor.clone() for name, tensor in holder.state_dict().items()}
        first = holder(features)
        assert torch.equal(first, holder(features))
        assert first.shape == (n, 12)
        assert all(torch.equal(tensor, state[name]) for name, tensor in holder.state_dict().items())
        assert all(module.training for module in box_head.modules())


def test_wrong_arguments_are_refused_by_name(tiny):
    spec = tiny.spec()
    for build_it, problem in (
        (lambda: ASDN(spec, window=7), "a window of 7 cells cannot slide by 1 over all of 6 x 6 cells"),
        (lambda: ASDN(spec, mask="squares"), "mask is 'squares'; choose cells or window"),
        (lambda: ASDN(spec, fraction=(0.1, 0.6)), "a range of fractions is for windows"),
        (lambda: RandomDropout(spec, fraction=1.5), "0 <= fraction <= top <= 1 does not hold"),
        (lambda: RandomDropout(spec, mask="window", fraction=(0.5, 0.4)), "smallest <= largest"),
        (lambda: ASTN(spec, blocks=3), "8 channels cannot be divided into 3 blocks"),
        (lambda: ASTN(spec, blocks=0), "8 channels cannot be divided into 0 blocks"),
    ):
        with pytest.raises(ValueError, match=problem):
            build_it()
