"""The one exception for what a user can cause and mend."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from afrcnn.core.terminal import printable


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
        # Raised anew for a DataLoader's worker, its problem is a traceback ending in the message.
        problem = problem.rpartition("afrcnn.core.errors.UserError: ")[2]
        self.problem, self.file, self.field, self.fix = problem, file, field, fix
        message = ": ".join(str(item) for item in (file, field, problem) if item is not None)
        message += f"; {fix}" if fix else ""
        super().__init__(printable(" ".join(message.split())))


class UnreadableImageError(UserError):
    """An image that is there and cannot be decoded: long work goes on without it."""


def require_dataset(root: Path | str) -> None:
    """Refuse the folder of a dataset that is not there; takes no time, so that commands ask before anything slow.

    Raises:
        UserError: there is no such folder.
    """
    if not Path(root).is_dir():
        raise UserError("no such folder", file=root, fix="give the folder of a dataset")


def require_named(dataset: Path | str) -> None:
    """Refuse a dataset of which neither the folder nor a file is there; takes no time.

    Raises:
        UserError: as of :func:`require_dataset`.
    """
    if not Path(dataset).is_file():
        require_dataset(dataset)


def suggest(name: str, choices: Sequence[str], otherwise: str = "") -> str:
    """Return "did you mean X?" with the choice nearest to a name that is unknown; ``otherwise`` where none is near."""
    near = get_close_matches(name, choices, n=1)
    return f"did you mean {near[0]}?" if near else otherwise
