"""`afrcnn compare`: methods on one dataset, from the same starts, and what of their differences is no noise."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from afrcnn.commands.train import propose_missing, root_fields, schedule_for, split_words
from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.core.names import file_name
from afrcnn.core.terminal import say
from afrcnn.recipe import Recipe, load_recipe
from afrcnn.run import Run, training_splits
from afrcnn.shipped import are_parts, recipe_file

if TYPE_CHECKING:
    from afrcnn.experiment.comparison import Comparison

_BASELINE = "baseline"
"""The method that is the recipe alone."""

_NETWORK = "squeezenet"
"""The recipe where a dataset alone is named."""


@dataclass(frozen=True)
class _Compared:
    """A comparison, and what was written of it.

    Attributes:
        comparison: the methods with their APs.
        files: tables, strips and report.
    """

    comparison: Comparison
    files: dict[str, Path]


def compare(
    recipes: Path | str | Sequence[Path | str],
    *,
    methods: Sequence[str] = (_BASELINE, "occluding", "cutout", "occluding_cutout"),
    seeds: int = 3,
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
) -> _Compared:
    """Compare methods on a dataset, and say what cannot be told from noise.

    Trains every method from one start per seed by one schedule, and tests all on the same images, as they are and with
    20, 40 and 60 % of every object hidden, and on overlapped and unoccluded objects. Writes tables of the mean APs,
    the differences to the first method and their 95 % intervals (bootstrap over images and seeds), strips of what the
    first and the best method find and miss (the best: the highest mean AP with objects hidden), and a report.

    A method is baseline, which is the recipe alone, a recipe that ships, as cutout, or a YAML file: of it counts what
    acts in the last stage, as adversaries, augmentation and mining. Where only a network is named, or nothing
    (squeezenet), there are as many updates as the images need.

    Interrupted, the same command goes on. Several of it at once share the runs: one for each device.

    Args:
        recipes: the dataset's folder, and YAML files or names of recipes that all methods share.
        methods: what is compared; the first is the baseline.
        seeds: runs of each method.
        out: folder to write to (default: runs/<dataset>/comparison).
        overrides: fields of all recipes to set differently, as ``["--data.root", "photos"]``.

    Returns:
        The comparison, and the files that it wrote.

    Raises:
        UserError: a recipe, the data or the folder is at fault, a method is named twice, or a loss is not finite.

    Examples:
        afrcnn compare photos
        afrcnn compare photos resnet18 --methods baseline mine.yaml --seeds 5
        afrcnn compare photos --schedule.iterations 2000 --joint.iterations 1000
    """
    files = _methods(methods)
    if seeds < 1:
        raise UserError(f"{seeds} is out of range", field="seeds", fix="choose 1 or more")
    names, root = split_words([recipes] if isinstance(recipes, str | Path) else list(recipes))
    names, fields = names or [_NETWORK], [*(root_fields(root) if root else ()), *overrides]
    loaded = load_recipe(names, fields)
    (folder, split), *_ = training_splits(loaded)
    if loaded.engine.devices * loaded.engine.nodes > 1:
        fix = "start the command once for each device, and they share the runs"
        raise UserError("a comparison works on one device", field="engine.devices", fix=fix)

    from afrcnn.build import open_images
    from afrcnn.data.layouts import open_dataset
    from afrcnn.data.target import require_annotations
    from afrcnn.experiment.comparison import read_comparison
    from afrcnn.experiment.measurement import make_runs
    from afrcnn.experiment.plan import plan_runs
    from afrcnn.training.images import open_training_images

    dataset = open_dataset(folder, split, loaded.data.layout, loaded.data.classes, field="data.train_split")
    require_annotations(open_images(loaded, loaded.data.test_split))
    if are_parts(names):
        together = load_recipe([*names, *filter(None, files.values())], fields)
        fields = [*schedule_for(len(dataset), together), *fields]
    planned_methods: dict[str, Recipe] = {
        name: load_recipe([*names, *filter(None, [file])], fields) for name, file in files.items()
    }
    written = Path("runs", folder.resolve().name, "comparison") if out is None else Path(out)
    planned = plan_runs(planned_methods, dataset.classes, seeds, written)
    propose_missing(loaded)
    open_training_images(loaded)  # other classes in data.also, refused before anything slow
    make_runs(planned)
    comparison = read_comparison(planned)
    named = {name for one in planned_methods.values() for name in (one.detector.model, *one.adversaries)}
    trust = sorted(name.partition(":")[0] for name in named if ":" in name)  # they have just been trained
    return _Compared(comparison, _write(comparison, written, trust))


def show(made: _Compared) -> None:
    """Print the tables, where the files are, and last what was found."""
    from rich.console import Console

    from afrcnn.visualize.tables import compared_tables

    for table in compared_tables(made.comparison):
        Console().print(table)
    for name, file in made.files.items():
        say(f"{name + ':':9}{file}")
    say(made.comparison.finding())


def _methods(names: Sequence[str]) -> dict[str, Path | None]:
    """Return by a method's name the file of its recipe; None for the baseline, which is the common recipe alone.

    Raises:
        UserError: a recipe is missing, two methods have one name, or a method has that of the starts.
    """
    files: dict[str, Path | None] = {}
    for word in names:
        name = file_name(Path(word).stem if word != _BASELINE else word)
        if name in files or name == "start":
            fix = "name each method once" if name in files else "give its file another name"
            raise UserError("is the name of another method", field=f"methods: {word}", fix=fix)
        files[name] = None if word == _BASELINE else recipe_file(word)
    return files


def _write(comparison: Comparison, folder: Path, trust: Sequence[str]) -> dict[str, Path]:
    """Write tables, strips and report, and return where they are; ``trust`` are modules of one's own."""
    from afrcnn.commands.report import report
    from afrcnn.reporting.compared import compared_differences, compared_markdown, compared_runs

    files = {"table": folder / "comparison.md", "numbers": folder / "comparison.csv", "runs": folder / "runs.csv"}
    with atomic_write(files["table"]) as stream:
        stream.write(compared_markdown(comparison))
    _write_csv(files["numbers"], compared_differences(comparison))
    _write_csv(files["runs"], compared_runs(comparison))
    folders = [run for method in comparison.methods for run in method.folders.values()]
    files["report"] = report(folders, folder / "report.html", trust=trust)
    return files | {"strips": _write_strips(comparison, folder / "found")}


def _write_strips(comparison: Comparison, folder: Path) -> Path:
    """Draw what the first and the best method find and miss, in their runs of the first seed, and return the folder."""
    from afrcnn.build import open_images
    from afrcnn.commands.found import draw_strips
    from afrcnn.experiment.measurement import LEVELS, STRESS_SEED, stored_detections
    from afrcnn.robustness.found import find_objects

    shown = {method.name: method for method in (comparison.baseline, comparison.best)}
    runs = [Run(method.folders[min(method.folders)]) for method in shown.values()]
    dataset = open_images(runs[0].recipe, runs[0].recipe.data.test_split)
    detectors, levels = [stored_detections(run, dataset) for run in runs], (0.0, *LEVELS)
    everything = range(len(dataset))
    objects, images = find_objects(detectors, dataset, everything, levels=levels, seed=STRESS_SEED)
    draw_strips(objects, images, list(shown), levels, folder)
    return folder


def _write_csv(file: Path, rows: Iterable[Sequence[object]]) -> None:
    with atomic_write(file) as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)
