"""Fetching an archive over HTTP, on from where the last attempt ended."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import cast
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from rich.filesize import decimal

from afrcnn.core.atomic import writing
from afrcnn.core.errors import UserError
from afrcnn.core.progress import progress
from afrcnn.data.archives import Archive, require_space

_CHUNK = 2**20
"""Bytes that are read at a time."""

_TIMEOUT = 60.0
"""Seconds that a server may be silent."""

_GO_ON = "run the command again to go on, or name another server with --mirror"


def fetch(archive: Archive, folder: Path, mirror: str | None = None) -> Path:
    """Fetch an archive, unless it is there, and verify its checksum.

    What has arrived is in ``<name>.part``, which becomes ``<name>`` when it is whole and its checksum is right. A
    server that breaks off is asked for the rest for as long as more arrives.

    Args:
        archive: what to fetch.
        folder: where to put it; it exists.
        mirror: an address below which the file is under its own name; by default the archive's address.

    Returns:
        The file.

    Raises:
        UserError: the server cannot be reached, does not have the file, breaks off, or has another file under its name;
            the disk has too little space for the file and what is in it; or a file that was there is another one.
    """
    url = archive.url if mirror is None else _below(mirror, archive.name)
    path, partial = folder / archive.name, folder / f"{archive.name}.part"
    if path.is_file():
        _verify(path, archive, "remove it, and run the command again")
        return path
    if archive.size is not None and _size(partial) > archive.size:
        partial.unlink()
    length = archive.size
    while (before := _size(partial)) != length:
        length = _receive(url, partial, archive)
        if before >= _size(partial) != length:
            problem = f"broke off after {decimal(_size(partial))} of {decimal(length)}"
            raise UserError(problem, file=url, fix=_GO_ON)
    try:
        _verify(partial, archive, "it is removed: run the command again, or name another server with --mirror")
    except UserError:
        partial.unlink()
        raise
    return partial.replace(path)


def _below(mirror: str, name: str) -> str:
    """Return the address of a file on a mirror."""
    address = urlsplit(mirror)
    if address.scheme not in ("http", "https") or not address.netloc:
        fix = "give the address of a folder, as https://example.org/voc"
        raise UserError(f"{mirror!r} is not an address of HTTP", field="mirror", fix=fix)
    return f"{mirror.rstrip('/')}/{name}"


def _size(path: Path) -> int:
    """Return how many bytes of a file are there."""
    return path.stat().st_size if path.is_file() else 0


def _receive(url: str, path: Path, archive: Archive) -> int:
    """Append to a file what a server has beyond it, as far as it comes; return the length of the whole."""
    start = _size(path)
    request = Request(url, headers={"User-Agent": "afrcnn"} | ({"Range": f"bytes={start}-"} if start else {}))
    try:
        response = cast(HTTPResponse, urlopen(request, timeout=_TIMEOUT))
    except HTTPError as error:
        error.close()
        if error.code == 416 and start:  # nothing lies beyond: it is whole, or the checksum will show that it is not
            return _checked(start, url, archive)
        problem = f"the server answers {error.code} ({error.reason})"
        raise UserError(problem, file=url, fix="name another server with --mirror") from error
    except (OSError, HTTPException) as error:
        problem = f"the server cannot be reached ({getattr(error, 'reason', error) or type(error).__name__})"
        raise UserError(problem, file=url, fix=f"check the connection, and {_GO_ON}") from error
    with response:
        start, length = _extent(response, url, start)
        length = _checked(length, url, archive)
        require_space(path.parent, 2 * length - _size(path), f"to fetch and unpack {archive.name}")
        total = round(length / 1e6)
        with (
            progress(f"fetching {archive.name}", total, "MB", done=round(start / 1e6)) as report,
            writing(path),
            path.open("r+b" if path.exists() else "wb") as file,
        ):
            file.truncate(start)
            file.seek(start)
            for chunk in _chunks(response, length - start):
                file.write(chunk)
                report(round(file.tell() / 1e6))
    return length


def _extent(response: HTTPResponse, url: str, start: int) -> tuple[int, int | None]:
    """Return the byte that an answer begins with, and the length of the whole file where the server says it."""
    if response.status != 206:  # a server without ranges sends all of it
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    extent = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if extent is None or int(extent[1]) != start:
        problem = f"the server sends another part than that from byte {start} on"
        raise UserError(problem, file=url, fix="name another server with --mirror")
    return start, int(extent[2])


def _checked(length: int | None, url: str, archive: Archive) -> int:
    """Return the length of the archive, or refuse what a server says it is."""
    length = archive.size if length is None else length
    if length is None or length != (archive.size or length):
        expected = "" if archive.size is None else f", not {archive.size}"
        problem = f"the server's file has {'an unknown number of' if length is None else length} bytes{expected}"
        raise UserError(problem, file=url, fix="name another server with --mirror")
    return length


def _chunks(response: HTTPResponse, count: int) -> Iterator[bytes]:
    """Yield an answer in blocks, at most some bytes of it; the end comes early where the connection breaks."""
    try:
        while count > 0 and (chunk := response.read(min(_CHUNK, count))):
            count -= len(chunk)
            yield chunk
    except (OSError, HTTPException):
        return


def _verify(path: Path, archive: Archive, fix: str) -> None:
    """Refuse a file whose checksum is not the archive's."""
    algorithm, _, expected = archive.checksum.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with progress(f"checking {archive.name}", round(_size(path) / 1e6), "MB") as report, path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            report(round(file.tell() / 1e6))
    if digest.hexdigest() != expected:
        problem = f"is not the published file ({algorithm.upper()} {digest.hexdigest()}, not {expected})"
        raise UserError(problem, file=path, fix=fix)
