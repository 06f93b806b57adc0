"""Seconds that VOC evaluation takes for 5000 images, 20 classes and 100 detections an image.

The peer is the same definition written as the development kit has it, a loop over detections and objects
(``tests/reference.py``).
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np

from afrcnn.evaluation.matching import match
from afrcnn.evaluation.voc_ap import voc_ap


def scenes(images: int, classes: int, detections: int, rng: np.random.Generator):
    """Draw 2 to 4 objects an image, half of the detections near an object and half anywhere."""
    detected, targets = [], []
    for _ in range(images):
        corner = rng.uniform(0, 400, (rng.integers(2, 5), 2))
        objects = np.concatenate([corner, corner + rng.uniform(30, 200, corner.shape)], axis=1).round()
        labels = rng.integers(1, classes + 1, len(objects))
        near = rng.integers(0, len(objects), detections // 2)
        anywhere = rng.uniform(0, 400, (detections - len(near), 2))
        boxes = np.concatenate(
            [
                objects[near] + rng.normal(0, 15, (len(near), 4)),
                np.concatenate([anywhere, anywhere + rng.uniform(30, 200, anywhere.shape)], axis=1),
            ]
        ).astype(np.float32)
        detected.append(
            {
                "boxes": boxes,
                "labels": np.concatenate([labels[near], rng.integers(1, classes + 1, len(anywhere))]),
                "scores": rng.uniform(size=detections).astype(np.float32),
            }
        )
        targets.append({"boxes": objects, "labels": labels, "difficult": rng.uniform(size=len(objects)) < 0.1})
    return detected, targets


def seconds(function, repeats: int) -> float:
    """Return the least of several times, the one that the rest of the machine disturbed least."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    arguments = parser.parse_args()

    reference = Path(__file__).parents[1] / "tests" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", reference)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    classes = [f"class{label}" for label in range(1, 21)]
    detected, targets = scenes(arguments.images, len(classes), 100, np.random.default_rng(0))
    vectorised = seconds(lambda: voc_ap(match(detected, targets, classes)), repeats=5)
    loop = seconds(lambda: module.plain_voc_ap(detected, targets, classes), repeats=1)
    print(f"VOC evaluation, {arguments.images} images, 20 classes, 100 detections an image")
    print(f"  afrcnn      {vectorised:8.3f} s")
    print(f"  plain loop  {loop:8.3f} s")
    print(f"  ratio       {vectorised / loop:8.4f}")


if __name__ == "__main__":
    main()
