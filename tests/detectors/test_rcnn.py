"""Fast R-CNN: its losses and detections against torchvision's, and what holds for any detector."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models.detection._utils import BoxCoder as ReferenceCoder
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.ops import box_iou

from afrcnn.adversaries import (
    ASDN,
    ASTN,
    Chain,
    ConvolutionalASDN,
    FullyConnectedASDN,
    HardDropout,
    Hardened,
    LocalisationNetwork,
    Occluder,
    RandomDropout,
    RoIHead,
    Seam,
    WindowSampling,
)
from afrcnn.detectors.backbones import Network, small
from afrcnn.detectors.box_coding import BoxCoder
from afrcnn.detectors.rcnn import FastRCNN
from afrcnn.detectors.roi_pooling import RoIAlign
from afrcnn.detectors.sampling import RoISampler, Sample


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def random_boxes(count, extent=50, side=30):
    corner = torch.rand(count, 2) * extent
    return torch.cat([corner, corner + 3 + torch.rand(count, 2) * side], dim=1)


def build(num_classes=3, network=None, **options):
    network = network or small()
    options = {"short_side": 64, "long_side": 64, **options}
    return FastRCNN(network, RoIAlign(network.pool_size, network.stride), num_classes, **options)


@pytest.fixture(scope="module")
def detector():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()


def objects(count, num_classes=3):
    return {"boxes": random_boxes(count), "labels": torch.randint(1, num_classes + 1, (count,))}


NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def random_sample(count, num_classes):
    labels = torch.randint(0, num_classes + 1, (count,)).sort(descending=True).values
    return Sample(random_boxes(count), labels, random_boxes(count))


@pytest.mark.parametrize("counts", [(30, 20), (7,), (0, 5), (1, 1, 1)])
def test_the_losses_are_torchvision_s_with_beta_1(counts, detector):
    samples = [random_sample(count, 3) for count in counts]
    logits = torch.randn(sum(counts), 4) * 5
    deltas = torch.randn(sum(counts), 16) * 3
    losses = detector.losses(logits, deltas, samples)

    coder = ReferenceCoder((10.0, 10.0, 5.0, 5.0))
    targets = [coder.encode_single(sample.boxes, sample.rois) for sample in samples]
    # Torchvision's beta is 1/9, and smooth L1 scales as L(x / 9; 1 / 9) = L(x; 1) / 9.
    classification, regression = fastrcnn_loss(
        logits, deltas / 9, [sample.labels for sample in samples], [target / 9 for target in targets]
    )
    torch.testing.assert_close(losses["classification"], classification, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(losses["box_regression"], 9 * regression, rtol=1e-4, atol=1e-4)


def reference_detections(logits, deltas, proposals, sizes, score, nms, count):
    heads = RoIHeads(None, None, None, 0.5, 0.5, 1, 0.25, (10.0, 10.0, 5.0, 5.0), score, nms, count)
    boxes, scores, labels = heads.postprocess_detections(logits, deltas, proposals, sizes)
    return [{"boxes": b, "labels": label, "scores": s} for b, s, label in zip(boxes, scores, labels, strict=True)]


@pytest.mark.parametrize("case", range(20))
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_the_detections_are_torchvision_s(case, spread):
    torch.manual_seed(case)
    score, nms, count = (0.0, 0.05, 0.3)[case % 3], (0.3, 0.5)[case % 2], (100, 7)[case % 2]
    detector = build(score_threshold=score, nms_iou=nms, detections_per_image=count)
    proposals = [random_boxes(40), random_boxes(0), random_boxes(15)]
    sizes = [(64, 80), (50, 50), (70, 60)]
    logits, deltas = torch.randn(55, 4) * 2, torch.randn(55, 16) * spread  # a large spread leaves the image
    found = detector.detect(logits.softmax(1), deltas, proposals, sizes)
    expected = reference_detections(logits, deltas, proposals, sizes, score, nms, count)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours["labels"], theirs["labels"])
        torch.testing.assert_close(ours["scores"], theirs["scores"])
        torch.testing.assert_close(ours["boxes"], theirs["boxes"], rtol=1e-4, atol=1e-3)


def test_detections_are_of_their_types_within_the_image_of_some_area_and_best_first(detector):
    proposals = random_boxes(100)
    deltas = torch.randn(100, 16) * 20
    (found,) = detector.detect(torch.randn(100, 4).softmax(1), deltas, [proposals], [(64, 80)])
    boxes = found["boxes"]
    assert boxes.dtype == found["scores"].dtype == torch.float32 and found["labels"].dtype == torch.int64
    assert len(boxes) > 10
    assert (boxes >= 0).all() and (boxes[:, 2] <= 80).all() and (boxes[:, 3] <= 64).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (found["scores"].diff() <= 0).all()
    assert set(found["labels"].tolist()) <= {1, 2, 3}


def test_a_box_that_leaves_the_image_is_not_detected():
    detector = build(1, score_threshold=0.0)
    proposal = torch.tensor([[10.0, 10.0, 20.0, 20.0]])
    away = torch.tensor([[0.0, 0, 0, 0, 100.0, 0, 0, 0]])  # ten widths to the right
    (found,) = detector.detect(torch.tensor([[0.0, 1.0]]), away, [proposal], [(30, 30)])
    assert [len(value) for value in found.values()] == [0, 0, 0]


class PassOn(nn.Module):
    """A head whose output is the mean of the features: what it says of a RoI is known."""

    def forward(self, features):
        return features.mean(dim=(2, 3))


def stub(**options):
    """A detector that sees the image itself, and finds class 1 where it is bright, just where the proposal is."""
    network = Network(nn.Sequential(nn.Identity()), PassOn(), 3, pool_size=2, stride=1, features=3, frozen_stages=0)
    detector = build(1, network, **options)
    with torch.no_grad():
        detector.predictor.cls_score.weight.copy_(torch.tensor([[0.0] * 3, [10.0] * 3]))
        detector.predictor.bbox_pred.weight.zero_()
    return detector.eval()


@pytest.mark.parametrize("side", [32, 50, 64, 200])
def test_boxes_are_in_the_given_image_s_pixels_whatever_it_is_resized_to(side):
    image = torch.zeros(3, 60, 90, dtype=torch.uint8)
    image[:, 10:40, 20:70] = 255
    other = torch.zeros(3, 100, 40, dtype=torch.uint8)
    other[:, 50:90, 0:20] = 255
    proposals = [
        torch.tensor([[22.0, 12, 68, 38], [0.0, 45, 15, 60], [75.0, 0, 90, 60]]),
        torch.tensor([[20.0, 0, 40, 40], [2.0, 52, 18, 88]]),
    ]
    with torch.no_grad():
        first, second = stub(short_side=side, long_side=400, score_threshold=0.9)([image, other], proposals)
    torch.testing.assert_close(first["boxes"], proposals[0][:1], rtol=0, atol=1e-3)
    torch.testing.assert_close(second["boxes"], proposals[1][1:], rtol=0, atol=1e-3)


def test_bytes_and_fractions_are_the_same_image():
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    proposals = [random_boxes(10)]
    detector = stub(score_threshold=0.0)
    with torch.no_grad():
        (one,), (other,) = detector([image], proposals), detector([image / 255], proposals)
    torch.testing.assert_close(one["scores"], other["scores"])


def test_evaluation_repeats_itself_and_does_not_depend_on_the_random_state(detector):
    detector = copy.deepcopy(detector).eval()
    images, proposals = [torch.rand(3, 64, 64), torch.rand(3, 50, 70)], [random_boxes(20), random_boxes(20)]
    with torch.no_grad():
        once = detector(images, proposals)
        torch.manual_seed(99)
        again = detector(images, proposals)
    for one, other in zip(once, again, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("counts", [(0,), (0, 10), (10, 0)])
def test_images_without_proposals_have_no_detections(counts, detector):
    detector = copy.deepcopy(detector).eval()
    with torch.no_grad():
        found = detector([torch.rand(3, 64, 64) for _ in counts], [random_boxes(count) for count in counts])
    for detection, count in zip(found, counts, strict=True):
        assert (len(detection["boxes"]) > 0) == (count > 0)


def train_once(detector, proposals, targets):
    detector.train()
    losses = detector([torch.rand(3, 64, 64) for _ in targets], proposals, targets)
    sum(losses.values()).backward()
    return losses


@pytest.mark.parametrize(
    ("proposals", "objects_"),
    [((20, 20), (2, 2)), ((20,), (0,)), ((0,), (2,)), ((0,), (0,)), ((0, 20), (0, 0)), ((20, 0), (2, 0))],
)
def test_images_without_objects_or_proposals_or_both_train(proposals, objects_, detector):
    detector = copy.deepcopy(detector)
    losses = train_once(
        detector, [random_boxes(count) for count in proposals], [objects(n) if n else NOTHING for n in objects_]
    )
    assert set(losses) == {"classification", "box_regression"}
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(parameter.grad is not None for parameter in detector.parameters())
    assert all(torch.isfinite(parameter.grad).all() for parameter in detector.parameters())
    has_rois = sum(proposals) + sum(objects_) > 0
    assert (losses["classification"] > 0) == has_rois
    if not sum(objects_):
        assert losses["box_regression"] == 0


def test_without_objects_background_alone_is_learned(detector):
    detector = copy.deepcopy(detector)
    losses = train_once(detector, [random_boxes(30)], [NOTHING])
    assert losses["classification"] > 0 and losses["box_regression"] == 0
    assert detector.predictor.cls_score.bias.grad[0] < 0 < detector.predictor.cls_score.bias.grad[1]


def test_training_without_targets_says_so(detector):
    with pytest.raises(ValueError, match="targets"):
        copy.deepcopy(detector).train()([torch.rand(3, 64, 64)], [random_boxes(3)])


def test_a_sample_that_is_not_the_object_itself_regresses_towards_it():
    detector = build(2, sampler=RoISampler(8, 1.0), box_coder=BoxCoder())
    target = {"boxes": torch.tensor([[10.0, 10, 40, 40]]), "labels": torch.tensor([2])}
    losses = train_once(detector, [torch.tensor([[12.0, 8, 44, 38]])], [target])
    assert losses["box_regression"] > 0
    gradient = detector.predictor.bbox_pred.bias.grad.view(3, 4)
    assert (gradient[2] != 0).all() and not gradient[:2].any()  # of the true class's offsets alone


@pytest.mark.parametrize("frozen", [0, 1, 3])
def test_frozen_stages_get_no_gradient_and_the_others_do(frozen):
    detector = build(frozen_stages=frozen)
    train_once(detector, [random_boxes(20)], [objects(2)])
    for index, stage in enumerate(detector.trunk.children()):
        for parameter in stage.parameters():
            assert (parameter.grad is None) == (index < frozen)
            assert parameter.requires_grad == (index >= frozen)


def test_new_layers_begin_as_in_fast_rcnn():
    predictor = build(200).predictor
    assert not predictor.cls_score.bias.any() and not predictor.bbox_pred.bias.any()
    assert predictor.cls_score.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert predictor.bbox_pred.weight.std().item() == pytest.approx(0.001, rel=0.05)


def test_of_several_short_sides_evaluation_takes_the_last():
    image, proposals = torch.rand(3, 64, 64), [random_boxes(12)]
    several, last = stub(short_side=[32, 48, 96], long_side=400), stub(short_side=96, long_side=400)
    with torch.no_grad():
        (one,), (other,) = several([image], proposals), last([image], proposals)
    torch.testing.assert_close(one["scores"], other["scores"], rtol=0, atol=0)


def build_adversary(name, detector):
    """Adversaries whose every mask is a target, so that there is a gradient to look for; several make a chain."""
    head = RoIHead(detector.head, 256, 128, 7)
    parts = {
        "asdn": lambda: ASDN(FullyConnectedASDN(head), threshold=-1),
        "conv": lambda: ASDN(ConvolutionalASDN(128, width=8), threshold=-1),
        "occluding": lambda: ASDN(FullyConnectedASDN(head), WindowSampling(), Occluder(), threshold=-1),
        "astn": lambda: ASTN(LocalisationNetwork(head), scale=0.1, translation=0.1),
        "random": RandomDropout,
        "windows": lambda: RandomDropout(WindowSampling(), Occluder()),
        "hard": HardDropout,
    }
    names = name.split("+")
    return parts[name]() if len(names) == 1 else Chain(**{part: parts[part]() for part in names})


@pytest.mark.parametrize(
    "name",
    [
        "asdn",
        "conv",
        "astn",
        "random",
        "hard",
        "asdn+astn",
        "hard+astn",
        "astn+conv+random",
        "occluding+astn",
        "windows",
    ],
)
def test_the_detectors_losses_and_the_adversarys_loss_give_each_other_no_gradient(name, detector):
    detector = copy.deepcopy(detector).train()
    detector.seam = Seam(build_adversary(name, detector))
    images = [torch.rand(3, 64, 64) for _ in range(2)]
    losses = detector(images, [random_boxes(20) for _ in images], [objects(3) for _ in images])
    assert list(losses) == ["classification", "box_regression", "adversary"]
    adversary = list(detector.seam.parameters())
    own = [value for key, value in detector.named_parameters() if not key.startswith("seam.")]

    def gradients(loss, parameters):
        return torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True) if parameters else []

    detectors = losses["classification"] + losses["box_regression"]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients(detectors, own))
    assert all(gradient is None for gradient in gradients(detectors, adversary))
    assert losses["adversary"].requires_grad == bool(adversary)
    if adversary:
        taught = gradients(losses["adversary"], adversary)
        assert all(gradient is not None for gradient in taught) and any(gradient.any() for gradient in taught)
        assert all(gradient is None for gradient in gradients(losses["adversary"], own))


def test_an_adversary_pretrains_on_pooled_features_without_a_gradient_for_the_detector(detector):
    detector = copy.deepcopy(detector).train()
    asdn = build_adversary("asdn", detector)
    samples = detector.sample([random_boxes(20)], [objects(3)])
    labels = samples[0].labels
    features = detector.pool([torch.rand(3, 64, 64)], [samples[0].rois])[labels > 0]
    asdn.pretrain(features, labels[labels > 0], detector.detached_head()).loss.backward()
    assert all(parameter.grad.any() for parameter in asdn.parameters())
    assert all(parameter.grad is None for parameter in detector.parameters())


class Hiding(nn.Module):
    """Zeroes all that it is given, and counts."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.labels = []

    def forward(self, features, labels, head):
        self.labels.append(labels)
        return Hardened(0 * features, 0 * self.weight + (1.0 if len(labels) else 0.0), {})


