"""Adversaries on torchvision's detectors and on ours: what a user's own loop may rely on."""

import copy
import io
import pickle
from functools import lru_cache

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models.detection import (
    FasterRCNN,
    MaskRCNN,
    fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_resnet50_fpn_v2,
    keypointrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn,
    retinanet_resnet50_fpn,
)
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import MultiScaleRoIAlign, box_iou

from afrcnn.adversaries.asdn import ASDN, ConvolutionalASDN
from afrcnn.adversaries.astn import ASTN
from afrcnn.adversaries.base import Adversary, AdversaryOutput
from afrcnn.adversaries.chain import Chain
from afrcnn.adversaries.dropout import RandomDropout
from afrcnn.detectors.attach import attach, box_head_spec, detach, pretraining_loss
from afrcnn.detectors.rcnn import FastRCNN
from reference import Zeroing
from tiny import build_fast_rcnn

CLASSES = 3
FEW = {
    "min_size": 64,
    "max_size": 96,
    "rpn_post_nms_top_n_train": 30,
    "rpn_post_nms_top_n_test": 30,
    "box_batch_size_per_image": 12,
    "box_score_thresh": 0.0,
    "box_detections_per_img": 3,
}


def backbone():
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
    layers.out_channels = 8
    return layers


def options(size=6):
    return FEW | {
        "rpn_anchor_generator": AnchorGenerator(sizes=((16, 32),)),
        "box_roi_pool": MultiScaleRoIAlign(["0"], size, 2),
    }


def plain_backbone():
    return FasterRCNN(
        backbone(), box_head=TwoMLPHead(8 * 6 * 6, 16), box_predictor=FastRCNNPredictor(16, CLASSES + 1), **options()
    )


def res5_like():
    head = nn.Sequential(
        nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return FasterRCNN(backbone(), box_head=head, box_predictor=FastRCNNPredictor(16, CLASSES + 1), **options(7))


def shared_pooling():
    """Masks are predicted from what the same module pools as for boxes."""
    model = MaskRCNN(
        backbone(),
        box_head=TwoMLPHead(8 * 6 * 6, 16),
        box_predictor=FastRCNNPredictor(16, CLASSES + 1),
        mask_head=MaskRCNNHeads(8, (8,), 1),
        mask_predictor=MaskRCNNPredictor(8, 8, CLASSES + 1),
        **options(),
    )
    model.roi_heads.mask_roi_pool = model.roi_heads.box_roi_pool
    return model


def torchvision_s(build):
    return lambda: build(weights=None, weights_backbone=None, num_classes=CLASSES + 1, **FEW)


def keypoints():
    return keypointrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES + 1, num_keypoints=2, **FEW
    )


def ours():
    return build_fast_rcnn(CLASSES, short_side=64, long_side=96)


LARGE = {
    "resnet50_fpn_v2": torchvision_s(fasterrcnn_resnet50_fpn_v2),
    "mobilenet_v3_large_fpn": torchvision_s(fasterrcnn_mobilenet_v3_large_fpn),
    "mask": torchvision_s(maskrcnn_resnet50_fpn),
    "keypoint": keypoints,
}
SMALL = {"plain_backbone": plain_backbone, "res5_like": res5_like, "shared_pooling": shared_pooling, "ours": ours}


