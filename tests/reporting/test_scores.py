"""Curves, calibration and confusion matrices on the page."""

import numpy as np
import pytest

from afrcnn.evaluation.confidence import calibration, threshold_curve
from afrcnn.evaluation.confusion import confusion_matrix
from afrcnn.reporting.methods import read_methods
from afrcnn.reporting.scores import _most_frequent, _thinned, by_score, confusions


@pytest.fixture(scope="module")
def methods(runs):
    return read_methods(list(runs.values()))


def test_the_table_has_the_best_points_and_the_calibration_of_all_runs(methods):
    (table,) = by_score(methods).tables
    for row, method in zip(table.rows, methods, strict=True):
        curves = [threshold_curve(run.matches) for run in method.runs]
        best = [(curve.f1[i], curve.precision[i], curve.recall[i]) for curve in curves for i in [curve.f1.argmax()]]
        errors = [calibration(run.matches).error for run in method.runs]
        numbers = dict(zip(table.heads[1:], [cell.value for cell in row.cells], strict=True))
        assert numbers["runs"] == 2
        expected = [*np.mean(best, axis=0), np.mean(errors)]
        assert list(numbers.values())[1:] == pytest.approx([100 * value for value in expected])


def test_a_lower_calibration_error_is_the_better_one(methods):
    (table,) = by_score(methods).tables
    cells = [row.cells[-1] for row in table.rows]
    assert len({cell.value for cell in cells}) == 2
    assert min(cells, key=lambda cell: cell.value).best
    assert not max(cells, key=lambda cell: cell.value).best


def test_charts_say_the_best_point_and_the_error_in_words(methods):
    curve = threshold_curve(methods[0].runs[0].matches)
    at = curve.f1.argmax()
    precision, f1, scores = by_score(methods).pictures[""]
    assert "Precision in %, by recall in %" in precision.alternative
    assert f"frcn: {100 * curve.f1[at]:.1f} at {curve.scores[at]:.2f}" in f1.alternative
    assert f"frcn: error {100 * calibration(methods[0].runs[0].matches).error:.1f}" in scores.alternative


def test_one_matrix_is_shown_and_the_others_are_folded_away(methods):
    section = confusions(methods, methods[1])
    (table,) = section.tables
    assert list(section.more) == ["frcn"]
    assert list(table.heads) == ["object", "blue", "red", "missed"]
    assert [row.name for row in table.rows] == ["blue", "red", "background"]
    matches = methods[1].runs[0].matches
    curve = threshold_curve(matches)
    matrix = confusion_matrix(matches, curve.scores[curve.f1.argmax()])
    assert [[cell.value or 0 for cell in row.cells] for row in table.rows] == matrix.tolist()
    for row, counts in zip(table.rows[:-1], matrix, strict=False):
        assert sum(cell.right + cell.wrong for cell in row.cells) == pytest.approx(1 if counts.sum() else 0, abs=0.01)


def test_of_many_classes_the_most_frequent_confusions_are_listed():
    matrix = np.zeros((4, 4), int)
    matrix[0, 1], matrix[2, 0], matrix[1, 1], matrix[0, 3], matrix[3, 2] = 2, 5, 50, 8, 9
    table = _most_frequent("m", matrix, ["a", "b", "c"])
    assert [(row.name, row.cells[0], row.cells[1].value) for row in table.rows] == [("c", "a", 5), ("a", "b", 2)]
    assert [row.cells[2].value for row in table.rows] == [100, 20]


def test_runs_without_detections_leave_no_section(runs, tmp_path):
    (tmp_path / "recipe.yaml").write_bytes((runs["frcn-seed0"] / "recipe.yaml").read_bytes())
    alone = read_methods([tmp_path])
    assert not by_score(alone).shown
    assert not confusions(alone, alone[0]).shown


@pytest.mark.parametrize("sign", [1, -1])
def test_a_long_curve_keeps_its_shape_where_most_of_its_points_are_at_one_end(sign):
    x = sign * np.concatenate([np.linspace(0, 0.9, 50), np.linspace(0.9, 1, 5000)])
    points = np.stack([x, np.arange(len(x))], axis=1)
    kept = _thinned(points)
    assert kept[0] == tuple(points[0])
    assert kept[-1] == tuple(points[-1])
    assert len(kept) <= 202
    assert np.abs(np.diff([at for at, _ in kept])).max() < 0.02
    assert _thinned(points[:20]) == [tuple(point) for point in points[:20].tolist()]
