"""The results of an evaluation, and results.json."""

import json
import math
from dataclasses import asdict

import pytest
import torch

from afrcnn.core.errors import UserError
from afrcnn.evaluation import results as module
from afrcnn.evaluation.coco_ap import coco_ap
from afrcnn.evaluation.matching import match, overlaps
from afrcnn.evaluation.results import evaluate_detections, read_results, write_record
from afrcnn.evaluation.voc_ap import voc_ap


class TwoImages:
    """A dataset of two images: two cats, one of them found; a dog that is difficult."""

    classes = ("cat", "dog")
    ids = ("1", "2")

    def __len__(self):
        return 2

    def target(self, index):
        boxes = [[[0, 0, 10, 10], [20, 20, 40, 40]], [[0, 0, 50, 50]]][index]
        return {
            "boxes": torch.tensor(boxes, dtype=torch.float32),
            "labels": torch.tensor([[1, 1], [2]][index]),
            "difficult": torch.tensor([[False, False], [True]][index]),
        }


DETECTIONS = [
    {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.9])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)},
]


def test_results_hold_both_metrics_of_voc_coco_s_at_one_iou_and_its_numbers():
    dataset = TwoImages()
    results = evaluate_detections(DETECTIONS, dataset)
    assert (results.images, results.detections, results.iou_threshold) == (2, 1, 0.5)
    assert results.objects == {"cat": 2, "dog": 0}
    # COCO's 101 recalls: a precision of 1 up to 0.5, and 0 beyond.
    assert results.mean_ap == pytest.approx({"11-point": 6 / 11, "area": 0.5, "COCO": 51 / 101})
    assert results.ap["COCO"] == pytest.approx({"cat": 51 / 101, "dog": math.nan}, nan_ok=True)
    assert results.ap["area"]["cat"] == 0.5
    assert math.isnan(results.ap["area"]["dog"])
    targets = [dataset.target(i) for i in range(2)]
    assert results.ap["11-point"]["cat"] == voc_ap(match(DETECTIONS, targets, dataset.classes)).ap["cat"]
    assert results.coco == pytest.approx(coco_ap(DETECTIONS, targets, dataset.classes), nan_ok=True)


def test_the_threshold_is_that_of_the_hits():
    shifted = [DETECTIONS[0] | {"boxes": torch.tensor([[0.0, 0, 10, 8]])}, DETECTIONS[1]]
    assert evaluate_detections(shifted, TwoImages(), iou_threshold=0.75).mean_ap["area"] == 0.5
    assert evaluate_detections(shifted, TwoImages(), iou_threshold=0.85).mean_ap["area"] == 0


def test_results_json_holds_null_for_nan_and_comes_back(tmp_path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    results = evaluate_detections(DETECTIONS, TwoImages())
    path = tmp_path / "results.json"
    write_record(path, results)
    content = json.loads(path.read_text(), parse_constant=refuse)
    assert content["ap"]["area"] == {"cat": 0.5, "dog": None}
    assert str(asdict(read_results(path))) == str(asdict(results))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ap": 3}', "null"])
def test_what_is_no_results_json_is_refused_by_name(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"results\.json: holds no results"):
        read_results(path)


def test_a_missing_results_json_is_named(tmp_path):
    with pytest.raises(UserError, match=r"results\.json: cannot be read"):
        read_results(tmp_path / "results.json")


def test_subsets_that_are_asked_for_join_the_results_and_come_back(tmp_path):
    dataset = TwoImages()
    members = {
        "first": [torch.tensor([True, False]), torch.tensor([False])],
        "none": [torch.zeros(2) > 0, torch.zeros(1) > 0],
    }
    results = evaluate_detections(DETECTIONS, dataset, subsets=members)
    assert results.subsets["first"].objects == {"cat": 1, "dog": 0}
    assert results.subsets["first"].mean_ap == {"11-point": 1, "area": 1}
    assert math.isnan(results.subsets["none"].recall)
    write_record(tmp_path / "results.json", results)
    assert str(read_results(tmp_path / "results.json")) == str(results)
    assert evaluate_detections(DETECTIONS, dataset).subsets == {}


def test_results_of_before_there_were_subsets_are_read(tmp_path):
    path = tmp_path / "results.json"
    write_record(path, evaluate_detections(DETECTIONS, TwoImages()))
    content = json.loads(path.read_text())
    del content["subsets"]
    path.write_text(json.dumps(content))
    assert read_results(path).subsets == {}


def test_names_of_subsets_in_files_of_earlier_versions_are_read_as_those_of_today(tmp_path):
    path = tmp_path / "results.json"
    members = {"unoccluded": [torch.tensor([True, False]), torch.tensor([False])]}
    results = evaluate_detections(DETECTIONS, TwoImages(), subsets=members)
    write_record(path, results)
    path.write_text(path.read_text().replace('"unoccluded"', '"in the open"'))
    assert str(read_results(path)) == str(results)


@pytest.mark.parametrize("iou_threshold", [0.5, 0.75])
def test_detections_are_matched_once_for_both_metrics_and_every_subset(iou_threshold, monkeypatch):
    calls = []
    monkeypatch.setattr(module, "match", lambda *arguments: calls.append("match") or match(*arguments))
    monkeypatch.setattr("afrcnn.evaluation.matching.overlaps", lambda *sides: calls.append("pairs") or overlaps(*sides))
    members = [torch.tensor([True, False]), torch.tensor([False])]
    subsets = dict.fromkeys("abcdef", members)
    results = evaluate_detections(DETECTIONS, TwoImages(), iou_threshold=iou_threshold, subsets=subsets)
    assert len(results.subsets) == 6
    assert calls == ["match", "pairs"]


def test_detections_that_have_been_matched_are_not_matched_again(monkeypatch):
    dataset = TwoImages()
    expected = evaluate_detections(DETECTIONS, dataset, iou_threshold=0.75)
    matches = match(DETECTIONS, [dataset.target(index) for index in range(2)], dataset.classes, 0.75)
    monkeypatch.setattr(module, "match", pytest.fail)
    assert str(evaluate_detections(DETECTIONS, dataset, matches=matches)) == str(expected)


def test_results_of_an_earlier_version_have_coco_s_metric_from_its_numbers(tmp_path):
    written = evaluate_detections(DETECTIONS, TwoImages())
    record = asdict(written)
    for by_metric in (record["mean_ap"], record["ap"]):
        del by_metric["COCO"]
    write_record(tmp_path / "results.json", record)
    again = read_results(tmp_path / "results.json")
    assert again.mean_ap == written.mean_ap
    assert "COCO" not in again.ap