@lru_cache
def _built(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return (LARGE | SMALL)[name]().eval()


def build(name):
    return copy.deepcopy(_built(name)).train()


def sample(objects=2):
    """One image of noise with objects, and all that any detector's targets hold."""
    corner = torch.rand(objects, 2) * 40
    boxes = torch.cat([corner, corner + 10 + torch.rand(objects, 2) * 20], dim=1)
    points = (boxes[:, None, :2] + boxes[:, None, 2:]).expand(-1, 2, -1) / 2
    target = {
        "boxes": boxes,
        "labels": torch.randint(1, CLASSES + 1, (objects,)),
        "masks": (torch.rand(objects, 72, 80) > 0.5).byte(),
        "keypoints": torch.cat([points, torch.ones(objects, 2, 1)], dim=2),
    }
    return torch.rand(3, 72, 80), target


def batch(images=2, objects=2):
    images, targets = zip(*[sample(objects) for _ in range(images)], strict=True)
    return list(images), list(targets)


def run(model, images, targets, seed=0):
    torch.manual_seed(seed)
    if isinstance(model, FastRCNN):
        proposals = [torch.cat([target["boxes"], target["boxes"] + 2]) for target in targets]
        return model(images, proposals, targets)
    return model(images, targets) if model.training else model(images)


def fusion(model):
    """The paper's, small where the detector is large; every mask counts, so that there is a gradient to look for."""
    spec = box_head_spec(model)
    if spec.features > 100:
        layers = nn.Sequential(nn.Flatten(), nn.Linear(spec.channels * spec.size**2, 16))
        spec = spec._replace(layers=layers, features=16)
    asdn = ASDN(spec, threshold=-1)
    if isinstance(spec.layers, nn.Sequential):
        asdn.network = ConvolutionalASDN(spec, width=4)
    return Chain(asdn=asdn, astn=ASTN(spec))


def prefix_of(model):
    """What the names of the adversary's tensors begin with."""
    return "roi_heads.adversary." if isinstance(model, FastRCNN) else "seam.adversary."


def adversary_of(model):
    return model.get_submodule(prefix_of(model).removesuffix("."))


def anatomy(model):
    """Everything that a module holds, by name: attributes, children, hooks."""
    hooks = {
        "_forward_hooks",
        "_forward_pre_hooks",
        "_forward_pre_hooks_with_kwargs",
        "_backward_hooks",
        "_state_dict_hooks",
    }
    return {
        name: (sorted(vars(part)), list(part._modules), [len(vars(part)[hook]) for hook in sorted(hooks)])
        for name, part in model.named_modules()
    }


def own_key(model):
    return "adversary" if isinstance(model, FastRCNN) else "loss_adversary"


def move(model, _):
    model.to("meta")


def assert_same(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=0)


every_detector = pytest.mark.parametrize("name", [*LARGE, *SMALL])
every_small_detector = pytest.mark.parametrize("name", [*SMALL])


@every_detector
def test_the_losses_have_one_more_and_those_of_proposals_masks_and_keypoints_are_as_without(name):
    plain, model = build(name), build(name)
    attach(model, fusion(model))
    images, targets = batch()
    expected, losses = run(plain, images, targets), run(model, images, targets)
    assert {*losses} == {*expected, own_key(model)}
    for key, loss in losses.items():
        if key in {"loss_objectness", "loss_rpn_box_reg", "loss_mask", "loss_keypoint"}:
            assert_same(loss, expected[key])
        elif key in {"loss_classifier", "classification"}:
            assert loss != expected[key]


@every_detector
def test_detections_are_the_same_bits_with_an_adversary(name):
    model = build(name).eval()
    images, targets = batch()
    expected = run(model, images, targets)
    attach(model, fusion(model))
    assert len(expected[0]["boxes"])
    assert_same(run(model, images, targets), expected)


@every_detector
def test_a_detector_is_what_it_was_when_the_adversary_is_detached(name):
    model = build(name)
    images, targets = batch()
    run(model, images, targets)  # what poolers keep about the first images that they see
    parts, state = anatomy(model), copy.deepcopy(model.state_dict())
    expected = run(model, images, targets)
    model.load_state_dict(state)

    adversary = fusion(model)
    attach(model, adversary)
    run(model, images, targets)
    assert detach(model) is adversary
    assert anatomy(model) == parts
    assert list(model.state_dict()) == list(state)
    model.load_state_dict(state)
    assert_same(run(model, images, targets), expected)


@every_detector
def test_an_adversary_is_made_for_the_features_that_the_box_head_is_given(name):
    model, seen = build(name), []
    spec = box_head_spec(model)
    spec.layers.register_forward_hook(lambda _, given, made: seen.extend((given[0], made)))
    run(model, *batch())
    features, vectors = seen
    assert features.shape[1:] == (spec.channels, spec.size, spec.size)
    assert vectors.flatten(1).shape[1] == spec.features
    assert ASDN(spec).explain(features)["heatmap"].shape == (len(features), spec.size, spec.size)
    assert ASTN(spec).explain(features)["angles"].shape == (len(features), 4)


@every_small_detector
def test_the_adversary_is_in_the_state_dict_under_one_prefix_behind_the_detector_s(name):
    model, other = build(name), build(name)
    before = list(model.state_dict())
    attach(model, fusion(model))
    after = list(model.state_dict())
    assert after[: len(before)] == before
    assert len(after) > len(before)
    assert all(key.startswith(prefix_of(model)) for key in after[len(before) :])
    attach(other, fusion(other))
    other.load_state_dict(model.state_dict())
    assert_same(dict(other.state_dict()), dict(model.state_dict()))


@every_small_detector
@pytest.mark.parametrize("order", [(attach, move), (move, attach)])
def test_the_adversary_moves_to_where_the_detector_is_and_with_it(name, order):
    model = build(name)
    adversary = fusion(model)
    for step in order:
        step(model, adversary)
    assert {value.device.type for value in adversary.parameters()} == {"meta"}


@every_small_detector
def test_neither_loss_gives_the_other_s_parameters_a_gradient(name):
    model = build(name)
    attach(model, fusion(model))
    adversary = {id(value) for value in adversary_of(model).parameters()}
    losses = run(model, *batch())
    own = losses.pop(own_key(model))
    own.backward(retain_graph=True)
    for parameter in model.parameters():
        assert (parameter.grad is not None) == (id(parameter) in adversary)
    model.zero_grad()
    sum(losses.values()).backward()
    for parameter in model.parameters():
        assert parameter.grad is None or id(parameter) not in adversary
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["resnet50_fpn_v2", *SMALL])
def test_detector_and_adversary_learn_in_one_step_of_an_ordinary_optimiser(name):
    model = build(name)
    attach(model, fusion(model))
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.01)
    before = {key: value.clone() for key, value in model.named_parameters()}
    sum(run(model, *batch()).values()).backward()
    optimizer.step()
    learned = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    prefixes = ["roi_heads.box_head.", "backbone.", *([] if isinstance(model, FastRCNN) else ["rpn."])]
    for prefix in (*prefixes, f"{prefix_of(model)}asdn.", f"{prefix_of(model)}astn."):
        assert any(key.startswith(prefix) for key in learned), prefix


