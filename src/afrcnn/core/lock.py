"""Locks: one process at a time works on a folder, and files that nobody writes any more are told from others."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from afrcnn.core.errors import UserError

# Absent on Windows, where there are no such locks.
_fcntl: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None

LOCK_FILE = "lock"
"""The name of a folder's lock, which is there while a process holds it."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What file systems answer that know no locks."""

_held: set[Path] = set()
"""The folders that this process holds: the kernel refuses a lock to other processes alone."""


@contextmanager
def locked(folder: Path, work: str) -> Iterator[None]:
    """Hold the lock of a folder for a block.

    The file ``lock`` says which process on which machine holds it. The kernel lets the lock go when that process ends,
    however it ends, so that the file of a process that was killed is taken over; processes that it forked hold
    nothing. Where the file system knows no locks, nobody is refused.

    Args:
        folder: the folder; made if need be, and removed again if nothing came into it.
        work: what the process does, for the message to the second one, as ``"trained"``.

    Raises:
        UserError: another process holds the lock, named with its machine; or the folder cannot be written.
    """
    path, fix = folder.resolve() / LOCK_FILE, "choose a folder that can be written"
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _acquire(path, work)
    except OSError as error:
        raise UserError(f"cannot be locked ({error.strerror})", file=folder, fix=fix) from error
    try:
        yield
    finally:
        _held.discard(path)
        with suppress(OSError):
            path.unlink(missing_ok=True)  # while it is held: nobody else can have taken it over
            os.close(handle)
        if new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


@contextmanager
def claimed(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Claim a folder for a block, and say whether no other process has it.

    What is made there may take several steps, each with the folder's own lock. The kernel lets a claim go when its
    process ends, however it ends. Where the file system knows no locks, nobody is refused.

    Args:
        folder: the folder; the file of the claim lies beside it, as long as it is held.
        wait: whether to wait for another process that has it.
    """
    path = folder.absolute().parent / f".{folder.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if _fcntl is not None:
                _fcntl.lockf(handle, _fcntl.LOCK_EX | (0 if wait else _fcntl.LOCK_NB))
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(handle)
                yield False
                return
        if is_file_at(handle, path):
            break
        os.close(handle)  # its holder has finished and removed it meanwhile
    try:
        yield True
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
            os.close(handle)


def _acquire(path: Path, work: str) -> int:
    """Return the handle of a lock's file, locked, with what says who holds it."""
    if path in _held:
        raise _busy(path, work, f"process {os.getpid()} on {socket.gethostname()}, this one")
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if _fcntl is not None:
                # A record lock, which belongs to the process: workers that it forks, and that may outlive it for a
                # moment, do not hold it.
                _fcntl.lockf(handle, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                holder = os.read(handle, 200).decode(errors="replace").strip()
                os.close(handle)
                raise _busy(path, work, holder or "another process") from error
        if is_file_at(handle, path):
            break
        os.close(handle)  # its holder has finished and removed it meanwhile
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    _held.add(path)
    return handle


def _busy(path: Path, work: str, holder: str) -> UserError:
    fix = "wait until it is finished, or stop it"
    return UserError(f"is being {work} by {holder}", file=path.parent, fix=fix)


def is_file_at(handle: int, path: Path) -> bool:
    """Tell whether an open file is the one that is at a path now."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def try_to_lock(handle: int) -> bool:
    """Lock an open file until it is closed, by all who have it open; False where another holds it, or none can be."""
    if _fcntl is None:
        return False
    try:
        _fcntl.flock(handle, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except OSError:
        return False
    return True
