"""Articulated figures: the classes of the generated dataset, as trees of parts that turn about their joints."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Point = tuple[float, float]


class Part(NamedTuple):
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
    pivot: tuple[float, float] = (0.0, 0.0)
    reach: float = 0.0


Figure = dict[str, Part]
"""The parts by name, in the order of painting."""


def rotation(degrees: float, centre: Point = (0.0, 0.0)) -> NDArray[np.float64]:
    """The 2 x 3 affine map that turns about ``centre``, clockwise on the screen."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x, y = centre
    return np.array([[c, -s, x - c * x + s * y], [s, c, y - s * x - c * y]])


def bend(figure: Figure, angles: dict[str, float]) -> list[Array]:
    """Turn every joint of a figure.

    Args:
        figure: its rest pose.
        angles: degrees by which a part turns about its pivot, relative to the part that it hangs on.

    Returns:
        The outlines in the order of painting, N x 2 each.
    """

    @functools.cache
    def pose(name: str) -> NDArray[np.float64]:
        if not name:
            return np.eye(3)
        part = figure[name]
        turn = np.vstack([rotation(angles.get(name, 0.0), part.pivot), (0, 0, 1)])
        whole: NDArray[np.float64] = pose(part.parent) @ turn
        return whole

    return [
        (part.outline @ pose(name)[:2, :2].T + pose(name)[:2, 2]).astype(np.float32) for name, part in figure.items()
    ]


def ellipse(x: float, y: float, rx: float, ry: float, degrees: float = 0.0) -> Array:
    """An ellipse about (x, y), its radii turned by an angle."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack([rx * np.cos(t), ry * np.sin(t)], axis=1)
    return (ring @ rotation(degrees)[:, :2].T + (x, y)).astype(np.float32)


def limb(start: Point, end: Point, start_radius: float, end_radius: float) -> Array:
    """A tapered capsule: the outer tangents of two circles, closed by their arcs."""
    (x0, y0), (x1, y1) = start, end
    along = np.arctan2(y1 - y0, x1 - x0)
    t = np.linspace(np.pi / 2, 3 * np.pi / 2, 12) + along
    caps = [
        np.stack([x0 + start_radius * np.cos(t), y0 + start_radius * np.sin(t)], axis=1),
        np.stack([x1 - end_radius * np.cos(t), y1 - end_radius * np.sin(t)], axis=1),
    ]
    return np.concatenate(caps).astype(np.float32)


def smooth(*corners: Point, rounds: int = 3) -> Array:
    """A polygon whose corners are cut (Chaikin's subdivision), which tends to a quadratic B-spline."""
    points = np.asarray(corners, np.float32)
    for _ in range(rounds):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], axis=1)
        points = points.reshape(-1, 2)
    return points


def polygon(*corners: Point) -> Array:
    """The polygon of these corners, as it is."""
    return np.asarray(corners, np.float32)


def _chain(
    name: str, parent: str, joints: Sequence[Point], radii: Sequence[float], reach: float, tone: int = 0
) -> Figure:
    """Limbs ``name 0``, ``name 1``, ... from joint to joint, each hanging on the one before."""
    parts: Figure = {}
    for i, (start, end) in enumerate(itertools.pairwise(joints)):
        parent = f"{name} {i - 1}" if i else parent
        parts[f"{name} {i}"] = Part(limb(start, end, radii[i], radii[i + 1]), tone, parent, start, reach)
    return parts


def _bird() -> Figure:
    parts: Figure = {
        "tail": Part(
            polygon((-0.05, 0.16), (0.05, 0.16), (0.13, 0.46), (0.0, 0.41), (-0.13, 0.46)),
            1,
            "body",
            (0, 0.2),
            25,
        )
    }
    for s in (-1, 1):
        wing = f"wing {s}"
        parts[f"{wing} tip"] = Part(
            smooth((0.24 * s, -0.19), (0.46 * s, -0.17), (0.72 * s, 0.2), (0.45 * s, 0.09), (0.26 * s, 0.05), rounds=2),
            1,
            wing,
            (0.29 * s, -0.1),
            45,
        )
        parts[wing] = Part(
            smooth((0.0, -0.15), (0.3 * s, -0.24), (0.4 * s, -0.1), (0.3 * s, 0.08), (0.0, 0.16), rounds=2),
            0,
            "body",
            (0.06 * s, -0.05),
            35,
        )
    parts |= {
        "beak": Part(polygon((-0.035, -0.3), (0.035, -0.3), (0.0, -0.42)), 2, "head"),
        "body": Part(ellipse(0, 0.02, 0.095, 0.25), 3),
        "head": Part(ellipse(0, -0.24, 0.08, 0.085), 0, "body", (0, -0.16), 30),
    }
    for s in (-1, 1):
        parts[f"eye {s}"] = Part(ellipse(0.04 * s, -0.27, 0.017, 0.017), 2, "head")
    return parts


