"""Damaged images: long work goes on without them, names them at its end, and its exit status says so."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from afrcnn.cli import main
from afrcnn.evaluation.results import read_results
from afrcnn.proposals.store import ProposalStore
from afrcnn.recipe import dump_recipe
from damaged import cut, spoil

LEFT_OUT = "cannot be decoded and were left out"


@pytest.fixture
def root(rectangles, tmp_path):
    """A dataset, of which one image of each split cannot be decoded, and one ends too early."""
    root = tmp_path / "set"
    shutil.copytree(rectangles, root, ignore=shutil.ignore_patterns("proposals"))
    for name in ("trainval_2", "test_1"):
        spoil(root / f"JPEGImages/{name}.jpg")
    cut(root / "JPEGImages/trainval_4.jpg")
    return root


@pytest.fixture
def recipe_file(recipe, root, tmp_path):
    """A recipe of twelve samples, each image twice, on that dataset."""
    schedule = replace(recipe.schedule, iterations=6, checkpoint_every=2, log_every=4)
    recipe = replace(recipe, data=replace(recipe.data, root=str(root)), schedule=schedule)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    return str(tmp_path / "recipe.yaml")


def warnings_of(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("afrcnn: warning: ")]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_proposals_leave_out_what_cannot_be_decoded_and_say_so(root, rectangles, tmp_path, jobs, capsys):
    assert main(["proposals", str(root), "--jobs", jobs]) == 1
    grey, left_out = warnings_of(capsys)
    assert "1 image: end too early" in grey and grey.endswith("trainval_4.jpg")
    assert f"2 images: {LEFT_OUT}" in left_out
    assert "trainval_2.jpg" in left_out and "test_1.jpg" in left_out
    whole = tmp_path / "whole"
    assert main(["proposals", str(rectangles), "--split", "trainval", "--out", str(whole), "--jobs", "1"]) == 0
    made, expected = ProposalStore(root / "proposals/trainval-fast"), ProposalStore(whole / "trainval-fast")
    assert made.ids == expected.ids
    assert len(made.boxes("trainval_2")) == 0
    for image_id in ("trainval_0", "trainval_1", "trainval_3", "trainval_5"):
        np.testing.assert_array_equal(made.boxes(image_id), expected.boxes(image_id))
    capsys.readouterr()
    shutil.copy(rectangles / "JPEGImages/test_1.jpg", root / "JPEGImages/test_1.jpg")
    assert main(["proposals", str(root), "--jobs", "1"]) == 1  # the other is still as it was
    assert "1 image: cannot be decoded" in warnings_of(capsys)[1]
    assert len(ProposalStore(root / "proposals/test-fast").boxes("test_1"))


def test_strict_proposals_refuse_it_and_keep_what_is_done(root, capsys):
    assert main(["proposals", str(root), "--split", "test", "--strict", "--jobs", "1"]) == 2
    assert "test_1.jpg: the image cannot be decoded" in capsys.readouterr().err
    assert (root / "proposals/test-fast/finished.journal").is_file()
    assert not (root / "proposals/test-fast/proposals.json").exists()
    assert main(["proposals", str(root), "--split", "trainval", "--strict"]) == 2
    assert "1 JPEG files that end too early" in capsys.readouterr().err


def test_a_training_and_its_evaluation_go_on_without_it_and_say_so(root, recipe_file, tmp_path, capsys):
    run = tmp_path / "run"
    for _ in range(2):  # again, when it is finished
        assert main(["train", recipe_file, "--run", str(run)]) == 1
        assert f": {LEFT_OUT}" in (line := warnings_of(capsys)[-1])
        assert "trainval_2.jpg" in line
    (noted,) = json.loads((run / "left_out.json").read_text())
    assert noted["file"] == str(root / "JPEGImages/trainval_2.jpg")
    assert "cannot be decoded" in noted["problem"]
    assert main(["evaluate", str(run)]) == 1
    assert "test_1.jpg" in warnings_of(capsys)[-1]
    results = read_results(run / "results.json")
    assert results.images == 3 and sum(results.objects.values()) == 3  # it counts as missed
    assert not any(one["image_id"] == "test_1" for one in json.loads((run / "detections/test.json").read_text()))


def test_a_strict_recipe_refuses_it(root, recipe_file, tmp_path, capsys):
    assert main(["proposals", str(root), "--jobs", "1"]) == 1
    words = ["train", recipe_file, "--run", str(tmp_path / "run"), "--data.strict", "true"]
    capsys.readouterr()
    assert main(words) == 2
    assert "1 JPEG files that end too early; the first" in capsys.readouterr().err
    (root / "ImageSets/Main/trainval.txt").write_text("trainval_0\ntrainval_2\n")
    assert main(words) == 2
    assert "trainval_2.jpg: the image cannot be decoded" in capsys.readouterr().err
    assert not (tmp_path / "run/weights.safetensors").exists()
    assert main(["train", recipe_file, "--run", str(tmp_path / "other")]) == 1
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "other"), "--data.strict", "true"]) == 2
    assert "test_1.jpg: the image cannot be decoded" in capsys.readouterr().err


def test_a_dataset_of_damaged_images_alone_is_refused(root, recipe_file, tmp_path, capsys):
    for path in Path(root, "JPEGImages").glob("trainval_*.jpg"):
        spoil(path)
    assert main(["train", recipe_file, "--run", str(tmp_path / "run")]) == 2
    assert "cannot be decoded" in capsys.readouterr().err
