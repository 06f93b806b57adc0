"""The stress test of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from afrcnn.run import Run

if TYPE_CHECKING:
    from afrcnn.robustness import StressResults


def stress(
    run: Path | str,
    *,
    occluder: Sequence[Literal["grey", "noise", "photo"]] = (),
    placement: Literal["random", "worst"] = "random",
    levels: Sequence[float] = (),
    bend: Sequence[Literal["rotation", "elastic"]] = (),
    degrees: Sequence[float] = (),
    warps: Sequence[float] = (),
    split: str | None = None,
    stress_seed: int = 0,
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
) -> StressResults:
    """Measure what a run finds of occluded and bent objects.

    Measures AP and recall of the run on its test images while their objects are occluded, ever more of each box, and
    while their content is bent. Writes stress.json and the curves, stress.png.

    The same --stress-seed changes the images alike for every run. Proposals and boxes are those of the images as they
    are.

    Args:
        run: folder that `afrcnn train` made.
        occluder: grey, noise, or photo: pieces of other images without the object's class (default: photo, or none
            where --bend is given).
        placement: random, or worst: where the run gives the object the lowest score, of 9 places; 10 times as long.
        levels: fractions of each box to occlude (default: 0 0.1 ... 0.6).
        bend: rotation: parts turn; elastic: all of the object is warped (default: none).
        degrees: angles of parts (default: 0 15 30 45 60).
        warps: largest displacements, as fractions of a box's shorter side (default: 0 0.03 0.06 0.09 0.12).
        split: split to test on (default: the recipe's data.test_split).
        stress_seed: of places, pieces, noise and bends.
        out: folder to write to (default: RUN).
        overrides: fields of the run's recipe to set differently, as ``["--data.root", "elsewhere"]``.

    Examples:
        afrcnn stress run
        afrcnn stress run --occluder grey noise photo --bend rotation elastic
        afrcnn stress run --placement worst --levels 0.3 --out worst
    """
    _ = Run(run, overrides).recipe  # refused before anything slow

    from afrcnn.robustness import Bending, Occlusion, stress_run

    occlusion: dict[str, Any] = {"placement": placement} | ({"levels": tuple(levels)} if levels else {})
    strengths = {"rotation": tuple(degrees), "elastic": tuple(warps)}
    return stress_run(
        run,
        overrides,
        [
            *(Occlusion(kind, **occlusion) for kind in occluder or (() if bend else ("photo",))),
            *(Bending(kind, strengths.get(kind, ())) for kind in bend),
        ],
        split=split,
        seed=stress_seed,
        out=out,
    )


def show(results: StressResults, *, run: Path, out: Path | None = None) -> None:
    """Print the curves, and where they are written."""
    from rich.console import Console

    from afrcnn.visualize.robustness import stress_table

    for curve in results.curves:
        Console().print(stress_table(curve))
    written = Run(out or run)
    print(f"results: {written.stress_file}")
    print(f"curves:  {written.stress_figure}")
