"""Validation while training: AP as evaluation has it, the best weights, patience, and no trace in the training."""

import csv
import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from afrcnn.build import load_detector, open_split
from afrcnn.core.engine import build_fabric
from afrcnn.core.errors import UserError
from afrcnn.data.layouts import open_dataset
from afrcnn.evaluation.detect import detect
from afrcnn.evaluation.f1 import score_of_best_f1
from afrcnn.evaluation.matching import match
from afrcnn.evaluation.voc_ap import voc_ap
from afrcnn.recipe import JointRecipe, PretrainingRecipe, ScheduleRecipe, load_recipe
from afrcnn.run import Run
from afrcnn.training.images import open_training_images, open_validation_images
from afrcnn.training.optimizer import learning_rate
from afrcnn.training.train import train_stages
from afrcnn.training.validation import Validation

SGD = {"learning_rate": 0.01, "log_every": 2, "checkpoint_every": 3}


@pytest.fixture(scope="module")
def staged(recipe):
    """Seven updates of the detector, two of the adversary, six of both; no validation."""
    return replace(
        recipe,
        adversaries={"asdn": {"threshold": -1.0}},
        schedule=ScheduleRecipe(iterations=7, **SGD),
        pretraining=PretrainingRecipe(iterations=2, **SGD),
        joint=JointRecipe(iterations=6, **SGD),
        evaluate_every=3,
    )


@pytest.fixture(scope="module")
def validated(staged):
    """The same, validated on the test split, which serves for any other here."""
    return with_data(staged, val_split="test")


@pytest.fixture(scope="module")
def whole(validated, tmp_path_factory):
    return train_stages(validated, tmp_path_factory.mktemp("runs") / "whole")


def with_data(recipe, **fields):
    return replace(recipe, data=replace(recipe.data, **fields))


def with_schedule(recipe, **fields):
    return replace(recipe, schedule=replace(recipe.schedule, **fields))


def rows(run):
    with run.log_file.open(newline="") as lines:
        return [
            {name: value for name, value in row.items() if name != "iterations_per_second"}
            for row in csv.DictReader(lines)
        ]


def measured(run):
    return {int(row["iteration"]): float(row["val_ap"]) for row in rows(run) if row["val_ap"]}


def description(file):
    with safe_open(file, "pt") as weights:
        return json.loads(weights.metadata()["afrcnn"])


class _AP:
    def __init__(self, mean_ap):
        self.mean_ap = mean_ap


def _interrupting(moment):
    calls = 0

    def rate(done, schedule):
        nonlocal calls
        calls += 1
        if calls == moment:
            raise KeyboardInterrupt
        return learning_rate(done, schedule)

    return rate


def test_weights_have_the_same_bits_with_and_without_validation(staged, whole, tmp_path):
    plain = load_file(train_stages(staged, tmp_path / "plain").weights_file)
    trained = load_file(whole.weights_file)
    assert plain.keys() == trained.keys()
    assert all(torch.equal(plain[name], trained[name]) for name in plain)
    assert not Run(tmp_path / "plain").best_file.exists()


def test_ap_is_measured_every_so_many_iterations_of_stages_that_train_the_detector(whole):
    assert list(measured(whole)) == [3, 6, 7, 12, 15]


@pytest.fixture(scope="module")
def learned(recipe, tmp_path_factory):
    """A detector that learns something, validated every fifth iteration."""
    longer = with_schedule(recipe, iterations=30, decay_at=[], warmup_iterations=5)
    wanted = replace(with_data(longer, val_split="test"), evaluate_every=5)
    return train_stages(wanted, tmp_path_factory.mktemp("runs") / "learned")


def test_the_logged_ap_the_best_weights_and_their_score_are_those_of_an_evaluation(learned):
    ap = measured(learned)
    assert max(ap.values()) > 0.1
    assert learned.trained() == learned.best_file
    images = open_split(learned.recipe, "test")
    targets = [images.target(index) for index in range(len(images))]
    for file, expected in ((learned.best_file, max(ap.values())), (learned.weights_file, ap[30])):
        detector = load_detector(learned)
        detector.load_state_dict(load_file(file))
        matches = match(detect(detector, images, fabric=build_fabric("cpu"), workers=0), targets, images.classes)
        assert f"{voc_ap(matches, 'area').mean_ap:.6g}" == f"{expected:.6g}"
        assert description(file)["score"] == score_of_best_f1(matches)


