"""`afrcnn compare`: methods from the same starts, and what of their differences can be told from noise."""

import csv
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from afrcnn.build import load_detector, open_split
from afrcnn.cli import main
from afrcnn.commands.compare import compare
from afrcnn.core.errors import UserError
from afrcnn.evaluation.detect import detect
from afrcnn.experiment.measurement import LEVELS, STRESS_SEED, stored_detections
from afrcnn.recipe import JointRecipe, dump_recipe, load_recipe
from afrcnn.robustness.found import find_objects
from afrcnn.run import Run


@pytest.fixture(scope="module")
def common(recipe, tmp_path_factory):
    """A recipe with a last stage, and a method."""
    folder = tmp_path_factory.mktemp("recipes")
    short = replace(recipe, joint=JointRecipe(iterations=4, learning_rate=0.005, clean_iterations=1))
    (folder / "common.yaml").write_text(dump_recipe(short))
    (folder / "hiding.yaml").write_text("data:\n  augmentation:\n    cutout: 1.0\n")
    (folder / "windows.yaml").write_text(
        "adversaries:\n  asdn: {mask: window, fraction: [0.1, 0.6], occluder: features}\n"
        "pretraining:\n  iterations: 2\n"
    )
    return folder


@pytest.fixture(scope="module")
def words(common):
    methods = [str(common / f"{name}.yaml") for name in ("hiding", "windows")]
    return [str(common / "common.yaml"), "--methods", "baseline", *methods, "--seeds", "2"]


@pytest.fixture(scope="module")
def compared(words, tmp_path_factory):
    """The folder of a comparison that is finished."""
    out = tmp_path_factory.mktemp("compared") / "out"
    assert main(["compare", *words, "--out", str(out)]) == 0
    return out


def test_all_methods_of_a_seed_begin_with_one_start_and_differ_in_the_last_stage_alone(compared):
    starts = [Run(compared / f"start-seed{seed}") for seed in (0, 1)]
    assert all(start.weights_file.is_file() for start in starts)
    recipes = {
        (name, seed): load_recipe(compared / f"{name}-seed{seed}" / "recipe.yaml")
        for name in ("baseline", "hiding", "windows")
        for seed in (0, 1)
    }
    for (name, seed), recipe in recipes.items():
        assert recipe.init_from == str(starts[seed].folder)
        assert recipe.seed == seed
        assert recipe.joint == recipes["baseline", 0].joint
        assert recipe.data.augmentation.cutout == (name == "hiding")
        assert list(recipe.adversaries) == ["asdn"] * (name == "windows")
        assert recipe.pretraining.iterations == 2 * (name == "windows")


def test_every_run_has_detections_at_all_levels_subsets_and_no_checkpoint(compared):
    for name in ("baseline", "hiding", "windows"):
        run = Run(compared / f"{name}-seed1")
        written = {file.name for file in run.detections.iterdir()}
        assert written == {"test.json", *(f"test-occluded-{level}.json" for level in (0.2, 0.4, 0.6))}
        assert not run.checkpoint_file.exists()
        assert '"unoccluded"' in run.results_file.read_text()


def test_it_ends_in_tables_strips_a_report_and_one_sentence(compared, words, capsys):
    assert main(["compare", *words, "--out", str(compared)]) == 0
    shown = capsys.readouterr().out
    tables = [line for line in shown.splitlines() if line[:1] in "│┃"]
    assert len(tables) > 10
    assert max(map(len, tables)) <= 80
    *_, last = shown.splitlines()
    assert last.startswith("With 20% to 60% of every object hidden, ")
    assert "95% interval" in last
    assert last.endswith("on 3 test images and 2 seeds: too few images to tell anything from noise.")
    document = (compared / "comparison.md").read_text()
    assert last in document
    assert "| hiding | 2 |" in document
    assert (compared / "report.html").is_file()
    assert list((compared / "found").glob("*.png"))
    with (compared / "runs.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["method"], row["seed"]) for row in rows] == [
        (name, seed) for name in ("baseline", "hiding", "windows") for seed in "01"
    ]


def test_strips_are_drawn_from_what_the_detectors_found_in_the_same_pixels(compared):
    run = Run(compared / "hiding-seed0")
    dataset = open_split(run.recipe, "test")
    detectors = [stored_detections(run, dataset), partial(detect, load_detector(run), workers=0)]
    objects, _ = find_objects(detectors, dataset, range(3), levels=(0.0, *LEVELS), seed=STRESS_SEED)
    scores = np.concatenate([one.scores for one in objects], axis=2)
    assert scores[1].any()
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)


def test_with_few_images_nothing_is_told_from_noise(compared):
    with (compared / "comparison.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    marks = {row["told from noise"] for row in rows if row["method"] != "baseline"}
    assert marks == {"false"}


def test_what_is_done_is_not_repeated_and_what_is_missing_is_made_again(compared, words):
    kept, missing = Run(compared / "hiding-seed0"), Run(compared / "hiding-seed1")
    before, weights = kept.weights_file.stat().st_mtime_ns, missing.weights_file.read_bytes()
    for file in (missing.results_file, missing.weights_file):
        file.unlink()
    assert main(["compare", *words, "--out", str(compared)]) == 0
    assert kept.weights_file.stat().st_mtime_ns == before
    assert missing.weights_file.read_bytes() == weights
    assert missing.results_file.is_file()


def test_a_folder_with_other_recipes_is_refused_before_anything_is_made(compared, words, capsys):
    before = sorted(compared.rglob("*"))
    assert main(["compare", *words, "--out", str(compared), "--joint.iterations", "5"]) == 2
    assert "holds a run with another recipe; name another folder with --out" in capsys.readouterr().err
    assert sorted(compared.rglob("*")) == before


def test_a_detector_that_is_trained_already_is_the_start_of_all(common, run, tmp_path):
    start = ["--init_from", str(run.folder)]
    made = compare(common / "common.yaml", methods=["baseline"], seeds=1, out=tmp_path, overrides=start)
    assert load_recipe(tmp_path / "baseline-seed0" / "recipe.yaml").init_from == str(run.folder)
    assert not (tmp_path / "start-seed0").exists()
    assert made.comparison.best is made.comparison.baseline


@pytest.mark.parametrize(
    ("methods", "settings", "message"),
    [
        (["baseline", "nowhere"], {}, "nowhere: is neither a file nor the name of a recipe"),
        (["baseline", "cutout", "cutout"], {}, "cutout: is the name of another method"),
        (["baseline"], {"seeds": 0}, "seeds: 0 is out of range"),
        (["baseline", "cutout"], {"overrides": ["--joint.iterations", "0"]}, "joint.iterations: "),
        (["baseline", "resnet18"], {}, "resnet18: detector.backbone: is another network than the baseline's"),
        (["baseline"], {"overrides": ["--engine.devices", "2"]}, "engine.devices: a comparison works on one device"),
        (["baseline"], {"overrides": ["--data.test_split", "nowhere"]}, "nowhere"),
    ],
)
def test_what_cannot_be_compared_is_refused_and_nothing_is_written(common, tmp_path, methods, settings, message):
    with pytest.raises(UserError, match=message):
        compare(common / "common.yaml", methods=methods, out=tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()
