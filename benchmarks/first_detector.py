"""From an empty folder with 50 labelled photographs to a detector, its AP and its pictures, by one command: how long?

The photographs are the first 50 of a dataset's trainval, copied into YOLO's layout, 40 to train on and 10 to test on.

    python benchmarks/first_detector.py ../shared/data/fruit [FIELDS, as --detector.weights FILE]
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from afrcnn.data.layouts import open_dataset

COUNTS = {"train": 40, "test": 10}


def copy_as_yolo(source: str, root: Path) -> None:
    """Write the first images of a dataset's trainval with a text file of boxes each, and data.yaml."""
    dataset = open_dataset(source, "trainval")
    rows = iter(range(len(dataset)))
    for split, count in COUNTS.items():
        for folder in ("images", "labels"):
            (root / split / folder).mkdir(parents=True)
        for row, _ in zip(rows, range(count), strict=False):
            path, target, (height, width) = dataset.image_path(row), dataset.target(row), dataset.image_size(row)
            shutil.copy(path, root / split / "images" / path.name)
            lines = [
                f"{label - 1} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} {(y2 - y1) / height}"
                for label, (x1, y1, x2, y2) in zip(target["labels"].tolist(), target["boxes"].tolist(), strict=True)
            ]
            (root / split / "labels" / f"{path.stem}.txt").write_text("\n".join(lines))
    names = json.dumps(list(dataset.classes))
    (root / "data.yaml").write_text(f"train: train/images\ntest: test/images\nnames: {names}\n")


def main() -> None:
    """Copy, train by the one command, and print what it took and gave."""
    source, *fields = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "photos")
        copy_as_yolo(source, root)
        began, load = time.monotonic(), os.getloadavg()
        command = [sys.executable, "-m", "afrcnn.cli", "train", "photos", *fields]
        subprocess.run(command, cwd=folder, check=True)
        seconds, used = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        (run,) = Path(folder, "runs", "photos").iterdir()
        results = json.loads((run / "results.json").read_text())
        pictures = len(list((run / "predictions").glob("*.jpg")))
        cpu = (used.ru_utime + used.ru_stime) / 60  # which a busy machine does not lengthen as it does the other
        print(f"{seconds / 60:.1f} minutes on {os.cpu_count()} CPU cores, of which {cpu:.1f} core-minutes were used")
        print(f"load average before {load[0]:.1f}, after {os.getloadavg()[0]:.1f}")
        print(f"AP by area {results['mean_ap']['area']:.3f}, by 11 points {results['mean_ap']['11-point']:.3f}")
        print(f"{results['images']} test images, {sum(results['objects'].values())} objects, {pictures} pictures")


if __name__ == "__main__":
    main()
