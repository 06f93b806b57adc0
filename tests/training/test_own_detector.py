"""A detector that is no Fast R-CNN, in the same loop and through the same commands."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from afrcnn.cli import main
from afrcnn.core.errors import UserError
from afrcnn.recipe import load_recipe
from afrcnn.training.samples import _order, seed_of
from afrcnn.training.train import train_stages

DETECTOR = '''
import torch
from torch import nn
from torch.nn import functional as F


class OneObject(nn.Module):
    """Finds one object an image: a grid of cells, each with a score a class and a box."""

    def __init__(self, num_classes, width=16, score=0.0):
        super().__init__()
        self.score, self.num_classes = score, num_classes
        self.body = nn.Sequential(nn.Conv2d(3, width, 5, 4, 2), nn.ReLU(), nn.Conv2d(width, width, 5, 4, 2), nn.ReLU())
        self.classes, self.boxes = nn.Conv2d(width, num_classes + 1, 1), nn.Conv2d(width, 4, 1)
        self.noise = nn.Dropout(0.2)
        self.metrics = {}

    def cells(self, image):
        image = image.float() / 255 if image.dtype == torch.uint8 else image
        features = self.noise(self.body(image[None]))
        return self.classes(features)[0].flatten(1).T, self.boxes(features)[0].flatten(1).T.sigmoid()

    def forward(self, images, targets=None):
        outputs = [self.cells(image) for image in images]
        if not self.training:
            return [self.detect(*output, image.shape) for output, image in zip(outputs, images)]
        losses = {"classification": 0.0, "boxes": 0.0}
        for (logits, boxes), image, target in zip(outputs, images, targets):
            size = torch.tensor(image.shape[:0:-1]).repeat(2)
            goal = target["boxes"].as_subclass(torch.Tensor)[0] / size
            cell = torch.cdist(boxes, goal[None]).argmin()
            labels = torch.zeros(len(logits), dtype=torch.int64)
            labels[cell] = target["labels"][0]
            losses["classification"] += F.cross_entropy(logits, labels) / len(images)
            losses["boxes"] += F.l1_loss(boxes[cell], goal) / len(images)
        self.metrics = {"best_score": outputs[0][0].detach().softmax(1)[:, 1:].max()}
        return losses

    def detect(self, logits, boxes, shape):
        scores, cell = logits.softmax(1)[:, 1:].max(dim=0)
        boxes = boxes[cell] * torch.tensor(shape[:0:-1]).repeat(2)
        return {"boxes": boxes, "labels": torch.arange(1, self.num_classes + 1), "scores": scores}
'''


@pytest.fixture
def folder(tmp_path, monkeypatch, rectangles):
    """A folder with the detector's module and a recipe that names it."""
    (tmp_path / "one_object.py").write_text(DETECTOR)
    (tmp_path / "recipe.yaml").write_text(
        f"""
data: {{root: {rectangles}, proposal_method: null, workers: 0}}
detector: {{model: one_object:OneObject, arguments: {{width: 8}}}}
schedule: {{iterations: 6, learning_rate: 0.01, decay_at: [], checkpoint_every: 2, log_every: 1}}
engine: {{accelerator: cpu}}
"""
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("one_object", None)


def test_the_detector_has_forty_lines():
    assert len([line for line in DETECTOR.splitlines() if line.strip()]) <= 42


def test_it_trains_resumes_evaluates_and_is_stressed_by_the_same_commands(folder, capsys):
    assert main(["train", "recipe.yaml", "--run", "run"]) == 0
    header, *rows = Path("run/log.csv").read_text().splitlines()
    assert {"classification", "boxes", "best_score", "loss"} <= set(header.split(","))
    assert len(rows) == 6

    assert main(["evaluate", "run", "--subsets"]) == 2
    assert "--trust one_object" in capsys.readouterr().err
    assert main(["evaluate", "run", "--subsets", "--trust", "one_object"]) == 0
    results = json.loads(Path("run/results.json").read_text())
    assert results["images"] == 3
    assert results["detections"] == 6  # two classes an image
    assert main(["stress", "run", "--levels", "0.5", "--trust", "one_object"]) == 0
    (curve,) = json.loads(Path("run/stress.json").read_text())["curves"]
    assert [level["level"] for level in curve["levels"]] == [0, 0.5]
    clean = curve["levels"][0]["results"]["mean_ap"]
    assert clean == results["mean_ap"]


def test_an_interrupted_training_ends_with_the_same_bits(folder):
    recipe = load_recipe("recipe.yaml")
    whole = train_stages(recipe, "whole")
    ids = [f"trainval_{index}" for index in _order(seed_of(recipe.seed, 1), 0, 6)]

    def spoil(image, target):
        return image / 255 * (float("nan") if target["image_id"] == ids[5] else 1), target

    with pytest.raises(UserError, match="not finite"):
        train_stages(recipe, "run", transform=spoil)
    assert torch.load("run/checkpoint.pt")["iteration"] == 2
    resumed = train_stages(recipe, "run")
    expected, trained = load_file(whole.weights_file), load_file(resumed.weights_file)
    assert expected.keys() == trained.keys()
    for name, value in expected.items():
        assert torch.equal(trained[name], value), name


def test_adversaries_for_it_are_refused_by_field(folder):
    with pytest.raises(UserError, match=r"adversaries: do not fit one_object:OneObject"):
        train_stages(load_recipe("recipe.yaml", ["--adversaries", "[asdn]", "--joint.iterations=1"]), "run")
    assert not Path("run").exists()
