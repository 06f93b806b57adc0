"""A report of runs: one HTML page of what their detectors achieve, and why."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any

from afrcnn.core.errors import UserError
from afrcnn.recipe import Recipe, dump_recipe
from afrcnn.reporting.comparison import by_class, by_stress, by_subset, changes_by_class, paper_table, summary
from afrcnn.reporting.elements import Picture, Row, Section, Table, render
from afrcnn.reporting.examples import adversary_examples, false_positive_examples
from afrcnn.reporting.finding import find
from afrcnn.reporting.methods import Method, read_methods
from afrcnn.reporting.scores import by_score, confusions
from afrcnn.reporting.strips import found_and_missed
from afrcnn.visualize.curves import Points, mean_curve

_NOT_LEARNED = tuple(
    name + stage for name in ("learning_rate", "iterations_per_second") for stage in ("", ", pre-training")
)
"""Columns of a log that say nothing of what was learned."""


def report_page(
    runs: Sequence[Path | str], baseline: Path | str | None, overrides: Sequence[str], trust: Sequence[str]
) -> str:
    """Return the report of runs as HTML; see ``afrcnn.commands.report.report``."""
    methods = read_methods(runs, baseline, overrides)
    numbers = (summary, by_class, changes_by_class, by_subset, by_stress, by_score, paper_table)
    sections = (*numbers, false_positive_examples, _training_curves, _recipe_fields)
    content = {section.__name__.lstrip("_"): section(methods) for section in sections}
    finding = find(methods)
    compared = methods[:1] if finding.best is methods[0] else [methods[0], finding.best]
    return render(
        methods=methods,
        finding=finding,
        figure=content["by_stress"].pictures.pop(finding.stress, []),  # it leads the page
        found_and_missed=found_and_missed(compared, trust),
        confusions=confusions(methods, finding.best),
        adversary_examples=adversary_examples(methods, trust),
        **content,
    )


def _read_log(file: Path) -> dict[str, Points]:
    """Read the numbers of a training's log by iteration.

    Args:
        file: ``log.csv`` of a run.

    Returns:
        A curve for each column of numbers, and another for pre-training, whose numbers are on another scale; where a
        row says nothing of it, it has no point.

    Raises:
        UserError: the file cannot be read.
    """
    curves: dict[str, Points] = {}
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                for name, text in row.items():
                    with suppress(TypeError, ValueError):  # texts, and what a broken row lacks
                        point = float(row["iteration"]), float(text)
                        if name != "iteration" and all(map(isfinite, point)):
                            column = f"{name}, pre-training" if row.get("stage") == "pretraining" else name
                            curves.setdefault(column, []).append(point)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot be read ({error})", file=file, fix="name a run whose log.csv is whole") from error
    return curves


def _training_curves(methods: Sequence[Method]) -> Section:
    """Return curves of all that the trainings logged."""
    section = Section(pictures={"": []})
    files = {method.name: [run.log_file for run in method.runs] for method in methods}
    section.missing = [f"{file} is missing." for file in chain(*files.values()) if not file.is_file()]
    logs = {name: [_read_log(file) for file in of_method if file.is_file()] for name, of_method in files.items()}
    columns = dict.fromkeys(column for log in chain(*logs.values()) for column in log if column not in _NOT_LEARNED)
    for column in columns:
        runs = {name: [log[column] for log in of_method if column in log] for name, of_method in logs.items()}
        curves = {name: mean_curve(of_method) for name, of_method in runs.items()}
        losses = column.partition(",")[0] == "loss"
        shown = section if losses else section.more.setdefault("All that was logged", Section(pictures={"": []}))
        shown.pictures[""].append(Picture.of_curves(curves, "iteration", column))
    return section


def _recipe_fields(methods: Sequence[Method]) -> Section:
    """Return the fields in which methods differ, and all fields of the first."""
    first = methods[0].runs[0]
    section = Section(listings={f"All fields of {first.folder}": dump_recipe(first.recipe)})
    if len(methods) > 1:
        recipes = [_fields(method.runs[0].recipe) for method in methods]
        names = dict.fromkeys(name for recipe in recipes for name in recipe if name != "seed")
        rows = [Row(name, [recipe.get(name, "") for recipe in recipes]) for name in names]
        differing = [row for row in rows if len(set(row.cells)) > 1]
        section.tables.append(Table("Differences", ["field", *(method.name for method in methods)], differing))
    return section


def _fields(recipe: Recipe) -> dict[str, str]:
    """Return the fields of a recipe by their full names, as text; arguments only where they are given."""
    return {"adversaries": ", ".join(recipe.adversaries) or "none"} | dict(_leaves(asdict(recipe)))


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, field in value.items():
            yield from _leaves(field, f"{name}.{key}")
    else:
        yield name[1:], "null" if value is None else str(value)
