"""Articulated figures: the classes of the generated dataset, as trees of parts that turn about their joints."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
_Point = Sequence[float]


class _Part(NamedTuple):
    """A part of a figure in its rest pose; x to the right, y down, a figure about 1 high or wide.

    Attributes:
        outline: N x 2, float32, the corners of the filled polygon.
        tone: which of the figure's four colours: 0 body, 1 second colour, 2 accent, 3 the body in shade.
        parent: the name of the part it hangs on; empty for the root.
        pivot: the point about which it turns.
        reach: the largest angle of the joint to either side, in degrees; 0 for a rigid joint.
    """

    outline: Array
    tone: int = 0
    parent: str = ""
    pivot: _Point = (0.0, 0.0)
    reach: float = 0.0


_Figure = dict[str, _Part]
"""The parts by name, in the order of painting."""


def rotation(degrees: float, centre: _Point = (0.0, 0.0)) -> NDArray[np.float64]:
    """The 2 x 3 affine map that turns about ``centre``, clockwise on the screen."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x, y = centre
    return np.array([[c, -s, x - c * x + s * y], [s, c, y - s * x - c * y]])


def pose(figure: _Figure, angles: dict[str, float]) -> list[Array]:
    """The outlines of a figure whose joints are turned.

    Args:
        figure: its rest pose.
        angles: degrees by which a part turns about its pivot, relative to the part that it hangs on.

    Returns:
        The outlines in the order of painting, N x 2 each.
    """

    @functools.cache
    def placed(name: str) -> NDArray[np.float64]:  # 3 x 3
        if not name:
            return np.eye(3)
        turn = np.vstack([rotation(angles.get(name, 0.0), figure[name].pivot), (0, 0, 1)])
        return np.asarray(placed(figure[name].parent) @ turn)

    maps = [(outline, placed(name)) for name, (outline, *_) in figure.items()]
    return [(outline @ map_[:2, :2].T + map_[:2, 2]).astype(np.float32) for outline, map_ in maps]


def _ellipse(x: float, y: float, rx: float, ry: float, degrees: float = 0.0) -> Array:
    """An ellipse about (x, y), its radii turned by an angle."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack([rx * np.cos(t), ry * np.sin(t)], axis=1)
    return (ring @ rotation(degrees)[:, :2].T + (x, y)).astype(np.float32)


def limb(start: _Point, end: _Point, start_radius: float, end_radius: float) -> Array:
    """A tapered capsule: the outer tangents of two circles, closed by their arcs."""
    (x0, y0), (x1, y1) = start, end
    t = np.linspace(np.pi / 2, 3 * np.pi / 2, 12) + np.arctan2(y1 - y0, x1 - x0)
    arc = np.stack([np.cos(t), np.sin(t)], axis=1)
    return np.concatenate([start + start_radius * arc, end - end_radius * arc]).astype(np.float32)


def smooth(*corners: _Point, rounds: int = 3) -> Array:
    """A polygon whose corners are cut (Chaikin's subdivision) in rounds; many tend to a quadratic B-spline."""
    points = np.asarray(corners, np.float32)
    for _ in range(rounds):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], axis=1).reshape(-1, 2)
    return points


def _part(*, rounds: int = 3, **fields: Any) -> _Part:
    """A part as ``figures.toml`` describes it."""
    kinds: dict[str, Callable[..., Array]] = {"ellipse": _ellipse, "limb": limb}
    kinds["polygon"] = functools.partial(smooth, rounds=0)
    kinds["smooth"] = functools.partial(smooth, rounds=rounds)
    [kind] = fields.keys() & kinds.keys()
    values = fields.pop(kind)
    start = {"pivot": values[0]} if kind == "limb" else {}
    return _Part(kinds[kind](*values), **(start | fields))


FIGURES: dict[str, _Figure] = {
    name: {part_name: _part(**description) for part_name, description in figure.items()}
    for name, figure in tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")).items()
}
"""The rest pose of every class, by its name."""
