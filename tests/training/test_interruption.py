"""What stops a training: Ctrl-C and SIGTERM, a second training of the same run, and a run that is made longer."""

import csv
import os
import shutil
import signal
import socket
import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from afrcnn.commands.proposals import proposals
from afrcnn.core.errors import UserError
from afrcnn.core.image_warnings import ImageWarning
from afrcnn.core.lock import locked
from afrcnn.recipe import JointRecipe, dump_recipe
from afrcnn.run import Run
from afrcnn.training.checkpoint import load_checkpoint
from afrcnn.training.train import train_stages
from damaged import spoil

SECONDS = 240
"""To wait for a process on a machine that may be busy."""

INTERRUPTED = """
import sys
from afrcnn.cli import main
from afrcnn.training import train

os.dup2(os.open({errors!r}, os.O_CREAT | os.O_WRONLY), 2)
step, made = train.step, []

def interrupting(*args):
    made.append(1)
    if len(made) == {iteration}:
        os.kill(os.getpid(), {number})
    return step(*args)

train.step = interrupting
sys.exit(main(["train", {recipe!r}, "--run", {run!r}]))
"""

PAUSED = """
import time
from afrcnn.training import train

def pause(*_):
    pathlib.Path({folder!r}, "paused").touch()
    time.sleep(600)

train.step = pause
"""


def with_iterations(recipe, **iterations):
    return replace(recipe, **{name: replace(getattr(recipe, name), iterations=n) for name, n in iterations.items()})


def logged(folder):
    """The rows of a log, but for what depends on the clock."""
    with Run(folder).log_file.open(newline="") as lines:
        return [{**row, "iterations_per_second": ""} for row in csv.DictReader(lines)]


@pytest.fixture(scope="module")
def recipe(recipe):
    """Three updates to a line of the log: an interruption falls between two lines."""
    return replace(recipe, schedule=replace(recipe.schedule, log_every=3, checkpoint_every=4))


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    return train_stages(recipe, tmp_path_factory.mktemp("whole") / "run").folder


@pytest.mark.parametrize(("workers", "number"), [(0, signal.SIGINT), (2, signal.SIGINT), (2, signal.SIGTERM)])
def test_an_interrupted_training_writes_a_checkpoint_says_so_and_goes_on(
    workers, number, recipe, whole, start, tmp_path
):
    recipe = replace(recipe, data=replace(recipe.data, workers=workers))
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    run = Run(tmp_path / "run")
    prelude = INTERRUPTED.format(
        errors=str(tmp_path / "errors"),
        iteration=2,
        number=int(number),
        recipe=str(tmp_path / "recipe.yaml"),
        run=str(run.folder),
    )
    process = start(recipe, run.folder, prelude)
    process.join(SECONDS)
    errors = (tmp_path / "errors").read_text()
    assert process.exitcode == 128 + number, errors
    told = "afrcnn: interrupted; a checkpoint of iteration 2 of 6 of the stage detector is written; the same command"
    assert told in errors and "Traceback" not in errors
    assert load_checkpoint(run.checkpoint_file)["iteration"] == 2
    assert not (run.folder / "lock").exists() and not list(run.folder.rglob("*.part"))
    train_stages(recipe, run.folder)
    ours, theirs = load_file(run.weights_file), load_file(Run(whole).weights_file)  # beside which the recipes stand
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert logged(run.folder) == logged(whole)


