"""The curves of stress tests."""

import math

import pytest

from afrcnn.evaluation.results import Results
from afrcnn.robustness.stress_results import Curve, LevelResults, StressResults
from afrcnn.visualize.robustness import draw_stress


def level(value, ap):
    results = Results(
        images=2,
        detections=3,
        iou_threshold=0.5,
        objects={"cat": 4},
        mean_ap={"11-point": ap, "area": ap / 2},
        ap={"11-point": {"cat": ap}, "area": {"cat": ap / 2}},
        coco={},
    )
    return LevelResults(value, results, {"cat": 0.9 * ap + 0.1}, None)


def curve(name="occluded by $x_1$ grey", scale=1.0):
    return Curve(name, "fraction occluded", (level(0.0, 0.8), level(0.2, 0.6 * scale), level(0.4, 0.12)))


def test_every_stress_has_a_panel_and_every_detector_its_curves_there():
    tests = {
        "baseline": StressResults(0, (curve(), curve("rotated"))),
        "full": StressResults(0, (curve(scale=1.2),)),
    }
    first, second = draw_stress(tests).axes
    drawn = [line for line in first.get_lines() if len(line.get_xdata())]
    assert len(drawn) == 4
    assert len([line for line in second.get_lines() if len(line.get_xdata())]) == 2
    ap = [line for line in drawn if "rPC" in line.get_label()]
    assert [line.get_label() for line in ap] == [
        "baseline: mPC 36.0, rPC 45.0%",
        "full: mPC 42.0, rPC 52.5%",
    ]
    assert ap[1].get_xdata().tolist() == [0, 0.2, 0.4]
    assert ap[1].get_ydata() == pytest.approx([80, 72, 12])
    assert len({line.get_marker() for line in ap}) == 2
    assert first.get_xlabel() == "fraction occluded"


def test_a_detector_without_ap_is_drawn(tmp_path):
    empty = Curve("a", "b", (level(0.0, math.nan), level(0.5, math.nan)))
    draw_stress({"nothing": StressResults(0, (empty,))}).savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
