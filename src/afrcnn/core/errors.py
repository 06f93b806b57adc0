"""The one exception for what a user can cause and mend."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path


class UserError(Exception):
    """A mistake in the input: says where it is, what is wrong, and how to mend it.

    The command line prints the message as one line and exits with status 2. The library raises it
    instead of ``OSError``, ``KeyError`` and the like wherever a file, a recipe field or an argument
    that came from the user is at fault; errors of the program itself stay ordinary exceptions.

    Args:
        problem: what is wrong, in a few words.
        file: the file or folder at fault.
        field: the field in it, or of the recipe, at fault.
        fix: what to do about it, as an imperative.
    """

    def __init__(
        self, problem: str, *, file: Path | str | None = None, field: str | None = None, fix: str | None = None
    ) -> None:
        # A DataLoader raises its workers' errors anew with a traceback for a problem, which ends in the message.
        problem = problem.rpartition("afrcnn.core.errors.UserError: ")[2]
        self.problem, self.file, self.field, self.fix = problem, file, field, fix
        where = [str(part) for part in (file, field) if part is not None]
        message = ": ".join([*where, problem]) + (f"; {fix}" if fix else "")
        super().__init__(" ".join(message.split()))


def suggest(name: str, choices: Sequence[str], otherwise: str = "") -> str:
    """Return the question whether the nearest of some names was meant, or what to say where none is near."""
    nearest = get_close_matches(name, choices, n=1)
    return f"did you mean {nearest[0]}?" if nearest else otherwise
