from collections import Counter

import numpy as np
import pytest

from afrcnn.data import scene
from afrcnn.data.figures import FIGURES
from afrcnn.data.scene import _MOST_OCCLUDED, _Scene, draw_scene


def draw(number: int, size: int | tuple[int, int] = 96, **strength: float) -> _Scene:
    return draw_scene(np.random.default_rng((11, number)), size, **strength)


def test_the_same_state_draws_the_same_scene() -> None:
    first, again, other = draw(1), draw(1), draw(2)
    np.testing.assert_array_equal(first.image, again.image)
    assert [o.box for o in first.objects] == [o.box for o in again.objects]
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("size", [128, (96, 160)])
def test_the_image_has_the_size_asked_for(size: int | tuple[int, int]) -> None:
    height, width = (size, size) if isinstance(size, int) else size
    drawn = draw(3, size)
    assert drawn.image.shape == (height, width, 3)
    assert drawn.image.dtype == np.uint8
    assert all(o.visible.shape == o.amodal.shape == (height, width) for o in drawn.objects)


def test_every_scene_has_one_to_five_objects() -> None:
    counts = Counter(len(draw(i, occlusion=occlusion).objects) for i in range(25) for occlusion in (0.0, 1.0))
    assert min(counts) == 1
    assert max(counts) == 5


def test_without_occlusion_every_object_is_whole() -> None:
    for i in range(25):
        for item in draw(i, occlusion=0.0).objects:
            assert item.occlusion == 0
            assert not item.truncated
            np.testing.assert_array_equal(item.visible, item.amodal)


def test_without_deformation_every_bend_is_zero() -> None:
    assert all(item.bend == 0 for i in range(10) for item in draw(i, deformation=0.0).objects)


def test_more_occlusion_occludes_more_and_never_too_much() -> None:
    occlusions = [[o.occlusion for i in range(40) for o in draw(i, 64, occlusion=k).objects] for k in (0.0, 0.5, 1.0)]
    none, half, full = (np.mean(values) for values in occlusions)
    assert none == 0
    assert 0.05 < half < full - 0.05
    assert max(max(values) for values in occlusions) <= _MOST_OCCLUDED


def test_more_deformation_bends_in_proportion() -> None:
    rest, half, full = (
        np.mean([o.bend for i in range(40) for o in draw(i, 64, deformation=k).objects]) for k in (0, 0.5, 1)
    )
    assert rest == 0
    assert full > 10
    assert 0.4 < half / full < 0.6


def test_the_occluded_fraction_is_that_of_a_map_of_the_front_most_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = []
    lay = scene._lay

    def record(canvas, sprite, left, top, light):  # type: ignore[no-untyped-def]
        alone = np.zeros(canvas.shape[:2], bool)
        for y, x in np.add(np.argwhere(sprite.rgba[..., 3] >= 0.5), (top, left)):
            if 0 <= y < alone.shape[0] and 0 <= x < alone.shape[1]:
                alone[y, x] = True
        layers.append(alone)
        lay(canvas, sprite, left, top, light)

    monkeypatch.setattr(scene, "_lay", record)
    compared = 0
    for i in range(15):
        layers.clear()
        drawn = draw(i, occlusion=1.0)
        front = np.full(drawn.image.shape[:2], -1)
        for number, alone in enumerate(layers):
            front[alone] = number
        for item in drawn.objects:
            (number,) = (n for n, alone in enumerate(layers) if np.array_equal(alone, item.amodal))
            np.testing.assert_array_equal(item.visible, front == number)
            assert item.occlusion == pytest.approx(1 - (front == number).sum() / layers[number].sum(), abs=1e-12)
            compared += item.occlusion > 0.05
    assert compared > 15, "scenes with occluded objects were compared"


def test_boxes_are_tight_around_what_is_visible() -> None:
    for i in range(10):
        for item in draw(i, (80, 112), occlusion=0.8).objects:
            pixels = [(x, y) for y in range(80) for x in range(112) if item.visible[y, x]]
            xs, ys = [x for x, _ in pixels], [y for _, y in pixels]
            assert item.box == (min(xs), min(ys), max(xs) + 1, max(ys) + 1)


def test_an_object_that_the_border_cuts_is_truncated() -> None:
    items = [item for i in range(60) for item in draw(i, 64, occlusion=1.0).objects]
    at_border = [o.amodal[0].any() | o.amodal[-1].any() | o.amodal[:, 0].any() | o.amodal[:, -1].any() for o in items]
    truncated = [o.truncated for o in items]
    assert any(truncated)
    assert not all(truncated)
    assert all(border for border, cut in zip(at_border, truncated, strict=True) if cut)


def test_objects_are_of_the_sizes_promised() -> None:
    for i in range(10):
        for item in draw(i, 256, occlusion=0.0).objects:
            x1, y1, x2, y2 = item.box
            assert 46 <= max(x2 - x1, y2 - y1) <= 151


def test_objects_differ_from_what_surrounds_them() -> None:
    differences = []
    for i in range(20):
        drawn = draw(i, occlusion=0.0)
        ground = ~np.any([o.amodal for o in drawn.objects], axis=0)
        grey = drawn.image.mean(axis=2)
        differences += [abs(grey[o.visible].mean() - grey[ground].mean()) for o in drawn.objects]
    assert np.median(differences) > 20


def test_classes_are_balanced() -> None:
    counts = Counter(item.name for i in range(120) for item in draw(i, 64).objects)
    assert set(counts) == set(FIGURES)
    fraction = np.array([*counts.values()]) / counts.total()
    assert fraction.min() > 0.5 / len(FIGURES)
    assert fraction.max() < 1.7 / len(FIGURES)
