"""Spoil every file that the library reads, thousands of times, and count what is not refused in one line.

    python benchmarks/mutations.py --inputs 10000 --seed 0 > mutations.csv

Prints a row for each kind of file: inputs, how many were read all the same, refused, how many gave a traceback, ended
the process, hung for more than 20 seconds, or left a file half written; the seconds and the most memory in MB. Each
kind is read in a process of its own, so that a crash is counted like the rest; what went wrong is on standard error.
"""

import argparse
import csv
import multiprocessing
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import torch

from mutations import READERS, mutate, outcome

SECONDS = 20
COLUMNS = ("read", "refused", "traceback", "crash", "hang", "half written")


class Hang(BaseException):
    """An input that takes too long; no ``except Exception`` holds it."""


def try_inputs(reader, seeds, whole, sender):
    """Read spoiled files in this process, and send (seed, outcome) before and after each."""

    def stop(*_):
        raise Hang

    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, stop)
    with tempfile.TemporaryDirectory() as scratch:
        for seed in seeds:
            folder = Path(scratch) / "input"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(whole, folder)
            file = folder / reader.name
            file.write_bytes(mutate(file.read_bytes(), random.Random(f"{reader.name} {seed}"), reader.structured))
            sender.send((seed, None))
            signal.alarm(SECONDS)
            try:
                told = outcome(reader, folder)
            except Hang:
                told = "hang"
            finally:
                signal.alarm(0)
            if list(folder.rglob("*.part")):
                told = "half written"
            sender.send((seed, told))
    sender.send((None, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))


def try_reader(reader, count, first):
    """Return the outcomes of so many inputs, their number by kind, and the most memory in MB."""
    counts, memory, seeds = Counter(), 0, list(range(first, first + count))
    with tempfile.TemporaryDirectory() as whole:
        reader.write(Path(whole))
        while seeds:
            receiver, sender = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.Process(target=try_inputs, args=(reader, seeds, whole, sender))
            process.start()
            sender.close()
            current = seeds[0]
            try:
                while True:
                    seed, told = receiver.recv()
                    if seed is None:
                        memory = max(memory, told)
                        seeds = []
                    elif told is None:
                        current = seed
                    else:
                        kind = told if told in COLUMNS else "traceback"
                        counts[kind] += 1
                        if kind not in ("read", "refused"):
                            print(f"{reader.name} seed {seed}: {told}", file=sys.stderr, flush=True)
                        seeds = [later for later in seeds if later > seed]
            except EOFError:
                process.join()
            if seeds:  # it ended in the middle of an input
                counts["crash"] += 1
                print(f"{reader.name} seed {current}: exit code {process.exitcode}", file=sys.stderr, flush=True)
                seeds = [later for later in seeds if later > current]
    return counts, memory


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="in all")
    parser.add_argument("--seed", type=int, default=0, help="of the first")
    parser.add_argument("--only", default="", help="readers whose name holds this")
    arguments = parser.parse_args()
    readers = [reader for reader in READERS if arguments.only in reader.name]
    rows = csv.writer(sys.stdout)
    rows.writerow(("file", "inputs", *COLUMNS, "seconds", "MB"))
    total, most, began = Counter(), 0, time.monotonic()
    for number, reader in enumerate(readers):
        count = arguments.inputs * (number + 1) // len(readers) - arguments.inputs * number // len(readers)
        start = time.monotonic()
        counts, memory = try_reader(reader, count, arguments.seed)
        total, most = total + counts, max(most, memory)
        numbers = (counts[kind] for kind in COLUMNS)
        rows.writerow((reader.name, count, *numbers, round(time.monotonic() - start), memory))
        sys.stdout.flush()
    numbers = (total[kind] for kind in COLUMNS)
    rows.writerow(("all", sum(total.values()), *numbers, round(time.monotonic() - began), most))


if __name__ == "__main__":
    main()
