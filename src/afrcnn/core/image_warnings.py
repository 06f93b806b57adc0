"""Warnings of damaged images: long work goes on without them, names them at its end, and says so by its status."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from afrcnn.core.errors import UserError

_MOST_NAMED = 20
"""Images that a line names at most."""


class ImageWarning(UserWarning):
    """A damaged image that was left out, or filled up where its file ends too early.

    Args:
        error: what is wrong with it.
        left_out: whether it was left out.
    """

    def __init__(self, error: UserError, *, left_out: bool) -> None:
        super().__init__(f"{error.file}: {error.problem}")
        self.error, self.left_out = error, left_out


def warn_of(error: UserError, *, left_out: bool) -> None:
    """Warn of a damaged image.

    Raises:
        UserError: it is the given one, within :func:`refusing`.
    """
    try:
        warnings.warn(ImageWarning(error, left_out=left_out), stacklevel=3)
    except ImageWarning:
        raise error from None


@contextmanager
def refusing(strict: bool) -> Iterator[None]:
    """Refuse damaged images in a block, or leave them out and warn of them, as elsewhere."""
    with warnings.catch_warnings():
        if strict:
            warnings.simplefilter("error", ImageWarning)
        yield


@contextmanager
def collecting() -> Iterator[list[ImageWarning]]:
    """Collect the warnings of damaged images in a block, in place of showing them."""
    collected: list[ImageWarning] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", ImageWarning)
        show = warnings.showwarning

        def collect(message: Warning | str, *arguments: Any) -> None:
            if isinstance(message, ImageWarning):
                collected.append(message)
            else:
                show(message, *arguments)

        warnings.showwarning = collect  # type: ignore[assignment]
        yield collected


def in_words(collected: list[ImageWarning]) -> list[str]:
    """Return a line about images that were filled up, and one about those that were left out, where there are any."""
    lines = []
    for left_out, problem in (
        (False, "end too early, and what is missing is grey"),
        (True, "cannot be decoded and were left out; where detections are measured, nothing is found in them"),
    ):
        files = list(dict.fromkeys(str(one.error.file) for one in collected if one.left_out is left_out))
        if files:
            names = ", ".join(files[:_MOST_NAMED])
            more = f" and {len(files) - _MOST_NAMED:,} more" if len(files) > _MOST_NAMED else ""
            lines.append(f"{len(files):,} image{'s'[: len(files) > 1]}: {problem}: {names}{more}")
    return lines
