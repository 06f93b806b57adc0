"""Detection over a split, and the evaluation of a run from its folder to its files."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from afrcnn.build import load_detector, open_split
from afrcnn.core.errors import UserError
from afrcnn.detectors.ensemble import Ensemble
from afrcnn.evaluation.detect import detect, evaluate_run
from afrcnn.evaluation.formats import read_coco_results, read_voc_results
from afrcnn.evaluation.results import evaluate, read_results
from afrcnn.recipe import EngineRecipe
from afrcnn.run import Run
from afrcnn.training.train import train

CPU = EngineRecipe(accelerator="cpu")


@pytest.fixture(scope="module")
def dataset(recipe):
    return open_split(recipe, "test")


@pytest.fixture(scope="module")
def detections(run, dataset):
    return detect(load_detector(run), dataset, engine=CPU, workers=0)


def assert_same(found, expected, tolerance):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one["labels"], other["labels"])
        torch.testing.assert_close(one["boxes"], other["boxes"], rtol=0, atol=tolerance)
        torch.testing.assert_close(one["scores"], other["scores"], rtol=0, atol=tolerance)


def test_detections_are_the_detector_s_image_by_image(run, dataset, detections):
    detector = load_detector(run)
    with torch.no_grad():
        for index, found in enumerate(detections):
            image, target = dataset[index]
            assert_same([found], detector([image], [target["proposals"]]), 1e-5)
    assert len(detections) == 3 and all(len(found["boxes"]) for found in detections)


def test_detections_do_not_depend_on_the_number_of_loaders(run, dataset, detections):
    assert_same(detect(load_detector(run), dataset, engine=CPU, workers=2), detections, 0)


def test_bfloat16_detects_about_the_same(run, dataset, detections):
    found = detect(load_detector(run), dataset, engine=replace(CPU, precision="bf16-mixed"), workers=0)
    for one, other in zip(found, detections, strict=True):
        assert one["boxes"].dtype == one["scores"].dtype == torch.float32
        torch.testing.assert_close(one["scores"][:1], other["scores"][:1], rtol=0, atol=0.05)


def test_an_evaluation_writes_its_detections_and_results_elsewhere_when_asked(run, dataset, detections, tmp_path):
    results = evaluate_run(run.folder, out=tmp_path / "out")
    assert not run.results_file.exists() and not run.detections.exists()
    written = Run(tmp_path / "out")
    assert read_results(written.results_file).mean_ap == results.mean_ap
    assert results.mean_ap == evaluate(detections, dataset.dataset).mean_ap
    assert results.images == 3 and results.objects == {"blue": 1, "red": 2}
    assert_same(read_coco_results(written.detections / "test.json", dataset.ids, [1, 2]), detections, 1e-2)
    voc = read_voc_results(written.detections / "voc", dataset.ids, dataset.classes, "test")
    assert [len(found["boxes"]) for found in voc] == [len(found["boxes"]) for found in detections]
    names = sorted(file.name for file in (written.detections / "voc").rglob("*") if file.is_file())
    assert len(names) == 2 and all("test" in name for name in names)


def test_an_evaluation_writes_into_the_run(run, tmp_path):
    copy = Run(shutil.copytree(run.folder, tmp_path / "copy"))
    evaluate_run(copy.folder, split="trainval")
    assert json.loads(copy.results_file.read_text())["images"] == 6
    assert (copy.detections / "trainval.json").is_file()


def test_fields_of_the_recipe_can_be_set_for_an_evaluation(run, dataset, tmp_path):
    evaluate_run(run.folder, ["--detector.detections_per_image=1", "--detector.score_threshold=0"], out=tmp_path)
    found = read_coco_results(Run(tmp_path).detections / "test.json", dataset.ids, [1, 2])
    assert [len(detection["boxes"]) for detection in found] == [1, 1, 1]


def test_runs_can_answer_together(run, recipe, dataset, detections, tmp_path):
    copy = Run(shutil.copytree(run.folder, tmp_path / "copy"))
    evaluate_run(run.folder, ensemble=[copy.folder], out=tmp_path / "both")
    found = read_coco_results(Run(tmp_path / "both").detections / "test.json", dataset.ids, [1, 2])
    assert_same(found, detections, 1e-2)
    other = train(replace(recipe, seed=1), tmp_path / "other")
    evaluate_run(run.folder, ensemble=[other.folder], out=tmp_path / "two")
    found = read_coco_results(Run(tmp_path / "two").detections / "test.json", dataset.ids, [1, 2])
    expected = detect(Ensemble([load_detector(run), load_detector(other)]), dataset, engine=CPU, workers=0)
    assert_same(found, expected, 1e-2)
    assert [len(each["boxes"]) for each in found] != [len(each["boxes"]) for each in detections]


def test_an_ensemble_without_a_folder_or_of_other_classes_is_refused(run, recipe, tmp_path):
    with pytest.raises(UserError, match="out: an ensemble is no run; name a folder"):
        evaluate_run(run.folder, ensemble=[run.folder])
    Run(tmp_path / "turned").begin(replace(recipe, data=replace(recipe.data, classes=["red", "blue"])))
    with pytest.raises(UserError, match=r"turned: data\.classes: knows other classes"):
        evaluate_run(run.folder, ensemble=[tmp_path / "turned"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists() and not run.results_file.exists()


def test_truncation_at_full_rank_changes_nothing_and_at_a_low_rank_something(run, dataset, detections, tmp_path):
    def found(ranks):
        evaluate_run(run.folder, svd=ranks, out=tmp_path / str(ranks))
        return read_coco_results(Run(tmp_path / str(ranks)).detections / "test.json", dataset.ids, [1, 2])

    assert_same(found((256, 256)), detections, 2e-2)
    scores = [torch.cat([detection["scores"] for detection in each]) for each in (found((1, 1)), detections)]
    assert scores[0].shape != scores[1].shape or not torch.allclose(*scores, atol=1e-3)


def test_a_rank_that_is_too_large_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="rank"):
        evaluate_run(run.folder, svd=(257, 16), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named_and_nothing_is_written(run, recipe, tmp_path):
    with pytest.raises(UserError, match="is no run"):
        evaluate_run(tmp_path / "none")
    with pytest.raises(UserError, match="nope"):
        evaluate_run(run.folder, split="nope", out=tmp_path / "out")
    with pytest.raises(UserError, match=r"data\.rot"):
        evaluate_run(run.folder, ["--data.rot=x"], out=tmp_path / "out")
    Run(tmp_path / "begun").begin(replace(recipe, data=replace(recipe.data, classes=["blue", "red"])))
    with pytest.raises(UserError, match="has no trained weights"):
        evaluate_run(tmp_path / "begun", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_of_another_detector_are_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"weights\.safetensors: holds another model"):
        evaluate_run(run.folder, ["--detector.backbone=squeezenet1_0"], out=tmp_path / "out")
