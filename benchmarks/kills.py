"""Kill commands with SIGKILL at random moments, start them again, and compare what they leave with what one run leaves.

    python benchmarks/kills.py --kills 300 --seed 0 --out kills.csv

Writes a row for each kill as it comes: its number, the command, after how many of its seconds, whether it was still
running; whether a process of it was left after 10 seconds; and after the next start, its status, the files that have
other bits than those of an undisturbed run, and those that are left over. Interrupted, or killed itself, the same
command goes on with the kills that are left, and more of them can be asked for. At the end it prints the sums by
command. Logs are compared but for their speed, events of TensorBoard and what caches hold not at all.
"""

import argparse
import csv
import hashlib
import io
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

RECIPE = """
data: {root: shapes, workers: 1}
detector: {backbone: small, pooling: roi_align, short_side: [64], long_side: 64, rois_per_image: 16, \
background_iou: [0.0, 0.5]}
adversaries: {asdn: {}}
schedule: {iterations: 4, learning_rate: 0.01, log_every: 3, checkpoint_every: 1}
pretraining: {iterations: 2, learning_rate: 0.01, log_every: 3, checkpoint_every: 1}
joint: {iterations: 4, learning_rate: 0.01, log_every: 3, checkpoint_every: 1}
engine: {accelerator: cpu}
"""

COMMANDS = {
    "train": ["train", "recipe.yaml", "--run", "new"],
    "proposals": ["proposals", "shapes", "--split", "test", "--out", "stores", "--jobs", "2"],
    "evaluate": ["evaluate", "run", "--out", "out"],
    "predict": ["predict", "run", "shapes/JPEGImages", "--out", "out", "--score", "0.05"],
    "masks": ["masks", "run", "shapes/JPEGImages/test_000000.jpg", "--out", "out", "--score", "0.05"],
    "stress": ["stress", "run", "--occluder", "grey", "--levels", "0", "0.3", "--out", "out"],
    "diagnose": ["diagnose", "run", "--out", "out"],
    "report": ["report", "run", "--out", "report.html"],
    "shapes": ["shapes", "more", "--trainval", "40", "--test", "10", "--size", "96"],
}
"""Each writes something; the lists are what a user types."""

COLUMNS = ("number", "command", "seconds", "running", "orphans", "status", "other bits", "left over")

MODULES = [f"afrcnn.commands.{command}" for command in COMMANDS] + [
    *("afrcnn.training.train", "afrcnn.evaluation.detect", "afrcnn.evaluation.results", "afrcnn.reporting.page"),
    *("afrcnn.visualize.masks", "afrcnn.visualize.tables", "afrcnn.visualize.robustness", "afrcnn.visualize.errors"),
    *("afrcnn.proposals.propose", "afrcnn.robustness.benchmark", "torch.utils.tensorboard", "matplotlib.pyplot"),
]
"""Loaded once in the process that the commands are forked from, so that many can be started."""


def run_command(words, folder, output):
    """Run a command in this process, a session of its own."""
    os.setsid()
    os.chdir(folder)
    handle = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    import torch  # noqa: PLC0415  loaded already in the process that this one is forked from

    from afrcnn.cli import main  # noqa: PLC0415

    torch.set_num_threads(1)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
    status = main(words)
    sys.stdout.flush()
    os._exit(status)  # a process that was forked would wait for joblib's idle workers


def session(number):
    """Return the processes of a session that are still running."""
    running = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[3] == str(number) and fields[0] != "Z":
            running.append(int(folder.name))
    return running


def left_after(number, seconds):
    """Return the processes of a session that are still running after some seconds."""
    deadline = time.monotonic() + seconds
    while session(number) and time.monotonic() < deadline:
        time.sleep(0.1)
    return session(number)