@pytest.mark.parametrize("line", range(1, 4))
def test_the_log_has_the_same_losses_wherever_a_training_is_killed(line, recipe, whole, start, tmp_path):
    recipe = replace(recipe, schedule=replace(recipe.schedule, checkpoint_every=2))
    prelude = f"""
from afrcnn.training import train
save, saved = train.save_checkpoint, []
def dying(file, state):
    save(file, state)
    saved.append(1)
    if len(saved) == {line}:
        die()
train.save_checkpoint = dying
"""
    process = start(recipe, tmp_path / "run", prelude)
    process.join(SECONDS)
    assert process.exitcode == -signal.SIGKILL
    train_stages(recipe, tmp_path / "run")
    assert logged(tmp_path / "run") == logged(whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_drawn_in_place_of_a_damaged_image_is_the_same_after_a_kill(
    workers, recipe, rectangles, start, tmp_path
):
    shutil.copytree(rectangles, tmp_path / "set", ignore=shutil.ignore_patterns("proposals"))
    spoil(tmp_path / "set/JPEGImages/trainval_2.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageWarning)
        proposals(tmp_path / "set", split=["trainval"], jobs=1)
    recipe = replace(recipe, data=replace(recipe.data, root=str(tmp_path / "set"), workers=workers))
    runs = [Run(tmp_path / name) for name in ("whole", "killed")]
    with pytest.warns(ImageWarning, match=r"trainval_2\.jpg"):
        train_stages(recipe, runs[0].folder)
    prelude = """
from afrcnn.training import train
save = train.save_checkpoint
def dying(file, state):
    save(file, state)
    die()
train.save_checkpoint = dying
"""
    process = start(recipe, runs[1].folder, prelude)
    process.join(SECONDS)
    assert process.exitcode == -signal.SIGKILL
    with pytest.warns(ImageWarning, match=r"trainval_2\.jpg"):
        train_stages(recipe, runs[1].folder)
    assert runs[0].weights_file.read_bytes() == runs[1].weights_file.read_bytes()
    assert runs[0].left_out_file.read_bytes() == runs[1].left_out_file.read_bytes()


def test_a_second_training_is_refused_by_process_and_machine_and_a_stale_lock_is_taken_over(
    recipe, whole, start, tmp_path
):
    run = Run(tmp_path / "run")
    process = start(recipe, run.folder, PAUSED.format(folder=str(tmp_path)))
    try:
        while not (tmp_path / "paused").exists():
            process.join(0.1)
            assert process.is_alive()
        (run.folder / ".checkpoint.pt.part").write_bytes(b"half of the other's")
        with pytest.raises(UserError, match=rf"is being trained by process {process.pid} on {socket.gethostname()}"):
            train_stages(recipe, run.folder)
        assert (run.folder / ".checkpoint.pt.part").exists()
    finally:
        process.kill()
        process.join(SECONDS)
    assert (run.folder / "lock").exists()
    train_stages(recipe, run.folder)
    assert run.weights_file.read_bytes() == Run(whole).weights_file.read_bytes()
    assert sorted(file.name for file in run.folder.iterdir()) == sorted(file.name for file in whole.iterdir())


def test_one_process_holds_a_lock_once(tmp_path):
    with locked(tmp_path / "new", "trained"):
        with pytest.raises(UserError, match=f"process {os.getpid()} on"), locked(tmp_path / "new", "trained"):
            pass
        assert (tmp_path / "new" / "lock").exists()
    assert not (tmp_path / "new").exists()  # for nothing came into it


def test_a_lock_in_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be locked"), locked(tmp_path / "file", "trained"):
        pass


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_is_lengthened_and_ends_as_one_of_that_length(finished, recipe, whole, start, tmp_path):
    shorter = with_iterations(recipe, schedule=4)
    folder = tmp_path / "run"
    if finished:
        train_stages(shorter, folder)
    else:
        process = start(shorter, folder, PAUSED.format(folder=str(tmp_path)) + "train.step = lambda *_: die()")
        process.join(SECONDS)
    train_stages(recipe, folder)
    assert Run(folder).recipe.schedule.iterations == 6
    assert Run(folder).weights_file.read_bytes() == Run(whole).weights_file.read_bytes()


def test_a_lengthened_run_is_not_finished_until_it_is(recipe, start, tmp_path):
    train_stages(with_iterations(recipe, schedule=4), tmp_path / "run")
    process = start(recipe, tmp_path / "run", PAUSED.format(folder=str(tmp_path)) + "train.step = lambda *_: die()")
    process.join(SECONDS)
    with pytest.raises(UserError, match="has no trained weights yet"):
        Run(tmp_path / "run").trained()


def test_a_run_is_not_shortened(recipe, tmp_path):
    train_stages(recipe, tmp_path / "run")
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir() if file.is_file()}
    with pytest.raises(UserError, match=r"schedule\.iterations: is 6 in this run, which 5 would shorten"):
        train_stages(with_iterations(recipe, schedule=5), tmp_path / "run")
    assert {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir() if file.is_file()} == before


def test_a_stage_that_is_over_is_not_lengthened(recipe, tmp_path):
    staged = replace(recipe, joint=JointRecipe(**vars(recipe.schedule) | {"iterations": 2, "decay_at": []}))
    staged = replace(staged, data=replace(recipe.data, augmentation=replace(recipe.data.augmentation, cutout=0.5)))
    train_stages(staged, tmp_path / "run")
    with pytest.raises(UserError, match=r"iterations: cannot change after 8 iterations"):
        train_stages(with_iterations(staged, schedule=8), tmp_path / "run")
    train_stages(with_iterations(staged, joint=3), tmp_path / "run")
    train_stages(with_iterations(staged, joint=3), tmp_path / "whole")
    runs = Run(tmp_path / "run"), Run(tmp_path / "whole")
    assert runs[0].weights_file.read_bytes() == runs[1].weights_file.read_bytes()


def test_a_checkpoint_without_what_was_not_logged_still_goes_on(recipe, whole, tmp_path):
    """As earlier versions wrote it."""
    folder = tmp_path / "run"
    train_stages(with_iterations(recipe, schedule=4), folder)
    state = load_checkpoint(Run(folder).checkpoint_file)
    del state["unlogged"]
    torch.save(state | {"format": 2}, Run(folder).checkpoint_file)
    train_stages(recipe, folder)
    assert Run(folder).weights_file.read_bytes() == Run(whole).weights_file.read_bytes()
