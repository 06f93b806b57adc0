"""Text for a terminal: names come from files of strangers, and must not steer it."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return a text in which all that does not print is written as Python's source has it; lines stay lines.

    So are escape sequences, characters that change the direction of writing, and the bytes of file names that are not
    UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)


def say(text: str) -> None:
    """Print a text with whatever names it holds, made printable."""
    print(printable(text))
