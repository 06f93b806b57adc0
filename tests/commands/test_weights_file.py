"""One file of weights does what its run folder does, and nothing that a stranger may have written into it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import afrcnn
from afrcnn.cli import main
from afrcnn.core.errors import UserError
from afrcnn.recipe import dump_recipe


@pytest.fixture(scope="module")
def file(run, tmp_path_factory):
    """The weights of a run, in a folder where there is nothing else."""
    copy = tmp_path_factory.mktemp("sent") / "fruit.v2.safetensors"
    copy.write_bytes(run.weights_file.read_bytes())
    return copy


@pytest.fixture
def described(run, tmp_path):
    """Writes the weights with other metadata."""

    def write(text):
        save_file(load_file(run.weights_file), tmp_path / "other.safetensors", metadata=text and {"afrcnn": text})
        return tmp_path / "other.safetensors"

    return write


def test_it_holds_the_recipe_and_the_classes(file, run):
    alone = afrcnn.Run(file)
    assert alone.recipe == run.recipe
    assert alone.classes == run.classes
    assert alone.trained() == file
    assert afrcnn.Run(file, ["--seed", "9"]).recipe.seed == 9


def test_its_detector_detects_what_the_run_s_does(file, run, rectangles):
    image = rectangles / "JPEGImages" / "test_0.jpg"
    one, other = (afrcnn.load(source, score=0.01).predict(image) for source in (file, run.folder))
    assert len(one) > 0
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.scores, other.scores)


def test_predict_evaluate_and_stress_take_it_and_write_beside_it(file, rectangles):
    before = file.read_bytes()
    beside = file.with_suffix("")
    assert main(["predict", str(file), str(rectangles / "JPEGImages" / "test_0.jpg")]) == 0
    assert (beside / "predictions" / "test_0.jpg").is_file()
    assert main(["evaluate", str(file)]) == 0
    assert main(["stress", str(file), "--levels", "0.3", "--occluder", "grey"]) == 0
    assert sorted(item.name for item in beside.iterdir()) == [
        "detections",
        "predictions",
        "results.json",
        "stress.json",
        "stress.png",
    ]
    assert file.read_bytes() == before


def test_a_training_begins_from_it_and_never_goes_where_it_is(file, run, tmp_path):
    words = ["train", str(run.recipe_file), "--schedule.iterations=1", "--joint.iterations=1"]
    assert main([*words, "--init_from", str(file), "--run", str(tmp_path / "run")]) == 0
    assert main([*words, "--run", str(file)]) == 2
    assert not (file.with_suffix("") / "recipe.yaml").exists()


def test_the_score_of_best_f1_is_from_where_on_objects_are_shown(described, run, rectangles):
    image = rectangles / "JPEGImages" / "test_0.jpg"
    seen = afrcnn.load(run.folder, score=0.01).predict(image)
    score = float(seen.scores[1])
    text = {"classes": run.classes, "recipe": dump_recipe(run.recipe)}
    file = described(json.dumps(text | {"score": score}))
    assert afrcnn.load(file).predict(image).scores.tolist() == seen.scores[:2].tolist()
    (prediction,) = afrcnn.predict(file, [image])
    assert len(prediction.objects) == 2
    assert afrcnn.Run(described(json.dumps(text))).score == 0.5
    assert run.score == 0.5  # which was not validated


def recipe_text(run, **changes):
    return json.dumps({"classes": run.classes, "recipe": dump_recipe(run.recipe)} | changes)


HOSTILE = {
    "nothing": (lambda run: None, "does not hold the recipe"),
    "of an earlier version": (lambda run: json.dumps({"classes": run.classes}), "does not hold the recipe"),
    "not JSON": (lambda run: "{", "no valid description"),
    "deep": (lambda run: "[" * 100_000, "no valid description"),
    "long": (lambda run: json.dumps({"recipe": "x" * 2_000_000}), "characters are too many"),
    "a list": (lambda run: "[1]", "no valid description"),
    "a recipe of another type": (lambda run: recipe_text(run, recipe=[1]), "no valid description"),
    "a recipe that is not YAML": (lambda run: recipe_text(run, recipe="{"), "not valid YAML"),
    "a recipe that is a list": (lambda run: recipe_text(run, recipe="- 1"), "not a section of fields"),
    "an object of Python": (lambda run: recipe_text(run, recipe="!!python/object/apply:os.system ['touch x']"), "YAML"),
    "another file": (lambda run: recipe_text(run, recipe="base: /etc/passwd"), "base: is not a field"),
    "an unknown field": (lambda run: recipe_text(run, recipe="spam: 1\nn\x1b[31m: 2"), "is not"),
    "other classes": (lambda run: recipe_text(run, classes=["a"]), "recipe of other classes"),
    "no classes": (lambda run: recipe_text(run, classes=[], recipe="seed: 1"), "recipe of other classes"),
    "another detector": (
        lambda run: recipe_text(run, recipe=dump_recipe(run.recipe).replace("small", "squeezenet1_0")),
        "holds another model",
    ),
    "code": (
        lambda run: recipe_text(run, recipe=dump_recipe(run.recipe).replace("fast_rcnn", "antigravity:Detector")),
        "whose code would run",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_metadata_of_a_stranger_gets_one_line_and_runs_nothing(described, run, rectangles, capsys, kind):
    text, problem = HOSTILE[kind]
    image = rectangles / "JPEGImages" / "test_0.jpg"
    file = described(text(run))
    capsys.readouterr()
    assert main(["predict", str(file), str(image)]) == 2
    line = capsys.readouterr().err
    assert problem in line
    assert line.count("\n") == 1 and "\x1b" not in line
    assert not file.with_suffix("").exists()


@pytest.mark.parametrize("score", ["7", "-0.1", "NaN", '"high"', "[0.5]"])
def test_a_score_that_is_none_gets_one_line(described, run, score):
    text = recipe_text(run)[:-1] + f', "score": {score}}}'
    with pytest.raises(UserError, match="no valid description"):
        assert afrcnn.Run(described(text)).score


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x08\0\0\0\0\0\0\0{}      ", b"text"])
def test_a_file_that_holds_no_weights_gets_one_line(tmp_path, capsys, content):
    (tmp_path / "bad.safetensors").write_bytes(content)
    assert main(["evaluate", str(tmp_path / "bad.safetensors")]) == 2
    assert main(["evaluate", str(tmp_path / "missing.safetensors")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "bad.safetensors: " in first and "missing.safetensors: is not a readable file" in second