@pytest.mark.parametrize("moment", [2, 3, 5, 8, 12, 13])
def test_an_interrupted_run_ends_with_the_bits_the_ap_and_the_best_of_one_that_was_not(
    validated, whole, tmp_path, monkeypatch, moment
):
    with monkeypatch.context() as patch:
        patch.setattr("afrcnn.training.train.learning_rate", _interrupting(moment))
        with pytest.raises(KeyboardInterrupt):
            train_stages(validated, tmp_path / "run")
    run = train_stages(validated, tmp_path / "run")
    for file, reference in ((run.weights_file, whole.weights_file), (run.best_file, whole.best_file)):
        assert file.read_bytes() == reference.read_bytes()
    assert rows(run) == rows(whole)


def test_patience_ends_the_stage_and_more_of_it_goes_on_to_the_same_bits(recipe, tmp_path, monkeypatch):
    falling = iter([0.5, 0.4, 0.3, 0.6, 0.2, 0.1])
    monkeypatch.setattr("afrcnn.training.validation.voc_ap", lambda *_: _AP(next(falling)))
    wanted = with_schedule(with_data(recipe, val_split="test"), iterations=6, checkpoint_every=100)
    wanted = replace(wanted, evaluate_every=1, patience=2)
    run = train_stages(wanted, tmp_path / "run")
    assert measured(run) == {1: 0.5, 2: 0.4, 3: 0.3}
    assert run.weights_file.is_file() and run.best_file.is_file()
    before = [file.read_bytes() for file in (run.weights_file, run.best_file, run.log_file, run.checkpoint_file)]
    train_stages(wanted, run.folder)  # the same command again
    assert [
        file.read_bytes() for file in (run.weights_file, run.best_file, run.log_file, run.checkpoint_file)
    ] == before
    train_stages(replace(wanted, patience=3), run.folder)
    assert measured(run) == {1: 0.5, 2: 0.4, 3: 0.3, 4: 0.6, 5: 0.2, 6: 0.1}
    plain = replace(wanted, patience=None)
    falling = iter([0.5] * 6)
    other = load_file(train_stages(plain, tmp_path / "other").weights_file)
    assert all(torch.equal(value, other[name]) for name, value in load_file(run.weights_file).items())


def test_images_held_out_are_a_fraction_by_class_and_are_not_trained_on(recipe):
    wanted = with_data(recipe, val_fraction=0.34)
    training = open_training_images(wanted)
    held_out = open_validation_images(wanted, training)
    assert sorted([*training.ids, *held_out.ids]) == sorted(open_dataset(recipe.data.root, "trainval").ids)
    assert [len(training), len(held_out)] == [4, 2]
    assert {int(held_out.target(index)["labels"][0]) for index in range(2)} == {1, 2}
    assert "proposals" in held_out[0][1]


def test_held_out_images_validate_a_run(recipe, tmp_path):
    wanted = replace(with_schedule(with_data(recipe, val_fraction=0.34), iterations=2), evaluate_every=1)
    run = train_stages(wanted, tmp_path)
    assert list(measured(run)) == [1, 2]


def test_nothing_is_measured_where_nothing_is_named(recipe):
    assert open_validation_images(recipe, open_training_images(recipe)) is None


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--data.val_split", "trainval"], r"trainval_0\.jpg: data\.val_split: would be both trained and validated on"),
        (["--data.val_split", "nowhere"], r"data\.val_split: the split is missing|the split is missing"),
        (["--data.val_fraction", "1"], r"data\.val_fraction: leaves nothing to train on"),
        (["--patience", "3"], r"patience: nothing is validated; set data\.val_split"),
    ],
)
def test_validation_that_cannot_be_is_refused_before_anything_is_written(recipe, tmp_path, words, problem):
    (tmp_path / "recipe.yaml").write_text("{}")
    with pytest.raises(UserError, match=problem) as caught:
        loaded = load_recipe(tmp_path / "recipe.yaml", words)
        train_stages(
            with_data(recipe, val_split=loaded.data.val_split, val_fraction=loaded.data.val_fraction), tmp_path / "run"
        )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("state", [{"best": "high"}, {"since_best": 1.5}, {"score": [1]}])
def test_a_checkpoint_of_something_else_is_refused(recipe, tmp_path, state):
    validation = Validation(build_fabric("cpu"), recipe, None, lambda *_: None)
    with pytest.raises(UserError, match="validation: is not a valid checkpoint"):
        validation.restore({"best": 0.5, "since_best": 0, "score": None} | state, tmp_path / "checkpoint.pt")