def test_in_evaluation_the_adversary_is_not_asked_and_detections_keep_their_bits(detector):
    detector = copy.deepcopy(detector).eval()
    images, proposals = [torch.rand(3, 64, 64), torch.rand(3, 50, 70)], [random_boxes(20), random_boxes(20)]
    with torch.no_grad():
        expected = detector(images, proposals)
        detector.seam = Seam(adversary := Hiding(), clean_fraction=0)
        found = detector.eval()(images, proposals)
    assert not adversary.labels and not detector.seam.adversarial.count
    for one, other in zip(found, expected, strict=True):
        assert len(one["boxes"]) and one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_training_losses_are_those_of_features_of_which_the_adversarial_foreground_is_replaced(fraction, detector):
    detector = copy.deepcopy(detector).train()
    nn.init.normal_(detector.predictor.cls_score.weight)
    images = [torch.rand(3, 64, 64) for _ in range(2)]
    proposals, targets = [random_boxes(20) for _ in images], [objects(3) for _ in images]

    torch.manual_seed(7)
    samples = detector.sample(proposals, targets)
    pooled = detector.pool(images, [sample.rois for sample in samples])
    plain = detector.losses(*detector.predictor(detector.head(pooled)), samples)
    labels = [sample.labels for sample in samples]
    turns = (fraction == 0, fraction < 1)
    hidden = torch.cat([(label > 0) & turn for label, turn in zip(labels, turns, strict=True)])
    expected = detector.losses(*detector.predictor(detector.head(pooled * ~hidden.view(-1, 1, 1, 1))), samples)

    detector.seam = Seam(adversary := Hiding(), fraction)
    torch.manual_seed(7)
    losses = detector(images, proposals, targets)
    assert torch.equal(adversary.labels[0], torch.cat(labels)[hidden])
    assert losses["adversary"] == (1 if fraction < 1 else 0)
    for name in ("classification", "box_regression"):
        torch.testing.assert_close(losses[name], expected[name])
        assert torch.equal(losses[name], plain[name]) == (fraction == 1)


