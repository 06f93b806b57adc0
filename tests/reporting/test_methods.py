"""Runs become methods by their recipes."""

from dataclasses import replace

import pytest

from afrcnn.core.errors import UserError
from afrcnn.evaluation.results import Results, write_record
from afrcnn.recipe import DataRecipe, Recipe
from afrcnn.reporting.methods import read_methods
from afrcnn.robustness.stress_results import StressResults, write_stress
from afrcnn.run import Run

PLAIN = Recipe(data=DataRecipe(root="images", classes=["a", "b"]))


@pytest.fixture
def make(tmp_path):
    def make(name, recipe=PLAIN, **fields):
        run = Run(tmp_path / name)
        run.begin(replace(recipe, **fields))
        return run.folder

    return make


def test_seeds_of_a_recipe_are_one_method_by_rising_seed(make):
    folders = [make("frcn-seed2", seed=2), make("frcn-seed0"), make("frcn-seed10", seed=10)]
    (method,) = read_methods(folders)
    assert method.name == "frcn"
    assert [run.recipe.seed for run in method.runs] == [0, 2, 10]
    assert method.of_seed(10).folder == folders[2]
    assert method.of_seed(5).folder == folders[1]


def test_runs_that_begin_from_the_detector_of_their_seed_are_one_method(make):
    full = replace(PLAIN, adversaries={"asdn": {}})
    folders = [make(f"full-seed{seed}", full, seed=seed, init_from=f"runs/frcn-seed{seed}") for seed in (1, 11)]
    other = make("late-seed1", full, seed=1, init_from="runs/frcn-seed11")
    methods = read_methods([*folders, other])
    assert [(method.name, len(method.runs)) for method in methods] == [("full", 2), ("late", 1)]


def test_another_field_makes_another_method_and_names_tell_them_apart(make):
    schedule = replace(PLAIN.schedule, iterations=5)
    folders = [make("a/frcn-seed0"), make("b/frcn-seed0", schedule=schedule)]
    assert [method.name for method in read_methods(folders)] == ["a/frcn", "b/frcn"]
    folders = [make("c/frcn-seed0"), make("c/frcn-seed1", seed=1, schedule=schedule)]
    assert [method.name for method in read_methods(folders)] == ["frcn-seed0", "frcn-seed1"]


def test_the_baseline_is_the_first_or_the_one_that_is_named(make):
    folders = [make("a"), make("b", seed=3, init_from="x"), make("c", init_from="y")]
    assert [method.name for method in read_methods(folders)] == ["a", "b", "c"]
    assert [method.name for method in read_methods(folders, folders[1])] == ["b", "a", "c"]


def test_what_cannot_be_compared_is_refused(make, tmp_path):
    one = make("one")
    with pytest.raises(UserError, match="named twice"):
        read_methods([one, tmp_path / "x" / ".." / "one"])
    with pytest.raises(UserError, match="not among the runs"):
        read_methods([one], make("two", seed=1))
    with pytest.raises(UserError, match=r"data\.classes"):
        read_methods([one, make("three", data=replace(PLAIN.data, classes=["b", "a"]))])
    with pytest.raises(UserError, match="other images"):
        read_methods([one, make("four", data=replace(PLAIN.data, test_split="val"))])
    with pytest.raises(UserError, match="is not a run folder"):
        read_methods([tmp_path / "nothing"])


def test_results_of_another_split_are_not_taken_for_those_of_the_test(make):
    folder = make("run")
    metrics = ("11-point", "area", "COCO")
    objects = {"a": 4, "b": 0}
    of_classes = {metric: dict.fromkeys(objects, 0.0) for metric in metrics}
    nothing = Results(3, 0, 0.5, objects, dict.fromkeys(metrics, 0.0), of_classes, {"AP": 0.0})
    of_test, of_val, of_any = (replace(nothing, split=split) for split in ("test", "val", ""))
    for results, stress in ((of_val, None), (of_test, "val")):
        write_record(folder / "results.json", results)
        if stress:
            write_stress(folder / "stress.json", StressResults(0, (), stress))
        with pytest.raises(UserError, match=r"\.json: is of the split val, not test; report that split by --data.test"):
            read_methods([folder])
    write_record(folder / "results.json", of_val)
    (method,) = read_methods([folder], overrides=["--data.test_split", "val"])
    assert method.runs[0].results == of_val
    write_record(folder / "results.json", of_any)
    (folder / "stress.json").unlink()
    assert read_methods([folder])[0].runs[0].results == of_any
