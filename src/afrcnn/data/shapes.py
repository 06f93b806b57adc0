"""The generated dataset: drawn scenes in the PASCAL VOC layout, to try things on without data.

Beyond VOC's fields each object's annotation records its occluded fraction and its bend, so that a detector's
accuracy can be measured against both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import joblib
import numpy as np

from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError, suggest
from afrcnn.data.figures import FIGURES
from afrcnn.data.scene import SIDES, draw_scene
from afrcnn.data.voc_xml import VOCObject, write_annotation

_RECORD = "shapes.json"
_GENERATOR = "afrcnn shapes 1"
"""The number rises whenever the same parameters draw other images."""
_LIMITS = {"trainval": (2, 10**6), "test": (1, 10**6), "size": (64, 10**4), "seed": (0, 2**63), "sides": (16, 256)}
_LIMITS |= dict.fromkeys(("occlusion", "deformation"), (0, 1))


def generate(
    folder: Path | str,
    *,
    trainval: int = 400,
    test: int = 100,
    size: int | tuple[int, int] = 256,
    occlusion: float = 0.5,
    deformation: float = 0.5,
    classes: Sequence[str] = (),
    sides: tuple[float, float] = SIDES,
    seed: int = 0,
    jobs: int = 1,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Draw a detection dataset and write it in VOC layout.

    Writes ``JPEGImages/<id>.jpg``, ``Annotations/<id>.xml``, ``ImageSets/Main/<split>.txt`` of the splits
    train, val (every fifth of trainval), trainval and test, and ``shapes.json`` with the parameters.
    The image lists come last: a generation that was killed leaves none, and can be repeated. Image i of
    trainval is ``draw_scene(numpy.random.default_rng((seed, 0, i)), ...)``, that of test starts from
    ``(seed, 1, i)``: neither ``jobs`` nor the number of images changes it.

    An object is annotated by the box of its visible part, as VOC does; it is ``occluded`` where more than
    5% of it is, and ``difficult`` where more than half is. See ``afrcnn.data.scene`` for the drawing.

    Args:
        folder: where to write. If it holds anything, it must be this set, which is then written again.
        trainval: the number of images of trainval, 2 or more.
        test: the number of images of test, 1 or more.
        size: the side of the square images or their (height, width), in pixels, 64 or more.
        occlusion: how much objects are occluded and cut, in [0, 1]; at 0 not at all.
        deformation: how far joints are bent, in [0, 1]; at 0 not at all.
        classes: the figures that are drawn; all when empty.
        sides: the shortest and the longest of the objects' longer sides, in pixels of an image of 256.
        seed: the number that the scenes are drawn from, not negative.
        jobs: the number of worker processes; -1 takes all cores. Each starts by importing this package, which
            pays from some thousands of images on.
        progress: called with the number of finished images, after each.

    Raises:
        UserError: an argument is out of its range, the folder holds something else, or it cannot be written.
    """
    height, width = (size, size) if isinstance(size, int) else size
    names = [name for name in FIGURES if name in classes or not classes]
    if unknown := [name for name in classes if name not in FIGURES]:
        fix = suggest(unknown[0], list(FIGURES), f"choose among {', '.join(FIGURES)}")
        raise UserError("is not a figure", field=f"classes: {unknown[0]}", fix=fix)
    drawing: dict[str, Any] = {"size": (height, width), "occlusion": occlusion, "deformation": deformation}
    counts = {"trainval": trainval, "test": test}
    record: dict[str, Any] = {"generator": _GENERATOR, "classes": names, **counts}
    record |= {**drawing, "size": [height, width], "seed": seed}
    drawing |= {"classes": names, "sides": sides}
    if sides != SIDES:  # which records of earlier versions do not name
        record["sides"] = list(sides)
    for field, (low, high) in _LIMITS.items():
        for value in np.ravel(record.get(field, SIDES)).tolist():
            if not low <= value <= high:
                raise UserError(f"{value} is out of range", field=field, fix=f"choose from {low} to {high}")
    if sides[0] > sides[1]:
        raise UserError(f"{sides[0]:g} is more than {sides[1]:g}", field="sides", fix="write the shortest side first")
    folder = Path(folder)
    _claim(folder, record)

    splits = {split: [f"{split}_{i:06d}" for i in range(count)] for split, count in counts.items()}
    tasks = [
        joblib.delayed(_write_scene)(folder, image_id, (seed, number, i), drawing)
        for number, ids in enumerate(splits.values())
        for i, image_id in enumerate(ids)
    ]
    finished = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks)
    for done, _ in enumerate(finished, start=1):
        if progress:
            progress(done)

    splits["val"] = splits["trainval"][1::5]
    splits["train"] = [image_id for i, image_id in enumerate(splits["trainval"]) if i % 5 != 1]
    for split, ids in splits.items():
        with atomic_write(folder / "ImageSets" / "Main" / f"{split}.txt") as file:
            file.write("\n".join(ids) + "\n")


def _claim(folder: Path, record: dict[str, Any]) -> None:
    """Make sure that the folder is free or holds this very set, and write what it will hold."""
    fix = "choose another folder or delete this one"
    if folder.exists() and not folder.is_dir():
        raise UserError("is a file, not a folder", file=folder, fix=fix)
    if folder.is_dir() and any(folder.iterdir()):
        earlier = None
        with suppress(OSError, ValueError):
            earlier = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        if not isinstance(earlier, dict) or "generator" not in earlier:
            raise UserError("is not empty and holds no generated set", file=folder, fix=fix)
        for field, value in record.items():
            if earlier.get(field) != value:
                problem = f"the set in this folder has {earlier.get(field)}, not {value}"
                raise UserError(problem, file=folder / _RECORD, field=field, fix=fix)
    with atomic_write(folder / _RECORD) as file:
        file.write(json.dumps(record, indent=2) + "\n")


def _write_scene(folder: Path, image_id: str, seed: tuple[int, int, int], drawing: dict[str, Any]) -> None:
    """Draw one scene and write its image and its annotation."""
    scene = draw_scene(np.random.default_rng(seed), **drawing)
    _, jpeg = cv2.imencode(".jpg", scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    image = folder / "JPEGImages" / f"{image_id}.jpg"
    with atomic_write(image, "wb") as file:
        file.write(jpeg.tobytes())
    objects = []
    for item in scene.objects:
        occlusion = item.occlusion
        flags = {"difficult": occlusion > 0.5, "truncated": item.truncated, "occluded": occlusion > 0.05}
        objects.append(VOCObject(item.name, item.box, **flags, occlusion=occlusion, bend=item.bend))
    annotation, (height, width) = folder / "Annotations" / f"{image_id}.xml", drawing["size"]
    write_annotation(annotation, filename=image.name, height=height, width=width, objects=objects)
