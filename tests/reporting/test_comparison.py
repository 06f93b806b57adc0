"""The numbers of tables, against numpy and the paper."""

import numpy as np
import pytest

from afrcnn.evaluation.results import Results
from afrcnn.recipe import DataRecipe, Recipe
from afrcnn.reporting.comparison import METRICS as TITLES
from afrcnn.reporting.comparison import _best_in_bold, by_class, changes_by_class, paper_table, summary
from afrcnn.reporting.elements import Cell
from afrcnn.reporting.methods import Method
from afrcnn.reporting.paper import paper_rows
from afrcnn.visualize.figure import signed
from tiny import build_reported_run

VOC = sorted(paper_rows()[0].ap)


METRICS = ("11-point", "area", "COCO")


def results(ap, mean=None):
    mean = float(np.nanmean(list(ap.values()))) if mean is None else mean
    coco = dict.fromkeys(("AP", "AP50", "AP75", "AR100"), mean / 2)
    return Results(3, 9, 0.5, dict.fromkeys(ap, 4), dict.fromkeys(METRICS, mean), dict.fromkeys(METRICS, ap), coco)


def method(name, by_seed, root="images"):
    classes = next((list(results.ap["11-point"]) for results in by_seed.values() if results), ["a"])
    runs = [
        build_reported_run(
            f"{name}-seed{seed}", Recipe(data=DataRecipe(root=root, classes=classes), seed=seed), results
        )
        for seed, results in by_seed.items()
    ]
    return Method(name, tuple(runs))


def tables_by_class(run):
    """Those of all metrics: one is shown at once, the others are folded away."""
    section = by_class([run])
    assert len(section.more) == len(METRICS) - 1
    return [table for part_of_page in (section, *section.more.values()) for table in part_of_page.tables]


def cells(table, head):
    column = list(table.heads).index(head) - 1
    return {row.name: row.cells[column] for row in table.rows}


def test_means_and_spreads_are_those_of_the_runs_and_changes_those_of_pairs_of_a_seed():
    rng = np.random.default_rng(0)
    new, old = rng.random(4), rng.random(3)
    base = method("base", {seed: results({"a": value}) for seed, value in enumerate(old)})
    full = method("full", {seed: results({"a": value}) for seed, value in enumerate(new)})
    section = summary([base, full])
    (table,), (runs,) = section.tables, section.more["Each run"].tables
    cell = cells(table, "mAP, area")["full"]
    assert cell.value == pytest.approx(100 * new.mean())
    assert cell.text == f"{100 * new.mean():.1f}"
    assert cell.small == f"± {100 * new.std(ddof=1):.1f}"
    assert cells(table, "COCO AP75")["base"].value == pytest.approx(50 * old.mean())
    change = cells(table, "change (mAP, area)")["full"]
    assert change.value == pytest.approx(100 * (new[:3] - old).mean())
    assert change.small == f"± {100 * (new[:3] - old).std(ddof=1):.1f}"
    assert [row.cells[1].text for row in runs.rows] == ["0", "1", "2", "0", "1", "2", "3"]


def test_without_a_common_seed_the_change_is_that_of_the_means():
    base = method("base", {0: results({"a": 0.5}), 1: results({"a": 0.7})})
    full = method("full", {2: results({"a": 0.25})})
    change = cells(summary([base, full]).tables[0], "change (mAP, area)")["full"]
    assert (change.text, change.small) == ("\N{MINUS SIGN}35.0", "")


def test_the_best_of_a_column_is_bold_and_what_looks_the_same():
    column = [Cell("50.1", value=50.13), Cell("50.1", value=50.08), Cell("49.9", value=49.9), Cell()]
    assert [cell.best for cell in _best_in_bold(column)] == [True, True, False, False]
    assert not _best_in_bold([Cell("1.0", value=1.0), Cell()])[0].best  # there is nothing to choose from
    assert [cell.best for cell in _best_in_bold(column, -1)] == [False, False, True, False]


