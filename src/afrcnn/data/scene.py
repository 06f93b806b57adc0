"""Drawn scenes: articulated figures on textured grounds, whose occlusion and bend are known exactly.

A scene is painted from back to front: the ground, clutter, then objects and the occluders in front of them.
Colours, patterns, sizes and grounds are drawn alike for every class, so that only the parts of a figure and
their arrangement tell its class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from afrcnn.data.figures import FIGURES, Array, limb, pose, rotation, smooth
from afrcnn.data.textures import coat, colours, ground

_Mask = NDArray[np.bool_]
_Window = tuple[slice, slice]
_Generator = np.random.Generator

_MOST_OCCLUDED = 0.7
"""No object is occluded by more than this fraction: what a person could no longer name is not drawn."""

_MOST_CUT = 0.3
"""No object has more than this fraction of its area beyond the border."""

SIDES = (48.0, 150.0)
"""Pixels in an image of 256: the shortest and the longest of objects' longer sides."""


@dataclass
class _Object:
    """An object of a scene.

    Attributes:
        name: its class.
        bend: the mean absolute angle of its joints to the rest pose, in degrees.
        truncated: the border of the image cuts it.
        amodal: H x W, bool, the pixels inside the image that it would have if nothing were in front of it.
        visible: H x W, bool, those of them that are seen.
    """

    name: str
    bend: float
    truncated: bool
    amodal: _Mask
    visible: _Mask

    @property
    def occlusion(self) -> float:
        """The fraction of its pixels inside the image that others occlude: 1 - |visible| / |amodal|."""
        return self.occlusion_behind(np.False_)

    def occlusion_behind(self, mask: _Mask | np.bool_) -> float:
        """The same if a mask came in front of it, too."""
        return 1 - np.count_nonzero(self.visible & ~mask) / np.count_nonzero(self.amodal)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 in pixels, half-open, tight around what is visible, as VOC's guidelines annotate."""
        x, y = (np.flatnonzero(self.visible.any(axis=axis)) for axis in (0, 1))
        return int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1


class _Scene(NamedTuple):
    """A drawn scene.

    Attributes:
        image: H x W x 3, uint8, RGB.
        objects: in depth order, the farthest first.
    """

    image: NDArray[np.uint8]
    objects: list[_Object]


def draw_scene(
    rng: _Generator,
    size: int | tuple[int, int] = 256,
    *,
    occlusion: float = 0.5,
    deformation: float = 0.5,
    classes: Sequence[str] = tuple(FIGURES),
    sides: tuple[float, float] = SIDES,
) -> _Scene:
    """Draw a scene of one to five objects.

    Args:
        rng: the source of all randomness; the scene is a function of its state and of the other arguments.
        size: the side of a square image or its (height, width), in pixels.
        occlusion: in [0, 1], the probability that an object gets an occluder in front of it, and likewise
            that it may stand in front of others; a quarter of it, that the border may cut it. At 0 every
            object is whole.
        deformation: in [0, 1], the fraction of its reach up to which a joint is turned, uniformly to either
            side. At 0 every object is in its rest pose.
        classes: names of figures, of which each object is one.
        sides: the shortest and the longest of the objects' longer sides, in pixels of an image of 256, before anything
            occludes them.

    Returns:
        The scene. Nothing occludes more than ``_MOST_OCCLUDED`` of an object.
    """
    height, width = shape = (size, size) if isinstance(size, int) else size
    unit = min(shape) / 256
    light = np.array([rng.choice([-1, 1]) * rng.uniform(0.3, 0.8), rng.uniform(0.5, 0.9)], np.float32)
    dark_ground = bool(rng.random() < 0.5)
    canvas = ground(rng, height, width, dark_ground, unit)
    for _ in range(rng.integers(2, 7)):
        clutter = _obstacle(rng, rng.uniform(16, 64) * unit, light)
        _lay(canvas, clutter, *_inside(rng, clutter, shape), light)

    objects: list[_Object] = []
    for _ in range(rng.integers(1, 6)):
        name = str(rng.choice(list(classes)))
        side = unit * np.exp(rng.uniform(*np.log(sides)))
        reaches = {joint: reach for joint, (*_, reach) in FIGURES[name].items() if reach}
        angles = {joint: deformation * reaches[joint] * rng.uniform(-1, 1) for joint in reaches}
        sprite = _figure(rng, name, angles, side, light, dark_ground)
        overlap = _MOST_OCCLUDED if rng.random() < occlusion else 0.0
        cut = _MOST_CUT if rng.random() < occlusion / 4 else 0.0
        place = _find_place(rng, sprite, objects, shape, overlap, cut)
        if place is None:
            continue
        _lay(canvas, sprite, *place, light)
        mask = _mask(sprite, *place, shape)
        _occlude(objects, mask)
        bend = float(np.mean(np.abs([*angles.values()])))
        truncated = bool(np.count_nonzero(mask) < np.count_nonzero(sprite.mask))
        objects.append(_Object(name, bend, truncated, amodal=mask, visible=mask))
        if rng.random() < occlusion:
            _lay_occluder(rng, canvas, objects, unit, light)
    return _Scene(_expose(rng, canvas, light), objects)


