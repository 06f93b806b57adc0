"""The recipes that ship with the package, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from afrcnn.core.errors import UserError, suggest

_HERE = Path(__file__).parent
FOLDER = _HERE / "configs" if (_HERE / "configs").is_dir() else _HERE.parents[1] / "configs"
"""Where they lie: inside an installed package, or beside the sources."""


def shipped_recipes() -> dict[str, str]:
    """Return the first line of each recipe's heading, by the recipe's name: its path without ``.yaml``."""
    files = sorted(FOLDER.rglob("*.yaml"), key=lambda file: (file.parent != FOLDER, file))
    return {file.relative_to(FOLDER).with_suffix("").as_posix(): _heading(file) for file in files}


def recipe_file(recipe: Path | str) -> Path:
    """Return the file of a recipe that is named by its path, or by its name among those that ship.

    Raises:
        UserError: it is neither; the message names the nearest.
    """
    path = Path(recipe)
    if path.suffix in {".yaml", ".yml"} or (path.exists() and not path.is_dir()):
        return path
    if (file := FOLDER / f"{recipe}.yaml").is_file():
        return file
    fix = suggest(str(recipe), list(shipped_recipes()), "see `afrcnn recipes`")
    raise UserError("is neither a file nor the name of a recipe", file=recipe, fix=fix)


def are_parts(recipes: Sequence[Path | str]) -> bool:
    """Tell whether recipes are shipped networks and methods alone, none of which says how long to train."""
    shipped = shipped_recipes()
    return all(shipped.get(str(recipe), "").startswith(("A network:", "A method:")) for recipe in recipes)


def _heading(file: Path) -> str:
    with file.open(encoding="utf-8") as lines:
        return next(lines, "").removeprefix("#").strip()
