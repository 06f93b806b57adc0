"""Two processes are as one with all their images: counts, turns of adversarial images, and gradients."""

import copy
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from afrcnn.adversaries.asdn import ASDN
from afrcnn.adversaries.astn import ASTN
from afrcnn.adversaries.chain import Chain
from afrcnn.core.distributed import mean_count, rank_and_size
from afrcnn.detectors.attach import _Turns, attach
from afrcnn.detectors.backbones import Backbone, FullyConnectedHead
from afrcnn.detectors.rcnn import fast_rcnn
from afrcnn.detectors.roi_pooling import RoIAlign
from afrcnn.detectors.sampling import RoISampler

COUNTS = [(3, 1), (0, 5), (0, 0), (1, 0), (4, 4)]
OBJECTS = [(1, 4), (0, 3), (0, 0)]


def build_detector(clean_fraction):
    """A detector and the fusion, where nothing is left to chance: all RoIs are sampled, all top cells hidden."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.ReLU()))
    box_head = FullyConnectedHead(nn.Linear(8 * 36, 16), nn.Linear(16, 16), dropout=0)
    backbone = Backbone(body, box_head, channels=8, pool_size=6, stride=8, offset=0.0, box_features=16, frozen_stages=0)
    detector = fast_rcnn(backbone, RoIAlign, 2, sampler=RoISampler(64, 0.5), short_side=64, long_side=64)
    nn.init.normal_(detector.roi_heads.predictor.cls_score.weight)
    spec = detector.box_head_spec
    # Every mask is a target: which one passes a threshold could turn on the last bit.
    attach(detector, Chain(asdn=ASDN(spec, top=1 / 3, threshold=-1), astn=ASTN(spec, scale=0.1)), clean_fraction)
    return detector.train()


def image_with_objects(number, count):
    """An image, proposals and target that depend on the numbers alone."""
    generator = torch.Generator().manual_seed(10 * number + count)
    corner = 30 * torch.rand(16 + count, 2, generator=generator)
    boxes = torch.cat([corner, corner + 10 + 20 * torch.rand(16 + count, 2, generator=generator)], dim=1)
    target = {"boxes": boxes[:count], "labels": torch.randint(1, 3, (count,), generator=generator)}
    return torch.rand(3, 64, 64, generator=generator), boxes[count:], target


def gradients(detector, examples):
    losses = detector(*map(list, zip(*examples, strict=True)))
    sum(losses.values()).backward()
    module = getattr(detector, "module", detector)
    return {name: parameter.grad for name, parameter in module.named_parameters()}, {
        name: loss.detach() for name, loss in losses.items()
    }


def process(rank, folder):
    """What one of two processes sees."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=2)
    report = {"rank": rank_and_size()}
    report["counts"] = [float(mean_count(counts[rank], torch.device("cpu"))) for counts in COUNTS]
    report["turns"] = {}
    for fraction in (0.0, 0.5, 1.0, 1 / 3):
        for images in (1, 2, 3):
            turns = _Turns(fraction)
            report["turns"][fraction, images] = [turns([{}] * images) for _ in range(4)]
    report["gradients"] = {}
    for fraction in (0.0, 0.5):
        for objects in OBJECTS:
            detector = DistributedDataParallel(build_detector(fraction))
            report["gradients"][fraction, objects] = gradients(detector, [image_with_objects(rank, objects[rank])])
    torch.save(report, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def reports(tmp_path_factory, pytestconfig):
    folder = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(pytestconfig.rootpath)  # where a new process finds this module
        multiprocessing.spawn(process, (folder,), nprocs=2)
    return [torch.load(Path(folder, f"{rank}.pt")) for rank in range(2)]


def test_a_process_alone_is_the_first_of_one_and_counts_at_least_one():
    assert rank_and_size() == (0, 1)
    assert [mean_count(count, torch.device("cpu")) for count in (0, 1, 7)] == [1, 1, 7]


def test_a_count_is_divided_over_processes_and_never_zero(reports):
    assert [report["rank"] for report in reports] == [(0, 2), (1, 2)]
    for report in reports:
        assert report["counts"] == [2, 2.5, pytest.approx(0.5), 0.5, 4]


def test_processes_take_turns_as_one_with_all_their_images(reports):
    for (fraction, images), first in reports[0]["turns"].items():
        second = reports[1]["turns"][fraction, images]
        together = _Turns(fraction)
        expected = [together([{}] * 2 * images) for _ in range(4)]
        assert [a + b for a, b in zip(first, second, strict=True)] == expected, (fraction, images)


@pytest.mark.parametrize("fraction", [0.0, 0.5])
@pytest.mark.parametrize("objects", OBJECTS)
def test_gradients_are_those_of_one_process_with_all_objects_for_detector_and_adversary(reports, fraction, objects):
    examples = [image_with_objects(number, count) for number, count in enumerate(objects)]
    detector = build_detector(fraction)
    expected, losses = gradients(detector, copy.deepcopy(examples))
    taught = {name for name, gradient in expected.items() if gradient.any()}
    assert any(name.startswith("roi_heads.adversary.") for name in taught) == (objects[1] > 0)
    for report in reports:
        measured, _ = report["gradients"][fraction, objects]
        assert measured.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(measured[name], gradient, rtol=0, atol=1e-6, msg=name)
    for name, loss in losses.items():
        mean = sum(report["gradients"][fraction, objects][1][name] for report in reports) / 2
        torch.testing.assert_close(mean, loss)
