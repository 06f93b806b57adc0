"""Colours and patterns of drawn scenes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike

from afrcnn.data.figures import Array


def colours(lightness: ArrayLike, chroma: ArrayLike, hue: ArrayLike) -> Array:
    """Colours of CIE LCh (lightness in [0, 100], hue in degrees) as sRGB, N x 3 in [0, 1]."""
    lightness, chroma, hue = (np.atleast_1d(np.asarray(value, np.float32)) for value in (lightness, chroma, hue))
    lab = np.stack([lightness, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))], axis=1)
    return np.asarray(np.clip(cv2.cvtColor(lab[None], cv2.COLOR_Lab2RGB)[0], 0, 1))


def ground(rng: np.random.Generator, height: int, width: int, dark: bool, unit: float) -> Array:
    """A textured ground, H x W x 3 in [0, 1]: a pattern between two near colours, and finer grain over it."""
    lightness = rng.uniform(24, 42) if dark else rng.uniform(66, 88)
    hue, chroma = rng.uniform(0, 360), rng.uniform(3, 18)
    second = lightness + rng.uniform(-10, 10), rng.uniform(3, 18), hue + rng.uniform(-70, 70)
    near, far = colours(*zip((lightness, chroma, hue), second, strict=True))
    blend = 0.5 + 0.5 * _texture(rng, height, width, rng.uniform(16, 60) * unit)
    grain = 1 + np.float32(rng.uniform(0.02, 0.06)) * _noise(rng, height, width, coarsest=12)
    return np.asarray((near + blend[..., None] * (far - near)) * grain[..., None])


def coat(rng: np.random.Generator, strength: float) -> Array:
    """A pattern of lightness about 1, 96 x 96."""
    return 1 + np.float32(strength) * _texture(rng, 96, 96, rng.uniform(14, 36))


def _texture(rng: np.random.Generator, height: int, width: int, period: float) -> Array:
    """A pattern in [-1, 1]: clouds, stripes or checks of about ``period`` pixels, bent so that none is ruled."""
    kind = rng.choice(["clouds", "stripes", "checks"], p=[0.5, 0.25, 0.25])
    clouds = _noise(rng, height, width)
    if kind == "clouds":
        return np.tanh(clouds)
    y, x = np.ogrid[:height, :width]
    turn, pace = rng.uniform(0, np.pi), 2 * np.pi / period
    wave = np.sin((pace * (x * np.cos(turn) + y * np.sin(turn))).astype(np.float32) + 0.4 * clouds)
    if kind == "checks":
        wave *= np.sin((pace * (y * np.cos(turn) - x * np.sin(turn))).astype(np.float32) - 0.4 * clouds)
    return np.asarray(0.8 * np.tanh(3 * wave) + 0.2 * np.tanh(clouds))


def _noise(rng: np.random.Generator, height: int, width: int, coarsest: float | None = None) -> Array:
    """Value noise of mean 0 and deviation about 1: octaves from ``coarsest`` (half the image) down to 3 pixels."""
    clouds = np.zeros((height, width), np.float32)
    cell, weight, power = coarsest or max(height, width) / 2, 1.0, 0.0
    while cell >= 3:
        grid = rng.standard_normal((int(height / cell) + 2, int(width / cell) + 2), np.float32)
        clouds += np.float32(weight) * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        power += weight**2
        cell, weight = cell / 2, weight * 0.6
    return clouds / np.float32(0.75 * np.sqrt(power))