def content(folder):
    """Return a checksum of every file that a command may have written, by its name."""
    sums = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.is_file() and "tensorboard" not in name:
            data = file.read_bytes()
            if file.name == "log.csv":
                rows = list(csv.reader(io.StringIO(data.decode())))
                speed = rows[0].index("iterations_per_second")
                data = repr([row[:speed] + row[speed + 1 :] for row in rows]).encode()
            sums[name] = hashlib.sha256(data).hexdigest()
    return sums


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("kills.csv"))
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    arguments = parser.parse_args()
    rows = read_rows(arguments.out)
    if all(number in rows for number in range(arguments.kills)):
        print_sums(arguments.out)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    scratch = Path(tempfile.mkdtemp(prefix="kills"))
    base, work, output = scratch / "base", scratch / "work", str(scratch / "output")

    def start(words):
        process = context.Process(target=run_command, args=(words, str(work), output))
        process.start()
        return process

    def finish(words):
        process = start(words)
        process.join()
        return process.exitcode

    work.mkdir()
    (work / "recipe.yaml").write_text(RECIPE)
    for words in (
        ["shapes", "shapes", "--trainval", "6", "--test", "3", "--size", "64"],
        ["proposals", "shapes", "--jobs", "1"],
        ["train", "recipe.yaml", "--run", "run"],
        ["evaluate", "run"],
    ):
        if finish(words):
            sys.exit(f"{words} failed:\n{Path(output).read_text()}")
    shutil.copytree(work, base, symlinks=True)

    def renew():
        shutil.rmtree(work)
        shutil.copytree(base, work, symlinks=True)

    whole, seconds = {}, {}
    left = [number for number in range(arguments.kills) if number not in rows]
    for name in {arguments.commands[number % len(arguments.commands)]: None for number in left}:
        renew()
        began = time.monotonic()
        if finish(COMMANDS[name]):
            sys.exit(f"{name} failed:\n{Path(output).read_text()}")
        whole[name], seconds[name] = content(work), time.monotonic() - began

    for number in left:
        kill_once(number, arguments, whole, seconds, renew, start, finish, work)
    shutil.rmtree(scratch)
    print_sums(arguments.out)


def kill_once(number, arguments, whole, seconds, renew, start, finish, work):
    """Kill a command, start it again, compare, and write what was seen."""
    name = arguments.commands[number % len(arguments.commands)]
    renew()
    # Of its own, so that a kill is the same whatever came before.
    after = random.Random(f"{arguments.seed} {number}").uniform(0, seconds[name])
    process = start(COMMANDS[name])
    process.join(after)
    running = process.exitcode is None
    if running:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    orphans = left_after(process.pid, 10)
    status = finish(COMMANDS[name])
    now = content(work)
    other = [file for file in whole[name] if now.get(file) != whole[name][file]]
    over = [file for file in now if file not in whole[name]]
    row = (number, name, f"{after:.2f}", int(running), len(orphans), status, " ".join(other), " ".join(over))
    append(arguments.out, row)


def append(file, row):
    """Add a row to the file, on the disk before the next kill."""
    with file.open("a", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerow(row)
        stream.flush()
        os.fsync(stream.fileno())


def read_rows(file):
    """Return the rows of the file by their numbers; a last one that was cut short is removed, and a header written."""
    if not file.is_file() or not file.stat().st_size:
        append(file, COLUMNS)
    lines = file.read_bytes().splitlines(keepends=True)
    if not lines[-1].endswith(b"\n"):
        file.write_bytes(b"".join(lines[:-1]))
    with file.open(newline="", encoding="utf-8") as stream:
        return {int(row["number"]): row for row in csv.DictReader(stream)}


def print_sums(file):
    """Print by command how often it was killed while it ran, and how often something was wrong then or afterwards."""
    counts = Counter()
    for row in read_rows(file).values():
        for name in (row["command"], "all"):
            counts[name, "running"] += int(row["running"])
            for column in COLUMNS[4:]:
                counts[name, column] += row[column] not in ("", "0")
    print(",".join(("command", "kills", "with orphans", "failed", "other bits", "left over")))
    for name in dict.fromkeys(name for name, _ in sorted(counts, key=lambda pair: pair[0] == "all")):
        print(",".join((name, *(str(counts[name, column]) for column in ("running", *COLUMNS[4:])))))


if __name__ == "__main__":
    main()
