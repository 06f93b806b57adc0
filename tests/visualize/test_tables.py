"""The tables as they stand on a terminal of 80 columns."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from afrcnn.data.splits import OcclusionSplit
from afrcnn.evaluation.results import Results
from afrcnn.evaluation.subsets import SubsetResult
from afrcnn.experiment.comparison import ComparedMethod, Comparison
from afrcnn.experiment.differences import Difference
from afrcnn.proposals.recall import Recall
from afrcnn.robustness.stress_results import Curve, LevelResults, OccludedFraction
from afrcnn.visualize.tables import (
    ap_table,
    compared_tables,
    plan_table,
    recall_table,
    split_table,
    stress_table,
    subset_table,
)


def lines_of(table):
    file = io.StringIO()
    Console(file=file, width=80).print(table)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    return lines


def words_of(table):
    return [line.replace("│", " ").replace("┃", " ").split() for line in lines_of(table)]


def results(classes):
    return Results(
        images=4952,
        detections=495200,
        iou_threshold=0.5,
        objects={name: 1000 + i for i, name in enumerate(classes)},
        mean_ap={"11-point": 0.6812, "area": 0.6956},
        ap={
            "11-point": {name: i / 100 for i, name in enumerate(classes)},
            "area": {name: float("nan") if i == 1 else i / 50 for i, name in enumerate(classes)},
        },
        coco={"AP": 0.25, "AP50": 0.5, "AP75": float("nan")},
    )


def test_every_class_has_one_row_and_the_mean_is_below():
    table = ap_table(results([f"class{i:02}" for i in range(50)]))
    words = words_of(table)
    assert ["class07", "1007", "7.0", "14.0"] in words
    assert sum("class" in line for line in lines_of(table)) == 51  # 50 classes and the heading
    assert ["mean", "51225", "68.1", "69.6"] in words
    assert any("AP 25.0  AP50 50.0  AP75 -" in line for line in lines_of(table))


def test_a_class_without_objects_has_a_dash():
    assert ["dog", "1001", "1.0", "-"] in words_of(ap_table(results(["cat", "dog"])))


def test_long_names_and_markup_fit_into_80_columns_without_loss():
    lines = lines_of(ap_table(results(["x" * 100, "[bold]cat[/bold]"])))
    assert sum(line.count("x") for line in lines) == 100
    assert any("[bold]cat[/bold]" in line for line in lines)
    assert any("1000" in line and "0.0" in line for line in lines)  # numbers are never folded


def test_every_subset_has_one_row_in_80_columns():
    def result(ap):
        return SubsetResult(
            objects={"cat": 3000, "dog": 12},
            mean_ap={"11-point": ap, "area": 0.5},
            ap={"11-point": {"cat": ap, "dog": ap}, "area": {"cat": 0.5, "dog": 0.5}},
            recall=0.25,
            confident_recall=math.nan,
        )

    words = words_of(subset_table({"not occluded": result(0.123), "[x]" + "y" * 40: result(1.0)}))
    assert ["not", "occluded", "3012", "12.3", "50.0", "25.0", "-"] in words
    assert sum(word.count("y") for line in words for word in line if "yy" in word) == 40


def curve(occluded):
    levels = ((0.0, 0.8, None), (0.2, 0.6, occluded), (0.4, 0.12, occluded))
    return Curve(
        "[x] grey",
        "fraction occluded",
        tuple(
            LevelResults(
                level,
                Results(2, 3, 0.5, {"cat": 4}, {"11-point": ap, "area": ap / 2}, {}, {}),
                {"cat": 0.9 * ap + 0.1},
                fraction,
            )
            for level, ap, fraction in levels
        ),
    )


def test_a_stress_has_a_row_for_each_level_and_the_summary_below():
    words = words_of(stress_table(curve(OccludedFraction(0.2, 0.194, 0.206))))
    assert ["0", "80.0", "82.0"] in words
    assert ["0.2", "60.0", "64.0", "19.4", "to", "20.6"] in words
    assert ["0.4", "12.0", "20.8", "19.4", "to", "20.6"] in words
    text = " ".join(word for line in words for word in line)
    assert text.startswith("[x] grey")
    assert "mPC 36.0" in text
    assert "rPC 45.0%" in text


def test_a_stress_that_occludes_nothing_has_no_column_for_it():
    assert not any("occluded," in line for line in lines_of(stress_table(curve(None))))


def test_recall_has_a_row_for_each_iou_and_a_column_for_each_number_of_proposals():
    overall = np.array([[0.5, 0.721], [np.nan, 0.25]])
    recall = Recall(("a",), np.array([3]), (0.5, 0.7), (100, 2000), np.zeros((1, 2, 2)), overall, 1999.6)
    words = words_of(recall_table(recall))
    assert ["proposals", "100", "2000"] in words
    assert ["IoU", ">=", "0.5", "50.0", "72.1"] in words
    assert ["IoU", ">=", "0.7", "-", "25.0"] in words
    assert ["2000", "proposals", "an", "image"] in words


def test_a_comparison_fits_into_80_columns_and_marks_what_can_be_told_from_noise():
    levels, subsets = ("0.2", "0.4", "0.6"), ("overlapped", "unoccluded", "occluded", "not occluded")
    images = dict.fromkeys(("clean", *levels, "mPC", *subsets), 60)
    scores = {0: {name: np.full(2, 50.0) for name in images}}
    told, noise = Difference((11.5,), np.linspace(8, 15, 100), 60), Difference((-1.2,), np.linspace(-4, 2, 100), 60)
    gains = {name: noise if name == "clean" else told for name in images}
    names = ("baseline", "occluding", "occluding_cutout")
    methods = tuple(ComparedMethod(name, scores, gains if name != "baseline" else {}, {}) for name in names)
    first, second, third = compared_tables(Comparison(methods, images, "photos"))
    words = [[word for row in words_of(table) for word in row] for table in (first, second, third)]
    assert all("occluding_cutout" in of_table for of_table in words)
    assert {"+11.5*", "-1.2"} <= set(words[0])
    assert [of_table.count("+11.5*") for of_table in words] == [2, 6, 8]
    assert {"overlapped", "unoccluded"} <= set(words[2])


def test_each_class_has_one_row_with_its_objects_in_both_splits():
    splits = [
        OcclusionSplit("open", Path("a"), ["1", "2"], {"cat": 3, "[dog]": 4}, {"cat": 0, "[dog]": 0}),
        OcclusionSplit("occluded", Path("b"), ["3"], {"cat": 5, "[dog]": 6}, {"cat": 2, "[dog]": 1}),
    ]
    words = words_of(split_table(splits))
    assert ["cat", "3", "(0)", "5", "(2)"] in words
    assert ["[dog]", "4", "(0)", "6", "(1)"] in words
    assert ["all", "7", "(0)", "11", "(3)"] in words
    assert ["class", "2", "images", "1", "images"] in words


@pytest.mark.parametrize(
    ("hours", "total"), [((1.5, 2.0), "3.5"), ((1.5, float("nan")), ">1.5"), ((float("nan"), float("nan")), "-")]
)
def test_a_plan_sums_hours_only_where_they_are_known(hours, total):
    table = plan_table([("a", 1000, hours[0], 0.5), ("b", 500, hours[1], 1.5)])
    assert [column.footer for column in table.columns] == ["", "1,500", total, "2.0"]
