"""Record what every command makes, to the bit, and compare another version of the code with the record.

    python benchmarks/same_bits.py record FILE.json [--folder WORK] [--keep] [--only ITEM ...]
    python benchmarks/same_bits.py compare FILE.json [--folder WORK] [--kept WORK/tensors] [--only ITEM ...]

Run it from the root of a checkout. Everything goes through the command line of the afrcnn that Python finds (set
PYTHONPATH for another one), on one thread, on the CPU; trainings are killed in the middle and started again. WORK
remembers the items that are done: interrupted, the same command goes on, and what other code, recipes or settings made
is made again. What items outside ``--only`` left in WORK is used as it is. ``compare`` ends with 1 if anything differs.
Bits may differ between machines and versions of torch: record and compare on one machine.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file

Fact = str | int | float | bool | None
Item = dict[str, dict[str, Fact]]
"""What an item made: for each file, its facts by name."""

RENAMED_KEYS = {
    "kept": "relative_performance",
    "mean_ap": "mpc",
    "in the open": "unoccluded",
    "hidden": "occluded",
    "hidden by photographs, random places": "occluded by images, random places",
    "hidden by grey, random places": "occluded by grey, random places",
    "share of each box hidden": "fraction of each box occluded",
}
"""Names and texts in JSON files and logs, old to new; a record has the old ones."""

FRUIT = Path("../shared/data/fruit")
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
PRECISION = "32-true"
"""Of the fruit recipes in place of bf16-mixed, which takes half a minute an update on CPUs that have no such units."""
SHOWN = 6
"""How many differences of a file are listed."""


class Training(NamedTuple):
    """A short training: the updates of each stage, and the one after whose checkpoint it is killed."""

    recipe: str
    updates: dict[str, int]
    killed_at: int | None
    options: tuple[str, ...] = ()


ALONE = {"schedule": 30}
TWO_STAGES = {"schedule": 15, "joint": 15}
THREE_STAGES = {"schedule": 10, "pretraining": 10, "joint": 10}
FLOAT = ("--engine.precision", PRECISION)
TARGETS = ("--adversary.asdn.threshold=-0.04",)
"""Makes some of ASDN's masks targets of its joint training: after so few updates, none lowers a score by the 0.1."""
TRAININGS = {
    "train/shapes/small_frcn": Training("shapes/small_frcn", ALONE, 15),
    "train/shapes/small_asdn": Training("shapes/small_asdn", THREE_STAGES, 15),
    "train/shapes/small_astn": Training("shapes/small_astn", TWO_STAGES, 15),
    "train/shapes/small_full": Training("shapes/small_full", THREE_STAGES, 25),
    "train/shapes/small_full-bf16": Training(
        "shapes/small_full", THREE_STAGES, 20, (*TARGETS, "--engine.precision", "bf16-mixed")
    ),
    "train/fruit/squeezenet_frcn": Training("fruit/squeezenet_frcn", ALONE, 15, FLOAT),
    "train/fruit/squeezenet_full": Training("fruit/squeezenet_full", THREE_STAGES, 15, (*FLOAT, *TARGETS)),
    "train/fruit/squeezenet_occluding": Training(
        "fruit/squeezenet_occluding", THREE_STAGES, 25, (*FLOAT, "--joint.clean_iterations", "4")
    ),
    "train/fruit/long": Training("fruit/squeezenet_frcn", {"schedule": 300}, None, FLOAT),
}