def test_a_class_without_objects_and_a_run_without_results_have_no_numbers():
    base = method("base", {0: results({"a": 0.5, "b": float("nan")}), 1: None})
    section = summary([base])
    assert section.commands == ["afrcnn evaluate base-seed1"]
    assert cells(section.tables[0], "mAP, area")["base"].small == ""
    table = by_class([base]).tables[0]
    assert cells(table, "b")["base"].value is None
    assert cells(table, "a")["base"].text == "50.0"
    nothing = method("base", {0: None})
    assert not changes_by_class([nothing, base]).shown
    assert not summary([nothing]).shown
    assert not by_class([nothing]).shown


@pytest.mark.parametrize(("root", "tables"), [("VOCdevkit/VOC2007", "12"), ("x/VOC2012", "3"), ("images", "")])
def test_the_papers_rows_stand_beside_runs_of_the_same_test_set_by_every_metric(root, tables):
    """Since the paper does not say by which of them its tables are."""
    run = method("frcn", {0: results(dict.fromkeys(VOC, 0.9))}, root)
    shown = {row.name: row for table in tables_by_class(run) for row in table.rows if row.reference}
    assert len(shown) == sum(row.where[-1] in tables for row in paper_rows() if row.ap)
    where = {int(name[-2]) for name in shown}
    assert where == {int(number) for number in tables}
    for table in tables_by_class(run):
        beside = [row for row in table.rows if row.reference]
        assert len(beside) == len(shown)
        assert not any(cell.best for row in beside for cell in row.cells)


def test_the_papers_aps_stand_under_their_classes():
    run = method("frcn", {0: results(dict.fromkeys(reversed(VOC), 0.1))}, "VOC2007")
    table = by_class([run]).tables[0]
    assert cells(table, "bottle")["Ours (full), VGG16 (Table 1)"].text == "44.7"
    assert cells(table, "mAP")["Ours (full), VGG16 (Table 1)"].text == "71.4"


def test_many_classes_are_spread_over_tables_with_each_class_once():
    names = [f"class {index}" for index in range(47)]
    section = by_class([method("frcn", {0: results(dict.fromkeys(names, 0.5))})])
    for shown in (section, *section.more.values()):
        assert [head for table in shown.tables for head in table.heads[2:]] == names
        assert max(len(table.heads) for table in shown.tables) <= 22


def test_bars_say_each_change_of_a_class_in_words():
    base = method("base", {0: results({"cat": 0.5, "dog": 0.5}), 1: results({"cat": 0.6, "dog": 0.4})})
    full = method("full", {0: results({"cat": 0.7, "dog": 0.40})})
    section = changes_by_class([base, full])
    shown = [section, *section.more.values()]
    assert len(shown) == len(METRICS)
    for metric, one in zip(TITLES.values(), shown, strict=True):
        (picture,) = one.pictures[""]
        assert f"Change of {metric} in points" in picture.alternative
        assert "cat +15.0, dog \N{MINUS SIGN}5.0" in picture.alternative


@pytest.mark.parametrize("split", ["val", "test_hidden"])
def test_the_papers_rows_never_stand_beside_another_split_of_its_test_set(split):
    run = method("frcn", {0: results(dict.fromkeys(VOC, 0.9))}, "VOCdevkit/VOC2012")
    run.runs[0].recipe.data.test_split = split
    assert not [row for table in tables_by_class(run) for row in table.rows if row.reference]


@pytest.mark.parametrize(
    ("root", "split", "rows"), [("x/VOC2007", "test", 18), ("coco", "minival", 2), ("x", "test", 0)]
)
def test_the_papers_table_is_there_only_for_what_it_was_tested_on(root, split, rows):
    run = method("frcn", {0: results({"a": 0.9})}, root)
    run.runs[0].recipe.data.test_split = split
    section = paper_table([run])
    assert sum(len(table.rows) for table in section.tables) == rows


def test_no_number_is_shown_for_none():
    assert Cell.percent([]) == Cell.percent([float("nan")]) == Cell("\N{EN DASH}")
    assert Cell.percent([0.0], signed).text == "+0.0"


def test_the_papers_rows_do_not_stand_beside_runs_of_other_classes():
    table = by_class([method("frcn", {0: results(dict.fromkeys(VOC[1:], 0.9))}, "VOC2007")]).tables[0]
    assert not any(row.reference for row in table.rows)
