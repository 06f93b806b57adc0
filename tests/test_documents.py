"""What README and guides show runs as printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

import afrcnn
from afrcnn.recipe import dump_recipe

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "adversaries.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def snippets(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_readme_goes_from_a_dataset_to_pictures(recipe, tmp_path, monkeypatch):
    (snippet,) = [text for text in snippets(README) if "afrcnn.train(" in text]
    monkeypatch.chdir(tmp_path)
    afrcnn.shapes("DATASET", trainval=4, test=2, size=96)
    (tmp_path / "photograph.jpg").write_bytes((tmp_path / "DATASET/JPEGImages/test_000000.jpg").read_bytes())
    folder = tmp_path / "configs" / "voc07"
    folder.mkdir(parents=True)
    (folder / "vgg16_frcn.yaml").write_text(dump_recipe(recipe))  # a detector of a size that a test can train
    monkeypatch.setattr("afrcnn.shipped.FOLDER", tmp_path / "configs")
    exec(snippet, {})
    assert (tmp_path / "runs/mine/results.json").is_file()
    assert (tmp_path / "pictures/photograph.jpg").is_file()
    assert (tmp_path / "seen.png").is_file()


def test_the_readme_attaches_an_adversary_to_a_detector_of_torchvision():
    (snippet,) = [text for text in snippets(README) if "box_head_spec" in text]
    detector = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=3)
    names = set(detector.state_dict())
    steps = []

    image, target = torch.rand(3, 96, 96), {"boxes": torch.tensor([[8.0, 8, 60, 60]]), "labels": torch.tensor([1])}
    training = "steps.append(detector.train()([image, image], [target, target]))"
    names_there = {"detector": detector, "steps": steps, "image": image, "target": target}
    exec(snippet.replace("...  #", f"{training}  #"), names_there)
    (losses,) = steps
    assert torch.isfinite(losses["loss_adversary"])
    assert set(detector.state_dict()) == names


@pytest.mark.parametrize("text", [README, GUIDE], ids=["README", "adversaries.md"])
def test_every_python_snippet_is_valid_and_imports_what_there_is(text):
    for snippet in snippets(text):
        compile(snippet, "snippet", "exec")
        for names in re.findall(r"^from afrcnn import (.*)$", snippet, re.MULTILINE):
            for name in names.split(", "):
                assert getattr(afrcnn, name) is not None


def test_the_guide_s_own_adversary_passes_the_guide_s_test(tmp_path):
    mine, test = (text for text in snippets(GUIDE) if "ChannelGain" in text)
    (tmp_path / "mine.py").write_text(mine)
    (tmp_path / "test_mine.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, "test_mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_guide_s_own_adversary_takes_its_arguments_from_a_recipe(recipe, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(next(text for text in snippets(GUIDE) if "class ChannelGain" in text))
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    adversaries = "{asdn: {}, mine:ChannelGain: {strength: 0.9, learning_rate_factor: 2}}"
    overrides = ["--schedule.iterations=1", "--joint.iterations=1", "--adversaries", adversaries]
    run = afrcnn.train("recipe.yaml", run="run", overrides=overrides)
    assert "ChannelGain/change" in run.log_file.read_text()
    sys.modules.pop("mine", None)


@pytest.mark.parametrize("document", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda file: file.name)
def test_links_between_documents_lead_somewhere(document):
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
        assert (document.parent / link).exists(), link


def test_the_guide_s_own_proposer_proposes(tmp_path, monkeypatch):
    guide = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (tmp_path / "grids.py").write_text(next(text for text in snippets(guide) if "class Grid" in text))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    afrcnn.shapes("DATASET", trainval=2, test=1, size=64)
    made = afrcnn.propose("DATASET", split=["test"], method="grids:Grid", jobs=1)
    store, recall = made["test"]
    assert store.folder.name == "test-grid"
    assert store.parameters == {"side": 64}
    assert recall.proposals == 1
    sys.modules.pop("grids", None)