@every_small_detector
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_an_attached_detector_is_independent_of_it(name, copied):
    model = build(name)
    attach(model, fusion(model))
    images, targets = batch()
    twin = copied(model)
    expected = copy.deepcopy(model.state_dict())
    losses = run(twin, images, targets)
    sum(losses.values()).backward()
    assert all(value.grad is not None for value in adversary_of(twin).parameters())
    assert all(value.grad is None for value in model.parameters())
    assert_same(dict(model.state_dict()), dict(expected))
    assert_same(run(model, images, targets), losses)

    detach(twin)
    assert own_key(model) in run(model, images, targets)
    assert own_key(model) not in run(twin, images, targets)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:RCNN always returns")
def test_a_detector_scripts_and_pickles_once_the_adversary_is_detached():
    model = build("plain_backbone")
    attach(model, fusion(model))
    run(model, *batch())
    detach(model)
    images, _ = batch()
    with torch.no_grad():
        expected = model.eval()(images)
        assert_same(torch.jit.script(model)(images)[1], expected)
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        assert_same(torch.load(file, weights_only=False)(images), expected)


class Recorder(RoIHeads):
    """A class of one's own, which renames the classes of its samples."""

    def select_training_samples(self, proposals, targets):
        proposals, matched, labels, offsets = super().select_training_samples(proposals, targets)
        self.labels = [(CLASSES + 1 - label) * (label > 0) for label in labels]
        self.samples, self.objects = proposals, [target["boxes"] for target in targets]
        return proposals, matched, self.labels, offsets


