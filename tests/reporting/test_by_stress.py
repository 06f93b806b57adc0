"""Stress tests on the page: what sums them up, and every level."""

import numpy as np
import pytest

from afrcnn.evaluation.results import Results
from afrcnn.recipe import Recipe
from afrcnn.reporting.comparison import by_stress
from afrcnn.reporting.methods import Method
from afrcnn.robustness.stress_results import Curve, LevelResults, StressResults
from tiny import build_reported_run

LEVELS = [0, 0.2, 0.4]


def level(at, ap, recall):
    results = Results(3, 9, 0.5, {"a": 4}, {"11-point": ap, "area": ap}, {"11-point": {"a": ap}, "area": {"a": ap}}, {})
    return LevelResults(at, results, {"a": recall}, None)


def run(name, seed, aps, recalls):
    curve = Curve("grey", "fraction occluded", tuple(map(level, LEVELS, aps, recalls)))
    return build_reported_run(name, Recipe(seed=seed), None, StressResults(0, (curve,)))


def test_mpc_and_rpc_are_those_of_the_runs():
    rng = np.random.default_rng(0)
    aps = rng.uniform(0.2, 0.9, (2, 2, 3))
    methods = [
        Method(name, tuple(run(f"{name}-{seed}", seed, values[seed], values[seed]) for seed in (0, 1)))
        for name, values in zip(("base", "full"), aps, strict=True)
    ]
    section = by_stress(methods)
    (table,) = section.tables
    assert table.caption == "Grey"
    columns = {head: [row.cells[index].value for row in table.rows] for index, head in enumerate(table.heads[1:])}
    hard = aps[:, :, 1:].mean(axis=2)
    assert columns["mPC"] == pytest.approx(100 * hard.mean(axis=1))
    assert columns["rPC"] == pytest.approx(100 * (hard / aps[:, :, 0]).mean(axis=1))
    assert columns["change (mPC)"] == [None, pytest.approx(100 * (hard[1] - hard[0]).mean())]
    assert section.commands == []


def test_figures_tell_every_level_in_words():
    base = Method("base", (run("base", 0, [0.9, 0.5, 0.25], [0.95, 0.75, 0.5]),))
    ap, kept, recall = by_stress([base]).pictures["grey"]
    assert "base: 100 at 0, 55.6 at 0.2, 27.8 at 0.4" in kept.alternative
    assert "base: 90 at 0, 50 at 0.2, 25 at 0.4" in ap.alternative
    assert "base: 95 at 0, 75 at 0.2, 50 at 0.4" in recall.alternative


def test_runs_without_a_stress_test_are_named_with_the_command_and_leave_no_trace():
    tested = Method("base", (run("base", 0, [0.9, 0.5, 0.25], [1, 1, 1]),))
    missing = Method("other", (build_reported_run("runs/the other", Recipe()),))
    section = by_stress([tested, missing])
    assert section.commands == ["afrcnn stress 'runs/the other'"]
    assert [row.cells[0].value for row in section.tables[0].rows] == [pytest.approx(37.5), None]
    assert "other" not in section.pictures["grey"][0].alternative
    nothing = by_stress([missing])
    assert (nothing.tables, nothing.pictures) == ([], {})


def test_levels_without_objects_have_no_point():
    base = Method("base", (run("base", 0, [0.9, float("nan"), 0.25], [1, 1, 1]),))
    assert "base: 90 at 0, 25 at 0.4" in by_stress([base]).pictures["grey"][0].alternative