class Work:
    """The folder that everything is made in; each method makes one item and returns its facts."""

    def __init__(self, folder: Path, keep: bool = False) -> None:
        self.folder, self.keep = folder, keep
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, *words: str | Path) -> subprocess.Popen[bytes]:
        with (self.folder / "output.txt").open("ab") as output:
            command = [sys.executable, "-m", "afrcnn.cli", *map(str, words)]
            return subprocess.Popen(command, stdout=output, stderr=output, env=ONE_THREAD)

    def afrcnn(self, *words: str | Path) -> None:
        if status := self.start(*words).wait():
            last = (self.folder / "output.txt").read_text(errors="replace").splitlines()[-5:]
            sys.exit("\n".join([f"afrcnn {' '.join(map(str, words))} ended with {status}:", *last]))

    def shapes(self) -> Item:
        folder = self.empty("shapes")
        self.afrcnn("shapes", folder, "--trainval", "24", "--test", "8")
        return {"JPEGImages": {"all": digest(*sorted((folder / "JPEGImages").iterdir()))}}

    def ten(self) -> Item:
        """Make a dataset of fruit's first ten test images, and their proposals."""
        folder = self.empty("proposals/ten")
        (folder / "ImageSets" / "Main").mkdir(parents=True)
        for part in ("JPEGImages", "Annotations"):
            (folder / part).symlink_to((FRUIT / part).resolve())
        (folder / "ImageSets" / "Main" / "ten.txt").write_text("\n".join(fruit_images()[:10]) + "\n")
        return self.proposals(folder, self.folder / "proposals" / "ten" / "proposals")

    def proposals(self, dataset: Path, out: Path) -> Item:
        shutil.rmtree(out, ignore_errors=True)
        self.afrcnn("proposals", dataset, "--out", out, "--jobs", "1")
        return {
            store.name: {file: digest(store / file) for file in ("boxes.npy", "offsets.npy")}
            for store in sorted(out.iterdir())
        }

    def train(self, name: str) -> Item:
        """Train, killed once where that is asked for, and make sure that it went on from where it was."""
        training, run = TRAININGS[name], self.empty(name)
        words = ["train", f"configs/{training.recipe}.yaml", "--run", str(run), *training.options]
        for stage, updates in training.updates.items():
            fields = {
                "iterations": updates,
                "decay_at": f"[{updates * 2 // 3}]",
                "warmup_iterations": 3,
                "log_every": 5,
                "checkpoint_every": 5 if training.killed_at else 100,
            }
            words += [word for field, value in fields.items() for word in (f"--{stage}.{field}", str(value))]
        words += ["--data.workers", "0", "--engine.accelerator", "cpu", "--seed", "0"]
        on_shapes = training.recipe.startswith("shapes/")
        words += ["--data.root", str(self.folder / "shapes" if on_shapes else FRUIT)]
        words += ["--data.proposals", str(self.folder / "proposals" / ("shapes" if on_shapes else "fruit"))]
        before = self.interrupt(words, run, training.killed_at) if training.killed_at else []
        self.afrcnn(*words)
        # Speeds are never the same twice: those of a run that went on are those from before it was killed.
        if [row["iterations_per_second"] for row in log(run)[: len(before)]] != before:
            sys.exit(f"{run} began anew after it was killed")
        (run / "checkpoint.pt").unlink()

        ends = np.cumsum(list(training.updates.values())).tolist()
        rows = {int(row["iteration"]): row for row in log(run)}
        made: Item = {"log.csv": {f"{end} {key}": value for end in ends for key, value in losses(rows[end])}}
        for file in filter(Path.exists, (run / "weights.safetensors", run / "adversary.safetensors")):
            made[file.name] = tensor_digests(file)
            if self.keep:
                kept = self.folder / "tensors" / name / file.name
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, kept)
        return made

    def interrupt(self, words: list[str], run: Path, killed_at: int) -> list[str]:
        """Train until a checkpoint is there, kill the process, and return the speeds that it had logged by then."""
        process = self.start(*words)
        try:
            while not checkpoint_of(run, killed_at):
                if process.poll() is not None:
                    sys.exit(f"{run} ended before it could be killed: see {self.folder / 'output.txt'}")
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()
        if (run / "weights.safetensors").exists():
            sys.exit(f"{run} ended before it could be killed")
        return [row["iterations_per_second"] for row in log(run) if int(row["iteration"]) <= killed_at]

    def evaluate(self) -> Item:
        run, out = self.folder / "train/fruit/long", self.empty("evaluate")
        self.afrcnn("evaluate", run, "--subsets", "--out", out)
        return {
            "results.json": json_facts(out / "results.json"),
            "detections": {"test.json": digest(out / "detections" / "test.json")},
        }

    def stress(self) -> Item:
        run, out = self.folder / "train/fruit/long", self.empty("stress")
        hiding = ("--occluder", "photo", "grey", "--levels", "0", "0.3", "0.6")
        bending = ("--bend", "rotation", "--degrees", "0", "30")
        fewer = ("--data.proposals_per_image", "500")  # of 2000, to save ten minutes
        self.afrcnn("stress", run, *hiding, *bending, *fewer, "--out", out)
        return {"stress.json": json_facts(out / "stress.json")}

    def predict(self) -> Item:
        run, out = self.folder / "train/fruit/long", self.empty("predict")
        self.afrcnn("predict", run, *photographs(0, -1), "--out", out)
        return {"predictions.json": json_facts(out / "predictions.json")}

    def masks(self) -> Item:
        run, out = self.folder / "train/fruit/squeezenet_occluding", self.empty("masks")
        self.afrcnn("masks", run, *photographs(0), "--score", "0.05", "--out", out)
        return {"masks.json": json_facts(out / "masks.json")}

    def empty(self, name: str) -> Path:
        """Return the folder of an item, without what an earlier attempt left there."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return self.folder / name


def items(work: Work) -> dict[str, tuple[Callable[[], Item], tuple[str, ...]]]:
    """Return how each item is made, and from which others."""
    proposals = work.folder / "proposals"
    return {
        "shapes": (work.shapes, ()),
        "proposals/shapes": (partial(work.proposals, work.folder / "shapes", proposals / "shapes"), ("shapes",)),
        "proposals/ten": (work.ten, ()),
        "proposals/fruit": (partial(work.proposals, FRUIT, proposals / "fruit"), ()),
        **{
            name: (partial(work.train, name), ("proposals/" + training.recipe.split("/")[0],))
            for name, training in TRAININGS.items()
        },
        "evaluate": (work.evaluate, ("train/fruit/long",)),
        "stress": (work.stress, ("train/fruit/long",)),
        "predict": (work.predict, ("train/fruit/long",)),
        "masks": (work.masks, ("train/fruit/squeezenet_occluding",)),
    }


def make(work: Work, only: list[str] | None) -> dict[str, Item]:
    """Make the items whose names begin with one of ``only``, all if None, and what they need; return their facts."""
    known, code, file = items(work), code_digest(), work.folder / "progress.json"
    progress: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    chosen = [name for name in known if only is None or name.startswith(tuple(only))]

    def made(name: str, again: bool) -> Item:
        if name not in progress or (again and progress[name]["code"] != code):
            call, needs = known[name]
            for other in needs:
                made(other, again=other in chosen)
            began = time.monotonic()
            item = call()
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            progress[name] = {"code": code, "item": item}
            part = file.with_suffix(".part")
            part.write_text(json.dumps(progress, indent=1))
            part.replace(file)
        recorded: Item = progress[name]["item"]
        return recorded

    return {name: made(name, again=True) for name in chosen}


def code_digest() -> str:
    """Return what stands for the code, the recipes and the settings here."""
    found = importlib.util.find_spec("afrcnn")
    assert found is not None and found.submodule_search_locations is not None, "afrcnn is not installed"
    package = Path(found.submodule_search_locations[0])
    return digest(Path(__file__), *sorted(package.rglob("*.py")), *sorted(Path("configs").rglob("*.yaml")))


def digest(*files: Path) -> str:
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.name} {file.stat().st_size} ".encode() if len(files) > 1 else b"")
        whole.update(file.read_bytes())
    return whole.hexdigest()


def tensor_digests(file: Path) -> dict[str, Fact]:
    """Return a digest of each tensor by its old name, and one of all."""
    whole, facts = hashlib.sha256(), dict[str, Fact]()
    for name, tensor in sorted(tensors(file).items()):
        content = f"{tensor.dtype} {list(tensor.shape)} ".encode() + tensor.tobytes()
        whole.update(f"{name} ".encode() + content)
        facts[name] = hashlib.sha256(content).hexdigest()[:12]
    return {"all": whole.hexdigest(), **facts}


def tensors(file: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read tensors, by their old names."""
    return {old_tensor_name(name): tensor for name, tensor in load_file(file).items()}


