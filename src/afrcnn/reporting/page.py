"""A report of runs: one HTML file that says what their detectors are worth, and shows why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from afrcnn.core.atomic import atomic_write
from afrcnn.recipe import dump_recipe
from afrcnn.reporting.comparison import by_class, by_subset, changes_by_class, paper, rows, summary
from afrcnn.reporting.elements import Cell, Section, Table, render
from afrcnn.reporting.examples import false_positives, masks
from afrcnn.reporting.methods import Method, read_methods
from afrcnn.reporting.stress_section import stress
from afrcnn.visualize.curves import curves_picture, mean_curve, read_log, thin

NOT_LEARNED = ("learning_rate", "iterations_per_second")
"""Columns of a log that say nothing of what was learned."""


def report(
    runs: Sequence[Path | str],
    out: Path | str = "report.html",
    *,
    baseline: Path | str | None = None,
    overrides: Sequence[str] = (),
) -> Path:
    """Write a report of runs: tables, figures, photographs and recipes in one HTML file that needs no other.

    Runs whose recipes differ in the seed alone are one method, of which mean and standard deviation are given. What a
    run has not got is left out, and the report says what makes it. The same runs give the same bytes.

    Args:
        runs: folders of runs, of one set of classes and one test split.
        out: the file to write.
        baseline: the run that the others are compared with; the first when None.
        overrides: fields of the runs' recipes to set differently, as ``["--data.root", "elsewhere"]``.

    Returns:
        The file.

    Raises:
        UserError: a run is missing, damaged or of other data than the first, or the file cannot be written.
    """
    methods = read_methods(runs, baseline, overrides)
    sections = [
        summary(methods),
        by_class(methods),
        changes_by_class(methods),
        by_subset(methods),
        stress(methods),
        masks(methods, overrides),
        false_positives(methods),
        training(methods),
        recipes(methods),
        paper(),
    ]
    page = render(f"Detectors of {methods[0].runs[0].dataset}", _lead(methods), sections)
    with atomic_write(out) as file:
        file.write(page)
    return Path(out)


def training(methods: Sequence[Method]) -> Section:
    """Return curves of all that the trainings logged."""
    section = Section(
        "Training", "Losses and what else was logged, each point the mean of some neighbours and of the method's runs."
    )
    logs = {}
    for method in methods:
        files = [run.run.log_file for run in method.runs]
        section.missing += [f"{file} is missing; without it, its curves are." for file in files if not file.is_file()]
        logs[method.name] = [read_log(file) for file in files if file.is_file()]
    columns = dict.fromkeys(name for each in logs.values() for log in each for name in log)
    for column in columns:
        if column not in NOT_LEARNED:
            curves = {name: mean_curve([log[column] for log in each if column in log]) for name, each in logs.items()}
            thinned = {name: thin(curve) for name, curve in curves.items()}
            picture = curves_picture(thinned, [method.name for method in methods], "iteration", column)
            section.pictures.setdefault("", []).append(picture)
    return section


def recipes(methods: Sequence[Method]) -> Section:
    """Return the fields in which methods differ, and all fields of the first."""
    fields = [_fields(asdict(method.runs[0].recipe)) for method in methods]
    section = Section("Recipes")
    if len(methods) > 1:
        differing = [name for name in fields[0] if len({each[name] for each in fields}) > 1 and name != "seed"]
        columns = {
            method.name: [Cell(each[name]) for name in differing] for method, each in zip(methods, fields, strict=True)
        }
        section.text = "The fields in which the first runs of methods differ, but for their seeds."
        section.tables = [Table("Differences", ["field", *columns], rows(differing, columns))]
    first = methods[0].runs[0]
    section.listings[f"All fields of {first.run.folder}"] = dump_recipe(first.recipe)
    return section


def _lead(methods: Sequence[Method]) -> str:
    """Say what was measured."""
    runs = [run for method in methods for run in method.runs]
    first = runs[0]
    tested = f"the split {first.recipe.data.test_split}"
    if measured := [run.results for run in runs if run.results is not None]:
        objects = sum(measured[0].objects.values())
        tested += f" ({measured[0].images} images, {objects} objects of {len(first.classes)} classes)"
    compared = f", compared with {methods[0].name}" if len(methods) > 1 else ""
    return f"{_count(len(methods), 'method')} in {_count(len(runs), 'run')}, tested on {tested}{compared}."


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _fields(recipe: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Return the fields of a recipe by their full names, as text."""
    named: dict[str, str] = {}
    for name, value in recipe.items():
        if isinstance(value, dict) and value:
            named |= _fields(value, f"{above}{name}.")
        else:
            named[f"{above}{name}"] = "null" if value is None else str(value)
    return named
