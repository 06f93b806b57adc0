"""Does the paper's size fit? Its networks at 600 pixels, 256 RoIs of 2 images and 21 classes, for 20 iterations each.

    python benchmarks/full_size.py [--backbones alexnet caffenet vgg16 resnet101] [--threads 1]

Trains on generated scenes, from random weights (memory and time do not depend on them): Fast R-CNN alone, and ASDN with
ASTN in the joint stage, each in a process of its own. Prints a line for each as it comes: the mean loss of the first
and of the last five iterations, the peak of the resident memory, and the seconds of an iteration. Linux only.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean

from afrcnn.commands.proposals import proposals
from afrcnn.commands.shapes import shapes
from afrcnn.data.layouts import open_dataset

ITERATIONS = 20
STAGES = {
    "plain": [f"--schedule.iterations={ITERATIONS}", "--schedule.log_every=1"],
    "joint": [
        *("--schedule.iterations=1", "--pretraining.iterations=1", "--pretraining.images_per_iteration=2"),
        *(f"--joint.iterations={ITERATIONS}", "--joint.log_every=1"),
    ],
}
"""By stage, its fields; the joint stage needs an iteration of those before it."""

COMMAND = "import sys; from afrcnn.cli import main; sys.exit(main(sys.argv[1:]))"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["alexnet", "caffenet", "vgg16", "resnet101"])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "shapes"
        shapes(root, trainval=20, test=1)
        proposals(root)
        classes = open_dataset(root, "trainval").classes
        # 21 classes with background, as VOC's; those beyond the scenes' own never occur.
        twenty = [*classes, *(f"class{number}" for number in range(len(classes), 20))]
        for backbone in arguments.backbones:
            for stage, fields in STAGES.items():
                run = Path(name) / f"{backbone}-{stage}"
                recipe = "frcn" if stage == "plain" else "full"
                file = "alexnet" if backbone == "caffenet" else backbone
                words = [
                    *("train", f"configs/voc07/{file}_{recipe}.yaml", "--run", str(run)),
                    *(f"--data.root={root}", f"--data.classes=[{','.join(twenty)}]", "--data.workers=0"),
                    *(f"--detector.backbone={backbone}", "--detector.weights=null", "--engine.accelerator=cpu"),
                    *("--data.proposal_method=fast", *fields),
                ]
                peak = peak_memory(words, arguments.threads)
                print(f"{backbone:10} {stage:6} {summary(run / 'log.csv', stage)}  {peak:5.2f} GiB", flush=True)


def peak_memory(words: list[str], threads: int) -> float:
    """Run a command of afrcnn in a process of its own; return the peak of its resident memory in GiB."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen([sys.executable, "-c", COMMAND, *words], env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"afrcnn {' '.join(words)} failed")
    return usage.ru_maxrss / 2**20


def summary(log: Path, stage: str) -> str:
    """Return what a log says of a stage."""
    with log.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["stage"] == {"plain": "detector"}.get(stage, stage)]
    losses = [float(row["loss"]) for row in rows]
    seconds = fmean(1 / float(row["iterations_per_second"]) for row in rows[1:])
    return f"loss {fmean(losses[:5]):6.3f} -> {fmean(losses[-5:]):6.3f}  {seconds:6.1f} s an iteration"


if __name__ == "__main__":
    main()
