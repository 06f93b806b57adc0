"""Evaluation of a run from its folder to its files, and of detections of any detector."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

from afrcnn.build import load_detector
from afrcnn.commands.evaluate import evaluate
from afrcnn.core.engine import build_fabric
from afrcnn.core.errors import UserError
from afrcnn.data.layouts import open_dataset
from afrcnn.detectors.ensemble import Ensemble
from afrcnn.evaluation import results as evaluation
from afrcnn.evaluation.detect import detect
from afrcnn.evaluation.formats import read_coco_results, read_voc_results, write_coco_results, write_voc_results
from afrcnn.evaluation.subsets import all_subsets
from afrcnn.run import Run
from afrcnn.training.train import train_stages
from reference import assert_same_detections

CPU = build_fabric("cpu")


# Runs.


def test_an_evaluation_writes_its_detections_and_results_elsewhere_when_asked(run, dataset, detections, tmp_path):
    results = evaluate(run.folder, out=tmp_path / "out")
    assert not run.results_file.exists()
    assert not run.detections.exists()
    written = Run(tmp_path / "out")
    assert evaluation.read_results(written.results_file).mean_ap == results.mean_ap
    assert results.mean_ap == evaluation.evaluate_detections(detections, dataset.dataset).mean_ap
    assert (results.images, results.objects, results.split) == (3, {"blue": 1, "red": 2}, "test")
    assert_same_detections(read_coco_results(written.detections / "test.json", dataset.ids, [1, 2]), detections, 1e-2)
    voc = read_voc_results(written.detections / "voc", dataset.ids, dataset.classes, "test")
    assert [len(detection["boxes"]) for detection in voc] == [len(detection["boxes"]) for detection in detections]
    names = sorted(file.name for file in (written.detections / "voc").rglob("*") if file.is_file())
    assert names == ["comp4_det_test_blue.txt", "comp4_det_test_red.txt"]


def test_an_evaluation_writes_into_the_run(run, tmp_path):
    copy = Run(shutil.copytree(run.folder, tmp_path / "copy"))
    evaluate(copy.folder, split="trainval")
    assert json.loads(copy.results_file.read_text())["images"] == 6
    assert (copy.detections / "trainval.json").is_file()


def test_fields_of_the_recipe_can_be_set_for_an_evaluation(run, dataset, tmp_path):
    fields = ["--detector.detections_per_image=1", "--detector.score_threshold=0"]
    evaluate(run.folder, overrides=fields, out=tmp_path)
    detections = read_coco_results(Run(tmp_path).detections / "test.json", dataset.ids, [1, 2])
    assert [len(detection["boxes"]) for detection in detections] == [1, 1, 1]


def test_runs_can_answer_together(run, recipe, dataset, detections, tmp_path):
    copy = Run(shutil.copytree(run.folder, tmp_path / "copy"))
    evaluate(run.folder, ensemble=[copy.folder], out=tmp_path / "both")
    both = read_coco_results(Run(tmp_path / "both").detections / "test.json", dataset.ids, [1, 2])
    assert_same_detections(both, detections, 1e-2)
    other = train_stages(replace(recipe, seed=1), tmp_path / "other")
    evaluate(run.folder, ensemble=[other.folder], out=tmp_path / "two")
    two = read_coco_results(Run(tmp_path / "two").detections / "test.json", dataset.ids, [1, 2])
    expected = detect(Ensemble([load_detector(run), load_detector(other)]), dataset, fabric=CPU, workers=0)
    assert_same_detections(two, expected, 1e-2)
    assert [len(image["boxes"]) for image in two] != [len(image["boxes"]) for image in detections]


def test_an_ensemble_without_a_folder_or_of_other_classes_is_refused(run, recipe, tmp_path):
    with pytest.raises(UserError, match="out: an ensemble is not a run; name a folder"):
        evaluate(run.folder, ensemble=[run.folder])
    Run(tmp_path / "turned").begin(replace(recipe, data=replace(recipe.data, classes=["red", "blue"])))
    with pytest.raises(UserError, match=r"turned: data\.classes: knows other classes"):
        evaluate(run.folder, ensemble=[tmp_path / "turned"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not run.results_file.exists()


def test_truncation_at_full_rank_changes_nothing_and_at_a_low_rank_something(run, dataset, detections, tmp_path):
    def truncated(ranks):
        evaluate(run.folder, svd=ranks, out=tmp_path / str(ranks))
        return read_coco_results(Run(tmp_path / str(ranks)).detections / "test.json", dataset.ids, [1, 2])

    assert_same_detections(truncated((256, 256)), detections, 2e-2)
    scores = [torch.cat([image["scores"] for image in images]) for images in (truncated((1, 1)), detections)]
    assert scores[0].shape != scores[1].shape or not torch.allclose(*scores, atol=1e-3)


def test_a_rank_that_is_too_large_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="rank"):
        evaluate(run.folder, svd=(257, 16), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named_and_nothing_is_written(run, recipe, tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        evaluate(tmp_path / "none")
    with pytest.raises(UserError, match="nope"):
        evaluate(run.folder, split="nope", out=tmp_path / "out")
    with pytest.raises(UserError, match=r"data\.rot"):
        evaluate(run.folder, overrides=["--data.rot=x"], out=tmp_path / "out")
    Run(tmp_path / "begun").begin(replace(recipe, data=replace(recipe.data, classes=["blue", "red"])))
    with pytest.raises(UserError, match="has no trained weights"):
        evaluate(tmp_path / "begun", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_of_another_detector_are_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"weights\.safetensors: holds another model"):
        evaluate(run.folder, overrides=["--detector.backbone=squeezenet1_0"], out=tmp_path / "out")


# Detections of any detector.


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """A dataset in COCO layout: two images, a cat in each and a dog in one; ids of categories leave gaps."""
    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    (root / "val").mkdir()
    content = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}]}
    for number in (30, 4):
        Image.fromarray(np.zeros((40, 60, 3), dtype=np.uint8)).save(root / "val" / f"{number}.jpg")
        content["images"].append({"id": number, "file_name": f"{number}.jpg", "height": 40, "width": 60})
    for number, (image, category, box) in enumerate(
        [(30, 3, [0, 0, 20, 20]), (4, 3, [10, 10, 20, 20]), (4, 8, [30, 0, 30, 40])], start=1
    ):
        common = {"id": number, "image_id": image, "category_id": category, "bbox": box}
        content["annotations"].append(common | {"iscrowd": 0, "area": box[2] * box[3]})
    (root / "annotations" / "instances_val.json").write_text(json.dumps(content))
    return root


def files_of(root):
    return {path: path.stat().st_mtime_ns for path in sorted(root.rglob("*"))}


@pytest.mark.parametrize("kind", ["coco file", "voc folder", "voc file"])
def test_detections_of_a_file_are_measured_as_those_of_the_run(run, rectangles, tmp_path, kind):
    expected = evaluate(run.folder, subsets=True, out=tmp_path / "run")
    folder = Run(tmp_path / "run").detections
    voc = folder / "voc"
    file = {"coco file": folder / "test.json", "voc folder": voc, "voc file": voc / "comp4_det_test_red.txt"}[kind]
    before = files_of(rectangles)
    results = evaluate(detections=file, overrides=["--data.root", str(rectangles)], subsets=True)
    assert results.mean_ap == pytest.approx(expected.mean_ap)
    assert results.coco == pytest.approx(expected.coco, nan_ok=True)
    assert list(results.subsets) == list(expected.subsets)
    assert (results.split, results.images) == ("test", 3)
    assert files_of(rectangles) == before


def test_proposals_and_a_recipe_are_not_needed_and_results_are_written_where_asked(run, rectangles, tmp_path):
    for folder in ("Annotations", "ImageSets", "JPEGImages"):
        shutil.copytree(rectangles / folder, tmp_path / "data" / folder)
    dataset = open_dataset(tmp_path / "data", "trainval")
    targets = [dataset.target(index) for index in range(len(dataset))]
    truth = [target | {"scores": torch.ones(len(target["labels"]))} for target in targets]
    write_voc_results(tmp_path / "voc", truth, dataset.ids, dataset.classes, "trainval")
    for file in (tmp_path / "voc").iterdir():
        file.rename(file.with_name(file.name.replace("comp4_", "comp3_")))
    fields = ["--data.root", str(tmp_path / "data"), "--data.test_split=trainval", "--data.classes=[red,blue]"]
    results = evaluate(detections=tmp_path / "voc", out=tmp_path / "out", overrides=fields)
    assert results.mean_ap == {"11-point": 1, "area": 1, "COCO": pytest.approx(1)}
    assert list(results.objects) == ["red", "blue"]
    assert str(asdict(evaluation.read_results(tmp_path / "out/results.json"))) == str(asdict(results))
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["results.json"]


def test_a_file_written_by_hand_is_measured_at_any_iou_on_a_dataset_in_coco_layout(coco, tmp_path):
    file = tmp_path / "by hand.json"
    half = {"image_id": 30, "category_id": 3, "bbox": [0, 0, 20, 11], "score": 0.9, "segmentation": []}
    whole = {"image_id": 4, "category_id": 8, "bbox": [30, 0, 30, 40], "score": 1}
    file.write_text(json.dumps([half, whole]))
    fields = ["--data.root", str(coco)]
    results = evaluate(detections=file, split="val", overrides=fields)
    assert results.ap["area"] == {"cat": 0.5, "dog": 1}
    assert results.coco["AP50"] == pytest.approx((51 / 101 + 1) / 2)
    strict = evaluate(detections=file, split="val", iou=0.75, overrides=fields)
    assert strict.ap["area"] == {"cat": 0, "dog": 1}
    assert strict.iou_threshold == 0.75
    assert strict.coco == pytest.approx(results.coco, nan_ok=True, abs=0)


def test_a_dataset_in_coco_layout_is_measured_by_files_of_the_voc_server_too(coco, tmp_path):
    dataset = open_dataset(coco, "val")
    truth = [dataset.target(index) | {"scores": torch.ones(index + 1)} for index in range(2)]
    write_coco_results(tmp_path / "coco.json", truth, dataset.ids, dataset.category_ids)
    write_voc_results(tmp_path, truth, dataset.ids, dataset.classes, "val")
    for file in (tmp_path / "coco.json", tmp_path):
        fields = ["--data.root", str(coco), "--data.layout=coco"]
        results = evaluate(detections=file, split="val", subsets=True, overrides=fields)
        assert results.mean_ap == {"11-point": 1, "area": 1, "COCO": pytest.approx(1)}
        assert set(results.subsets) == set(all_subsets(dataset))


def test_what_is_wrong_with_detections_is_named(run, coco, rectangles, tmp_path):
    fields = ["--data.root", str(coco), "--data.test_split=val"]
    good = {"image_id": 30, "category_id": 3, "bbox": [0, 0, 20, 20], "score": 0.9}
    file = tmp_path / "results.json"

    def refused(content, message, **arguments):
        file.write_text(content)
        with pytest.raises(UserError, match=message):
            evaluate(**{"detections": file, "overrides": fields, "out": tmp_path / "out"} | arguments)

    refused(
        json.dumps([good | {"image_id": 31}]), r"results\.json: \[0\]\.image_id: the image 31 is not in the dataset"
    )
    refused(json.dumps([good | {"category_id": 1}]), r"\[0\]\.category_id: the category 1 is not in the dataset")
    refused("no detections", r"results\.json: line 1: is not valid JSON")
    refused("[]", "no such file or folder; name", detections=tmp_path / "none")
    refused("[]", r"det_val_cat\.txt: cannot be read", detections=tmp_path)
    refused("[]", r"data\.root: is not set", overrides=[])
    refused("[]", "no such folder", overrides=["--data.root", str(tmp_path / "none")])
    refused("[]", "instances_tset.json: the split is missing; choose one of val", split="tset")
    refused("[]", "iou: 1 is out of range", iou=1)
    refused("[]", "takes either a run or detections", run=run.folder)
    refused("[]", "takes either a run or detections", detections=None)
    refused("[]", "svd: is of runs", svd=(8, 8))
    (tmp_path / "comp4_det_val_cat.txt").write_text("31 0.5 1 1 9 9\n")
    refused("[]", r"cat\.txt: line 1: the image '31' is not in the dataset", detections=tmp_path)
    assert not (tmp_path / "out").exists()
