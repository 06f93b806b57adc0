"""What somebody names to be looked at: files, folders of any depth, patterns, and addresses of images and videos."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from glob import glob
from http.client import HTTPException
from itertools import chain, count
from pathlib import Path
from urllib.error import URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from afrcnn.core.errors import UserError
from afrcnn.data.image import image_suffixes

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
"""Suffixes of videos, in lower case."""

_LARGEST = 100 * 2**20
"""How many bytes an address may send."""

_SILENT, _SECONDS = 30, 120
"""For how long an address may be silent, and take in all."""

_CHUNK = 2**16


def is_address(word: Path | str) -> bool:
    """Tell whether a word is an address, http or https."""
    return str(word).startswith(("http://", "https://"))


def files_of(word: Path | str, suffixes: Collection[str] | None = None, *, leave_out: Path | None = None) -> list[Path]:
    """Return the files that a word stands for.

    Args:
        word: a file; a folder, which stands for what it holds at any depth; or a pattern, as ``photos/**/*.jpg``, where
            there is no file of that name. Hidden files and folders are passed over.
        suffixes: of the files that folders and patterns stand for, in lower case; those of images when None.
        leave_out: a folder of which a folder or a pattern stands for nothing, as that of what is made.

    Raises:
        UserError: there is no such file, or a folder or a pattern stands for none.
    """
    path, suffixes = Path(word), image_suffixes() if suffixes is None else suffixes
    if path.is_dir():
        inside, problem = [*path.rglob("*")], "the folder holds no images"
    elif not path.exists() and any(sign in str(word) for sign in "*?["):
        inside = [Path(name) for name in glob(str(word), recursive=True)]  # noqa: PTH207  which may begin anywhere
        problem = "no image fits the pattern"
    elif path.is_file():
        return [path]
    else:
        raise UserError("no such image", file=word, fix="name images, or folders that hold some")
    top = len(path.parts) if path.is_dir() else 0
    files = sorted(
        file
        for file in inside
        if file.suffix.lower() in suffixes
        and not any(name.startswith(".") and name not in (".", "..") for name in file.parts[top:])
        and file.is_file()
        and (leave_out is None or leave_out.resolve() not in file.resolve().parents)
    )
    if not files:
        raise UserError(problem, file=word, fix="name images, or folders that hold some")
    return files


def content_of(address: str) -> bytes:
    """Return what is at an address, of a bounded size and in bounded time.

    Raises:
        UserError: it does not answer, or with too much, or too slowly.
    """
    content, began = bytearray(), time.monotonic()
    try:
        with urlopen(Request(address, headers={"User-Agent": "afrcnn"}), timeout=_SILENT) as answer:
            while chunk := answer.read1(_CHUNK):
                content += chunk
                if len(content) > _LARGEST:
                    raise UserError("is larger than 100 MB", file=address, fix="fetch it yourself, and make it smaller")
                if time.monotonic() - began > _SECONDS:
                    raise UserError(f"takes more than {_SECONDS} s", file=address, fix="fetch it yourself")
    except (URLError, OSError, HTTPException, ValueError) as error:
        raise UserError(f"cannot be fetched ({error})", file=address, fix="check the address") from error
    return bytes(content)


def fetch_into(folder: Path, address: str) -> Path:
    """Write what is at an address into a folder, under the last part of its path, and return the file.

    Raises:
        UserError: as of :func:`content_of`.
    """
    content, name = content_of(address), Path(unquote(urlsplit(address).path)).name
    file = folder / ("".join(one for one in name if one.isprintable() and one not in "/\\")[-100:] or "image")
    file.write_bytes(content)
    return file


def picture_files(files: Iterable[Path], out: Path, suffix: str) -> dict[Path, Path]:
    """Return each file, once, with that of its picture.

    Args:
        files: images, and perhaps videos.
        out: the folder of the pictures.
        suffix: of the pictures, as ``.jpg``; a video's is ``.mp4``. Their names are all different.

    Raises:
        UserError: ``out`` is the folder of an image.
    """
    pictures: dict[Path, Path] = {}
    taken: set[str] = set()
    for path in files:
        if path.parent.resolve() == out.resolve():
            problem = f"pictures would mix with the images, as {path.name}"
            raise UserError(problem, file=out, fix="choose another folder with --out")
        if path not in pictures:
            names = chain([path.stem], (f"{path.stem}-{number}" for number in count(2)))
            name = next(name for name in names if name.casefold() not in taken)
            taken.add(name.casefold())
            pictures[path] = out / f"{name}{'.mp4' if path.suffix.lower() in VIDEO_SUFFIXES else suffix}"
    return pictures
