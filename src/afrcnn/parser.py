"""Parsers of command lines, made from functions: signature and docstring say what parsing and help need."""

# ruff: noqa: PLC0415
from __future__ import annotations

import argparse
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from docstring_parser import DocstringStyle, parse

from afrcnn.core.errors import UserError, suggest


class Parser(argparse.ArgumentParser):
    """A parser whose errors are those of the library, and whose help keeps its lines as written."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Refuse a command line."""
        raise UserError(message, fix=f"see `{self.prog} --help`")


class FunctionParser(Parser):
    """The parser of a command that calls a function.

    Parameters without a default are positional, and the first one always; others are options: ``bool`` a switch,
    ``Literal`` a choice, ``tuple`` as many words as it has items, ``Sequence`` one word or more, or an option that is
    repeated where its items are tuples.
    A parameter ``overrides`` takes fields of a recipe, as ``--data.root X`` and ``--seed=1``, as they are.

    Of a Google docstring, help shows the first line and the paragraphs, ``Args``, and ``Examples``.

    Args:
        function: the function.
        flags: options whose names or values are not those of their parameters, as ``{"svd": "--svd FC6 FC7"}``, and
            parameters with a default that are positional, as ``{"split": "[SPLIT]"}``.
        command: what the command line calls it.
    """

    def __init__(self, function: Callable[..., Any], flags: Mapping[str, str], command: str) -> None:
        docstring = parse(inspect.cleandoc(function.__doc__ or ""), DocstringStyle.GOOGLE)
        paragraphs = (docstring.description or "").split("\n\n")
        examples = "\n".join(example.description or "" for example in docstring.examples)
        super().__init__(
            prog=f"afrcnn {command}",
            description="\n\n".join(textwrap.fill(_plain(text), 79) for text in paragraphs),
            epilog=f"examples:\n{textwrap.indent(examples, '  ')}" if examples else None,
        )
        parameters = dict(inspect.signature(function).parameters)
        self.takes_fields = parameters.pop("overrides", None) is not None
        self.lists_fields = "recipes" in parameters
        # Of parameters alone: the annotation of the result may name what is not imported.
        annotations = {name: parameter.annotation for name, parameter in parameters.items()}
        hints = get_type_hints(SimpleNamespace(__annotations__=annotations), function.__globals__)
        texts = {item.arg_name: _plain(item.description or "").rstrip(".") for item in docstring.params}
        self.usage, self.options = self.prog, ["--help"]
        for name, parameter in parameters.items():
            keywords = _keywords(hints[name], name) | {"help": texts.get(name, "").replace("%", "%%")}
            if parameter.default is parameter.empty:
                metavar = name.removesuffix("s" if "nargs" in keywords else "").upper()
                self.usage += f" {metavar}" + f" [{metavar} ...]" * ("nargs" in keywords)
                self.add_argument(name, **keywords | {"metavar": metavar})
            elif name == next(iter(parameters)) or flags.get(name, "").startswith("["):
                self.usage += f" [{name.upper()}]"
                self.add_argument(name, nargs="?", default=parameter.default, **keywords | {"metavar": name.upper()})
            else:
                option, *metavars = flags.get(name, f"--{name.replace('_', '-')}").split()
                self._add_option(option, metavars, dest=name, default=parameter.default, **keywords)
        self.usage += " [OPTIONS]" + " [--FIELD VALUE ...]" * self.takes_fields
        if self.takes_fields:
            text = "any field of a recipe, as --data.root X; `afrcnn train --help` lists them"
            self.add_argument("--FIELD", dest="overrides", metavar="VALUE", help=text)

    def _add_option(self, option: str, metavars: Sequence[str], **keywords: Any) -> None:
        default = keywords["default"]
        if metavars:
            keywords["metavar"] = tuple(metavars) if metavars[1:] else metavars[0]
        if not (default is None or default is False or default == () or "default:" in keywords["help"]):
            keywords["help"] += f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else default})"
        self.add_argument(option, **keywords)
        self.options.append(option)

    def format_help(self) -> str:
        """Return the help, with all fields of a recipe where the command takes one."""
        from afrcnn.recipe import recipe_parser

        fields = recipe_parser(usage=argparse.SUPPRESS, add_help=False) if self.lists_fields else None
        return super().format_help() + (f"\n{fields.format_help()}" if fields else "")

    def parse_words(self, words: Sequence[str]) -> dict[str, Any]:
        """Return the arguments of the function that the words of a command stand for.

        Raises:
            UserError: a word is unknown, missing or of a wrong type; values of fields are not looked at.
        """
        from afrcnn.recipe import field_names, is_field

        rest, overrides, following = list[str](), list[str](), iter(words)
        for word in following:
            option, equals, _ = word.partition("=")
            if not word.startswith("--") or option in ["--", *self.options]:
                rest.append(word)
            elif self.takes_fields and is_field(option.removeprefix("--").removesuffix("+")):
                overrides += [word] if equals else [word, *islice(following, 1)]
            else:
                known = [*self.options, *(f"--{field}" for field in field_names() if self.takes_fields)]
                raise UserError("unknown option", field=option, fix=suggest(option, known, f"see `{self.prog} --help`"))
        return vars(self.parse_args(rest)) | ({"overrides": overrides} if self.takes_fields else {})


class _Tuple(argparse.Action):
    """An option whose words become a tuple, each of its own type; where it is repeated, one more of a tuple."""

    def __init__(self, hint: Any, repeated: bool = False, **kwargs: Any) -> None:
        super().__init__(nargs=_size(hint), **kwargs)
        self.hint, self.repeated = hint, repeated

    def __call__(self, _: object, namespace: argparse.Namespace, values: Any, option_string: str | None = None) -> None:
        try:
            value = _convert(self.hint, iter(values))
        except ValueError as error:
            raise argparse.ArgumentError(self, f"{' '.join(values)} is not {' '.join(self.metavar or ())}") from error
        setattr(namespace, self.dest, (*getattr(namespace, self.dest), value) if self.repeated else value)


def _keywords(hint: Any, name: str) -> dict[str, Any]:
    """Return how argparse reads and shows values of a parameter's type."""
    origin, items = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType}:
        kinds = [kind for kind in items if kind is not NoneType]
        sequences = [kind for kind in kinds if get_origin(kind) is Sequence]
        return _keywords(sequences[0] if sequences else Path if Path in kinds else kinds[0], name)
    if hint is bool:
        return {"action": "store_true"}
    if origin is Literal:
        return {"choices": items, "metavar": f"{{{','.join(items)}}}"}
    if origin is tuple and Ellipsis not in items:
        return {"action": _Tuple, "hint": hint, "metavar": (name.upper(),) * _size(hint)}
    if isinstance(origin, type) and issubclass(origin, Iterable):
        several = {"repeated": True} if get_origin(items[0]) is tuple else {"nargs": "+"}
        return _keywords(items[0], name.removesuffix("s")) | several
    return {"type": hint, "metavar": {int: "N", float: "X", Path: "PATH"}.get(hint, name.upper())}


def _size(hint: Any) -> int:
    """Return how many words make a value of a type."""
    return sum(map(_size, get_args(hint))) if get_origin(hint) is tuple else 1


def _convert(hint: Any, words: Iterator[str]) -> Any:
    """Return the next value of a type, which may be a tuple of tuples."""
    return tuple(_convert(item, words) for item in get_args(hint)) if get_origin(hint) is tuple else hint(next(words))


def _plain(text: str) -> str:
    """Return a paragraph of a docstring in one line, as a terminal shows it."""
    return " ".join(text.replace("``", "`").split())
