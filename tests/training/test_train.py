"""Training: killed, resumed, shared by two processes, stopped; and each of its steps against the definition."""

import csv
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.ops import box_iou
from torchvision.transforms import v2

from afrcnn.build import build_detector, load_detector, open_split
from afrcnn.core.engine import build_training_fabric
from afrcnn.core.errors import UserError
from afrcnn.data.transforms import CopyPaste, CutOut, RandomErasing
from afrcnn.detectors.backbones import small
from afrcnn.detectors.rcnn import fast_rcnn
from afrcnn.detectors.roi_pooling import RoIAlign
from afrcnn.recipe import (
    AugmentationRecipe,
    DataRecipe,
    JointRecipe,
    ScheduleRecipe,
)
from afrcnn.run import Run
from afrcnn.training.optimizer import build_optimizer, learning_rate
from afrcnn.training.samples import _order, build_augmentation, seed_of, trainable
from afrcnn.training.step import step
from afrcnn.training.train import train_stages

ITERATIONS = 6


def with_schedule(recipe, **fields):
    return replace(recipe, schedule=replace(recipe.schedule, **fields))


def with_data(recipe, **fields):
    return replace(recipe, data=replace(recipe.data, **fields))


def weights(folder):
    return load_file(Run(folder).weights_file)


def logged_iterations(folder):
    with Run(folder).log_file.open(newline="") as lines:
        return [int(row["iteration"]) for row in csv.DictReader(lines)]


def assert_ends_as(folder, reference):
    """A run has just the weights and the logged iterations of another, and nothing half-written."""
    ours, theirs = weights(folder), weights(reference)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert logged_iterations(folder) == logged_iterations(reference) == list(range(1, ITERATIONS + 1))
    assert not list(folder.rglob("*.part"))


def test_the_same_recipe_trains_the_same_bits_with_any_number_of_loaders(recipe, tmp_path):
    train_stages(recipe, tmp_path / "one")
    train_stages(with_data(recipe, workers=2), tmp_path / "two")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    train_stages(replace(recipe, seed=1), tmp_path / "other")
    other = weights(tmp_path / "other")
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_finished_run_is_left_as_it_is(recipe, tmp_path):
    train_stages(recipe, tmp_path / "run")
    run = Run(tmp_path / "run")
    before = [file.read_bytes() for file in (run.weights_file, run.log_file, run.checkpoint_file)]
    train_stages(recipe, tmp_path / "run")
    assert [file.read_bytes() for file in (run.weights_file, run.log_file, run.checkpoint_file)] == before


def test_the_run_holds_the_resolved_recipe_and_the_trained_detector(recipe, tmp_path):
    run = train_stages(recipe, tmp_path / "run")
    assert run.recipe == with_data(recipe, classes=["blue", "red"])
    detector = load_detector(run)
    assert not detector.training
    saved = weights(tmp_path / "run")
    assert all(torch.equal(value, saved[name]) for name, value in detector.state_dict().items())


def test_frozen_stages_stay_and_the_others_move(recipe, tmp_path):
    frozen = replace(recipe, detector=replace(recipe.detector, frozen_stages=2))
    run = train_stages(with_schedule(frozen, iterations=2), tmp_path / "run")
    trained = weights(tmp_path / "run")
    torch.manual_seed(recipe.seed)
    for name, value in build_detector(frozen.detector, 2).named_parameters():
        assert torch.equal(trained[name], value) == name.startswith(("backbone.conv1.", "backbone.conv2.")), name
    assert run.weights_file.is_file()


def blackened(image_id):
    """A transform that makes an image's pixels no numbers."""

    def transform(image, target):
        return image / 255 * (float("nan") if target["image_id"] == image_id else 1), target

    return transform