def old_tensor_name(name: str) -> str:
    fitting = [(len(new), old + name[len(new) :]) for old, new in renamed_tensors().items() if name.startswith(new)]
    return max(fitting)[1] if fitting else name


@cache
def renamed_tensors() -> dict[str, str]:
    """Return the beginnings of names that the code has changed, old to new."""
    try:
        return dict(getattr(importlib.import_module("afrcnn.detectors.weights"), "RENAMED", {}))
    except ModuleNotFoundError:
        return {}


def old_key(key: str) -> str:
    return next((old for old, new in RENAMED_KEYS.items() if new == key), key)


def json_facts(file: Path) -> dict[str, Fact]:
    """Return the values of a JSON file by their old paths; of paths of files, the last part."""

    def flat(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Fact]]:
        if isinstance(value, dict | list):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            for key, item in pairs:
                yield from flat(item, (*path, old_key(str(key))))
        else:
            named = isinstance(value, str) and path[-1] in ("image", "picture")
            yield ".".join(path), Path(value).name if named else old_key(value) if isinstance(value, str) else value

    return dict(flat(json.loads(file.read_text(encoding="utf-8")), ()))


def log(run: Path) -> list[dict[str, str]]:
    if not (run / "log.csv").is_file():
        return []
    with (run / "log.csv").open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def losses(row: dict[str, str]) -> Iterator[tuple[str, Fact]]:
    for key, text in row.items():
        if text and key not in ("iteration", "iterations_per_second"):
            yield old_key(key), text if key == "stage" else float(text)


