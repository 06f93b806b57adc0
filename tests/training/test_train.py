"""Training: killed, resumed, shared by two processes, stopped; and each of its steps against the definition."""

import csv
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torchvision.ops import box_iou

from afrcnn.detector.backbones import small
from afrcnn.detector.fast_rcnn import FastRCNN
from afrcnn.detector.roi_pooling import RoIAlign
from afrcnn.errors import UserError
from afrcnn.training.checkpoint import load_checkpoint
from afrcnn.training.recipe import (
    DataRecipe,
    DetectorRecipe,
    EngineRecipe,
    Recipe,
    ScheduleRecipe,
    build_detector,
    dump_recipe,
)
from afrcnn.training.run import Run, open_split
from afrcnn.training.stream import order, seed_of
from afrcnn.training.train import build_optimizer, learning_rate, measure_box_targets, train

ITERATIONS = 6


@pytest.fixture
def recipe(rectangles):
    """Six updates of two images: an epoch ends within, dropout and RoI sampling draw, a checkpoint comes every two."""
    return Recipe(
        data=DataRecipe(root=str(rectangles), workers=0),
        detector=DetectorRecipe(
            backbone="small",
            pooling="roi_align",
            dropout=0.5,
            short_side=[48, 64],
            long_side=64,
            rois_per_image=8,
            background_iou=(0.0, 0.5),
        ),
        schedule=ScheduleRecipe(
            iterations=ITERATIONS, learning_rate=0.01, decay_at=[4], log_every=1, checkpoint_every=2
        ),
        engine=EngineRecipe(accelerator="cpu"),
    )


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
    assert Run(folder).weights_file.read_bytes() == Run(reference).weights_file.read_bytes()
    assert logged_iterations(folder) == logged_iterations(reference) == list(range(1, ITERATIONS + 1))
    assert not list(folder.rglob("*.part"))


@pytest.fixture(scope="module")
def processes():
    """Processes that begin with the library imported, so that many can be started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["afrcnn.training.train"])
    return context


TRAIN = """
import os, pathlib, pickle, signal, torch
from afrcnn import atomic
from afrcnn.training.train import train

torch.set_num_threads(1)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

{prelude}
train(pickle.loads({recipe!r}), {folder!r})
"""


def start(processes, recipe, folder, prelude=""):
    code = TRAIN.format(prelude=prelude, recipe=pickle.dumps(recipe), folder=str(folder))
    process = processes.Process(target=exec, args=(code, {}))
    process.start()
    return process


def test_a_run_killed_at_random_moments_ends_with_the_same_bits(recipe, processes, tmp_path):
    train(recipe, tmp_path / "whole")
    folder, rng = tmp_path / "killed", random.Random(time.time_ns())
    run = Run(folder)
    for _ in range(4):
        process = start(processes, recipe, folder)
        # Moments are counted from a sign of life, or on a busy machine all would lie before the first update.
        sign = run.log_file if rng.random() < 0.8 else run.recipe_file
        before = sign.stat().st_mtime_ns if sign.exists() else None
        while process.is_alive() and (sign.stat().st_mtime_ns if sign.exists() else None) == before:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
    process = start(processes, recipe, folder)
    process.join()
    assert process.exitcode == 0
    assert_ends_as(folder, tmp_path / "whole")


AT_THE_SECOND = """
calls = 0
real = {where}

def patched(*args, **kwargs):
    global calls
    if "checkpoint" in str({subject}):
        calls += 1
        if calls == 2 and {before}:
            die()
    result = real(*args, **kwargs)
    if calls == 2:
        die()
    return result

