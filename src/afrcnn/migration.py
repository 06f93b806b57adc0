"""Recipes as earlier versions wrote them, brought to today's fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from afrcnn.core.errors import UserError
from afrcnn.core.schema import SchemaError, parse_yaml

_Options = list[tuple[str, str]]
"""Fields that are set on a command line: their full names, and their values as text."""

OLD_SECTIONS = ("adversary",)
"""Sections that there are no longer."""

OLD_FIELDS = {"data.augmentation.cutout_share": "data.augmentation.cutout_fraction"}
"""Fields by their full names, and what they are called today."""

_STAGE_LISTS = ("data.augmentation.stages", "detector.ohem")
"""Fields that name stages; the first stage, ``detector``, was called by the section of its schedule."""

_OURS = ("asdn", "astn", "random_dropout", "hard_dropout", "dropblock")
_JOINT = ("clean_fraction", "least_iou", "jitter")


def migrate(written: Any, options: _Options) -> tuple[Any, _Options]:
    """Return a recipe, and options that change it, with the fields of today.

    The section ``adversary`` held a ``chain`` of names, a section of fields for each adversary of ours, in the chain or
    not, arguments of others in ``own``, and the names of the ``pretrained``.

    Args:
        written: what the file says.
        options: fields set differently, under names of either time.
    """
    if not isinstance(written, dict):
        return written, options
    written = {key: dict(value) if isinstance(value, dict) else value for key, value in written.items()}
    for field, today in OLD_FIELDS.items():
        section, name = _section(written, field), field.rpartition(".")[2]
        if name in section:
            section[today.rpartition(".")[2]] = section.pop(name)
    for field in _STAGE_LISTS:
        section, name = _section(written, field), field.rpartition(".")[2]
        if isinstance(section.get(name), list):
            section[name] = ["detector" if stage == "schedule" else stage for stage in section[name]]
    options = [(OLD_FIELDS.get(name, name), value) for name, value in options]
    options = [
        (name, value.replace("schedule", "detector") if name.rstrip("+") in _STAGE_LISTS else value)
        for name, value in options
    ]
    old = written.pop("adversary", None) or {}
    changes = [(name.split(".")[1:], _value(name, value)) for name, value in options if name.startswith("adversary.")]
    if not (old or changes):
        return written, options
    for path, value in changes:
        _set(old, path, value)
    written = _with_adversaries(written, old)
    return written, [(name, value) for name, value in options if name.split(".")[0] != "adversary"]


def _with_adversaries(written: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe with its section ``adversary`` in today's places."""
    present = written.get("adversaries") or {}
    chain = [*(old["chain"] or [] if "chain" in old else present), *old.get("chain+", [])]
    adversaries = {}
    for name in chain:
        arguments = old.get(name) if name in _OURS else (old.get("own") or {}).get(name)
        arguments = _arguments(name, dict(arguments or {}))
        if isinstance(old.get("pretrained"), list):
            arguments["pretrain"] = name in old["pretrained"]
        today = name if name in _OURS or "." not in name else ":".join(name.rsplit(".", 1))
        adversaries[today] = (present.get(today) or {}) | arguments
    joint = (written.get("joint") or {}) | {name: old[name] for name in _JOINT if name in old}
    return written | {"adversaries": adversaries} | ({"joint": joint} if joint else {})


def _arguments(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return an adversary's old fields as its arguments of today."""
    if name not in _OURS:
        return arguments
    if "fixed" in arguments:
        arguments["frozen"] = arguments.pop("fixed")
    largest, smallest = arguments.pop("share", None), arguments.pop("least_share", None)
    if smallest is not None:
        arguments["fraction"] = [smallest, 1 / 3 if largest is None else largest]
    elif largest is not None:
        arguments["fraction"] = largest
    return arguments


def _value(option: str, text: str) -> Any:
    try:
        return parse_yaml(text)
    except SchemaError as error:
        raise UserError(f"{text!r} is not valid YAML ({error})", field=option, fix="write a value, as 0.25") from error


def _section(written: Any, field: str) -> dict[str, Any]:
    """Return the section of a recipe that a field, by its full name, is in; an empty one where there is none."""
    for section in field.split(".")[:-1]:
        written = written.get(section) if isinstance(written, dict) else None
    return written if isinstance(written, dict) else {}


def _set(section: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a field of nested sections."""
    *sections, name = path
    for inner in sections:
        section = section.setdefault(inner, {})
    if name.endswith("+"):
        section[name] = [*section.get(name, []), *(value if isinstance(value, list) else [value])]
    else:
        section[name] = value
