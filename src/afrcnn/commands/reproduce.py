"""`afrcnn reproduce`: the paper's tables, every row from its recipe."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil, nan
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal

from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.core.terminal import printable, say
from afrcnn.recipe import Recipe, load_recipe
from afrcnn.run import Run

if TYPE_CHECKING:
    from afrcnn.evaluation.results import Results
    from afrcnn.reporting.reproduction import RowRun, TableRow

_STAGES = ("schedule", "pretraining", "joint")


@dataclass(frozen=True)
class _PlannedRun:
    """A run of one or more rows.

    Attributes:
        run: its recipe and seed.
        folder: where it is.
        recipe: its recipe, with what the command line changes.
        words: how its recipe differs from the file, as on the command line of ``afrcnn train``.
        file: the recipe's file.
    """

    run: RowRun
    folder: Run
    recipe: Recipe
    words: tuple[str, ...]
    file: Path

    @property
    def iterations(self) -> dict[str, int]:
        """The updates of each stage."""
        return {stage: getattr(self.recipe, stage).iterations for stage in _STAGES}

    @property
    def processes(self) -> tuple[str, ...]:
        """Where it is evaluated, on as many devices as this command has, whatever its training had."""
        engine = self.recipe.engine
        return "--engine.devices", str(engine.devices), "--engine.nodes", str(engine.nodes)

    @property
    def done(self) -> bool:
        """Whether it has detected what its table is about."""
        return self.folder.detections_file(self.recipe.data.test_split).is_file()


@dataclass(frozen=True)
class _Reproduction:
    """What was planned, and the rows of each table with their results, where they have some."""

    planned: list[_PlannedRun]
    tables: dict[str, list[tuple[TableRow, Results | None]]]
    fraction: float


def reproduce(
    what: Literal["table1", "table2", "table3", "section52", "coco", "ohem", "ensembles", "all"],
    out: Path | str = "reproduction",
    *,
    data: Path | str = ".",
    configs: Path | str = "configs",
    fraction: float = 1.0,
    devices: int = 1,
    nodes: int = 1,
    dry_run: bool = False,
    overrides: Sequence[str] = (),
) -> _Reproduction:
    """Run the rows of the paper's tables, and set ours beside the paper's.

    Trains and evaluates every row's recipe, makes proposals where they are missing, and writes each table with the
    paper's numbers and the differences, by three metrics. Interrupted, the same command goes on; what is done is
    skipped. Rows that share a run share it.

    Args:
        what: a table or section of the paper, or all of them.
        out: folder for runs and tables.
        data: folder that holds VOCdevkit/VOC2007, VOCdevkit/VOC2012 and coco, as their recipes name them.
        configs: folder of the recipes.
        fraction: shorten every schedule to this fraction, for a trial whose numbers mean nothing.
        devices: processes on each machine, a device each, in training and evaluation.
        nodes: machines.
        dry_run: list runs, their iterations, hours, by the rate that logs in OUT have, and disk, and stop.
        overrides: fields of every recipe to set differently, as ``["--engine.precision", "bf16-mixed"]``.

    Examples:
        afrcnn reproduce table1 --data datasets --dry-run
        afrcnn reproduce all --data datasets --fraction 0.001 --out trial
        afrcnn reproduce table1 --data datasets --engine.precision bf16-mixed

    Raises:
        UserError: a recipe or a dataset is missing or wrong, or a run failed.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"{fraction:g} is out of range", field="fraction", fix="choose from above 0 to 1")
    if not Path(configs).is_dir():
        raise UserError("there is no such folder", file=configs, field="configs", fix="name the folder of the recipes")

    from afrcnn.evaluation.results import read_results
    from afrcnn.reporting.reproduction import TABLES, markdown

    rows = {name: TABLES[name] for name in (TABLES if what == "all" else [what])}
    wide = ["--engine.devices", str(devices), "--engine.nodes", str(nodes), *overrides]
    planned = {
        run: _plan(run, Path(out), Path(data), Path(configs), fraction, wide)
        for table in rows.values()
        for row in table
        for run in row.runs
    }
    if not dry_run:
        for one in planned.values():
            _make(one)
        for row in (row for table in rows.values() for row in table if len(row.runs) > 1):
            _join(row, planned, Path(out))
    tables: dict[str, list[tuple[TableRow, Results | None]]] = {}
    for name, table in rows.items():
        files = [(row, Run(_results_folder(row, Path(out))).results_file) for row in table]
        tables[name] = [(row, read_results(file) if file.is_file() else None) for row, file in files]
        note = "" if fraction == 1 else f"A trial with {fraction:g} of every schedule: its numbers mean nothing."
        if not dry_run:
            with atomic_write(Path(out) / f"{name}.md") as stream:
                stream.write("\n".join(markdown(name, tables[name], note)) + "\n")
    return _Reproduction(list(planned.values()), tables, fraction)


def show(made: _Reproduction, *, out: Path | str = "reproduction", dry_run: bool = False) -> None:
    """Print the tables, or what would be run."""
    from rich.console import Console

    from afrcnn.reporting.comparison import METRICS
    from afrcnn.reporting.reproduction import coco_lines, shown_row
    from afrcnn.visualize.tables import plan_table, reproduction_table

    console = Console()
    if dry_run:
        console.print(plan_table(list(_costs(made.planned, Path(out)))))
        return
    for name, rows in made.tables.items():
        console.print(reproduction_table(name, list(METRICS), [shown_row(*row) for row in rows]))
        for line in coco_lines(rows):
            say(line)
        say(f"{Path(out) / name}.md")
    if made.fraction < 1:
        say(f"a trial with {made.fraction:g} of every schedule: these numbers mean nothing")


