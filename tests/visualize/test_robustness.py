"""The tables and curves of stress tests."""

import io
import math

import pytest
from rich.console import Console

from afrcnn.evaluation.results import Results
from afrcnn.robustness.stress_results import Curve, LevelResults, OccludedFraction, StressResults
from afrcnn.visualize.robustness import draw_stress, stress_table

HIDDEN = OccludedFraction(0.2, 0.194, 0.206)


def level(value, ap, hidden=None):
    results = Results(
        images=2,
        detections=3,
        iou_threshold=0.5,
        objects={"cat": 4},
        mean_ap={"11-point": ap, "area": ap / 2},
        ap={"11-point": {"cat": ap}, "area": {"cat": ap / 2}},
        coco={},
    )
    return LevelResults(value, results, {"cat": 0.9 * ap + 0.1}, hidden)


def curve(name="hidden by $x_1$ grey", scale=1.0, hidden=HIDDEN):
    return Curve(name, "share hidden", (level(0.0, 0.8), level(0.2, 0.6 * scale, hidden), level(0.4, 0.12, hidden)))


def lines_of(table, width=80):
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    return [line.replace("│", " ").replace("┃", " ").split() for line in file.getvalue().splitlines()]


def test_the_table_has_a_row_for_each_level_and_the_summary_below():
    lines = lines_of(stress_table(curve()))
    assert ["0", "80.0", "82.0"] in lines
    assert ["0.2", "60.0", "64.0", "19.4", "to", "20.6"] in lines
    assert ["0.4", "12.0", "20.8", "19.4", "to", "20.6"] in lines
    assert "mean AP over levels above 0: 36.0, 45.0% of the clean AP" in " ".join(" ".join(line) for line in lines)


def test_the_table_of_what_hides_nothing_has_no_column_for_it():
    assert not any("hidden," in line for line in lines_of(stress_table(curve("turned", hidden=None))))


def test_every_stress_has_a_panel_and_every_detector_its_curves_there():
    tests = {
        "baseline": StressResults(0, (curve(), curve("turned", hidden=None))),
        "full": StressResults(0, (curve(scale=1.2),)),
    }
    first, second = draw_stress(tests).axes
    drawn = [line for line in first.get_lines() if len(line.get_xdata())]
    assert len(drawn) == 4 and len([line for line in second.get_lines() if len(line.get_xdata())]) == 2
    ap = [line for line in drawn if "keeps" in line.get_label()]
    assert [line.get_label() for line in ap] == [
        "baseline: mean AP 36.0, keeps 45.0%",
        "full: mean AP 42.0, keeps 52.5%",
    ]
    assert ap[1].get_xdata().tolist() == [0, 0.2, 0.4] and ap[1].get_ydata() == pytest.approx([80, 72, 12])
    assert len({line.get_marker() for line in ap}) == 2
    assert first.get_xlabel() == "share hidden"


def test_a_detector_without_ap_is_drawn(tmp_path):
    empty = Curve("a", "b", (level(0.0, math.nan), level(0.5, math.nan)))
    draw_stress({"nothing": StressResults(0, (empty,))}).savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
