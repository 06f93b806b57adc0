"""Diagnosis of runs, from their folders to figures and JSON."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from afrcnn.commands.diagnose import diagnose, show
from afrcnn.commands.evaluate import evaluate
from afrcnn.core.errors import UserError
from afrcnn.evaluation.error_kinds import KINDS
from afrcnn.evaluation.formats import write_coco_results
from afrcnn.evaluation.matching import match
from afrcnn.evaluation.voc_ap import voc_ap
from afrcnn.recipe import DataRecipe, Recipe
from afrcnn.run import Run

CLASSES = ["blue", "red"]


@pytest.fixture
def pair(rectangles, dataset, tmp_path) -> tuple[Path, Path]:
    """A run and its baseline on rectangles: both find all objects; the run takes each for the other class, too, and
    sees another one in the corner."""
    folders = []
    for name, wrong in (("full", True), ("frcn", False)):
        run = Run(tmp_path / name)
        run.begin(Recipe(data=DataRecipe(root=str(rectangles), classes=CLASSES)))
        detections = []
        for index in range(len(dataset)):
            boxes, labels = dataset.target(index)["boxes"].as_subclass(torch.Tensor), dataset.target(index)["labels"]
            corner = torch.tensor([[0.0, 0.0, 2.0, 1.0]])
            rows = [(boxes, labels, 0.6)] + [(boxes, 3 - labels, 0.9 - index / 10), (corner, labels[:1], 0.55)] * wrong
            scores = [torch.full((len(box),), score) for box, _, score in rows]
            columns = (*zip(*(row[:2] for row in rows), strict=True), scores)
            detections.append(dict(zip(("boxes", "labels", "scores"), map(torch.cat, columns), strict=True)))
        write_coco_results(run.detections_file("test"), detections, dataset.ids, [1, 2])
        folders.append(run.folder)
    return folders[0], folders[1]


def test_a_run_is_diagnosed_from_what_evaluate_wrote(run, dataset, detections, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    before = evaluate(folder)
    result = diagnose(folder)
    errors = result.errors["run"]["all classes"]
    assert errors.ap["AP"] == before.mean_ap["area"]
    targets = [dataset.target(index) for index in range(len(dataset))]
    matches = match(detections, targets, dataset.classes)
    assert sum(errors.totals.values()) == (matches.counted & ~matches.hits).sum()
    assert errors.ap["without background"] >= errors.ap["AP"] == voc_ap(matches, "area").mean_ap
    written = json.loads((folder / "diagnosis/diagnosis.json").read_text())
    assert written["errors"]["run"]["all classes"]["totals"] == errors.totals
    assert {path.name for path in (folder / "diagnosis").iterdir()} == {"diagnosis.json", "errors.png"}
    show(result, run=folder)
    assert f"{folder}/diagnosis/errors.png" in capsys.readouterr().out.replace("\n", "")


def test_what_a_run_has_and_its_baseline_has_not(pair, dataset, capsys, monkeypatch):
    full, frcn = pair
    result = diagnose(full, against=frcn, similar=["red,blue"], top=1000, crops=2)
    assert list(result.errors) == ["full", "frcn"]
    assert result.groups == ("red,blue", "all classes")
    row = result.errors["full"]["red,blue"]
    assert row.counts == {"localisation": 0, "similar": 3, "other": 0, "background": 3} == row.totals
    assert sum(result.errors["frcn"]["all classes"].totals.values()) == 0
    change = result.changes["all classes"]["AP"]
    assert change.value == row.ap["AP"] - 1 < 0
    assert change.low <= change.value <= change.high
    new = result.new_false_positives
    assert [(error.kind, round(error.score, 2)) for error in new[:4]] == [
        *(("similar", score) for score in (0.9, 0.8, 0.7)),
        ("background", 0.55),
    ]
    assert [result.images[error.image] for error in new[:3]] == list(dataset.ids)
    sheet = np.asarray(Image.open(full / "diagnosis/false_positives.png"))
    assert 400 < sheet.shape[1] < 500  # two of them
    monkeypatch.setenv("COLUMNS", "80")
    show(result, run=full)
    shown = capsys.readouterr().out
    assert "change to the baseline" in shown
    assert "diagnosis/false_positives.png, of 6" in shown.replace("\n", "")
    written = json.loads((full / "diagnosis/diagnosis.json").read_text())
    assert written["new_false_positives"][0]["name"] == new[0].name
    assert set(written["changes"]["all classes"]) == set(KINDS) | set(row.ap)

    diagnose(full, against=frcn, score=1)
    assert not (full / "diagnosis/false_positives.png").exists()  # none is so confident, and none is left from before


def test_the_same_runs_give_the_same_bytes(pair, tmp_path):
    for name in "ab":
        diagnose(*pair[:1], against=pair[1], out=tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"split": "trainval"}, "afrcnn evaluate"),
        ({"similar": ["red,green"]}, "'green' is not a class"),
        ({"similar": ["red"]}, "similar"),
        ({"top": 0}, "top"),
        ({"crops": 0}, "crops"),
        ({"score": 1.5}, "score"),
        ({"against": "full"}, "is the run itself"),
        ({"against": "other"}, "knows other classes"),
        ({"against": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(options, named, pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Run("other").begin(Recipe(data=DataRecipe(classes=["red", "blue"])))
    with pytest.raises(UserError) as caught:
        diagnose("full", **options)
    assert named in str(caught.value)
    assert not Path("full/diagnosis").exists()