def _crab() -> Figure:
    parts: Figure = {}
    for s in (-1, 1):
        for i, (y, drop) in enumerate(((0.0, 0.02), (0.08, 0.12), (0.15, 0.22))):
            joints = [(0.2 * s, y), ((0.4 - 0.03 * i) * s, y - 0.05 + 0.03 * i), ((0.5 - 0.05 * i) * s, y + 0.1 + drop)]
            parts |= _chain(f"leg {s} {i}", "shell", joints, [0.035, 0.028, 0.012], 30, 3)
        parts |= _chain(
            f"arm {s}", "shell", [(0.22 * s, -0.1), (0.4 * s, -0.2), (0.36 * s, -0.36)], [0.045, 0.045, 0.04], 35
        )
        hand = f"arm {s} 1"
        parts[f"claw {s}"] = Part(
            smooth(
                (0.3 * s, -0.32), (0.42 * s, -0.32), (0.47 * s, -0.46), (0.36 * s, -0.63), (0.38 * s, -0.46), rounds=2
            ),
            1,
            hand,
        )
        parts[f"thumb {s}"] = Part(
            smooth(
                (0.42 * s, -0.34), (0.3 * s, -0.33), (0.21 * s, -0.44), (0.26 * s, -0.6), (0.31 * s, -0.44), rounds=2
            ),
            1,
            hand,
            (0.33 * s, -0.36),
            20,
        )
        parts |= _chain(f"stalk {s}", "shell", [(0.08 * s, -0.14), (0.1 * s, -0.26)], [0.02, 0.02], 25)
        parts[f"eye {s}"] = Part(ellipse(0.1 * s, -0.27, 0.036, 0.036), 2, f"stalk {s} 0")
    parts["shell"] = Part(
        smooth((-0.34, -0.08), (-0.2, -0.22), (0.2, -0.22), (0.34, -0.08), (0.22, 0.24), (-0.22, 0.24))
    )
    parts["mark"] = Part(smooth((-0.16, -0.12), (0.16, -0.12), (0.09, 0.06), (-0.09, 0.06)), 1, "shell")
    return parts


def _digger() -> Figure:
    parts: Figure = {
        "track": Part(limb((-0.3, 0.42), (0.2, 0.42), 0.11, 0.11), 2, "hull"),
        "bucket": Part(
            polygon((0.5, 0.06), (0.66, 0.04), (0.7, 0.16), (0.62, 0.28), (0.48, 0.3), (0.4, 0.22), (0.53, 0.18)),
            2,
            "arm 1",
            (0.58, 0.08),
            40,
        ),
    }
    parts |= {f"wheel {i}": Part(ellipse(x, 0.42, 0.065, 0.065), 1, "hull") for i, x in enumerate((-0.3, -0.05, 0.2))}
    boom = _chain("arm", "hull", [(0.1, 0.2), (0.34, -0.26), (0.58, 0.08)], [0.07, 0.055, 0.04], 30, 1)
    parts |= dict(reversed(boom.items()))
    parts |= {
        "hull": Part(polygon((-0.46, 0.08), (-0.42, 0.02), (-0.05, 0.02), (0.2, 0.1), (0.22, 0.3), (-0.44, 0.3)), 0),
        "cab": Part(polygon((-0.14, -0.28), (0.1, -0.28), (0.18, 0.08), (0.16, 0.22), (-0.14, 0.22)), 0, "hull"),
        "window": Part(polygon((-0.09, -0.23), (0.07, -0.23), (0.12, 0.02), (-0.09, 0.02)), 2, "hull"),
    }
    return parts


