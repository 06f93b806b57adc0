"""Fast R-CNN: its losses and detections against torchvision's, and what holds for any detector."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models.detection._utils import BoxCoder as ReferenceCoder
from torchvision.models.detection.roi_heads import RoIHeads as ReferenceHeads
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.ops import box_iou

from afrcnn.adversaries.asdn import ASDN
from afrcnn.adversaries.astn import ASTN
from afrcnn.adversaries.chain import Chain
from afrcnn.adversaries.dropout import HardDropout, RandomDropout
from afrcnn.detectors.backbones import Backbone, small
from afrcnn.detectors.box_coding import BoxCoder, offsets
from afrcnn.detectors.jitter import ProposalJitter
from afrcnn.detectors.rcnn import FastRCNN, fast_rcnn
from afrcnn.detectors.roi_heads import RoIHeads
from afrcnn.detectors.roi_pooling import RoIPool
from afrcnn.detectors.sampling import RoIs, RoISampler
from reference import Zeroing, random_boxes, random_target
from tiny import build_fast_rcnn


@pytest.fixture(scope="module")
def built():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_fast_rcnn()


@pytest.fixture
def detector(built):
    return copy.deepcopy(built).train()


def random_images(count=2):
    return [torch.rand(3, 64, 64) for _ in range(count)]


def random_rois(counts, num_classes):
    image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = torch.randint(0, num_classes + 1, (len(image),))
    return RoIs(random_boxes(len(image)), labels, random_boxes(len(image)), image, torch.zeros_like(image).bool())


def test_the_losses_are_torchvision_s_with_beta_1(detector):
    for counts in [(30, 20), (7,), (0, 5), (1, 1, 1)]:
        rois = random_rois(counts, 3)
        logits, deltas = torch.randn(sum(counts), 4) * 5, torch.randn(sum(counts), 16) * 3
        losses = detector.roi_heads.box_losses(logits, deltas, rois)

        target = ReferenceCoder((10.0, 10.0, 5.0, 5.0)).encode_single(rois.matched, rois.boxes)
        # Torchvision's beta is 1/9, and smooth L1 scales as L(x / 9; 1 / 9) = L(x; 1) / 9.
        classification, regression = fastrcnn_loss(logits, deltas / 9, [rois.labels], [target / 9])
        torch.testing.assert_close(losses["classification"], classification, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(losses["box_regression"], 9 * regression, rtol=1e-4, atol=1e-4)


def reference_detections(logits, deltas, proposals, sizes, score, nms, count):
    heads = ReferenceHeads(None, None, None, 0.5, 0.5, 1, 0.25, (10.0, 10.0, 5.0, 5.0), score, nms, count)
    boxes, scores, labels = heads.postprocess_detections(logits, deltas, proposals, sizes)
    return [{"boxes": b, "labels": label, "scores": s} for b, s, label in zip(boxes, scores, labels, strict=True)]


@pytest.mark.parametrize("spread", [1.0, 30.0])  # a large one leaves the image
def test_the_detections_are_torchvision_s(spread):
    sizes, predictor = [(64, 80), (50, 50), (70, 60)], nn.Identity()
    for case in range(20):
        score, nms, count = (0.0, 0.05, 0.3)[case % 3], (0.3, 0.5)[case % 2], (100, 7)[case % 2]
        heads = RoIHeads(None, nn.Identity(), predictor, score_threshold=score, nms_iou=nms, detections_per_image=count)
        proposals = [random_boxes(40), random_boxes(0), random_boxes(15)]
        logits, deltas = torch.randn(55, 4) * 2, torch.randn(55, 16) * spread
        detections = heads.detect(logits.softmax(1), deltas, proposals, sizes)
        expected = reference_detections(logits, deltas, proposals, sizes, score, nms, count)
        for ours, torchvision_s in zip(detections, expected, strict=True):
            assert torch.equal(ours["labels"], torchvision_s["labels"]), case
            torch.testing.assert_close(ours["scores"], torchvision_s["scores"])
            torch.testing.assert_close(ours["boxes"], torchvision_s["boxes"], rtol=1e-4, atol=1e-3)


def test_detections_are_of_their_types_within_the_image_of_some_area_and_best_first(detector):
    proposals, deltas = random_boxes(100), torch.randn(100, 16) * 20
    (detections,) = detector.roi_heads.detect(torch.randn(100, 4).softmax(1), deltas, [proposals], [(64, 80)])
    boxes, scores, labels = detections["boxes"], detections["scores"], detections["labels"]
    assert boxes.dtype == scores.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert len(boxes) > 10
    assert (boxes >= 0).all()
    assert (boxes[:, 2] <= 80).all()
    assert (boxes[:, 3] <= 64).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (scores.diff() <= 0).all()
    assert set(labels.tolist()) <= {1, 2, 3}


def test_a_box_that_leaves_the_image_is_not_detected(tiny):
    heads = tiny.fast_rcnn(1, score_threshold=0.0).roi_heads
    proposal = torch.tensor([[10.0, 10.0, 20.0, 20.0]])
    away = torch.tensor([[0.0, 0, 0, 0, 100.0, 0, 0, 0]])  # ten widths to the right
    (detections,) = heads.detect(torch.tensor([[0.0, 1.0]]), away, [proposal], [(30, 30)])
    assert [len(value) for value in detections.values()] == [0, 0, 0]


class Mean(nn.Module):
    """A box head whose output is the mean of the features: what it says of a RoI is known."""

    def forward(self, features):
        return features.mean(dim=(2, 3))


def stub(**options):
    """A detector that sees the image itself, and finds class 1 where it is bright, just where the proposal is."""
    body = nn.Sequential(nn.Identity())
    backbone = Backbone(body, Mean(), 3, pool_size=2, stride=1, offset=0.0, box_features=3, frozen_stages=0)
    detector = build_fast_rcnn(1, backbone, **options)
    with torch.no_grad():
        detector.roi_heads.predictor.cls_score.weight.copy_(torch.tensor([[0.0] * 3, [10.0] * 3]))
        detector.roi_heads.predictor.bbox_pred.weight.zero_()
    return detector.eval()


def test_boxes_are_in_the_given_image_s_pixels_whatever_it_is_resized_to():
    for side in (32, 50, 64, 200):
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
    proposals, detector = [random_boxes(10)], stub(score_threshold=0.0)
    with torch.no_grad():
        (one,), (other,) = detector([image], proposals), detector([image / 255], proposals)
    torch.testing.assert_close(one["scores"], other["scores"])


def test_of_several_short_sides_evaluation_takes_the_last():
    image, proposals = torch.rand(3, 64, 64), [random_boxes(12)]
    several, last = stub(short_side=[32, 48, 96], long_side=400), stub(short_side=96, long_side=400)
    with torch.no_grad():
        (one,), (other,) = several([image], proposals), last([image], proposals)
    torch.testing.assert_close(one["scores"], other["scores"], rtol=0, atol=0)


@torch.no_grad()
def test_evaluation_repeats_itself_and_does_not_depend_on_the_random_state(detector):
    detector.eval()
    images, proposals = [torch.rand(3, 64, 64), torch.rand(3, 50, 70)], [random_boxes(20), random_boxes(20)]
    once = detector(images, proposals)
    torch.manual_seed(99)
    for one, other in zip(once, detector(images, proposals), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@torch.no_grad()
def test_images_without_proposals_have_no_detections(detector):
    detector.eval()
    for counts in ((0,), (0, 10), (10, 0)):
        detections = detector(random_images(len(counts)), [random_boxes(count) for count in counts])
        assert [len(image["boxes"]) > 0 for image in detections] == [count > 0 for count in counts]


@torch.no_grad()
def test_scores_and_features_are_of_each_proposal_by_itself(detector):
    detector.eval()
    images, proposals = [torch.rand(3, 64, 64), torch.rand(3, 50, 70)], [random_boxes(5), random_boxes(3)]
    scores, deltas = detector.roi_heads.score(detector.features(images), proposals)
    pooled = detector.pool(images, proposals)
    heads, row = detector.roi_heads, 0
    for image, boxes in zip(images, proposals, strict=True):
        for box in boxes:
            alone = detector.pool([image], [box[None]])
            logits, offset = heads.predictor(heads.box_head(alone))
            torch.testing.assert_close(pooled[row], alone[0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(scores[row], logits[0].softmax(0), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(deltas[row], offset[0], rtol=1e-4, atol=1e-4)
            row += 1
    assert row == len(scores) == 8


def train_once(detector, proposals, targets):
    losses = detector.train()(random_images(len(targets)), proposals, targets)
    sum(losses.values()).backward()
    return losses


def test_images_without_objects_or_proposals_or_both_train(built):
    for proposals, objects in [
        ((20, 20), (2, 2)),
        ((20,), (0,)),
        ((0,), (2,)),
        ((0,), (0,)),
        ((0, 20), (0, 0)),
        ((20, 0), (2, 0)),
    ]:
        detector = copy.deepcopy(built)
        boxes, targets = [random_boxes(count) for count in proposals], [random_target(count) for count in objects]
        losses = train_once(detector, boxes, targets)
        assert set(losses) == {"classification", "box_regression"}
        assert all(torch.isfinite(loss) for loss in losses.values()), (proposals, objects)
        assert all(parameter.grad is not None for parameter in detector.parameters())
        assert all(torch.isfinite(parameter.grad).all() for parameter in detector.parameters())
        assert (losses["classification"] > 0) == (sum(proposals) + sum(objects) > 0), (proposals, objects)
        if not sum(objects):
            assert losses["box_regression"] == 0


def test_without_objects_background_alone_is_learned(detector):
    losses = train_once(detector, [random_boxes(30)], [random_target(0)])
    assert losses["classification"] > 0
    assert losses["box_regression"] == 0
    gradient = detector.roi_heads.predictor.cls_score.bias.grad
    assert gradient[0] < 0 < gradient[1]


def test_training_without_targets_says_so(detector):
    for arguments in ((), (None,)):
        with pytest.raises(ValueError, match="targets"):
            detector([torch.rand(3, 64, 64)], [random_boxes(3)], *arguments)


def test_a_sample_that_is_not_the_object_itself_regresses_towards_it(tiny):
    detector = tiny.fast_rcnn(2, sampler=RoISampler(8, 1.0), box_coder=BoxCoder())
    target = {"boxes": torch.tensor([[10.0, 10, 40, 40]]), "labels": torch.tensor([2])}
    losses = train_once(detector, [torch.tensor([[12.0, 8, 44, 38]])], [target])
    assert losses["box_regression"] > 0
    gradient = detector.roi_heads.predictor.bbox_pred.bias.grad.view(3, 4)
    assert (gradient[2] != 0).all()
    assert not gradient[:2].any()  # of the true class's offsets alone


def test_frozen_stages_get_no_gradient_and_the_others_do(tiny):
    for frozen in (0, 1, 3):
        detector = tiny.fast_rcnn(frozen_stages=frozen)
        train_once(detector, [random_boxes(20)], [random_target(2)])
        for index, stage in enumerate(detector.backbone.children()):
            for parameter in stage.parameters():
                assert (parameter.grad is None) == (index < frozen)
                assert parameter.requires_grad == (index >= frozen)


def test_new_layers_begin_as_in_fast_rcnn(tiny):
    predictor = tiny.fast_rcnn(200).roi_heads.predictor
    assert not predictor.cls_score.bias.any()
    assert not predictor.bbox_pred.bias.any()
    assert predictor.cls_score.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert predictor.bbox_pred.weight.std().item() == pytest.approx(0.001, rel=0.05)


def test_the_builder_joins_the_parts_that_the_backbone_describes():
    backbone = small()
    detector = fast_rcnn(backbone, RoIPool, 5, nms_iou=0.4)
    assert detector.backbone is backbone.body
    assert detector.backbone.out_channels == 128
    heads = detector.roi_heads
    assert heads.box_head is backbone.box_head
    assert isinstance(heads.roi_pool, RoIPool)
    assert (heads.roi_pool.size, heads.roi_pool.stride, heads.num_classes, heads.nms_iou) == (7, 8, 5, 0.4)
    spec = detector.box_head_spec
    assert spec.layers is backbone.box_head
    assert spec[1:] == (256, 128, 7)


def build_adversary(name, detector):
    """Adversaries whose every mask is a target, so that there is a gradient to look for; several make a chain."""
    spec, occluding = detector.box_head_spec, {"mask": "window", "fraction": (0.1, 0.6), "occluder": "features"}
    builders = {
        "asdn": lambda: ASDN(spec, threshold=-1),
        "conv": lambda: ASDN(spec, network="convolutional", threshold=-1),
        "occluding": lambda: ASDN(spec, threshold=-1, **occluding),
        "astn": lambda: ASTN(spec, scale=0.1, translation=0.1),
        "random": lambda: RandomDropout(spec),
        "windows": lambda: RandomDropout(spec, **occluding),
        "hard": lambda: HardDropout(spec),
    }
    names = name.split("+")
    return builders[name]() if len(names) == 1 else Chain(**{part: builders[part]() for part in names})


def test_the_detectors_losses_and_the_adversarys_loss_give_each_other_no_gradient(built):
    def gradients(loss, parameters):
        return torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True) if parameters else []

    names = "asdn conv astn random hard asdn+astn hard+astn astn+conv+random occluding+astn windows"
    for name in names.split():
        detector = copy.deepcopy(built).train()
        detector.roi_heads.adversary = build_adversary(name, detector)
        targets = [random_target(3, adversarial=number == 1) for number in range(2)]
        losses = detector(random_images(), [random_boxes(20) for _ in targets], targets)
        assert list(losses) == ["classification", "box_regression", "adversary"]
        adversary = list(detector.roi_heads.adversary.parameters())
        prefix = "roi_heads.adversary."
        detectors = [value for key, value in detector.named_parameters() if not key.startswith(prefix)]

        taught = gradients(losses["classification"] + losses["box_regression"], detectors + adversary)
        assert all(value is not None and value.isfinite().all() for value in taught[: len(detectors)]), name
        assert all(value is None for value in taught[len(detectors) :]), name
        assert losses["adversary"].requires_grad == bool(adversary), name
        if adversary:
            taught = gradients(losses["adversary"], adversary + detectors)
            assert all(value is not None for value in taught[: len(adversary)]), name
            assert any(value.any() for value in taught[: len(adversary)]), name
            assert all(value is None for value in taught[len(adversary) :]), name
        assert detector.metrics is detector.roi_heads.metrics
        assert any(metric.endswith("score_drop") for metric in detector.metrics)


def test_an_adversary_pretrains_on_foreground_without_a_gradient_for_the_detector(detector):
    asdn, targets = build_adversary("asdn", detector), [random_target(3), random_target(0), random_target(8)]
    proposals = [torch.cat([target["boxes"] + 1, random_boxes(20)]) for target in targets]
    features, labels = detector.pool_foreground(random_images(3), proposals, targets, per_image=4)
    assert (labels > 0).all()
    assert len(labels) == 8
    asdn.pretrain(features, labels, detector.roi_heads.frozen_head()).loss.backward()
    assert all(parameter.grad.any() for parameter in asdn.parameters())
    assert all(parameter.grad is None for parameter in detector.parameters())


@torch.no_grad()
def test_in_evaluation_adversary_and_jitter_are_not_asked_and_detections_keep_their_bits(detector):
    detector.eval()
    images, proposals = [torch.rand(3, 64, 64), torch.rand(3, 50, 70)], [random_boxes(20), random_boxes(20)]
    expected = detector(images, proposals)
    detector.roi_heads.adversary = adversary = Zeroing()
    detector.roi_heads.jitter = ProposalJitter(0.5, 0.5, 20)
    for one, other in zip(detector.eval()(images, proposals), expected, strict=True):
        assert len(one["boxes"])
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert not adversary.calls


def test_training_losses_are_those_of_features_of_which_the_adversarial_foreground_is_replaced(built):
    images, proposals = random_images(), [random_boxes(20) for _ in range(2)]
    objects = [random_target(3) for _ in range(2)]
    for flags in ([True, True], [False, True], [False, False], [None, None]):
        detector = copy.deepcopy(built).train()
        heads = detector.roi_heads
        nn.init.normal_(heads.predictor.cls_score.weight)
        targets = [
            target if flag is None else {**target, "adversarial": flag}
            for target, flag in zip(objects, flags, strict=True)
        ]
        torch.manual_seed(7)
        rois = heads.sample(proposals, targets)
        pooled = detector.pool(images, [rois.boxes[rois.image == image] for image in range(2)])
        plain = heads.box_losses(*heads.predictor(heads.box_head(pooled)), rois)
        hidden = (rois.labels > 0) & torch.tensor([bool(flag) for flag in flags])[rois.image]
        expected = heads.box_losses(*heads.predictor(heads.box_head(pooled * ~hidden.view(-1, 1, 1, 1))), rois)

        heads.adversary = adversary = Zeroing()
        torch.manual_seed(7)
        losses = detector(images, proposals, targets)
        assert torch.equal(adversary.labels, rois.labels[hidden])
        assert torch.equal(adversary.context.labels, rois.labels)
        torch.testing.assert_close(adversary.context.features, pooled)
        assert losses["adversary"] == hidden.sum()
        for name in ("classification", "box_regression"):
            torch.testing.assert_close(losses[name], expected[name])
            assert torch.equal(losses[name], plain[name]) == (not any(flags)), (flags, name)


def test_the_adversary_is_given_the_foreground_that_fits_its_object(detector):
    proposals, targets = [random_boxes(60) for _ in range(2)], [random_target(3, adversarial=True) for _ in range(2)]
    images = random_images()
    torch.manual_seed(7)
    rois = detector.roi_heads.sample(proposals, targets)
    iou = torch.stack(
        [
            box_iou(box[None], targets[image]["boxes"]).amax()
            for box, image in zip(rois.boxes, rois.image.tolist(), strict=True)
        ]
    )
    expected = rois.labels[(rois.labels > 0) & (iou >= 0.8)]
    detector.roi_heads.adversary, detector.roi_heads.least_iou = (adversary := Zeroing()), 0.8
    torch.manual_seed(7)
    detector(images, proposals, targets)
    assert torch.equal(adversary.labels, expected)
    assert 0 < len(expected) < (rois.labels > 0).sum()


def test_jittered_rois_are_pooled_turned_and_are_what_boxes_are_regressed_from(detector):
    images, proposals = random_images(), [random_boxes(40) for _ in range(2)]
    targets = [random_target(3, adversarial=number == 1) for number in range(2)]
    heads = detector.roi_heads
    heads.jitter = ProposalJitter(0.3, 0.3, 20)
    torch.manual_seed(7)
    rois, features = heads.sample(proposals, targets), detector.features(images)
    rois = heads.jitter(rois, features.sizes)
    assert (rois.angle != 0).any()
    pooled = heads.roi_pool(features, rois.boxes, rois.image, rois.angle)
    expected = heads.box_losses(*heads.predictor(heads.box_head(pooled)), rois)
    torch.manual_seed(7)
    losses = detector(images, proposals, targets)
    for name in losses:
        torch.testing.assert_close(losses[name], expected[name])


def test_without_foreground_to_perturb_every_parameter_of_the_adversary_gets_a_zero_gradient(built):
    for proposals, objects in [((20, 20), (2, 0)), ((20,), (0,)), ((0,), (0,)), ((0, 20), (0, 0)), ((20, 0), (2, 0))]:
        detector = copy.deepcopy(built)
        detector.roi_heads.adversary = build_adversary("asdn+astn", detector)
        targets = [random_target(count, adversarial=number > 0) for number, count in enumerate(objects)]
        losses = train_once(detector, [random_boxes(count) for count in proposals], targets)
        assert losses["adversary"] == 0, (proposals, objects)
        assert all(parameter.grad is not None for parameter in detector.parameters())
        assert not any(parameter.grad.any() for parameter in detector.roi_heads.adversary.parameters())


def test_measured_box_targets_are_those_of_foreground_proposals_and_the_objects_themselves(detector):
    targets = [random_target(3) for _ in range(20)]
    for target in targets:
        target["proposals"] = torch.cat([target["boxes"].repeat(5, 1) + 4 * torch.rand(15, 4), random_boxes(20)])
    detector.measure_box_targets(targets)
    measured = []
    for target in targets:
        for proposal in torch.cat([target["boxes"], target["proposals"]]):
            iou = box_iou(proposal[None], target["boxes"])[0]
            if iou.max() >= 0.5:
                measured.append(offsets(target["boxes"][iou.argmax()][None], proposal[None])[0])
    measured = torch.stack(measured).double()
    coder = detector.roi_heads.box_coder
    torch.testing.assert_close(coder.mean.double(), measured.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(coder.std.double(), measured.std(0, correction=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalisation", ["imagenet", "caffe"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_pixels_are_normalised_as_said_and_padded_with_zeros(normalisation, dtype):
    seen = []

    class Body(nn.Module):
        out_channels = 1

        def forward(self, batch):
            seen.append(batch)
            return batch[:, :1]

    detector = FastRCNN(Body(), nn.Identity(), short_side=48, long_side=48, normalisation=normalisation)
    images = [torch.randint(0, 256, (3, 48, 48), dtype=torch.uint8), torch.randint(0, 256, (3, 24, 48)).byte()]
    given = [image if dtype == torch.uint8 else image / 255 for image in images]
    before = [image.clone() for image in given]
    detector.eval().features(given)
    (batch,) = seen
    assert batch.shape == (2, 3, 64, 64)
    expected = torch.zeros(2, 3, 64, 64, dtype=torch.float64)
    for i, image in enumerate(images):
        for y in range(image.shape[1]):
            for x in range(image.shape[2]):
                red, green, blue = image[:, y, x].tolist()
                if normalisation == "caffe":
                    pixel = [blue - 102.9801, green - 115.9465, red - 122.7717]
                else:
                    pixel = [(red / 255 - 0.485) / 0.229, (green / 255 - 0.456) / 0.224, (blue / 255 - 0.406) / 0.225]
                expected[i, :, y, x] = torch.tensor(pixel)
    torch.testing.assert_close(batch.double(), expected, rtol=1e-5, atol=1e-4)
    assert all(torch.equal(*pair) for pair in zip(given, before, strict=True))  # the caller's images are unchanged