{where} = patched
"""

MOMENTS = {
    "while a checkpoint is written": AT_THE_SECOND.format(
        where="os.fsync", subject="os.readlink(f'/proc/self/fd/{args[0]}')", before=True
    ),
    "before a checkpoint takes its place": AT_THE_SECOND.format(
        where="pathlib.Path.replace", subject="args[1]", before=True
    ),
    "after a checkpoint took its place": AT_THE_SECOND.format(
        where="pathlib.Path.replace", subject="args[1]", before=False
    ),
}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files are read from Linux's /proc")
def test_a_run_killed_around_the_writing_of_a_checkpoint_ends_with_the_same_bits(recipe, processes, tmp_path):
    train(recipe, tmp_path / "whole")
    for number, prelude in enumerate(MOMENTS.values()):
        folder = tmp_path / str(number)
        process = start(processes, recipe, folder, prelude)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        parts = list(folder.glob(".checkpoint.pt.*.part"))
        assert len(parts) == (number < 2)
        assert load_checkpoint(Run(folder).checkpoint_file)["iteration"] == (2 if number < 2 else 4)
        train(recipe, folder)
        assert_ends_as(folder, tmp_path / "whole")


def test_the_same_recipe_trains_the_same_bits_with_any_number_of_loaders(recipe, tmp_path):
    train(recipe, tmp_path / "one")
    train(with_data(recipe, workers=2), tmp_path / "two")
    assert_ends_as(tmp_path / "two", tmp_path / "one")
    train(replace(recipe, seed=1), tmp_path / "other")
    one, other = weights(tmp_path / "one"), weights(tmp_path / "other")
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_finished_run_is_left_as_it_is(recipe, tmp_path):
    train(recipe, tmp_path / "run")
    run = Run(tmp_path / "run")
    before = [file.read_bytes() for file in (run.weights_file, run.log_file, run.checkpoint_file)]
    train(recipe, tmp_path / "run")
    assert [file.read_bytes() for file in (run.weights_file, run.log_file, run.checkpoint_file)] == before


def test_the_run_holds_the_resolved_recipe_and_the_trained_detector(recipe, tmp_path):
    run = train(recipe, tmp_path / "run")
    assert run.recipe() == with_data(recipe, classes=["blue", "red"])
    detector = run.detector()
    assert not detector.training
    saved = weights(tmp_path / "run")
    assert all(torch.equal(value, saved[name]) for name, value in detector.state_dict().items())


def test_frozen_stages_stay_and_the_others_move(recipe, tmp_path):
    frozen = replace(recipe, detector=replace(recipe.detector, frozen_stages=2))
    run = train(with_schedule(frozen, iterations=2), tmp_path / "run")
    trained = weights(tmp_path / "run")
    torch.manual_seed(recipe.seed)
    for name, value in build_detector(frozen.detector, 2).named_parameters():
        assert torch.equal(trained[name], value) == name.startswith(("trunk.conv1.", "trunk.conv2.")), name
    assert run.weights_file.is_file()


SCRIPT = """
import sys
import torch
from afrcnn.training.recipe import load_recipe
from afrcnn.training.train import train

torch.set_num_threads(1)
train(load_recipe(sys.argv[1]), sys.argv[2])
"""


def test_two_processes_train_what_one_does_and_go_on_after_a_kill(recipe, tmp_path):
    # With every proposal in every update, no dropout and one size, nothing is left to chance but the order of sums.
    recipe = replace(
        recipe,
        detector=replace(recipe.detector, dropout=0.0, short_side=[64], rois_per_image=1000, foreground_fraction=1.0),
    )
    train(recipe, tmp_path / "one")
    (tmp_path / "two.py").write_text(SCRIPT)
    (tmp_path / "two.yaml").write_text(dump_recipe(replace(recipe, engine=replace(recipe.engine, devices=2))))
    command = [sys.executable, tmp_path / "two.py", tmp_path / "two.yaml", tmp_path / "two"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    while process.poll() is None and not Run(tmp_path / "two").checkpoint_file.exists():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(load_checkpoint(Run(tmp_path / "two").checkpoint_file)["randomness"]) == 2

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert logged_iterations(tmp_path / "two") == list(range(1, ITERATIONS + 1))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5, msg=name)


def blackened(image_id):
    """A transform that makes an image's pixels no numbers."""

    def transform(image, target):
        return image / 255 * (float("nan") if target["image_id"] == image_id else 1), target

    return transform


def test_a_loss_that_is_not_finite_stops_with_iteration_and_images_and_the_checkpoint_is_kept(recipe, tmp_path):
    run = Run(tmp_path / "run")
    ids = open_split(recipe, "trainval").ids
    first_epoch = [ids[index] for index in order(seed_of(recipe.seed, 1), 0, len(ids))]
    with pytest.raises(UserError) as caught:
        train(recipe, run.folder, transform=blackened(first_epoch[4]))
    message = str(caught.value)
    assert "the loss of iteration 3 is not finite" in message and "\n" not in message
    assert all((image_id in message) == (image_id in first_epoch[4:6]) for image_id in ids)
    assert "the last checkpoint is kept" in message
    assert load_checkpoint(run.checkpoint_file)["iteration"] == 2
    assert logged_iterations(run.folder) == [1, 2]
    assert not run.weights_file.exists()


def test_weights_that_are_not_finite_get_no_checkpoint(recipe, tmp_path):
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match=r"the weights after iteration 1 are not finite.*no checkpoint was written"):
        train(with_schedule(recipe, learning_rate=3e38, checkpoint_every=1), run.folder)
    assert not run.checkpoint_file.exists() and not run.weights_file.exists()