def test_a_loss_that_is_not_finite_stops_with_iteration_and_images_and_the_checkpoint_is_kept(recipe, tmp_path):
    run = Run(tmp_path / "run")
    ids = open_split(recipe, "trainval").ids
    first_epoch = [ids[index] for index in _order(seed_of(recipe.seed, 1), 0, len(ids))]
    with pytest.raises(UserError) as caught:
        train_stages(recipe, run.folder, transform=blackened(first_epoch[4]))
    message = str(caught.value)
    assert "the loss of iteration 3 is not finite" in message and "\n" not in message
    assert all((image_id in message) == (image_id in first_epoch[4:6]) for image_id in ids)
    assert "the last checkpoint remains" in message
    assert torch.load(run.checkpoint_file)["iteration"] == 2
    assert logged_iterations(run.folder) == [1, 2]
    assert not run.weights_file.exists()


def test_weights_that_are_not_finite_get_no_checkpoint(recipe, tmp_path):
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match=r"the weights after iteration 1 are not finite.*no checkpoint was written"):
        train_stages(with_schedule(recipe, learning_rate=3e38, checkpoint_every=1), run.folder)
    assert not run.checkpoint_file.exists() and not run.weights_file.exists()


def test_a_disk_that_fills_stops_the_run_and_the_last_checkpoint_goes_on(recipe, tmp_path, monkeypatch):
    train_stages(recipe, tmp_path / "whole")
    folder = tmp_path / "run"
    save, calls = torch.save, []

    def fill_at_the_second(state, file):
        calls.append(state)
        if len(calls) == 2:
            file.write(b"the first bytes")
            raise OSError(28, "No space left on device")
        save(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fill_at_the_second)
        with pytest.raises(UserError, match=r"checkpoint\.pt: cannot be written \(No space left on device\)"):
            train_stages(recipe, folder)
    assert torch.load(Run(folder).checkpoint_file)["iteration"] == 2
    assert not list(folder.rglob("*.part"))
    train_stages(recipe, folder)
    assert_ends_as(folder, tmp_path / "whole")


RIVALS = ["random_erasing", "cutout", "copy_paste", "ohem"]


def with_rival(recipe, name, stages):
    if name == "ohem":
        return replace(recipe, detector=replace(recipe.detector, ohem=stages))
    return with_data(recipe, augmentation=AugmentationRecipe(**{name: 1.0}, stages=stages))


@pytest.mark.parametrize("name", RIVALS)
def test_each_rival_acts_in_the_stages_that_are_named_and_in_no_other(name, recipe, tmp_path):
    joint = JointRecipe(iterations=1, learning_rate=0.01)
    two = replace(with_schedule(recipe, iterations=1), joint=joint)
    runs = [
        train_stages(two if stages is None else with_rival(two, name, stages), tmp_path / str(number))
        for number, stages in enumerate([None, [], ["joint"], ["detector"]])
    ]
    first = [[value.tolist() for value in load_file(run.detector_file).values()] for run in runs]
    assert first[0] == first[1] == first[2] != first[3]
    last = [[value.tolist() for value in load_file(run.weights_file).values()] for run in runs]
    assert last[0] == last[1] and last[1] != last[2] != last[3] != last[1]


@pytest.mark.parametrize("name", RIVALS)
def test_with_a_rival_an_interrupted_run_ends_with_the_same_bits_whatever_loads(name, recipe, tmp_path):
    recipe = with_rival(recipe, name, ["detector"])
    train_stages(recipe, tmp_path / "whole")
    ids = open_split(recipe, "trainval").ids
    bad = ids[_order(seed_of(recipe.seed, 1), 0, len(ids))[4]]
    with pytest.raises(UserError, match="the loss of iteration 3 is not finite"):
        train_stages(recipe, tmp_path / "run", transform=blackened(bad))
    train_stages(recipe, tmp_path / "run")
    assert_ends_as(tmp_path / "run", tmp_path / "whole")
    train_stages(with_data(recipe, workers=2), tmp_path / "workers")
    assert_ends_as(tmp_path / "workers", tmp_path / "whole")


