"""The stress test of a run: AP and recall while objects are occluded or bent."""

# ruff: noqa: PLC0415
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from afrcnn.core.errors import UserError

if TYPE_CHECKING:
    from afrcnn.robustness.stress_results import StressResults


def stress(
    run: Path | str,
    *,
    occluder: Sequence[str] = (),
    placement: str = "random",
    levels: Sequence[float] = (),
    bend: Sequence[str] = (),
    degrees: Sequence[float] = (),
    warps: Sequence[float] = (),
    split: str | None = None,
    stress_seed: int = 0,
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
) -> StressResults:
    """Measure the trained detector of a run under stress, and write ``stress.json`` and its curves, ``stress.png``.

    Args:
        run: the run's folder.
        occluder: ``grey``, ``noise``, or ``photo``: pieces of other images without the object's class (default: photo,
            or none where ``bend`` is given).
        placement: ``random``, or ``worst``: where the run gives the object the lowest score, of 9 places; 10 times as
            long.
        levels: fractions of each box to occlude (default: 0 0.1 ... 0.6).
        bend: ``rotation``: parts turn; ``elastic``: all of the object is warped.
        degrees: angles of parts (default: 0 15 30 45 60).
        warps: largest displacements, as fractions of a box's shorter side (default: 0 0.03 0.06 0.09 0.12).
        split: the split to test on; the recipe's ``data.test_split`` when None.
        stress_seed: of places, pieces, noise and bends; not the recipe's, so that runs of all seeds see the same
            pixels.
        out: the folder to write to; the run's own when None.
        overrides: fields of the recipe to set differently, as ``["--data.root", "elsewhere"]``.

    Raises:
        UserError: the run is not finished, its dataset or proposals are missing or wrong, or a setting is out of range.
    """
    if not Path(run, "recipe.yaml").is_file():
        raise UserError("is not a run folder", file=run, fix="name a folder that `afrcnn train` made")

    from functools import partial

    from afrcnn.core.atomic import atomic_write
    from afrcnn.core.engine import build_fabric
    from afrcnn.evaluation.detect import detect
    from afrcnn.robustness.benchmark import measure
    from afrcnn.robustness.stress_results import write_stress
    from afrcnn.robustness.stresses import Bending, Occlusion, Stress
    from afrcnn.run import Run, open_split
    from afrcnn.visualize.robustness import draw_stress

    settings: dict[str, Any] = {"placement": placement} | ({"levels": tuple(levels)} if levels else {})
    strengths, kinds = {"rotation": degrees, "elastic": warps}, cast(Any, occluder or ([] if bend else ["photo"]))
    stresses: list[Stress] = [Occlusion(kind, **settings) for kind in kinds]
    stresses += [Bending(cast(Any, kind), tuple(strengths.get(kind, ()))) for kind in bend]
    tested, folder = Run(run), Path(run if out is None else out)
    recipe = tested.recipe(overrides)
    split = split or recipe.data.test_split
    images = open_split(recipe, split)
    fabric = build_fabric(recipe.engine.accelerator, precision=recipe.engine.precision)
    find = partial(detect, tested.detector(overrides), fabric=fabric, workers=recipe.data.workers)
    results = replace(measure(find, images, images.dataset, stresses, stress_seed), split=split)
    with atomic_write(folder / "stress.png", "wb") as file:
        draw_stress({tested.folder.resolve().name: results}).savefig(file, format="png")
    write_stress(folder / "stress.json", results)
    return results