def _plan(run: RowRun, out: Path, data: Path, configs: Path, fraction: float, words: Sequence[str]) -> _PlannedRun:
    """Return a run as the command line changes its recipe."""
    file = configs / f"{run.recipe}.yaml"
    recipe = load_recipe(file, words)
    changed = ["--seed", str(run.seed), "--data.root", str((data / recipe.data.root).absolute()), *words]
    for stage in _STAGES if fraction < 1 else ():
        schedule = getattr(recipe, stage)
        if schedule.iterations:
            decays = sorted({max(1, int(at * fraction)) for at in schedule.decay_at})
            changed += [f"--{stage}.iterations", str(ceil(schedule.iterations * fraction))]
            changed += [f"--{stage}.decay_at", str(decays), f"--{stage}.log_every", "1"]
    if fraction < 1:
        changed += ["--joint.clean_iterations", str(int(recipe.joint.clean_iterations * fraction))]
    return _PlannedRun(run, Run(out / run.folder), load_recipe(file, changed), tuple(changed), file)


def _make(planned: _PlannedRun) -> None:
    """Train and evaluate a run, its proposals first; what is done already is skipped."""
    if planned.done:
        return
    from afrcnn.proposals.store import default_folder, is_complete

    data = planned.recipe.data
    for split in (data.train_split, data.test_split):
        if data.proposal_method not in ("fast", "quality"):
            break
        folder = default_folder(data.root, split, data.proposal_method, data.proposals)
        if not is_complete(folder):
            _run("proposals", data.root, "--split", split, "--mode", data.proposal_method, "--out", folder.parent)
    if not planned.folder.weights_file.is_file():
        _run("train", planned.file, "--run", planned.folder.folder, *planned.words)
    _run("evaluate", planned.folder.folder, *planned.processes)


def _join(row: TableRow, planned: dict[RowRun, _PlannedRun], out: Path) -> None:
    """Evaluate the detectors of several runs together."""
    target, split = Run(_results_folder(row, out)), planned[row.runs[0]].recipe.data.test_split
    if not target.detections_file(split).is_file():
        first, *further = (planned[run].folder.folder for run in row.runs)
        ensemble = [word for other in further for word in ("--ensemble", other)]
        _run("evaluate", first, *ensemble, "--out", target.folder, *planned[row.runs[0]].processes)


def _results_folder(row: TableRow, out: Path) -> Path:
    return out / (row.runs[0].folder if len(row.runs) == 1 else f"ensembles/{row.name.replace('/', '_')}")


def _run(*words: str | Path) -> None:
    """Run a command in a process of its own, which frees all its memory.

    Raises:
        UserError: it failed.
    """
    shown = " ".join(map(str, words[:2]))
    print(printable(f"afrcnn {shown}"), flush=True)
    status = subprocess.run([sys.executable, "-m", "afrcnn.cli", *map(str, words)], check=False).returncode
    if status:
        fix = "see its message above; the same command goes on from there"
        raise UserError(f"afrcnn {shown} ended with {status}", fix=fix)


def _costs(planned: Sequence[_PlannedRun], out: Path) -> Iterator[tuple[str, int, float, float]]:
    """Yield of each run its name, its updates, the hours that are left, NaN if unknown, and GB of disk."""
    rates = _measured_rates(out)
    for one in planned:
        hours = 0.0
        for stage, updates in one.iterations.items():
            name = "detector" if stage == "schedule" else stage
            rate = rates.get((one.run.recipe.rpartition("_")[0], name), nan)
            hours += updates / rate / 3600 if updates else 0.0
        yield one.run.folder, sum(one.iterations.values()), 0.0 if one.done else hours, _gigabytes(one.recipe)


def _measured_rates(out: Path) -> dict[tuple[str, str], float]:
    """Return updates a second by dataset with network, and stage: medians over the logs of runs below a folder."""
    rates: dict[tuple[str, str], list[float]] = {}
    for file in sorted(out.glob("*/*/log.csv")):
        network = file.parent.relative_to(out).as_posix().rpartition("-seed")[0].rpartition("_")[0]
        with file.open(encoding="utf-8", newline="") as lines, suppress(csv.Error, UnicodeDecodeError):
            for row in csv.DictReader(lines):
                with suppress(KeyError, TypeError, ValueError):
                    rates.setdefault((network, row["stage"]), []).append(float(row["iterations_per_second"]))
    return {key: median(values) for key, values in rates.items()}


def _gigabytes(recipe: Recipe) -> float:
    """Return what a run takes on disk: the weights of each stage, and a checkpoint with momentum."""
    import torch

    from afrcnn.build import build_adversary, build_detector

    with torch.device("meta"):
        detector = build_detector(recipe.detector, len(recipe.data.classes or range(20)), pretrained=False)
        chain = build_adversary(recipe, detector.box_head_spec, "all")  # type: ignore[arg-type]
    weights, adversaries = (
        sum(value.numel() * 4 for value in module.state_dict().values()) for module in (detector, chain)
    )
    stages = 2 if recipe.joint.iterations else 1
    return float((stages + 2) * weights + 3 * adversaries) / 1e9