def test_the_adversary_is_given_the_foreground_that_fits_its_object(detector):
    detector = copy.deepcopy(detector).train()
    images = [torch.rand(3, 64, 64) for _ in range(2)]
    proposals, targets = [random_boxes(60) for _ in images], [objects(3) for _ in images]
    torch.manual_seed(7)
    samples = detector.sample(proposals, targets)
    fits = [
        (sample.labels > 0) & (box_iou(sample.rois, target["boxes"]).amax(dim=1) >= 0.8)
        for sample, target in zip(samples, targets, strict=True)
    ]
    expected = torch.cat([sample.labels[fit] for sample, fit in zip(samples, fits, strict=True)])
    detector.seam = Seam(adversary := Hiding(), clean_fraction=0, least_iou=0.8)
    torch.manual_seed(7)
    detector(images, proposals, targets)
    assert torch.equal(adversary.labels[0], expected)
    assert 0 < len(expected) < sum(int((sample.labels > 0).sum()) for sample in samples)


@pytest.mark.parametrize(
    ("proposals", "objects_"), [((20, 20), (2, 0)), ((20,), (0,)), ((0,), (0,)), ((0, 20), (0, 0)), ((20, 0), (2, 0))]
)
def test_without_foreground_to_harden_every_parameter_of_the_adversary_gets_a_zero_gradient(
    proposals, objects_, detector
):
    detector = copy.deepcopy(detector)
    detector.seam = Seam(build_adversary("asdn+astn", detector), clean_fraction=0.5 if len(proposals) > 1 else 0)
    losses = train_once(
        detector, [random_boxes(count) for count in proposals], [objects(n) if n else NOTHING for n in objects_]
    )
    assert losses["adversary"] == 0
    assert all(parameter.grad is not None for parameter in detector.parameters())
    assert not any(parameter.grad.any() for parameter in detector.seam.parameters())