def _dog() -> Figure:
    parts: Figure = {}
    for near, tone in ((False, 3), (True, 0)):
        if near:
            parts |= _chain("tail", "body", [(-0.34, -0.08), (-0.47, -0.2), (-0.5, -0.38)], [0.045, 0.035, 0.02], 40)
            parts["body"] = Part(
                smooth(
                    (-0.42, -0.14),
                    (-0.1, -0.17),
                    (0.2, -0.2),
                    (0.38, -0.1),
                    (0.34, 0.14),
                    (0.05, 0.11),
                    (-0.15, 0.07),
                    (-0.4, 0.14),
                )
            )
        dx = -0.04 if near else 0.06
        for name, (hip, knee, paw) in {
            "hind leg": ((-0.28, 0.0), (-0.25, 0.22), (-0.31, 0.42)),
            "fore leg": ((0.22, 0.02), (0.2, 0.23), (0.21, 0.42)),
        }.items():
            leg = f"{'near' if near else 'far'} {name}"
            joints = [(hip + dx, y) for hip, y in (hip, knee, paw)]
            parts |= _chain(leg, "body", joints, [0.08, 0.05, 0.035], 35, tone)
            x, y = joints[-1]
            parts[f"{leg} paw"] = Part(ellipse(x + 0.025, y + 0.015, 0.055, 0.03), 1, f"{leg} 1")
    parts |= {
        "neck": Part(limb((0.26, -0.08), (0.4, -0.28), 0.105, 0.08), 0, "body", (0.26, -0.08), 25),
        "snout": Part(limb((0.45, -0.3), (0.6, -0.27), 0.07, 0.045), 1, "head"),
        "head": Part(ellipse(0.42, -0.33, 0.11, 0.1), 0, "neck", (0.4, -0.28), 25),
        "nose": Part(ellipse(0.635, -0.29, 0.026, 0.024), 2, "head"),
        "ear": Part(
            smooth((0.33, -0.42), (0.44, -0.42), (0.42, -0.26), (0.34, -0.16), (0.28, -0.24)),
            3,
            "head",
            (0.38, -0.4),
            30,
        ),
        "eye": Part(ellipse(0.475, -0.36, 0.02, 0.02), 2, "head"),
    }
    return parts


def _fish() -> Figure:
    return {
        "back fin": Part(
            smooth((0.2, -0.12), (0.05, -0.36), (-0.2, -0.34), (-0.14, -0.1), rounds=2), 1, "body", (0.03, -0.16), 20
        ),
        "belly fin": Part(
            smooth((0.1, 0.12), (0.0, 0.34), (-0.14, 0.32), (-0.08, 0.1), rounds=2), 1, "body", (0.02, 0.16), 25
        ),
        "tail fin": Part(
            smooth(
                (-0.27, -0.04),
                (-0.5, -0.28),
                (-0.6, -0.2),
                (-0.47, 0.0),
                (-0.6, 0.2),
                (-0.5, 0.28),
                (-0.27, 0.04),
                rounds=2,
            ),
            1,
            "tail",
            (-0.32, 0.0),
            35,
        ),
        "tail": Part(limb((-0.08, 0), (-0.34, 0), 0.165, 0.05), 0, "body", (-0.08, 0), 30),
        "body": Part(
            smooth((0.52, 0.0), (0.36, -0.18), (0.06, -0.24), (-0.22, -0.18), (-0.22, 0.18), (0.06, 0.24), (0.36, 0.18))
        ),
        "cheek": Part(
            smooth((0.47, 0.0), (0.36, -0.13), (0.2, -0.15), (0.24, 0.0), (0.2, 0.15), (0.36, 0.13)), 3, "body"
        ),
        "side fin": Part(
            smooth((0.16, 0.0), (0.02, 0.0), (-0.14, 0.08), (-0.08, 0.16), (0.1, 0.1), rounds=2),
            1,
            "body",
            (0.12, 0.04),
            40,
        ),
        "eye": Part(ellipse(0.34, -0.05, 0.036, 0.036), 2, "body"),
    }


