"""Names of files, made of names of classes and splits, whatever these are."""

from __future__ import annotations

from urllib.parse import quote, unquote

from afrcnn.core.errors import UserError

_LONGEST = 180
"""Bytes; file systems take 255, of which suffixes and prefixes have some."""


def file_name(name: str) -> str:
    """Return a name as a part of a file's name: slashes, percent signs and what does not print as %2F, %25, ...

    Different names give different files, and ``original_name`` gives the name back.

    Raises:
        UserError: the name is too long for a file.
    """
    encoded = "".join(
        one if one.isprintable() and one not in "/%" else quote(one, safe="", errors="surrogatepass") for one in name
    )
    if len(encoded.encode()) > _LONGEST:
        fix = f"choose one of at most {_LONGEST} bytes"
        raise UserError("is too long for the name of a file", field=f"{name:.40}...", fix=fix)
    return encoded


def original_name(encoded: str) -> str:
    """Return the name that ``file_name`` was given."""
    return unquote(encoded, errors="surrogatepass")
