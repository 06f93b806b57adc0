"""The stress test of a run, from its folder to its files."""

import json
from dataclasses import asdict, replace

import pytest

from afrcnn.commands.evaluate import evaluate
from afrcnn.commands.stress import stress
from afrcnn.core.errors import UserError
from afrcnn.robustness.stress_results import read_stress


def test_level_zero_gives_the_bits_of_the_evaluation(run, tmp_path):
    results = stress(run.folder, occluder=["grey"], bend=["elastic"], out=tmp_path / "stress")
    clean = json.dumps(asdict(replace(evaluate(run.folder, out=tmp_path / "clean"), split="")))
    assert [curve.name for curve in results.curves] == ["occluded by grey, random places", "warped elastically"]
    for curve in results.curves:
        assert json.dumps(asdict(curve.levels[0].results)) == clean


def test_a_stress_test_of_a_run_writes_its_results_and_its_curves_elsewhere_when_asked(run, tmp_path):
    results = stress(run.folder, occluder=["grey"], levels=[0.5], split="trainval", out=tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["stress.json", "stress.png"]
    assert not (run.folder / "stress.json").exists()
    read = read_stress(tmp_path / "out/stress.json")
    assert json.dumps(asdict(read)) == json.dumps(asdict(results))
    assert (read.split, read.curves[0].levels[1].results.images) == ("trainval", 6)


def test_objects_are_occluded_by_images_unless_they_are_bent_and_each_kind_has_its_levels(run, tmp_path):
    results = stress(run.folder, levels=[0.2], placement="worst", out=tmp_path)
    assert [curve.name for curve in results.curves] == ["occluded by images, worst places"]
    results = stress(run.folder, bend=["rotation", "elastic"], degrees=[20], warps=[0.1, 0.2], out=tmp_path)
    assert [[level.level for level in curve.levels] for curve in results.curves] == [[0, 20], [0, 0.1, 0.2]]


def test_mistakes_are_named_and_nothing_is_written(run, tmp_path):
    for arguments, message in (
        ({"stress_seed": -1}, "seed: -1 is out of range"),
        ({"run": tmp_path / "none"}, "none: is not a run folder"),
        ({"occluder": ["black"]}, "choose one of grey, noise, photo"),
        ({"bend": ["twist"]}, "choose one of rotation, elastic"),
        ({"split": "nope"}, "nope"),
    ):
        with pytest.raises(UserError, match=message):
            stress(**{"run": run.folder, "out": tmp_path / "out"} | arguments)
    assert not (tmp_path / "out").exists()