def _lamp() -> Figure:
    shade = polygon((0.1, 0.0), (0.22, 0.0), (0.44, 0.3), (0.0, 0.36))
    return {
        "bulb": Part(ellipse(0.23, 0.33, 0.09, 0.08, -8), 1, "shade"),
        "arm 1": Part(limb((-0.24, 0.46), (0.14, 0.08), 0.036, 0.032), 0, "arm 0", (-0.24, 0.46), 35),
        "arm 0": Part(limb((0.02, 0.9), (-0.24, 0.46), 0.04, 0.036), 3, "base", (0.02, 0.9), 25),
        "elbow": Part(ellipse(-0.24, 0.46, 0.055, 0.055), 2, "arm 0"),
        "shade": Part(shade, 0, "arm 1", (0.16, 0.06), 45),
        "cap": Part(smooth((0.07, 0.03), (0.1, -0.08), (0.22, -0.08), (0.26, 0.03), rounds=2), 2, "shade"),
        "base": Part(smooth((-0.26, 1.0), (-0.2, 0.88), (0.22, 0.88), (0.28, 1.0), rounds=2), 1),
    }


def _person() -> Figure:
    parts: Figure = {}
    for s in (-1, 1):
        parts |= _chain(
            f"leg {s}", "torso", [(0.065 * s, 0.52), (0.08 * s, 0.74), (0.085 * s, 0.94)], [0.07, 0.055, 0.042], 35, 1
        )
        parts[f"foot {s}"] = Part(ellipse(0.11 * s, 0.965, 0.065, 0.034), 2, f"leg {s} 1")
    for s in (-1, 1):
        parts |= _chain(
            f"arm {s}", "torso", [(0.13 * s, 0.28), (0.2 * s, 0.43), (0.23 * s, 0.58)], [0.05, 0.044, 0.034], 60, 3
        )
        parts[f"hand {s}"] = Part(ellipse(0.235 * s, 0.605, 0.038, 0.042), 2, f"arm {s} 1")
    parts |= {
        "neck": Part(limb((0, 0.14), (0, 0.25), 0.04, 0.045), 3, "torso"),
        "torso": Part(smooth((-0.18, 0.2), (0.18, 0.2), (0.14, 0.4), (0.14, 0.6), (-0.14, 0.6), (-0.14, 0.4))),
        "head": Part(ellipse(0, 0.09, 0.085, 0.1), 2, "torso", (0, 0.18), 25),
        "hair": Part(
            smooth(
                (-0.11, 0.12), (-0.12, -0.03), (0.0, -0.06), (0.12, -0.03), (0.11, 0.12), (0.06, 0.04), (-0.06, 0.04)
            ),
            1,
            "head",
        ),
    }
    return parts


def _plant() -> Figure:
    parts: Figure = _chain("stem", "pot", [(0, 0.6), (0.0, 0.4), (0, 0.16)], [0.028, 0.024, 0.02], 22, 3)
    for i, (s, y) in enumerate(((-1, 0.5), (1, 0.44), (-1, 0.36), (1, 0.3))):
        leaf = ((0.0, y + 0.02), (0.12 * s, y - 0.14), (0.38 * s, y - 0.12), (0.2 * s, y + 0.06))
        parts[f"leaf {i}"] = Part(smooth(*leaf, rounds=2), 0 if i % 2 else 3, f"stem {i // 2}", (0, y), 35)
    for i, t in enumerate(np.arange(7) * (360 / 7)):
        x, y = 0.1 * np.sin(np.radians(t)), 0.1 - 0.1 * np.cos(np.radians(t))
        parts[f"petal {i}"] = Part(ellipse(x, y, 0.058, 0.09, t), 1, "flower")
    parts |= {
        "flower": Part(ellipse(0, 0.1, 0.062, 0.062), 2, "stem 1", (0, 0.18), 35),
        "pot": Part(polygon((-0.19, 0.64), (0.19, 0.64), (0.13, 1.0), (-0.13, 1.0)), 1),
        "rim": Part(polygon((-0.22, 0.57), (0.22, 0.57), (0.21, 0.67), (-0.21, 0.67)), 1, "pot"),
    }
    return parts


FIGURES: dict[str, Figure] = {
    "bird": _bird(),
    "crab": _crab(),
    "digger": _digger(),
    "dog": _dog(),
    "fish": _fish(),
    "lamp": _lamp(),
    "person": _person(),
    "plant": _plant(),
}
"""The rest pose of every class, by its name."""

CLASSES: tuple[str, ...] = tuple(FIGURES)
