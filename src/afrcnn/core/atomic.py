"""Atomic writing: a file is there whole, or it is not there."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from afrcnn.core.errors import UserError
from afrcnn.core.lock import is_file_at, try_to_lock

_SUFFIX = ".part"
"""The suffix of a temporary file."""


@contextmanager
def atomic_write(path: Path | str, mode: str = "w") -> Iterator[IO]:  # type: ignore[type-arg]
    """Open a file for writing that replaces ``path`` in one step when the block ends.

    What is written goes into a temporary file in the same folder, which is flushed to the disk and then
    renamed over ``path``. If the block raises, or the process is killed, ``path`` is as it was before. What a killed
    process left of its temporary file is written over by the next one that writes ``path``.
    Missing parent folders are made. A library that opens files itself may write to the temporary file by its name.

    Args:
        path: the file to write.
        mode: ``"w"`` for UTF-8 text, ``"wb"`` for bytes, ``"w+b"`` for bytes that the block reads back.

    Raises:
        UserError: the file cannot be written (a full disk, a folder without permission).
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = _open_temporary(path)
        temporary = Path(name)
        try:
            encoding = None if "b" in mode else "utf-8"
            with open(name, mode, encoding=encoding, opener=lambda *_: handle) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            # The temporary file is private; what remains has the permissions of any other new file.
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _open_temporary(path: Path) -> tuple[int, str]:
    """Open the temporary file of a path, ``.<name>.part``; or another, while somebody else writes the same path."""
    temporary = path.with_name(f".{path.name}{_SUFFIX}")
    with suppress(OSError):  # no locks here, or somebody's link in its place
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        if try_to_lock(handle) and is_file_at(handle, temporary):
            os.ftruncate(handle, 0)
            return handle, str(temporary)
        os.close(handle)
    return tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_SUFFIX)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make a failure to write ``path`` in the block the user's error that it is.

    Raises:
        UserError: the file cannot be written (a full disk, a folder without permission).
    """
    try:
        yield
    except OSError as error:
        fix = "free some space or choose a folder that can be written"
        raise UserError(f"cannot be written ({error.strerror or error})", file=path, fix=fix) from error


def remove_parts(path: Path) -> None:
    """Remove what processes that were killed while they wrote ``path`` have left beside it."""
    name = glob.escape(path.name)
    for pattern in (f".{name}{_SUFFIX}", f".{name}.*{_SUFFIX}"):
        for temporary in path.parent.glob(pattern):
            temporary.unlink(missing_ok=True)
