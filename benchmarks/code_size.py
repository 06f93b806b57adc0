"""Say how large the code is, and how much of it there is to know.

    python benchmarks/code_size.py [FOLDER]

A line of code is any line that is not blank and belongs neither to an import nor to a docstring: of a module, a class,
a function, or below an attribute. Comments count. A public name is a function, a class or a variable that the body of
a module defines, not imports, and that begins without an underscore.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

CORE = {"adversaries", "detectors", "training", "recipe", "build", "run"} | {"adversary", "detector"}
"""Folders and modules of the core; the last two are the old names of the first two."""
LONG_LINE, LONG_FILE = 100, 350
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


class Module(NamedTuple):
    """A file: its name without the suffix, its lines, its syntax, and the numbers of its lines of code."""

    path: Path
    lines: list[str]
    tree: ast.Module
    code: set[int]


def read(file: Path, root: Path) -> Module:
    text = file.read_text(encoding="utf-8")
    lines, tree = text.split("\n"), ast.parse(text)
    left_out = {number for node in ast.walk(tree) for part in no_code(node) for number in span(part)}
    code = {number for number, line in enumerate(lines, start=1) if line.strip()} - left_out
    return Module(file.relative_to(root).with_suffix(""), lines, tree, code)


def no_code(node: ast.AST) -> Iterator[ast.stmt]:
    """Give a node if it is an import, or a string that stands alone."""
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    if isinstance(node, ast.stmt) and (is_text or isinstance(node, ast.Import | ast.ImportFrom)):
        yield node


def span(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def public_names(tree: ast.Module) -> dict[str, bool]:
    """Return the public names, and of each whether a statement of its own defines it, without a type."""
    names: dict[str, bool] = {}
    for node in tree.body:
        if isinstance(node, FUNCTIONS | ast.ClassDef):
            names[node.name] = True
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                alone = isinstance(target, ast.Name) and isinstance(node, ast.Assign)
                names |= {part.id: alone for part in ast.walk(target) if isinstance(part, ast.Name)}
    return {name: alone for name, alone in names.items() if not name.startswith("_")}


def has(method: str, node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> bool:
    """Tell whether a class has a method, its own or a base's in the package."""
    own = any(isinstance(part, FUNCTIONS) and part.name == method for part in node.body)
    bases = [classes[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in classes]
    return own or any(has(method, base, classes) for base in bases)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("src/afrcnn"), metavar="FOLDER")
    root = parser.parse_args().folder
    modules = [read(file, root) for file in sorted(root.rglob("*.py"))]

    folders: Counter[str] = Counter()
    defined: dict[str, list[str]] = defaultdict(list)
    alone: set[str] = set()
    for module in modules:
        folders["/".join(module.path.parts[:-1]) or "(top)"] += len(module.code)
        for name, by_itself in public_names(module.tree).items():
            defined[name].append(".".join(module.path.parts))
            alone |= {name} if by_itself else set()
    code = [module.lines[number - 1] for module in modules for number in module.code]
    nodes = [(module, node) for module in modules for node in ast.walk(module.tree)]
    functions = [len(module.code & set(span(node))) for module, node in nodes if isinstance(node, FUNCTIONS)]
    classes = {node.name: node for _, node in nodes if isinstance(node, ast.ClassDef)}
    indexed = {
        name: has("__len__", node, classes) for name, node in classes.items() if has("__getitem__", node, classes)
    }
    twice = {name: sorted(where) for name, where in sorted(defined.items()) if len(where) > 1}
    long_files = {"/".join(m.path.parts): len(m.lines) - 1 for m in modules if len(m.lines) - 1 > LONG_FILE}

    print(f"{len(code):>7,}  lines of code")
    for folder, count in sorted(folders.items()):
        print(f"{count:>11,}  {folder}")
    core = sorted({m.path.parts[0] for m in modules} & CORE)
    print(f"{sum(len(m.code) for m in modules if m.path.parts[0] in core):>7,}  of them in {', '.join(core)}")
    print(f"{100 * sum(len(line) > LONG_LINE for line in code) / len(code):>6.1f}%  are over {LONG_LINE} columns")
    print(f"{len(defined):>7,}  public names; {len(alone):,} without those set several at a time or with a type")
    print(f"{len(twice):>7,}  defined in two modules or more")
    for name, where in twice.items():
        print(f"{'':>11}  {name}: {', '.join(where)}")
    print(f"{len(long_files):>7,}  files over {LONG_FILE} lines")
    for file, count in long_files.items():
        print(f"{count:>11,}  {file}")
    print(f"{len(indexed):>7,}  types with __getitem__, {sum(indexed.values())} of them with __len__, too")
    for name, sized in sorted(indexed.items()):
        print(f"{'':>11}  {name}{'' if sized else ' (no length)'}")
    print(f"{median(functions):>7,.0f}  lines of code in the median function, of {len(functions):,}")


if __name__ == "__main__":
    main()
