"""Command lines made from functions."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pytest

from afrcnn.core.errors import UserError
from afrcnn.parser import FunctionParser
from afrcnn.recipe import Recipe

Pair = tuple[tuple[float, float], str]


def bake(
    cake: Path | str,
    eggs: Sequence[int],
    tin: Path | str | None = None,
    *,
    minutes: int = 0,
    sweet: float = 0.5,
    glaze: bool = False,
    shape: Literal["round", "square"] = "round",
    top_layers: Sequence[Literal["cream", "jam"]] = (),
    size: tuple[int, int] | None = None,
    marks: Sequence[Pair] = (),
    tiers: tuple[int, ...] = (3, 2),
    overrides: Sequence[str] = (),
) -> "Unimported":  # noqa: F821  results are not looked at
    """Bake a cake, 100% of it.

    It takes ``eggs``
    and more.

    Args:
        cake: recipe of the cake.
        eggs: weights of the eggs.
        minutes: time in the oven.
        sweet: share of sugar, 50% or so (default: half).
        glaze: add a glaze,
            of lemon.
        size: length and width.

    Examples:
        afrcnn bake tart 1 2
        afrcnn bake tart 3 --glaze

    Returns:
        The cake.
    """


FLAGS = {"size": "--in LENGTH WIDTH", "marks": "--mark X Y NAME"}
DEFAULTS: dict[str, Any] = {
    "tin": None,
    "minutes": 0,
    "sweet": 0.5,
    "glaze": False,
    "shape": "round",
    "top_layers": (),
    "size": None,
    "marks": (),
    "tiers": (3, 2),
    "overrides": [],
}


@pytest.fixture
def parser() -> FunctionParser:
    return FunctionParser(bake, FLAGS, "bake")


def test_parameters_without_a_default_are_positional_and_the_others_keep_their_defaults(parser: FunctionParser) -> None:
    assert parser.parse_words(["tart", "1", "2"]) == {"cake": Path("tart"), "eggs": [1, 2], **DEFAULTS}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--tin", "a/b"], {"tin": Path("a/b")}),
        (["--minutes", "-4"], {"minutes": -4}),
        (["--sweet=1e-3"], {"sweet": 0.001}),
        (["--glaze"], {"glaze": True}),
        (["--shape", "square"], {"shape": "square"}),
        (["--top-layers", "jam", "cream"], {"top_layers": ["jam", "cream"]}),
        (["--in", "3", "4"], {"size": (3, 4)}),
        (["--tiers", "4", "3", "1"], {"tiers": [4, 3, 1]}),
        (["--mark", "-1", "2.5", "a", "--mark", "3", "4", "b"], {"marks": (((-1, 2.5), "a"), ((3, 4), "b"))}),
        (["--data.root", "x", "--seed=1"], {"overrides": ["--data.root", "x", "--seed=1"]}),
        (["--data.classes+=a=b", "--data.flip"], {"overrides": ["--data.classes+=a=b", "--data.flip"]}),
        (["--data.classes+", "--glaze"], {"overrides": ["--data.classes+", "--glaze"]}),
    ],
)
def test_options_have_the_types_of_their_parameters(
    words: list[str], expected: dict[str, Any], parser: FunctionParser
) -> None:
    assert parser.parse_words(["tart", "1", *words]) == {"cake": Path("tart"), "eggs": [1], **DEFAULTS, **expected}


def test_fields_of_a_recipe_may_stand_between_positionals(parser: FunctionParser) -> None:
    arguments = parser.parse_words(["--seed", "4", "tart", "--data.root", "x", "1", "2"])
    assert (arguments["cake"], arguments["eggs"]) == (Path("tart"), [1, 2])
    assert arguments["overrides"] == ["--seed", "4", "--data.root", "x"]


def test_every_field_of_a_recipe_is_taken_for_one(parser: FunctionParser) -> None:
    for section, values in asdict(Recipe()).items():
        names = [f"{section}.{name}" for name in values] if isinstance(values, dict) else []
        for name in [section, *names]:
            word = f"--{name}=a value\nof two lines"
            assert parser.parse_words(["tart", "1", word])["overrides"] == [word]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["tart"], "required: EGG; see `afrcnn bake --help`"),
        (["tart", "1", "--minutes", "x"], "--minutes.*'x'"),
        (["tart", "1", "--shape", "star"], "--shape.*star.*round"),
        (["tart", "1", "--in", "3"], "--in.*2"),
        (["tart", "1", "--in", "3", "x"], "--in: 3 x is not LENGTH WIDTH"),
        (["tart", "1", "--mark", "1", "x", "a"], "--mark: 1 x a is not X Y NAME"),
        (["tart", "1", "--minuts", "3"], "--minuts: unknown option; did you mean --minutes?"),
        (["tart", "1", "--data.rooot", "3"], "--data.rooot: unknown option; did you mean --data.root?"),
        (["tart", "1", "--data.rooot=3"], "--data.rooot: unknown option; did you mean --data.root?"),
        (["tart", "1", "--zzz"], "--zzz: unknown option; see `afrcnn bake --help`"),
        (["tart", "1", "--FIELD", "3"], "--FIELD: unknown option"),
        (["tart", "1", "--overrides", "3"], "--overrides: unknown option"),
        (["tart", "1", "-x"], "-x"),
    ],
)
def test_what_is_wrong_is_named_with_what_was_meant(words: list[str], named: str, parser: FunctionParser) -> None:
    with pytest.raises(UserError, match=named):
        parser.parse_words(words)


def test_a_function_without_overrides_takes_no_fields() -> None:
    def stir(bowl: Path, *, speed: int = 1) -> None:
        """Stir."""

    parser = FunctionParser(stir, {}, "stir")
    assert parser.parse_words(["a", "--speed", "3"]) == {"bowl": Path("a"), "speed": 3}
    assert "FIELD" not in parser.format_help()
    with pytest.raises(UserError, match="--seed: unknown option; did you mean --speed"):
        parser.parse_words(["a", "--seed", "3"])


def test_a_first_parameter_with_a_default_is_an_optional_positional() -> None:
    def serve(cake: Path | str | None = None, *, slices: int = 8) -> None:
        """Serve."""

    parser = FunctionParser(serve, {}, "serve")
    assert parser.parse_words(["--slices", "4"]) == {"cake": None, "slices": 4}
    assert parser.parse_words(["tart"]) == {"cake": Path("tart"), "slices": 8}
    assert "afrcnn serve [CAKE] [OPTIONS]" in parser.format_help()


def test_help_is_the_docstring_in_80_columns(parser: FunctionParser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert parser.format_help().replace("positional arguments", "arguments") == (
        """usage: afrcnn bake CAKE EGG [EGG ...] [OPTIONS] [--FIELD VALUE ...]

Bake a cake, 100% of it.

It takes `eggs` and more.

arguments:
  CAKE                  recipe of the cake
  EGG                   weights of the eggs

options:
  -h, --help            show this help message and exit
  --tin PATH
  --minutes N           time in the oven (default: 0)
  --sweet X             share of sugar, 50% or so (default: half)
  --glaze               add a glaze, of lemon
  --shape {round,square}
                        (default: round)
  --top-layers {cream,jam} [{cream,jam} ...]
  --in LENGTH WIDTH     length and width
  --mark X Y NAME
  --tiers N [N ...]     (default: 3 2)
  --FIELD VALUE         any field of a recipe, as --data.root X; `afrcnn train
                        --help` lists them

examples:
  afrcnn bake tart 1 2
  afrcnn bake tart 3 --glaze
"""
    )