@pytest.mark.parametrize("name", ["plain_backbone", "res5_like", "shared_pooling"])
@pytest.mark.parametrize("clean_fraction", [0.0, 0.5, 1.0])
def test_the_foreground_of_adversarial_images_is_replaced_for_the_box_head_alone(name, clean_fraction):
    model, given = build(name), {}
    model.roi_heads.__class__ = Recorder
    # The adversary calls the box head as well, before the detector does: the last call is the detector's.
    model.roi_heads.box_head.register_forward_pre_hook(lambda _, features: given.update(box=features[0].detach()))
    if model.roi_heads.has_mask():
        model.roi_heads.mask_head.register_forward_pre_hook(lambda _, features: given.update(mask=features[0].detach()))
    state, images_and_targets = copy.deepcopy(model.state_dict()), batch(4)
    run(model, *images_and_targets)
    plain = dict(given)
    model.load_state_dict(state)

    adversary = Zeroing()
    attach(model, adversary, clean_fraction)
    run(model, *images_and_targets)

    labels = model.roi_heads.labels
    clean = {0.0: [], 0.5: [0, 2], 1.0: [0, 1, 2, 3]}[clean_fraction]
    hidden = torch.cat([(label > 0) & (image not in clean) for image, label in enumerate(labels)])
    assert hidden.any() == (clean_fraction < 1)
    assert_same(adversary.labels, torch.cat(labels)[hidden])
    assert_same(adversary.features, plain["box"][hidden])
    assert_same(given.pop("box"), plain.pop("box") * ~hidden[:, None, None, None])
    assert_same(given, plain)  # what the mask branch is given


@pytest.mark.parametrize("least_iou", [0.0, 0.6, 1.0])
def test_of_the_foreground_the_adversary_is_given_what_fits_its_object(least_iou):
    model = build("plain_backbone")
    model.roi_heads.__class__ = Recorder
    attach(model, adversary := Zeroing(), clean_fraction=0.0, least_iou=least_iou)
    images, targets = batch(4)
    targets[2] = {name: value[:0] for name, value in targets[2].items()}
    run(model, images, targets)
    given = [
        label
        for labels, rois, boxes in zip(
            model.roi_heads.labels, model.roi_heads.samples, model.roi_heads.objects, strict=True
        )
        for label, roi in zip(labels.tolist(), rois, strict=True)
        if label and max(float(box_iou(roi[None], box[None])) for box in boxes) >= least_iou
    ]
    assert adversary.labels.tolist() == given
    foreground = sum(int((labels > 0).sum()) for labels in model.roi_heads.labels)
    assert 0 < len(given) <= foreground
    assert (len(given) == foreground) == (least_iou == 0)


def test_the_adversary_competes_with_the_predictor_that_is_there_now():
    model, adversary = build("plain_backbone"), Zeroing()
    attach(model, adversary)
    model.roi_heads.box_predictor = FastRCNNPredictor(16, 7)
    run(model, *batch())
    assert adversary.head.logits(adversary.features).shape[1] == 7


@every_small_detector
def test_images_without_objects_give_a_loss_of_zero_that_every_parameter_takes_part_in(name):
    model = build(name)
    attach(model, fusion(model), clean_fraction=0)
    losses = run(model, *batch(objects=0))
    assert losses[own_key(model)] == 0
    sum(losses.values()).backward()
    assert all(value.grad is not None and not value.grad.any() for value in adversary_of(model).parameters())


def test_an_interrupted_update_leaves_nothing_for_the_next():
    model = build("plain_backbone")
    attach(model, fusion(model))
    images, targets = batch()
    expected = run(copy.deepcopy(model).eval(), images, targets)
    interruption = model.roi_heads.box_roi_pool.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(model, images, targets)
    interruption.remove()
    model.load_state_dict(build("plain_backbone").state_dict(), strict=False)
    assert_same(run(model.eval(), images, targets), expected)