def test_augmentation_has_the_fields_of_the_recipe(recipe):
    dataset = open_split(recipe, "trainval")
    assert build_augmentation(DataRecipe(), dataset) == []
    fields = AugmentationRecipe(random_erasing=0.25, cutout=0.5, cutout_fraction=0.4, copy_paste=0.75)
    paste, cut_out, erasing = build_augmentation(DataRecipe(use_difficult=True, flip=0.1, augmentation=fields), dataset)
    assert isinstance(paste, v2.RandomApply) and paste.p == 0.75
    assert isinstance(paste.transforms[0], CopyPaste) and paste.transforms[0].mirror.p == 0.1
    sources = paste.transforms[0].samples
    assert sources.samples.use_difficult and len(sources) == len(dataset)
    assert isinstance(cut_out, v2.RandomApply) and cut_out.p == 0.5
    assert isinstance(cut_out.transforms[0], CutOut) and cut_out.transforms[0].fraction == 0.4
    assert isinstance(erasing, RandomErasing) and erasing.erase.p == 0.25


@pytest.fixture
def begun(recipe, tmp_path):
    """A run of two updates of six, and its recipe."""
    bad = blackened(open_split(recipe, "trainval").ids[_order(recipe.seed, 0, 6)[4]])
    with pytest.raises(UserError):
        train_stages(recipe, tmp_path / "begun", transform=bad)
    return Run(tmp_path / "begun")


def test_a_truncated_checkpoint_is_named_and_left(recipe, begun):
    data = begun.checkpoint_file.read_bytes()[:-1000]
    begun.checkpoint_file.write_bytes(data)
    with pytest.raises(UserError, match=r"checkpoint\.pt: is not a valid checkpoint"):
        train_stages(recipe, begun.folder)
    assert begun.checkpoint_file.read_bytes() == data


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: {"weights": state["detector"]}, "iteration is missing"),
        (lambda state: {name: value for name, value in state.items() if name != "format"}, "another version"),
        (lambda state: {**state, "detector": {"fc.weight": torch.zeros(3)}}, "another model"),
        (lambda state: {**state, "randomness": state["randomness"] * 2}, "2 processes, not 1"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_by_file(change, named, recipe, begun):
    torch.save(change(torch.load(begun.checkpoint_file)), begun.checkpoint_file)
    with pytest.raises(UserError, match=named) as caught:
        train_stages(recipe, begun.folder)
    assert str(caught.value).startswith(f"{begun.checkpoint_file}: ")
    assert not begun.weights_file.exists()


def test_a_run_folder_with_another_recipe_is_refused(recipe, begun):
    before = begun.checkpoint_file.read_bytes()
    with pytest.raises(UserError, match=r"learning_rate: 0\.01"):
        train_stages(with_schedule(recipe, learning_rate=0.02), begun.folder)
    assert begun.checkpoint_file.read_bytes() == before


def test_an_image_that_cannot_be_read_is_named(recipe, rectangles, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(rectangles, root)
    (root / "JPEGImages" / "trainval_3.jpg").unlink()
    with pytest.raises(UserError, match=r"trainval_3\.jpg"):
        train_stages(with_data(recipe, root=str(root)), tmp_path / "run")


def test_the_learning_rate_warms_up_and_falls_after_the_named_iterations():
    schedule = ScheduleRecipe(learning_rate=2.0, warmup_iterations=3, decay_at=[7, 5], decay_factor=0.5)
    rates = [learning_rate(iteration, schedule) for iteration in range(9)]
    assert rates == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 1.0, 1.0, 0.5, 0.5])
    assert learning_rate(0, ScheduleRecipe()) == 0.001
    assert learning_rate(59_999, ScheduleRecipe()) == 0.001
    assert learning_rate(60_000, ScheduleRecipe()) == pytest.approx(0.0001)