def _inside(rng: _Generator, sprite: _Sprite, shape: tuple[int, int], cut: float = 0.0) -> tuple[int, int]:
    """A place (left, top) whole inside the image, or up to a fraction ``cut`` beyond each border."""
    x, y = (np.flatnonzero(sprite.mask.any(axis=axis)) for axis in (0, 1))

    def offset(low: int, high: int, length: int) -> int:
        slack = int(cut * (high - low))
        return int(rng.integers(min(-low - slack, length - high), max(-low, length - high + slack) + 1))

    return offset(x[0], x[-1] + 1, shape[1]), offset(y[0], y[-1] + 1, shape[0])


def _find_place(
    rng: _Generator, sprite: _Sprite, objects: Sequence[_Object], shape: tuple[int, int], overlap: float, cut: float
) -> tuple[int, int] | None:
    """A random place where a sprite occludes no object beyond ``overlap`` and leaves the image by at most ``cut``."""
    for _ in range(20):
        place = _inside(rng, sprite, shape, cut)
        mask = _mask(sprite, *place, shape)
        inside = np.count_nonzero(mask) / np.count_nonzero(sprite.mask)
        if inside >= 1 - cut and _most_occluded(objects, mask) <= overlap:
            return place
    return None


def _lay_occluder(rng: _Generator, canvas: Array, objects: Sequence[_Object], unit: float, light: Array) -> None:
    """Put an obstacle in front of the last object, if one is found that leaves every object recognisable."""
    target = objects[-1].amodal
    ys, xs = np.nonzero(target)
    for _ in range(5):
        obstacle = _obstacle(rng, np.sqrt(len(ys)) * rng.uniform(0.6, 1.5), light)
        h, w = obstacle.mask.shape
        i = rng.integers(len(ys))
        place = int(xs[i]) - w // 2, int(ys[i]) - h // 2
        mask = _mask(obstacle, *place, target.shape)
        if np.any(mask & target) and _most_occluded(objects, mask) <= _MOST_OCCLUDED:
            _lay(canvas, obstacle, *place, light)
            _occlude(objects, mask)
            return


def _most_occluded(objects: Sequence[_Object], mask: _Mask) -> float:
    """The largest occluded fraction of those that ``mask`` would touch, if it came in front of them."""
    return max((item.occlusion_behind(mask) for item in objects if np.any(item.visible & mask)), default=0.0)


def _occlude(objects: Sequence[_Object], mask: _Mask) -> None:
    for item in objects:
        item.visible = item.visible & ~mask


