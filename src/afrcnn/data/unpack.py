"""Unpacking an archive so that no member leaves the folder, and nothing is left half-written."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from gzip import BadGzipFile
from pathlib import Path
from typing import IO, NamedTuple

from afrcnn.core.atomic import atomic_write, writing
from afrcnn.core.errors import UserError
from afrcnn.core.progress import progress
from afrcnn.data.archives import require_space

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, BadGzipFile, EOFError, RuntimeError, ValueError)
"""What reading a damaged archive raises."""


class _Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: its path, as the archive says it.
        size: its length in bytes, which reading does not exceed.
        open: opens it for reading.
    """

    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(path: Path, folder: Path) -> None:
    """Unpack a tar or zip archive and remove it.

    The files are written to a temporary folder, from which they are then moved into place; those of the same name are
    replaced. At the end ``.<name>.json`` records the files. If the process is killed before that, the archive is still
    there, and unpacking it again does all that is missing.

    Files are all that an archive may hold, as published datasets do: an archive with links or devices, or with a path
    that leads out of the folder, is refused before anything is written. Owners and permissions are not restored.

    Args:
        path: the archive.
        folder: where to unpack it.

    Raises:
        UserError: the archive is damaged or hostile, its files need more than the free space, or a file cannot be
            written.
    """
    temporary = folder / f".{path.name}.unpacking"
    try:
        with writing(folder):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            with _members(path) as members:
                files = {_relative(member.name, path): member for member in members}
                require_space(folder, sum(member.size for member in members), f"to unpack {path.name}")
                with progress(f"unpacking {path.name}", len(files), "file") as report:
                    for number, (file, member) in enumerate(files.items(), start=1):
                        _write(temporary / file, member)
                        report(number)
            _move(temporary, folder)
            with atomic_write(_record(path.name, folder)) as record:
                json.dump({str(file): member.size for file, member in files.items()}, record)
            path.unlink()
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_unpacked(name: str, folder: Path) -> bool:
    """Tell whether an archive has been unpacked in a folder and all its files are still there, of the same lengths."""
    try:
        record = json.loads(_record(name, folder).read_text(encoding="utf-8"))
        return all((folder / file).stat().st_size == size for file, size in record.items())
    except (OSError, ValueError, AttributeError):
        return False


def _record(name: str, folder: Path) -> Path:
    """Return the file that lists what came from an archive."""
    return folder / f".{name}.json"


@contextmanager
def _members(path: Path) -> Iterator[list[_Member]]:
    """Open an archive and list its files; what is damaged in it, then or while they are read, is the user's error."""
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                yield [_zip_member(archive, info, path) for info in archive.infolist() if not info.is_dir()]
        else:
            with tarfile.open(path) as archive:
                yield [_tar_member(archive, info, path) for info in archive if not info.isdir()]
    except _DAMAGE as error:
        problem = f"is damaged ({error or type(error).__name__})"
        raise UserError(problem, file=path, fix="remove it and fetch it again") from error


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> _Member:
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise _hostile(info.filename, "is a link or a device", path)
    return _Member(info.filename, info.file_size, partial(archive.open, info))


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo, path: Path) -> _Member:
    if not info.isreg():
        raise _hostile(info.name, "is a link or a device", path)
    return _Member(info.name, info.size, partial(archive.extractfile, info))


def _relative(name: str, path: Path) -> Path:
    """Return the path of a member below the folder that it is unpacked in."""
    relative = Path(os.path.normpath(name))
    if relative.anchor or not relative.parts or ".." in relative.parts:
        raise _hostile(name, "leads out of the folder", path)
    return relative


def _hostile(name: str, problem: str, path: Path) -> UserError:
    """Return the error of a member that no published dataset has."""
    return UserError(problem, file=path, field=repr(name), fix="remove the archive, and do not trust its source")


def _write(target: Path, member: _Member) -> None:
    """Write a member to a file; the archives' readers verify the CRC of zip, and that tar has as much as it says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source = member.open()
    assert source is not None, "a regular file"
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 2**20)


def _move(source: Path, folder: Path) -> None:
    """Move what a folder holds into another one on the same disk.

    A folder that is new there moves in one step. VOC's lists come last: a split shows when its images are there.
    """
    for item in sorted(source.iterdir(), key=lambda item: item.name == "ImageSets"):
        place = folder / item.name
        if item.is_dir() and place.is_dir():
            _move(item, place)
        else:
            item.replace(place)