def distributed_gradients(rank, folder):
    """Two updates of one of two processes, each with an image of its own; the gradients of the second."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = build("plain_backbone")
    torch.manual_seed(0)
    attach(model, fusion(model))
    distributed = DistributedDataParallel(model)
    torch.manual_seed(rank + 1)
    for _ in range(2):
        images, targets = batch(1)
        distributed.zero_grad()
        sum(distributed(images, targets).values()).backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    torch.save((gradients, model.seam.turns.count), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_train_detector_and_adversary_with_the_same_gradients(tmp_path):
    multiprocessing.start_processes(distributed_gradients, (str(tmp_path),), nprocs=2, start_method="fork")
    (one, count), other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert_same((one, count), other)
    assert count == 4  # images_and_targets, of both processes
    assert all(value is not None for value in one.values())
    assert any(value.any() for name, value in one.items() if name.startswith("seam."))


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("name", ["plain_backbone", "res5_like", "shared_pooling"])
def test_asdn_learns_from_a_frozen_detector_which_stays_as_it_is(name, attached):
    model = build(name)
    model.roi_heads.box_head.eval()  # modes stay too
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight)
    asdn = ASDN(box_head_spec(model))
    asdn.network = ConvolutionalASDN(box_head_spec(model), width=8)
    if attached:
        attach(model, asdn)
    state = {key: value.clone() for key, value in model.state_dict().items() if not key.startswith("seam.adversary")}
    modes = [part.training for part in model.modules()]
    images_and_targets = batch()
    optimizer = torch.optim.SGD(asdn.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(40):
        torch.manual_seed(0)
        loss = pretraining_loss(model, asdn, *images_and_targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    assert_same({key: model.state_dict()[key] for key in state}, state)
    assert [part.training for part in model.modules()] == modes
    assert all(value.grad is None for key, value in model.named_parameters() if not key.startswith("seam."))


def test_adversaries_meet_in_pretraining_the_foreground_of_every_image():
    model, adversary = build("plain_backbone"), Zeroing()
    model.roi_heads.__class__ = Recorder
    pretraining_loss(model, adversary, *batch(3))
    assert len(adversary.labels) >= 6  # the objects themselves are among the samples
    assert_same(adversary.labels, torch.cat([label[label > 0] for label in model.roi_heads.labels]))
    assert len(adversary.features) == len(adversary.labels)


@every_small_detector
def test_a_second_adversary_and_a_missing_one_are_refused(name):
    model = build(name)
    with pytest.raises(ValueError, match="has no adversary"):
        detach(model)
    adversary = fusion(model)
    attach(model, adversary)
    with pytest.raises(ValueError, match="already"):
        attach(model, fusion(model))
    assert detach(model) is adversary
    with pytest.raises(ValueError, match="has no adversary"):
        detach(model)
    attach(model, adversary)
    assert own_key(model) in run(model, *batch())


@pytest.mark.parametrize("other", [nn.Linear(1, 1), retinanet_resnet50_fpn(weights=None, weights_backbone=None)])
def test_what_is_no_two_stage_detector_is_refused_by_name(other):
    for call in (detach, box_head_spec, lambda model: attach(model, Zeroing())):
        with pytest.raises(TypeError, match=f"^{type(other).__name__} is not a two-stage detector"):
            call(other)
    with pytest.raises(TypeError, match="two-stage"):
        pretraining_loss(other, Zeroing(), *batch())


def test_features_that_are_not_square_are_refused():
    model = build("plain_backbone")
    model.roi_heads.box_roi_pool = MultiScaleRoIAlign(["0"], (4, 9), 2)
    with pytest.raises(ValueError, match="4 x 9"):
        box_head_spec(model)


@every_small_detector
def test_the_context_is_all_rois_of_the_update(name):
    model = build(name)
    attach(model, adversary := Zeroing(), 0.0)
    run(model, *batch())
    features, labels = adversary.context
    assert len(features) == len(labels)
    assert not features.requires_grad
    assert len(labels[labels > 0]) == len(adversary.labels)
    assert name == "ours" or (labels == 0).any()


@every_small_detector
def test_objects_are_hidden_behind_others(name):
    model = build(name)
    options = {"mask": "window", "fraction": (0.1, 0.6), "occluder": "features"}
    attach(model, RandomDropout(box_head_spec(model), **options), 0.0)
    assert all(loss.isfinite() for loss in run(model, *batch()).values())


class Fading(Adversary):
    """A user's own: fades an object by a factor that it learns for each class."""

    def __init__(self, num_classes):
        super().__init__()
        self.factors = nn.Embedding(num_classes + 1, 1)

    def forward(self, features, labels, head, context=None):
        factor = self.factors(labels).sigmoid()[..., None, None]  # n x 1 x 1 x 1
        losses = head.losses(features.detach() * factor, labels)
        return AdversaryOutput(
            features * factor.detach(), -losses.sum() / max(len(labels), 1), {"factor": factor.mean()}
        )


@every_small_detector
def test_an_adversary_of_ones_own_in_twenty_lines_is_attached_and_learns(name):
    model = build(name)
    nn.init.normal_((model.roi_heads.predictor if name == "ours" else model.roi_heads.box_predictor).cls_score.weight)
    attach(model, adversary := Fading(CLASSES), clean_fraction=0)
    run(model, *batch())[own_key(model)].backward()
    assert adversary.factors.weight.grad.any()
    assert all(value.grad is None for key, value in model.named_parameters() if not key.startswith(prefix_of(model)))