def _figure(
    rng: _Generator, name: str, angles: dict[str, float], side: float, light: Array, dark_ground: bool
) -> _Sprite:
    """A figure of a class, ``side`` pixels long, in random colours, aspect and tilt."""
    stretch = np.exp(rng.uniform(-0.15, 0.15))
    shape = rotation(rng.uniform(-12, 12))[:, :2] @ np.diag([rng.choice([-1, 1]) * stretch, 1 / stretch])
    outlines = [outline @ shape.T for outline in pose(FIGURES[name], angles)]
    scale = side / np.ptp(np.concatenate(outlines), axis=0).max()

    # Light on dark or dark on light, to stand out from most grounds; hue and chroma are free.
    lightness = rng.uniform(60, 84) if dark_ground else rng.uniform(28, 54)
    hue, chroma = rng.uniform(0, 360), rng.uniform(22, 52)
    second_hue = hue + (rng.uniform(-50, 50) if rng.random() < 0.5 else rng.uniform(120, 240))
    levels = [lightness, lightness + rng.uniform(-15, 15), rng.choice([16, 93]), lightness - 12]
    tones = colours(levels, [chroma, chroma * rng.uniform(0.5, 1.1), 8, chroma], [hue, second_hue, hue, hue])
    painted = tones[[tone for _, tone, *_ in FIGURES[name].values()]]
    return _paint([o * scale for o in outlines], painted, light, coat(rng, rng.uniform(0.03, 0.14)))


def _obstacle(rng: _Generator, side: float, light: Array) -> _Sprite:
    """Something that is not an object, about ``side`` pixels wide: a post, a board, a stone or foliage."""
    kind = rng.choice(["post", "board", "stone", "foliage"])
    tilt = rng.uniform(-20, 20)
    outlines: list[NDArray[np.floating[Any]]]
    if kind == "post":
        outlines = [limb((0, -1.6), (0, 1.6), 0.18, 0.18)]
        tilt += rng.choice([0, 90])
    elif kind == "board":
        w, h = rng.uniform(0.3, 0.55, 2)
        outlines = [smooth((-w, -h), (w, -h), (w, h), (-w, h), rounds=0)]
    elif kind == "stone":
        turns = np.radians(np.arange(0, 360, 40) + rng.uniform(-15, 15, 9))
        outlines = [smooth(*(np.stack([np.cos(turns), np.sin(turns)], 1) * rng.uniform(0.4, 0.6, (9, 1))))]
    else:
        leaf = smooth((-0.1, 0), (0.2, -0.16), (0.62, 0), (0.2, 0.16), rounds=2)
        turns = np.arange(0, 2 * 360, 72) * 1.1 + rng.uniform(-15, 15, 10)
        outlines = [rng.uniform(0.6, 1) * leaf @ rotation(turn)[:, :2].T for turn in turns]
    base = colours(rng.uniform(28, 78), rng.uniform(5, 40), rng.uniform(0, 360))
    painted = base * rng.uniform(0.8, 1.15, (len(outlines), 1)).astype(np.float32)
    outlines = [side * outline @ rotation(tilt)[:, :2].T for outline in outlines]
    return _paint(outlines, painted, light, coat(rng, rng.uniform(0.04, 0.2)))


class _Sprite(NamedTuple):
    """A painted layer before it is laid on the canvas.

    Attributes:
        rgba: h x w x 4, float32 in [0, 1], the colours multiplied by alpha.
        mask: h x w, bool, the pixels of which it covers at least half.
    """

    rgba: Array
    mask: _Mask


