"""The seam: which RoIs an adversary is given, and what becomes of the others."""

import pytest
import torch
from torch import nn

from afrcnn.adversaries.base import Adversary, AdversaryOutput
from afrcnn.adversaries.chain import Chain
from afrcnn.detectors.roi_heads import perturb
from afrcnn.detectors.sampling import RoIs
from reference import random_boxes
from tiny import KINDS


class Negating(Adversary):
    """Negates features, and notes what it was given."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))

    def forward(self, features, labels, head, context=None):
        self.given = features, labels, head, context
        return AdversaryOutput(-features, self.weight * len(labels), {"objects": torch.tensor(len(labels))})


def rois_of(*labels, adversarial=None, matched=None):
    """The RoIs of images with these labels; every second image is adversarial."""
    counts = torch.tensor([len(image) for image in labels])
    flags = torch.tensor(adversarial if adversarial is not None else [number % 2 == 1 for number in range(len(labels))])
    joined = torch.tensor([label for image in labels for label in image], dtype=torch.int64)
    boxes = random_boxes(len(joined))
    image = torch.arange(len(labels)).repeat_interleave(counts)
    return RoIs(boxes, joined, boxes if matched is None else matched, image, flags[image])


def test_only_foreground_of_adversarial_images_that_fits_changes_and_all_else_keeps_its_bits():
    for images in (1, 2, 3, 4):
        for least in (0.0, 0.5):
            for _ in range(6):
                labels = [torch.randint(0, 3, (5 + image,)).tolist() for image in range(images)]
                flags = (torch.rand(images) < 0.5).tolist()
                rois = rois_of(*labels, adversarial=flags)
                rois = rois._replace(matched=rois.boxes + 4 * torch.rand(len(rois.boxes), 4))
                features = torch.rand(len(rois.labels), 4, 3, 3) - 0.5
                given, head = features.clone(), object()
                perturbed, loss, metrics = perturb(features, rois, adversary := Negating(), head, least)

                expected, chosen = [], []
                for at, (label, image, iou) in enumerate(zip(rois.labels, rois.image, rois.iou, strict=True)):
                    hard = label > 0 and iou >= least and flags[image]
                    expected.append(-given[at] if hard else given[at])
                    chosen += [at] if hard else []
                assert torch.equal(perturbed, torch.stack(expected))
                assert torch.equal(features, given)
                assert torch.equal(adversary.given[0], given[chosen])
                assert torch.equal(adversary.given[1], rois.labels[chosen])
                assert adversary.given[2] is head
                assert torch.equal(adversary.given[3].features, given)
                assert torch.equal(adversary.given[3].labels, rois.labels)
                assert loss == 3.0 * len(chosen)
                assert metrics == {"objects": torch.tensor(len(chosen))}


def test_background_of_adversarial_images_changes_too_where_asked_and_teaches_the_adversary_nothing():
    for images in (1, 2, 3):
        for _ in range(6):
            labels = [torch.randint(0, 3, (5 + image,)).tolist() for image in range(images)]
            flags = (torch.rand(images) < 0.5).tolist()
            rois = rois_of(*labels, adversarial=flags)
            features = torch.rand(len(rois.labels), 4, 3, 3) - 0.5
            without = perturb(features, rois, Negating(), None, 0.6)
            perturbed, loss, metrics = perturb(features, rois, Negating(), None, 0.6, background=True)
            for at, (label, image, iou) in enumerate(zip(rois.labels, rois.image, rois.iou, strict=True)):
                hard = flags[image] and (label == 0 or iou >= 0.6)
                assert torch.equal(perturbed[at], -features[at] if hard else features[at])
            assert loss == without.loss
            assert metrics == without.metrics


def test_gradients_pass_around_the_adversary_and_through_it():
    features = torch.rand(5, 4, 3, 3, requires_grad=True)
    weight, adversary = torch.rand_like(features), Negating()
    (weight * perturb(features, rois_of([1, 0], [2, 0, 1]), adversary, None)[0]).sum().backward()
    sign = torch.tensor([1.0, 1, -1, 1, -1]).view(5, 1, 1, 1)  # the first image is clean
    assert torch.equal(features.grad, weight * sign)
    assert adversary.weight.grad is None
    assert not adversary.given[3].features.requires_grad


def test_without_foreground_nothing_changes_and_the_loss_is_zero_with_zero_gradients(tiny):
    for name in ("asdn fc", "asdn conv", "asdn occluding", "astn", "random", "hard", "dropblock", "chain"):
        for labels in ([[0, 0], [0, 0, 0]], [[1, 2], [0, 0, 0]], [[], [0]], [[1], []], [[], []]):
            adversary = tiny.chain("asdn fc", "astn") if name == "chain" else tiny.adversary(name)
            rois = rois_of(*labels)
            features, _ = tiny.objects(len(rois.labels))
            trained = nn.Parameter(torch.zeros(()))
            perturbed, loss, _ = perturb(features, rois, adversary, tiny.detector().head)
            assert torch.equal(perturbed, features), (name, labels)
            assert loss == 0, (name, labels)
            (loss + trained).backward()
            for parameter in adversary.parameters():
                assert parameter.grad is not None, (name, labels)
                assert not parameter.grad.any(), (name, labels)


def test_on_one_process_the_loss_is_the_adversarys_own(tiny):
    for kind in KINDS:
        adversary = Chain(asdn=tiny.adversary("asdn fc", kind), astn=tiny.adversary("astn", kind))
        head = tiny.detector(kind).head
        features, labels = tiny.objects(6)
        rois = rois_of(labels[:2].tolist(), labels[2:].tolist(), adversarial=[True, True])
        state = torch.get_rng_state()
        perturbed, loss, _ = perturb(features, rois, adversary, head)
        torch.set_rng_state(state)
        alone = adversary(features, labels, head)
        assert torch.equal(perturbed, alone.features)
        assert torch.equal(loss, alone.loss)


def test_in_sixteen_bits_features_keep_their_type_and_what_is_clean_its_bits(tiny):
    for name in ("asdn fc", "asdn conv", "asdn occluding", "astn", "random", "hard"):
        features, labels = tiny.objects(6)
        features = features.bfloat16()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rois = rois_of(labels[:3].tolist(), labels[3:].tolist())
            perturbed, loss, _ = perturb(features, rois, tiny.adversary(name), tiny.detector().head)
        assert perturbed.dtype == torch.bfloat16
        assert loss.isfinite()
        assert torch.equal(perturbed[:3], features[:3]), name
        assert not torch.equal(perturbed[3:], features[3:]), name


def test_an_adversary_that_answers_in_another_type_is_brought_back():
    class Precise(Adversary):
        def forward(self, features, labels, head, context=None):
            return AdversaryOutput(features.float() + 1, features.new_zeros(()), {})

    features = torch.rand(2, 1, 2, 2).bfloat16()
    perturbed, _, _ = perturb(features, rois_of([0, 1], adversarial=[True]), Precise(), None)
    assert torch.equal(perturbed, torch.stack([features[0], (features[1].float() + 1).bfloat16()]))


@pytest.mark.parametrize("name", ["asdn occluding", "random"])
def test_occluders_are_of_all_images_of_the_update_also_of_background_and_clean_ones(tiny, name):
    adversary = tiny.adversary(name)
    adversary.occluder = "features"
    shown = set()
    for _ in range(100):
        features = torch.arange(5.0)[:, None, None, None].expand(5, 8, 6, 6) + 1
        perturbed, _, _ = perturb(features, rois_of([1, 0], [1, 0, 2]), adversary, tiny.detector().head)
        assert torch.equal(perturbed[[0, 1, 3]], features[[0, 1, 3]])
        shown |= set(perturbed[2].unique().tolist())
    assert shown == {3, 2, 4, 5}  # itself, both backgrounds, the object of another class