@every_small_detector
def test_images_take_turns_from_update_to_update_where_targets_do_not_say_whose_it_is(name):
    model = build(name)
    attach(model, adversary := Zeroing(), clean_fraction=0.5)
    for update in range(6):
        images, targets = batch(1)
        keys = set(targets[0])
        run(model, images, targets)
        assert (len(adversary.labels) > 0) == (update % 2 == 1), update
        assert set(targets[0]) == keys  # what is given stays as it is


@every_small_detector
def test_what_targets_say_of_their_turns_wins(name):
    model = build(name)
    attach(model, adversary := Zeroing(), clean_fraction=0.5)
    images, targets = batch(2)
    for flags, expected in (
        ((True, False), (True, False)),
        ((False, True), (False, True)),
        ((False, False), (False, False)),
        ((True, None), (True, True)),
        ((None, False), (False, False)),
    ):
        said = [
            target if flag is None else {**target, "adversarial": flag}
            for target, flag in zip(targets, flags, strict=True)
        ]
        run(model, images, said)
        labels = set(adversary.labels.tolist())
        objects = [set(target["labels"].tolist()) for target in targets]
        allowed = set().union(*(image for image, turn in zip(objects, expected, strict=True) if turn))
        assert labels <= allowed, flags
        assert bool(labels) == any(expected), flags


def test_turns_are_taken_however_targets_are_given():
    model = build("ours")
    attach(model, adversary := Zeroing(), clean_fraction=0)
    images, targets = batch()
    proposals = [target["boxes"] for target in targets]
    for call in (
        lambda: model(images, proposals, targets),
        lambda: model(images, proposals, targets=targets),
        lambda: model(images=images, proposals=proposals, targets=targets),
    ):
        call()
        assert len(adversary.labels) >= 4
    for arguments in ((), (None,)):
        with pytest.raises(ValueError, match="targets are needed"):
            model(images, proposals, *arguments)
    assert adversary.calls == 3
    model.eval()(images, proposals, targets)
    assert adversary.calls == 3


def test_a_pooling_in_evaluation_mode_takes_part_in_training():
    """As a user sets it who freezes modules by hand."""
    model = build("plain_backbone")
    attach(model, adversary := Zeroing(), clean_fraction=0)
    model.roi_heads.box_roi_pool.eval()
    losses = run(model, *batch())
    assert losses["loss_adversary"] == len(adversary.labels) > 0


def test_pretraining_on_an_attached_detector_takes_no_turn_and_asks_the_adversary_once():
    model = build("plain_backbone")
    attach(model, adversary := Zeroing(), clean_fraction=0.5)
    images, targets = batch(1)
    for _ in range(3):
        calls = adversary.calls
        pretraining_loss(model, adversary, images, targets)
        assert adversary.calls == calls + 1
        assert len(adversary.labels)
    run(model, images, targets)
    assert not len(adversary.labels)  # the first image of the training is clean
    run(model, images, targets)
    assert len(adversary.labels)


def test_an_adversary_that_derives_from_something_else_is_refused():
    for name in ("plain_backbone", "ours"):
        with pytest.raises(TypeError, match=r"Linear does not derive from afrcnn\.Adversary"):
            attach(build(name), nn.Linear(1, 1))


@every_small_detector
def test_a_least_iou_and_a_clean_fraction_beyond_zero_and_one_are_refused(name):
    for value in (-0.1, 1.1, float("nan")):
        for option in ("clean_fraction", "least_iou"):
            model = build(name)
            parts = anatomy(model)
            with pytest.raises(ValueError, match=rf"a {option.split('_')[0]} .* is not in \[0, 1\]"):
                attach(model, Zeroing(), **{option: value})
            assert anatomy(model) == parts


def test_a_least_iou_goes_with_its_adversary():
    model = build("ours")
    attach(model, Zeroing(), least_iou=0.8)
    assert model.roi_heads.least_iou == 0.8
    detach(model)
    assert model.roi_heads.least_iou == 0
