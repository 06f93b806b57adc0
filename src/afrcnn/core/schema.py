"""Files that are read back: nothing in them is taken for what it should be before it was checked.

JSON and YAML become plain values, and plain values become dataclasses, whose types are the schema.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec
import yaml

_T = TypeVar("_T")

_LARGEST_INTEGER = 2**63
"""Integers from here on fit into no array."""

_MOST_VALUES, _DEEPEST = 100_000, 100
"""Of a YAML file, whose aliases can stand for more values than there is memory."""


class SchemaError(ValueError):
    """A value that is not what it should be; says where and why, in one line.

    Args:
        problem: what is wrong.
        place: where it is: a line, or a field; None where that is not known.
    """

    def __init__(self, problem: str, place: str | None = None) -> None:
        super().__init__(f"{place}: {problem}" if place else problem)
        self.problem, self.place = problem, place


def parse_json(text: str | bytes) -> Any:
    """Return what a text in JSON says.

    Raises:
        SchemaError: it is not valid JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SchemaError(error.msg, f"line {error.lineno}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, numbers of thousands of digits, lists in lists in lists
        raise SchemaError(_first_line(error)) from error


def parse_yaml(text: str) -> Any:
    """Return what a text in YAML says: mappings by text, lists, text, numbers, booleans and null.

    Raises:
        SchemaError: it is not valid YAML; or it holds something else, as a date, or numbers or nesting without end.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = None if error.problem_mark is None else f"line {error.problem_mark.line + 1}"
        raise SchemaError(str(error.problem or error.context), line) from error
    except Exception as error:  # PyYAML's constructors of dates, numbers and tags raise whatever they stumble over
        raise SchemaError(_first_line(error)) from error
    _refuse_odd_values(value)
    return value


def _refuse_odd_values(value: Any) -> None:
    """Refuse what no recipe can use; not recursive, since a value may hold itself."""
    left: list[tuple[Any, tuple[str, ...]]] = [(value, ())]
    seen = 0
    while left:
        item, place = left.pop()
        seen += 1
        if seen > _MOST_VALUES or len(place) > _DEEPEST:
            raise SchemaError("it holds too many values, or too deeply nested ones")
        if isinstance(item, dict):
            left += [(key, place) for key in item]
            left += [(inner, (*place, str(key)[:40])) for key, inner in item.items()]
        elif isinstance(item, list):
            left += [(inner, (*place, f"[{index}]")) for index, inner in enumerate(item)]
        elif isinstance(item, int) and not -_LARGEST_INTEGER <= item < _LARGEST_INTEGER * 2:
            raise SchemaError("is too large a number", ".".join(place))
        elif not isinstance(item, str | int | float | None):
            kind = f"{str(item)[:40]!r} is a {type(item).__name__}"
            raise SchemaError(f"{kind}; in quotes, it is text", ".".join(place))


def checked(value: Any, schema: type[_T]) -> _T:
    """Return a value, made of mappings and sequences, as an instance of a dataclass or another type.

    Raises:
        SchemaError: something in it is missing or of another type; says what and where.
    """
    try:
        return msgspec.convert(value, schema)
    except (msgspec.ValidationError, ValueError, OverflowError, RecursionError, IndexError) as error:
        raise SchemaError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