def _paint(outlines: Sequence[NDArray[np.floating[Any]]], painted: Array, light: Array, pattern: Array) -> _Sprite:
    """Fill outlines (in pixels) one over the other, each shaded as if it were round.

    ``light`` is the direction (x, y) in which the light travels; ``pattern`` is one of lightness about 1
    that is stretched over the whole. Everything is drawn at twice the size and averaged.
    """
    points = np.concatenate(outlines)
    margin = 4 + int(0.08 * np.ptp(points, axis=0).max())
    corner = np.floor(points.min(axis=0)) - margin
    width, height = (int(n) for n in np.ceil(points.max(axis=0)) + margin - corner)
    canvas = np.zeros((4, 2 * height, 2 * width), np.float32)  # planes: four times as fast
    for outline, colour in zip(outlines, painted, strict=True):
        local = (outline - corner) * 2 - 0.5
        x, y = np.floor(local.min(axis=0)).astype(int) - 2
        w, h = np.ceil(local.max(axis=0)).astype(int) + 3 - (x, y)
        filled = np.zeros((h, w), np.uint8)
        cv2.fillPoly(filled, [np.rint((local - (x, y)) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
        mask = filled.astype(np.float32) / 255
        # A blurred silhouette is a hill; its slope towards the light is how bright the part is.
        reach = max(3, min(w, h) // 5)
        hill = cv2.blur(cv2.blur(mask, (reach, reach)), (reach, reach))
        slope = cv2.Sobel(hill, cv2.CV_32F, 1, 0) * light[0] + cv2.Sobel(hill, cv2.CV_32F, 0, 1) * light[1]
        shade = 1 + np.float32(0.035 * reach) * slope
        window = canvas[:, y : y + h, x : x + w]
        window *= 1 - mask
        window[:3] += colour[:, None, None] * (mask * shade)
        window[3] += mask
    drawn = cv2.merge([*canvas])
    rgba = np.asarray(cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA), np.float32)
    rgba[..., :3] *= cv2.resize(pattern, (width, height))[..., None]
    rgba[..., :3] = np.clip(rgba[..., :3], 0, rgba[..., 3:])
    return _Sprite(rgba, rgba[..., 3] >= 0.5)


def _windows(sprite: _Sprite, left: int, top: int, shape: tuple[int, ...]) -> tuple[_Window, _Window]:
    """Where a sprite meets the image: the window of the image and that of the sprite."""
    h, w = sprite.mask.shape
    y1, y2 = np.clip([top, top + h], 0, shape[0])
    x1, x2 = np.clip([left, left + w], 0, shape[1])
    return np.s_[y1:y2, x1:x2], np.s_[y1 - top : y2 - top, x1 - left : x2 - left]


def _mask(sprite: _Sprite, left: int, top: int, shape: tuple[int, ...]) -> _Mask:
    """The pixels of the image that a sprite covers."""
    mask = np.zeros(shape, bool)
    here, there = _windows(sprite, left, top, shape)
    mask[here] = sprite.mask[there]
    return mask


def _lay(canvas: Array, sprite: _Sprite, left: int, top: int, light: Array) -> None:
    """Lay a sprite over the canvas, with the soft shadow that it throws."""
    here, there = _windows(sprite, left, top, canvas.shape)
    alpha = sprite.rgba[..., 3]
    spread = max(3, min(alpha.shape) // 14)
    dx, dy = np.rint(light * spread * 0.6).astype(int)
    shadow = np.roll(cv2.blur(alpha, (spread, spread)), (dy, dx), (0, 1))[there]
    canvas[here] *= ((1 - 0.35 * shadow) * (1 - alpha[there]))[..., None]
    canvas[here] += sprite.rgba[there][..., :3]


def _expose(rng: _Generator, canvas: Array, light: Array) -> NDArray[np.uint8]:
    """The image: brighter where the light comes from, with a little grain."""
    height, width = canvas.shape[:2]
    y, x = np.ogrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    shine = (1 - 0.2 * (x * light[0] + y * light[1])).astype(np.float32)
    grain = np.float32(0.012) * rng.standard_normal((height, width, 1), np.float32)
    exposed = (canvas * shine[..., None] + grain) * 255 + 0.5
    return np.asarray(np.clip(exposed, 0, 255).astype(np.uint8))
