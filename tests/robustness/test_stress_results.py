"""The results of a stress test, its summary, and stress.json."""

import json
import math

import pytest

from afrcnn.core.errors import UserError
from afrcnn.evaluation.results import Results
from afrcnn.robustness.stress_results import Curve, Hidden, LevelResults, StressResults, read_stress, write_stress


def level(value, ap, recall=0.5, hidden=None):
    results = Results(
        images=2,
        detections=3,
        iou_threshold=0.5,
        objects={"cat": 4, "dog": 0},
        mean_ap={"11-point": ap, "area": ap / 2},
        ap={metric: {"cat": ap, "dog": math.nan} for metric in ("11-point", "area")},
        coco={"AP": ap, "AP50": math.nan},
    )
    return LevelResults(value, results, {"cat": recall, "dog": math.nan}, hidden)


CURVE = Curve(
    "hidden by grey", "share", (level(0.0, 0.8), level(0.2, 0.6, hidden=Hidden(0.2, 0.19, 0.21)), level(0.4, 0.1))
)


def test_the_summary_leaves_the_clean_level_out_of_the_mean_and_divides_by_it():
    assert CURVE.mean_ap() == pytest.approx(0.35) and CURVE.kept() == pytest.approx(0.35 / 0.8)
    assert CURVE.mean_ap("area") == pytest.approx(0.175) and CURVE.kept("area") == pytest.approx(0.35 / 0.8)


def test_a_detector_that_finds_nothing_in_the_open_keeps_no_share():
    assert math.isnan(Curve("a", "b", (level(0.0, 0.0), level(0.5, 0.0))).kept())


def test_recall_is_the_mean_over_classes_that_have_objects():
    assert CURVE.levels[0].mean_recall == 0.5


def test_stress_json_is_read_as_it_was_written_and_holds_the_summary(tmp_path):
    results = StressResults(3, (CURVE,))
    write_stress(tmp_path / "stress.json", results)
    assert repr(read_stress(tmp_path / "stress.json")) == repr(results)
    content = json.loads((tmp_path / "stress.json").read_text(), parse_constant=pytest.fail)
    assert content["curves"][0]["summary"]["mean_ap"]["11-point"] == pytest.approx(0.35)
    assert content["curves"][0]["summary"]["kept"]["area"] == pytest.approx(0.4375)
    assert content["curves"][0]["levels"][0]["results"]["ap"]["area"]["dog"] is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seed": 0, "curves": [{"name": "a"}]}', "[1", '{"curves": 3}'])
def test_what_is_no_stress_json_is_refused(tmp_path, text):
    (tmp_path / "stress.json").write_text(text)
    with pytest.raises(UserError, match="holds no results of a stress test"):
        read_stress(tmp_path / "stress.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: cannot be read"):
        read_stress(tmp_path / "none.json")
