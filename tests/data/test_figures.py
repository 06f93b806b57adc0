import cmath
import math

import numpy as np

from afrcnn.data.figures import FIGURES, _Figure, pose


def turned(figure: _Figure, angles: dict[str, float], name: str, x: float, y: float) -> tuple[float, float]:
    """A point of a part after bending: from the part up to the root, one rotation of the plane at a time."""
    point = complex(x, y)
    chain = []
    while name:
        chain.append(name)
        name = figure[name].parent
    # The root turns first and takes the pivots of all that hangs on it along, so apply from the leaf upwards.
    for link in chain:
        pivot = complex(*figure[link].pivot)
        point = pivot + (point - pivot) * cmath.exp(1j * math.radians(angles.get(link, 0.0)))
    return point.real, point.imag


def test_bending_by_nothing_is_the_rest_pose() -> None:
    for name, figure in FIGURES.items():
        for outline, part in zip(pose(figure, {}), figure.values(), strict=True):
            np.testing.assert_array_equal(outline, part.outline, err_msg=name)


def test_a_part_turns_about_its_pivot_and_takes_its_children_along() -> None:
    for name, figure in FIGURES.items():
        rng = np.random.default_rng(1)
        angles = {part: rng.uniform(-90, 90) for part in figure if figure[part].reach}
        assert len(angles) >= 3, f"{name} has joints to bend"
        for outline, (part_name, part) in zip(pose(figure, angles), figure.items(), strict=True):
            expected = [turned(figure, angles, part_name, x, y) for x, y in part.outline.tolist()]
            np.testing.assert_allclose(outline, expected, atol=1e-5, err_msg=f"{name}: {part_name}")


def test_every_joint_lies_on_the_part_it_turns() -> None:
    for name, figure in FIGURES.items():
        for part_name, part in figure.items():
            if part.reach:
                low, high = part.outline.min(axis=0) - 0.06, part.outline.max(axis=0) + 0.06
                assert (low <= part.pivot).all(), (name, part_name)
                assert (part.pivot <= high).all(), (name, part_name)
