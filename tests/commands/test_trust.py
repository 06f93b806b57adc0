"""Run folders from strangers: their recipes name classes, whose code runs only where --trust names its module."""

import shutil
import sys
from pathlib import Path

import pytest

from afrcnn.cli import main
from afrcnn.recipe import load_recipe

EVIL = """
from pathlib import Path

from torch import nn

from afrcnn.adversaries.dropout import HardDropout
from afrcnn.detectors.backbones import small
from afrcnn.detectors.rcnn import fast_rcnn
from afrcnn.detectors.roi_pooling import RoIAlign

Path({sentinel!r}).touch()


class X(HardDropout):
    pass


class Detector(nn.Module):
    def __new__(cls, num_classes):
        return fast_rcnn(small(), RoIAlign, num_classes, short_side=[64], long_side=64)
"""
FIELDS = {
    "an adversary": ("evil", "evi", "adversaries: {}", "adversaries: {'evil:X': {}}"),
    "an adversary in the run": ("run.evil", "evil", "adversaries: {}", "adversaries: {'run.evil:X': {}}"),
    "two adversaries": ("run.evil", "evil", "adversaries: {}", "adversaries: {'run.evil:X': {}, 'evil:X': {}}"),
    "a detector": ("evil", "evil.Detector", "model: fast_rcnn", "model: evil:Detector"),
    "a detector in the run": ("run.evil", "evil", "model: fast_rcnn", "model: run.evil:Detector"),
}
"""What a recipe names: the module, one whose trust is not enough, and the line of the recipe before and after."""

COMMANDS = {
    "evaluate": ["evaluate", "run", "--out", "out"],
    "predict": ["predict", "run", "image.jpg"],
    "masks": ["masks", "run", "image.jpg", "--score", "0.01"],
    "stress": ["stress", "run", "--occluder", "grey", "--levels", "0.5"],
    "report": ["report", "run"],
}


@pytest.fixture
def sentinel(run, rectangles, tmp_path, monkeypatch):
    """A file that is made once evil.py is imported, which lies in the current folder and in the run's."""
    shutil.copytree(run.folder, tmp_path / "run")
    shutil.copy(rectangles / "JPEGImages/test_0.jpg", tmp_path / "image.jpg")
    for folder in (tmp_path, tmp_path / "run"):
        (folder / "evil.py").write_text(EVIL.format(sentinel=str(tmp_path / "imported")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # as `python -m afrcnn.cli` does
    yield tmp_path / "imported"
    for module in ("evil", "run", "run.evil"):
        sys.modules.pop(module, None)


def name_in_recipe(field: str) -> None:
    *_, old, new = FIELDS[field]
    text = Path("run/recipe.yaml").read_text()
    assert old in text
    Path("run/recipe.yaml").write_text(text.replace(old, new))


def needs_code(command: str, field: str) -> bool:
    return command == "masks" or ("detector" in field and command in ("evaluate", "predict", "stress"))


@pytest.mark.parametrize("field", FIELDS)
def test_no_command_runs_code_that_a_run_s_recipe_names(field, sentinel, capsys):
    module, other, *_ = FIELDS[field]
    name_in_recipe(field)
    for command, words in COMMANDS.items():
        for trust in ([], ["--trust", other]):
            status = main([*words, *trust])
            shown = capsys.readouterr().err
            assert not sentinel.exists(), command
            assert status == (2 if needs_code(command, field) else 0), (command, shown)
            if status:
                assert f"--trust {module}" in shown, command
                assert len(shown.splitlines()) == 1, command
    if "adversar" in field:
        assert f"--trust {module}" in Path("report.html").read_text()


def test_a_training_from_such_a_run_takes_its_weights_alone(sentinel, recipe):
    name_in_recipe("two adversaries")
    name_in_recipe("a detector")
    stages = "schedule: {iterations: 1}\njoint: {iterations: 1}\nadversaries: {hard_dropout: {}}\n"
    Path("own.yaml").write_text(f"{stages}detector: {{backbone: small, short_side: [64], long_side: 64}}\n")
    words = ["--data.root", recipe.data.root, "--data.workers", "0", "--init_from", "run", "--run", "own"]
    assert main(["train", "own.yaml", *words]) == 0
    assert Path("own/weights.safetensors").is_file()
    assert load_recipe("own/recipe.yaml").adversaries == {"hard_dropout": {}}
    assert not sentinel.exists()


@pytest.mark.parametrize(
    ("field", "command"),
    [
        ("an adversary", "masks"),
        ("an adversary in the run", "masks"),
        ("an adversary", "report"),
        ("a detector", "evaluate"),
        ("a detector in the run", "predict"),
        ("a detector", "stress"),
    ],
)
def test_a_trusted_module_is_imported_where_the_command_needs_it(field, command, sentinel):
    module, *_ = FIELDS[field]
    name_in_recipe(field)
    assert main([*COMMANDS[command], "--trust", module]) == 0
    assert sentinel.exists()
