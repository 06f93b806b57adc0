"""Fast R-CNN: its losses and detections against torchvision's, and what holds for any detector."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models.detection._utils import BoxCoder as ReferenceCoder
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss

from afrcnn.detector.backbones import Network, small
from afrcnn.detector.box_coding import BoxCoder
from afrcnn.detector.fast_rcnn import FastRCNN
from afrcnn.detector.roi_pooling import RoIAlign
from afrcnn.detector.sampling import RoISampler, Sample


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
    found = detector.detect(logits, deltas, proposals, sizes)
    expected = reference_detections(logits, deltas, proposals, sizes, score, nms, count)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours["labels"], theirs["labels"])
        torch.testing.assert_close(ours["scores"], theirs["scores"])
        torch.testing.assert_close(ours["boxes"], theirs["boxes"], rtol=1e-4, atol=1e-3)


def test_detections_are_of_their_types_within_the_image_of_some_area_and_best_first(detector):
    proposals = random_boxes(100)
    deltas = torch.randn(100, 16) * 20
    (found,) = detector.detect(torch.randn(100, 4), deltas, [proposals], [(64, 80)])
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
    (found,) = detector.detect(torch.tensor([[0.0, 9.0]]), away, [proposal], [(30, 30)])
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