def checkpoint_of(run: Path, iteration: int) -> bool:
    """Tell whether the checkpoint is at least that of an iteration: it is written just after the iteration's row."""
    rows, file = log(run), run / "checkpoint.pt"
    if not rows or int(rows[-1]["iteration"]) < iteration or not file.is_file():
        return False
    return file.stat().st_mtime_ns > (run / "log.csv").stat().st_mtime_ns


def fruit_images() -> list[str]:
    return (FRUIT / "ImageSets" / "Main" / "test.txt").read_text().split()


def photographs(*numbers: int) -> list[Path]:
    return [FRUIT / "JPEGImages" / f"{fruit_images()[number]}.jpg" for number in numbers]


def machine() -> dict[str, Fact]:
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    model = next((line.split(":")[1].strip() for line in cpu.splitlines() if line.startswith("model name")), "")
    units = [unit for unit in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {unit} " in cpu]
    return {
        "python": platform.python_version(),
        "torch": version("torch"),
        "torchvision": version("torchvision"),
        "opencv": version("opencv-contrib-python-headless"),
        "cpu": f"{model or platform.processor()} ({', '.join(units)})",
        "threads": 1,
    }


def differences(old: dict[str, Fact], new: dict[str, Fact]) -> list[str]:
    return [key for key, fact in old.items() if key not in new or new[key] != fact]


def table(old: dict[str, Item], new: dict[str, Item], work: Work, kept: Path | None) -> Iterator[str]:
    """Give the lines of the comparison: one for each file, and a few below it for what differs."""
    for name, item in new.items():
        for file in {**old.get(name, {}), **item}:
            before, after = old.get(name, {}).get(file), item.get(file)
            label = f"{name}/{file}"
            if before is None or after is None:
                yield f"{label:<60} {'':>6}  {'new' if before is None else 'DIFFERENT: is missing'}"
                continue
            wrong, added = differences(before, after), len(after.keys() - before.keys())
            verdict = f"DIFFERENT: {len(wrong)}" if wrong else "same"
            yield f"{label:<60} {len(before):>6}  {verdict}" + (f", {added} new" if added else "")
            recorded = kept / name / file if kept is not None and file.endswith(".safetensors") else None
            for key in wrong[:SHOWN]:
                if recorded is not None and recorded.is_file() and key in after and key != "all":
                    yield f"    {key}: {distance(recorded, work.folder / name / file, key)}"
                else:
                    yield f"    {key}: {before[key]} -> {after.get(key, 'is missing')}"
            if len(wrong) > SHOWN:
                yield f"    and {len(wrong) - SHOWN} more"


def distance(old: Path, new: Path, name: str) -> str:
    a, b = tensors(old)[name], tensors(new)[name]
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{a.dtype} {list(a.shape)} -> {b.dtype} {list(b.shape)}"
    return f"differs by up to {np.abs(a.astype(np.float64) - b).max():.3g}, of up to {np.abs(a).max():.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("file", type=Path, metavar="FILE.json")
    parser.add_argument("--folder", type=Path, default=Path("runs/same_bits"), metavar="WORK")
    parser.add_argument("--only", nargs="+", metavar="ITEM", help="items, by the beginnings of their names")
    parser.add_argument("--keep", action="store_true", help="keep the recorded tensors, in WORK/tensors")
    parser.add_argument("--kept", type=Path, metavar="FOLDER", help="recorded tensors, to tell how far others are off")
    arguments = parser.parse_args()
    work = Work(arguments.folder, arguments.keep)
    if arguments.action == "record":
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        made = make(work, arguments.only)
        record = {"commit": commit.stdout.strip(), "machine": machine(), "items": made}
        arguments.file.parent.mkdir(parents=True, exist_ok=True)
        arguments.file.write_text(json.dumps(record, indent=1) + "\n")
        return
    record = json.loads(arguments.file.read_text())
    for key in differences(record["machine"], machine()):
        print(f"another machine: {key} is {machine().get(key)}, was {record['machine'][key]}")
    lines = list(table(record["items"], make(work, arguments.only), work, arguments.kept))
    different = sum("  DIFFERENT" in line for line in lines)
    print(f"{'item':<60} {'facts':>6}", *(line[:100] for line in lines), sep="\n")
    print(f"{different} DIFFERENT" if different else f"all same as {record['commit']}")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