def test_a_disk_that_fills_stops_the_run_and_the_last_checkpoint_goes_on(recipe, tmp_path, monkeypatch):
    train(recipe, tmp_path / "whole")
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
            train(recipe, folder)
    assert load_checkpoint(Run(folder).checkpoint_file)["iteration"] == 2
    assert not list(folder.rglob("*.part"))
    train(recipe, folder)
    assert_ends_as(folder, tmp_path / "whole")


@pytest.fixture
def begun(recipe, tmp_path):
    """A run of two updates of six, and its recipe."""
    bad = blackened(open_split(recipe, "trainval").ids[order(recipe.seed, 0, 6)[4]])
    with pytest.raises(UserError):
        train(recipe, tmp_path / "begun", transform=bad)
    return Run(tmp_path / "begun")


def test_a_truncated_checkpoint_is_named_and_left(recipe, begun):
    data = begun.checkpoint_file.read_bytes()[:-1000]
    begun.checkpoint_file.write_bytes(data)
    with pytest.raises(UserError, match=r"checkpoint\.pt: is no checkpoint"):
        train(recipe, begun.folder)
    assert begun.checkpoint_file.read_bytes() == data


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: {"weights": state["detector"]}, "iteration is missing"),
        (lambda state: {**state, "detector": {"fc.weight": torch.zeros(3)}}, "another model"),
        (lambda state: {**state, "randomness": state["randomness"] * 2}, "2 processes, not 1"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_by_file(change, named, recipe, begun):
    torch.save(change(load_checkpoint(begun.checkpoint_file)), begun.checkpoint_file)
    with pytest.raises(UserError, match=named) as caught:
        train(recipe, begun.folder)
    assert str(caught.value).startswith(f"{begun.checkpoint_file}: ")
    assert not begun.weights_file.exists()


def test_a_run_folder_with_another_recipe_is_refused(recipe, begun):
    before = begun.checkpoint_file.read_bytes()
    with pytest.raises(UserError, match=r"learning_rate: 0\.01"):
        train(with_schedule(recipe, learning_rate=0.02), begun.folder)
    assert begun.checkpoint_file.read_bytes() == before


def test_an_image_that_cannot_be_read_is_named(recipe, rectangles, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(rectangles, root)
    (root / "JPEGImages" / "trainval_3.jpg").unlink()
    with pytest.raises(UserError, match=r"trainval_3\.jpg"):
        train(with_data(recipe, root=str(root)), tmp_path / "run")


def test_the_learning_rate_warms_up_and_falls_after_the_named_iterations():
    schedule = ScheduleRecipe(learning_rate=2.0, warmup_iterations=3, decay_at=[7, 5], decay_factor=0.5)
    rates = [learning_rate(iteration, schedule) for iteration in range(9)]
    assert rates == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 1.0, 1.0, 0.5, 0.5])
    assert learning_rate(0, ScheduleRecipe()) == 0.001
    assert learning_rate(59_999, ScheduleRecipe()) == 0.001
    assert learning_rate(60_000, ScheduleRecipe()) == pytest.approx(0.0001)


@pytest.fixture
def detector():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = small()
        return FastRCNN(network, RoIAlign(network.pool_size, network.stride), 2, frozen_stages=1)


def test_biases_have_a_learning_rate_and_a_weight_decay_of_their_own(detector):
    schedule = ScheduleRecipe(
        learning_rate=0.1, momentum=0.5, weight_decay=0.01, bias_learning_rate_factor=3.0, bias_weight_decay=0.25
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
            if name.startswith("trunk.conv1."):
                continue  # frozen
            rate, decay = (0.3, 0.25) if name.endswith(".bias") else (0.1, 0.01)
            velocity[name] = 0.5 * velocity[name] + value.grad + decay * plain[name]
            plain[name] -= rate * velocity[name]
        optimizer.step()
    for name, value in detector.named_parameters():
        torch.testing.assert_close(value.detach(), plain[name], rtol=1e-4, atol=1e-5, msg=name)


def test_measured_box_targets_are_those_of_a_plain_loop(detector, recipe):
    dataset = open_split(recipe, "trainval")
    measure_box_targets(detector, dataset, use_difficult=False)
    values = []
    for index in range(len(dataset)):
        target = dataset.target(index)
        for proposal in target["proposals"].tolist():
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
    torch.testing.assert_close(detector.box_coder.mean, values.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(detector.box_coder.std, values.std(0, correction=0), rtol=1e-4, atol=1e-5)
