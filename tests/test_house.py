"""The house: rooms import downwards alone, words are the field's, and every public name has one place."""

import ast
import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

import afrcnn

SOURCE = Path(afrcnn.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

FLOORS = [
    "core",
    "data",
    "migration",
    "shipped",
    "recipe",
    "adversaries",
    "detectors",
    "proposals",
    "run",
    "build",
    "evaluation",
    "robustness",
    "training",
    "experiment",
    "visualize",
    "reporting",
    "commands",
    "parser",
    "cli",
]
"""Rooms from the lowest to the highest, as docs/architecture.md has them."""

WORDS = {
    r"trunks?": "backbone",
    r"photographs?": "image",
    r"shares? of": "fraction",
    r"harden(s|ed|ing)?": "perturb",
    r"observe[sd]?": "context",
    r"resting|rested": "enabled",
    r"learners": "pretrainable",
    r"judge[sd]?|worth(?! having)": "match, AP",
    r"scenery|bitten": "background windows, occluded by a hull",
    r"stored_by_input|LOWERED": "column-major, layers that autocast casts",
    r"Positions\(|TrainingStream": "batch sampler, sample sequence",
    r"stage_one": "detector",
    r"is no \w+(?= \()|is no [a-z]+[\"'{]": "is not a valid ...",
    r"what .{0,30} (is|are) worth": "evaluation of ...",
    r"has not got": "does not have",
}
"""Words that must not come back, and what the field says."""

OLD_FILES = {
    "stage_one": {"run.py"},
    r"shares? of": {"migration.py", "stress_results.py"},
    r"photographs?": {"stress_results.py"},
    "trunks?": {"weights.py"},
}
"""Files that read what earlier versions wrote, under the words of these."""

NAMES = {"each", "own", "mine", "theirs", "others", "found", "part", "parts"}
"""Variables that say nothing of what they hold."""


def module_of(file: Path) -> str:
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}


def imports_of(file: Path) -> set[str]:
    """The modules of the project that a file imports, wherever in it, for types as for use."""
    imported = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= {name if name in MODULES else node.module for name in inner}
    return {name for name in imported if name in MODULES} - {"afrcnn"}


GRAPH = {module: imports_of(file) for module, file in MODULES.items()}


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_has_a_floor():
    assert {room(module) for module in MODULES if module != "afrcnn"} == set(FLOORS)


def test_rooms_import_from_lower_floors_alone():
    upward = [
        f"{module} imports {imported}"
        for module, names in GRAPH.items()
        if module != "afrcnn"
        for imported in names
        if room(imported) != room(module) and FLOORS.index(room(imported)) > FLOORS.index(room(module))
    ]
    assert not upward


def test_no_two_files_import_each_other_however_indirectly():
    finished, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in finished:
            path.append(module)
            for imported in GRAPH[module]:
                visit(imported)
            finished.add(path.pop())

    for module in GRAPH:
        visit(module)
    assert len(finished) == len(MODULES)


@pytest.mark.parametrize("word", WORDS)
def test_words_that_are_not_the_field_s_do_not_come_back(word):
    places = [
        f"{file.relative_to(SOURCE)}:{number}: {line.strip()}"
        for file in [*FILES, *SOURCE.rglob("*.jinja")]
        if file.name not in OLD_FILES.get(word, ())
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(rf"(?<![A-Za-z])({word})(?![a-z])", line)
    ]
    assert not places, f"say {WORDS[word]}"


def test_variables_are_named_by_what_they_hold():
    places = [
        f"{file.relative_to(SOURCE)}:{node.lineno}: {node.id}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in NAMES
    ]
    assert not places


def public_names(file: Path) -> list[str]:
    names = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def test_no_public_name_is_defined_twice():
    # Each command has a function that shows its result; it is no part of the public interface.
    names = Counter(name for file in FILES for name in public_names(file) if name != "show")
    assert not [name for name, count in names.items() if count > 1]
    assert sum(names.values()) <= 573


def test_no_exported_name_is_that_of_a_module():
    assert list(afrcnn.__all__) == sorted(afrcnn.__all__)
    for name in afrcnn.__all__:
        assert getattr(afrcnn, name) is not None
        assert find_spec(f"afrcnn.{name}") is None, name


def test_no_file_is_longer_than_350_lines():
    long = [file.name for file in FILES if len(file.read_text(encoding="utf-8").splitlines()) > 350]
    assert long == ["recipe.py"]  # most of which is the table of fields and what they mean