class Regression(nn.Module):
    """A model whose loss is a mean over the RoIs of all images that it is given, of a weight times a number each."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.metrics = {}

    def forward(self, images, proposals, targets):
        self.metrics = {"rois": torch.tensor(float(sum(map(len, proposals))))}
        return {"one": self.weight * torch.cat(proposals).mean(), "two": 3 * self.weight * torch.cat(proposals).mean()}


@pytest.mark.parametrize(("at_once", "parts"), [(1, [[0], [1], [2]]), (2, [[0, 1], [2]]), (None, [[0, 1, 2]])])
def test_some_images_at_a_time_count_by_their_fraction_of_the_images(at_once, parts):
    """As with Caffe's iter_size: means over the RoIs of a part, whatever their number."""
    fabric = build_training_fabric("cpu")
    model, optimizer = fabric.setup(module := Regression(), torch.optim.SGD(module.parameters(), lr=1.0))
    model.module.weight.grad = torch.tensor(100.0)  # of an update before
    values = [torch.tensor([1.0, 2, 3]), torch.tensor([10.0]), torch.tensor([7.0, 8])]
    batch = [torch.zeros(3, 4, 4)] * 3, [{"proposals": value, "adversarial": False} for value in values]
    losses, metrics = step(fabric, model, optimizer, batch, at_once)
    expected = sum(len(part) / 3 * torch.cat([values[image] for image in part]).mean() for part in parts)
    torch.testing.assert_close(model.module.weight.grad, 4 * expected)
    torch.testing.assert_close(losses, {"one": 2 * expected, "two": 6 * expected, "loss": 8 * expected})
    assert metrics == [("rois", sum(len(values[image]) for image in part)) for part in parts]


@pytest.fixture
def detector():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return fast_rcnn(small(), RoIAlign, 2, frozen_stages=1)


@pytest.mark.parametrize("backbone", [None, 0.5])
def test_biases_have_a_learning_rate_and_a_weight_decay_of_their_own(detector, backbone):
    schedule = ScheduleRecipe(
        learning_rate=0.1,
        momentum=0.5,
        weight_decay=0.01,
        bias_learning_rate_factor=3.0,
        bias_weight_decay=0.25,
        backbone_bias_weight_decay=backbone,
    )
    optimizer = build_optimizer(detector, schedule)
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * group["rate_factor"]
    torch.manual_seed(0)
    plain = {name: value.detach().clone() for name, value in detector.named_parameters()}
    velocity = {name: torch.zeros_like(value) for name, value in plain.items()}
    for _ in range(3):
        for name, value in detector.named_parameters():
            value.grad = torch.randn_like(value)
            if name.startswith("backbone.conv1."):
                continue  # frozen
            rate, decay = (0.3, 0.25) if name.endswith(".bias") else (0.1, 0.01)
            if name.endswith(".bias") and name.startswith("backbone.") and backbone is not None:
                decay = backbone
            velocity[name] = 0.5 * velocity[name] + value.grad + decay * plain[name]
            plain[name] -= rate * velocity[name]
        optimizer.step()
    for name, value in detector.named_parameters():
        torch.testing.assert_close(value.detach(), plain[name], rtol=1e-4, atol=1e-5, msg=name)


def test_measured_box_targets_are_those_of_a_plain_loop(detector, recipe):
    dataset = open_split(recipe, "trainval")
    detector.measure_box_targets([trainable(dataset.target(index)) for index in range(len(dataset))])
    values = []
    for index in range(len(dataset)):
        target = dataset.target(index)
        for proposal in [*target["boxes"].tolist(), *target["proposals"].tolist()]:
            overlaps = box_iou(torch.tensor([proposal]), torch.as_tensor(target["boxes"]))[0]
            if overlaps.max() >= 0.5:
                x1, y1, x2, y2 = proposal
                bx1, by1, bx2, by2 = target["boxes"][int(overlaps.argmax())].tolist()
                w, h = x2 - x1, y2 - y1
                values.append(
                    [
                        ((bx1 + bx2) / 2 - (x1 + x2) / 2) / w,
                        ((by1 + by2) / 2 - (y1 + y2) / 2) / h,
                        torch.tensor((bx2 - bx1) / w).log().item(),
                        torch.tensor((by2 - by1) / h).log().item(),
                    ]
                )
    values = torch.tensor(values)
    assert len(values) > 10
    torch.testing.assert_close(detector.roi_heads.box_coder.mean, values.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(detector.roi_heads.box_coder.std, values.std(0, correction=0), rtol=1e-4, atol=1e-5)
