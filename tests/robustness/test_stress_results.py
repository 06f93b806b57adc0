"""The results of a stress test, its summary, and stress.json."""

import json
import math

import pytest

from afrcnn.core.errors import UserError
from afrcnn.evaluation.results import Results
from afrcnn.robustness.stress_results import (
    Curve,
    LevelResults,
    OccludedFraction,
    StressResults,
    read_stress,
    write_stress,
)


def level(value, ap, recall=0.5, occluded=None):
    results = Results(
        images=2,
        detections=3,
        iou_threshold=0.5,
        objects={"cat": 4, "dog": 0},
        mean_ap={"11-point": ap, "area": ap / 2, "COCO": math.nan},
        ap={metric: {"cat": ap, "dog": math.nan} for metric in ("11-point", "area")},
        coco={"AP": ap, "AP50": math.nan},
    )
    return LevelResults(value, results, {"cat": recall, "dog": math.nan}, occluded)


CURVE = Curve(
    "occluded by grey",
    "fraction",
    (level(0.0, 0.8), level(0.2, 0.6, occluded=OccludedFraction(0.2, 0.19, 0.21)), level(0.4, 0.1)),
)


def test_the_summary_leaves_the_clean_level_out_of_the_mean_and_divides_by_it():
    assert CURVE.mpc() == pytest.approx(0.35)
    assert CURVE.relative_performance() == pytest.approx(0.35 / 0.8)
    assert CURVE.mpc("area") == pytest.approx(0.175)
    assert CURVE.relative_performance("area") == pytest.approx(0.35 / 0.8)


def test_a_detector_that_finds_nothing_on_clean_images_has_no_relative_performance():
    assert math.isnan(Curve("a", "b", (level(0.0, 0.0), level(0.5, 0.0))).relative_performance())


def test_recall_is_the_mean_over_classes_that_have_objects():
    assert CURVE.levels[0].mean_recall == 0.5


def test_stress_json_is_read_as_it_was_written_and_holds_the_summary(tmp_path):
    results = StressResults(3, (CURVE,))
    write_stress(tmp_path / "stress.json", results)
    assert repr(read_stress(tmp_path / "stress.json")) == repr(results)
    content = json.loads((tmp_path / "stress.json").read_text(), parse_constant=pytest.fail)
    assert content["curves"][0]["summary"]["mpc"]["11-point"] == pytest.approx(0.35)
    assert content["curves"][0]["summary"]["relative_performance"]["area"] == pytest.approx(0.4375)
    assert content["curves"][0]["levels"][0]["results"]["ap"]["area"]["dog"] is None


def test_files_of_earlier_versions_are_read_with_the_words_of_today(tmp_path):
    curves = (
        Curve("occluded by images, random places", "fraction of each box occluded", CURVE.levels),
        Curve("occluded by grey, worst places", "fraction of each box occluded", CURVE.levels),
        Curve("warped elastically", "fraction of each box's shorter side", CURVE.levels),
    )
    path = tmp_path / "stress.json"
    write_stress(path, StressResults(3, curves, "test"))
    content = json.loads(path.read_text())
    names = ("hidden by photographs, random places", "hidden by grey, worst places", "warped elastically")
    units = ("share of each box hidden", "share of each box hidden", "share of each box's shorter side")
    for curve, name, unit in zip(content["curves"], names, units, strict=True):
        curve |= {"name": name, "unit": unit, "summary": {"mean_ap": {"area": 1}, "kept": {"area": 1}}}
        for record in curve["levels"]:
            record["hidden"] = record.pop("occluded")
            record["results"]["subsets"] = {}
    path.write_text(json.dumps(content))
    assert repr(read_stress(path)) == repr(StressResults(3, curves, "test"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seed": 0, "curves": [{"name": "a"}]}', "[1", '{"curves": 3}'])
def test_what_is_no_stress_json_is_refused(tmp_path, text):
    (tmp_path / "stress.json").write_text(text)
    with pytest.raises(UserError, match="holds no results of a stress test"):
        read_stress(tmp_path / "stress.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: cannot be read"):
        read_stress(tmp_path / "none.json")
