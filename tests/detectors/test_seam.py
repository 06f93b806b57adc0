"""The seam: which RoIs an adversary gets, what becomes of the others, and whose turn it is."""

from fractions import Fraction
from math import ceil, nan

import pytest
import torch
from afrcnn.detectors.seam import AdversarialImages
from torch import nn

from afrcnn.adversaries import Chain, Hardened, Seam

FRACTIONS = [0.0, 0.5, 1.0, 1 / 3]


class Negating(nn.Module):
    """Negates features, and remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))
        self.given = None

    def forward(self, features, labels, head):
        self.given = features, labels, head
        return Hardened(-features, self.weight * len(labels), {"objects": torch.tensor(len(labels))})


def adversarial_by_counting(fraction, images):
    """Image by image: clean while there are fewer clean ones than the fraction of all, this one included."""
    clean, turns = 0, []
    for number in range(1, images + 1):
        is_clean = clean < fraction * number
        clean += is_clean
        turns.append(not is_clean)
    return turns


@pytest.mark.parametrize("images", [1, 2, 3, 4])
@pytest.mark.parametrize("fraction", [Fraction(0), Fraction(1, 2), Fraction(1), Fraction(1, 3), Fraction(7, 10)])
def test_the_same_images_are_clean_however_many_make_an_update(fraction, images):
    choose = AdversarialImages(float(fraction))
    turns = [turn for _ in range(60 // images) for turn in choose(images)]
    assert turns == adversarial_by_counting(fraction, 60)


def test_of_two_images_the_first_is_clean_and_the_second_adversarial():
    """Section 5.1; with one image at a time and gradients of two, as in the Caffe release, too."""
    pairs, single = AdversarialImages(0.5), AdversarialImages(0.5)
    for _ in range(5):
        assert pairs(2) == [False, True]
        assert single(1) + single(1) == [False, True]


@pytest.mark.parametrize("fraction", ["0", "1", "1/2", "1/3", "2/3", "1/10", "7/100", "2/7", "999/1000"])
def test_the_fraction_holds_over_long_runs_exactly(fraction):
    choose = AdversarialImages(float(Fraction(fraction)))
    clean = 0
    for number, adversarial in enumerate(choose(10_000), start=1):
        clean += not adversarial
        assert clean == ceil(number * Fraction(fraction))


def ones(labels):
    """Overlaps of RoIs that all fit their objects exactly."""
    return [torch.ones(len(label)) for label in labels]


@pytest.mark.parametrize("before", [1, 2, 7])
@pytest.mark.parametrize("fraction", FRACTIONS)
def test_turns_go_on_from_the_state_dict(fraction, before):
    seam, resumed = Seam(Negating(), fraction), Seam(Negating(), fraction)
    seam.adversarial(before)
    resumed.load_state_dict(seam.state_dict())
    assert resumed.adversarial(9) == seam.adversarial(9) == adversarial_by_counting(fraction, before + 9)[before:]


@pytest.mark.parametrize("fraction", [-0.1, 1.1, nan])
def test_a_fraction_beyond_zero_and_one_is_refused(fraction):
    with pytest.raises(ValueError, match="clean fraction"):
        Seam(Negating(), fraction)
    with pytest.raises(ValueError, match="least IoU"):
        Seam(Negating(), least_iou=fraction)


@pytest.mark.parametrize("images", [1, 2, 3, 4])
@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("least", [0.0, 0.5])
def test_only_foreground_of_adversarial_images_that_fits_changes_and_all_else_keeps_its_bits(fraction, images, least):
    seam = Seam(adversary := Negating(), fraction, least)
    turns = adversarial_by_counting(fraction, 6 * images)
    for update in range(6):
        labels = [torch.randint(0, 3, (5 + image,)) for image in range(images)]
        features = torch.rand(sum(map(len, labels)), 4, 3, 3) - 0.5
        given, head = features.clone(), object()
        overlaps = [torch.rand(len(label)) for label in labels]
        hardened, loss = seam(features, labels, head, overlaps)

        expected, chosen, at = [], [], 0
        for image, (label, overlap) in enumerate(zip(labels, overlaps, strict=True)):
            for value, fit in zip(label.tolist(), overlap.tolist(), strict=True):
                hard = value > 0 and fit >= least and turns[update * images + image]
                expected.append(-given[at] if hard else given[at])
                chosen += [(at, value)] if hard else []
                at += 1
        assert torch.equal(hardened, torch.stack(expected)) and torch.equal(features, given)
        assert adversary.given[1].tolist() == [value for _, value in chosen] and adversary.given[2] is head
        assert torch.equal(adversary.given[0], given[[at for at, _ in chosen]])
        assert loss == 3.0 * len(chosen) and seam.metrics == {"objects": torch.tensor(len(chosen))}


def test_gradients_pass_around_the_adversary_and_through_it():
    labels = [torch.tensor([1, 0]), torch.tensor([2, 0, 1])]
    features = torch.rand(5, 4, 3, 3, requires_grad=True)
    seam = Seam(Negating())
    weight = torch.rand_like(features)
    (weight * seam(features, labels, None, ones(labels))[0]).sum().backward()
    sign = torch.tensor([1.0, 1, -1, 1, -1]).view(5, 1, 1, 1)  # the first image is clean
    assert torch.equal(features.grad, weight * sign) and seam.adversary.weight.grad is None


@pytest.mark.parametrize(
    "labels", [[[0, 0], [0, 0, 0]], [[1, 2], [0, 0, 0]], [[], [0]], [[1], []]], ids=["all", "second", "one", "none"]
)
@pytest.mark.parametrize("name", ["asdn fc", "asdn conv", "astn", "random", "hard", "chain"])
def test_without_foreground_nothing_changes_and_the_loss_is_zero_with_zero_gradients(tiny, name, labels):
    adversary = tiny.chain("asdn fc", "astn") if name == "chain" else tiny.adversary(name)
    labels = [torch.tensor(label, dtype=torch.int64) for label in labels]
    features, _ = tiny.objects(sum(map(len, labels)))
    trained = nn.Parameter(torch.zeros(()))
    hardened, loss = Seam(adversary)(features, labels, tiny.detector().detached, ones(labels))
    assert torch.equal(hardened, features) and loss == 0
    (loss + trained).backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in adversary.parameters())


@pytest.mark.parametrize("kind", ["fully connected", "residual"])
def test_on_one_process_the_loss_is_the_adversarys_own(tiny, kind):
    adversary = Chain(asdn=tiny.adversary("asdn fc", kind), astn=tiny.adversary("astn", kind))
    head = tiny.detector(kind).detached
    features, labels = tiny.objects(6)
    state = torch.get_rng_state()
    parts = [labels[:2], labels[2:]]
    hardened, loss = Seam(adversary, clean_fraction=0)(features, parts, head, ones(parts))
    torch.set_rng_state(state)
    alone = adversary(features, labels, head)
    assert torch.equal(hardened, alone.features) and torch.equal(loss, alone.loss)


@pytest.mark.parametrize("name", ["asdn fc", "asdn conv", "astn", "random", "hard"])
def test_in_sixteen_bits_features_keep_their_type_and_what_is_clean_its_bits(tiny, name):
    features, labels = tiny.objects(6)
    features = features.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seam = Seam(tiny.adversary(name))
        parts = [labels[:3], labels[3:]]
        hardened, loss = seam(features, parts, tiny.detector().detached, ones(parts))
    assert hardened.dtype == torch.bfloat16 and loss.isfinite()
    assert torch.equal(hardened[:3], features[:3]) and not torch.equal(hardened[3:], features[3:])


def test_an_adversary_that_answers_in_another_type_is_brought_back():
    class Precise(nn.Module):
        def forward(self, features, labels, head):
            return features.float() + 1, features.new_zeros(()), {}

    features = torch.rand(2, 1, 2, 2).bfloat16()
    labels = [torch.tensor([0, 1])]
    hardened, _ = Seam(Precise(), 0)(features, labels, None, ones(labels))
    assert torch.equal(hardened, torch.stack([features[0], (features[1].float() + 1).bfloat16()]))
