"""The stress test of a run: AP and recall while objects are occluded or bent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from afrcnn.run import Run, dataset_root

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
    trust: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> StressResults:
    """Measure what a run finds of occluded and bent objects.

    Measures AP and recall of a run on its test images while their objects are occluded, ever more of each box, and
    while their content is bent. Writes stress.json and the curves, stress.png. Proposals and boxes are those of the
    images as they are. The same --stress-seed changes the images alike for every run, on any number of devices, which
    is that of the training unless --engine.devices says otherwise.

    Args:
        run: folder that `afrcnn train` made, or a file of weights from one.
        occluder: grey, noise, or photo: pieces of other images without the object's class (default: photo, or none
            where --bend is given).
        placement: random, or worst: where the run gives the object the lowest score, of 9 places; 10 times as long.
        levels: fractions of each box to occlude (default: 0 0.1 ... 0.6).
        bend: rotation, parts turn; elastic, all of the object is warped (default: none).
        degrees: angles of parts (default: 0 15 30 45 60).
        warps: largest displacements, as fractions of a box's shorter side (default: 0 0.03 0.06 0.09 0.12).
        split: split to test on (default: the recipe's data.test_split).
        stress_seed: of places, pieces, noise and bends.
        out: folder to write to (default: RUN).
        trust: modules that a detector of your own may be imported from.
        overrides: fields of the recipe to set differently, as ``["--data.root", "elsewhere"]``.

    Examples:
        afrcnn stress run
        afrcnn stress run --occluder grey noise photo --bend rotation elastic
        afrcnn stress run --placement worst --levels 0.3 --out worst

    Raises:
        UserError: the run is not finished, its dataset or proposals are missing or wrong, the split is not annotated,
            or a setting is out of range.
    """
    tested = Run(run, overrides)
    recipe = tested.recipe
    dataset_root(recipe)  # as the next, refused before anything slow
    tested.trained()

    from afrcnn.build import load_detector, open_split
    from afrcnn.core.atomic import atomic_write
    from afrcnn.core.engine import build_fabric, in_first_process
    from afrcnn.data.target import require_annotations
    from afrcnn.evaluation.detect import detect
    from afrcnn.robustness.benchmark import measure
    from afrcnn.robustness.stress_results import write_stress
    from afrcnn.robustness.stresses import Bending, Occlusion, Stress
    from afrcnn.visualize.robustness import draw_stress

    settings: dict[str, Any] = {"placement": placement} | ({"levels": tuple(levels)} if levels else {})
    strengths, kinds = {"rotation": degrees, "elastic": warps}, cast(Any, occluder or ([] if bend else ["photo"]))
    stresses: list[Stress] = [Occlusion(kind, **settings) for kind in kinds]
    stresses += [Bending(cast(Any, kind), tuple(strengths.get(kind, ()))) for kind in bend]
    fabric = build_fabric(**asdict(recipe.engine))
    fabric.launch()
    split = split or recipe.data.test_split
    images = require_annotations(open_split(recipe, split))
    find = partial(detect, load_detector(tested, trust), fabric=fabric, workers=recipe.data.workers)
    results = replace(measure(find, images, stresses, stress_seed), split=split)
    written = Run(run if out is None else out)

    def write() -> None:
        with atomic_write(written.stress_figure, "wb") as file:
            draw_stress({tested.folder.resolve().name: results}).savefig(file, format="png")
        write_stress(written.stress_file, results)

    in_first_process(fabric, write)
    return results


def show(results: StressResults, *, run: Path, out: Path | None = None) -> None:
    """Print a table of each stress, and where results and curves are."""
    from rich.console import Console

    from afrcnn.core.distributed import rank_and_size
    from afrcnn.core.terminal import say
    from afrcnn.visualize.tables import stress_table

    if rank_and_size()[0]:  # of all processes, the first speaks
        return
    for curve in results.curves:
        Console().print(stress_table(curve))
    say(f"results: {Run(out or run).stress_file}")
    say(f"curves:  {Run(out or run).stress_figure}")
