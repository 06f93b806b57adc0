"""Runs to report, and a browser to look at the report."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from afrcnn.build import build_adversary, build_detector
from afrcnn.data.layouts import open_dataset
from afrcnn.evaluation.formats import write_coco_results
from afrcnn.evaluation.results import evaluate_detections, write_record
from afrcnn.recipe import DataRecipe, DetectorRecipe, Recipe
from afrcnn.run import Run
from afrcnn.training.checkpoint import save_weights
from chromium import Chromium, Seen, program

CLASSES = ["blue", "red"]


@pytest.fixture(scope="session")
def runs(rectangles: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained runs on rectangles: two seeds of a baseline, and two of a method with adversaries.

    The baseline finds every object. The method finds the first of each image, and sees a red rectangle in the upper
    left corner of each image, with a score of 0.9 in the first, 0.8 in the second and 0.7 in the third.
    """
    folder = tmp_path_factory.mktemp("runs")
    plain = Recipe(
        data=DataRecipe(root=str(rectangles), classes=CLASSES, workers=0),
        detector=DetectorRecipe(backbone="small", short_side=[64], long_side=64),
    )
    dataset = open_dataset(rectangles, "test", classes=CLASSES)
    targets = [dataset.target(index) for index in range(len(dataset))]
    made = {}
    for seed in (0, 1):
        torch.manual_seed(seed)
        detector = build_detector(plain.detector, len(CLASSES))
        for name, adversaries in (("frcn", {}), ("full", {"asdn": {}, "astn": {}})):
            recipe = replace(plain, adversaries=adversaries, seed=seed)
            if adversaries:
                recipe = replace(recipe, init_from=f"runs/frcn-seed{seed}")
            run = Run(folder / f"{name}-seed{seed}")
            run.begin(recipe)
            save_weights(run.weights_file, detector, {})
            if adversaries:
                save_weights(run.adversary_file, build_adversary(recipe, detector.box_head_spec, ()), {})
            run.log_file.write_text(
                "iteration,stage,loss,classification,learning_rate\n"
                + "".join(f"{i},joint,{2 / i + seed},{1 / i},0.001\n" for i in range(20, 120, 20))
            )
            detections = [
                _detections(target, 0.9 - image / 10 if adversaries else None, seed)
                for image, target in enumerate(targets)
            ]
            write_coco_results(run.detections_file("test"), detections, dataset.ids, [1, 2])
            write_record(run.results_file, evaluate_detections(detections, dataset))
            made[run.folder.name] = run.folder
    return made


def _detections(target: dict[str, Any], corner: float | None, seed: int) -> dict[str, torch.Tensor]:
    """All objects of an image, those of seed 1 a bit beside their places; and something in the corner."""
    boxes = target["boxes"].as_subclass(torch.Tensor) + seed
    detections = {"boxes": boxes, "labels": target["labels"], "scores": torch.full((len(boxes),), 0.6)}
    if corner is not None:
        new = {"boxes": torch.tensor([[0.0, 0, 8, 8]]), "labels": torch.tensor([2]), "scores": torch.tensor([corner])}
        detections = {name: torch.cat([value, new[name]]) for name, value in detections.items()}
    return detections


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Seen]]:
    """A function that opens a page in headless Chromium and runs the body of an async function in it."""
    if (installed := program()) is None:
        pytest.skip("no Chromium is installed")
    chromium = Chromium(installed, tmp_path_factory.mktemp("profile"))

    def look(page: Path, script: str = "return null", *, javascript: bool = True, width: int = 1280) -> Seen:
        if not javascript:  # the page's own; what looks at the page still needs it
            html = re.sub(r"<script>.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
            page = tmp_path_factory.mktemp("still") / "page.html"
            page.write_text(html, encoding="utf-8")
        return chromium.look(page, script, width=width)

    yield look
    chromium.close()
