"""Detection in photographs that belong to no dataset: proposals, boxes, pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from afrcnn.core.atomic import atomic_write
from afrcnn.core.engine import build_fabric
from afrcnn.core.errors import UserError
from afrcnn.data.image import read_image
from afrcnn.data.target import Target
from afrcnn.detectors.rcnn import FastRCNN
from afrcnn.evaluation.detect import detect
from afrcnn.proposals.selective_search import Mode, selective_search
from afrcnn.recipe import Recipe
from afrcnn.run import Run
from afrcnn.visualize.detections import draw_detections

LARGEST_SEARCHED = 640
"""Longer side in pixels from which on an image is searched in a smaller copy. Selective search is made for images of
VOC's and COCO's sizes (500 and 640); with those of a camera it takes minutes and gigabytes, and the detector resizes
them anyway."""


@dataclass(frozen=True)
class DetectedObject:
    """One object of a photograph.

    Attributes:
        name: its class.
        score: the detector's confidence, in [0, 1].
        box: x1, y1, x2, y2 in pixels of the photograph, half-open, from 0.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Prediction:
    """What was found in one photograph.

    Attributes:
        image: its file.
        picture: the file of the picture that shows the objects.
        width: the photograph's width in pixels, upright, as its EXIF says.
        height: its height.
        objects: the objects, best first.
    """

    image: str
    picture: str
    width: int
    height: int
    objects: tuple[DetectedObject, ...]


def detect_image(
    detector: FastRCNN, image: NDArray[np.uint8], *, mode: Mode = "fast", limit: int = 2000
) -> dict[str, Tensor]:
    """Detect objects in one image, from its pixels to boxes.

    Args:
        detector: a trained detector in evaluation mode, as ``Run(folder).detector()``.
        image: H x W x 3, uint8, RGB.
        mode: of selective search, as in training.
        limit: how many proposals are used at most, best first.

    Returns:
        ``boxes`` (D x 4, float32, XYXY pixels of the image), ``labels`` (D, int64, 1..K) and ``scores`` (D, float32
        in [0, 1]), best first, on the detector's device.

    Raises:
        ValueError: the image is not as said above.
    """
    device = next(detector.parameters()).device
    proposals = torch.from_numpy(_propose(image, mode)[:limit]).to(device)
    with torch.inference_mode():
        (detection,) = detector([torch.from_numpy(image).permute(2, 0, 1).to(device)], [proposals])
    return cast(dict[str, Tensor], detection)


def predict(
    run: Path | str,
    images: Iterable[Path | str],
    out: Path | str | None = None,
    *,
    score: float = 0.5,
    overrides: Sequence[str] = (),
) -> list[Prediction]:
    """Detect objects in photographs with the trained detector of a run, and show them.

    Writes a picture of each photograph with its boxes, and last ``predictions.json``, a list with the fields of each
    ``Prediction``. Nothing is written before all photographs have been read.

    Args:
        run: the run's folder.
        images: photographs, and folders of photographs.
        out: the folder to write to; ``predictions`` in the run's when None.
        score: the lowest score, in [0, 1], of what is shown and written.
        overrides: fields of the run's recipe to set differently, as ``["--data.workers", "8"]``.

    Returns:
        A prediction for each photograph, in order.

    Raises:
        UserError: the run is not finished, an image is missing or damaged, or the folder cannot be written.
    """
    recipe = Run(run).recipe(overrides)
    out = Path(run) / "predictions" if out is None else Path(out)
    paths = photograph_files(images)
    pictures = picture_files(paths, out, ".jpg")
    found = detect_photographs(Run(run).detector(overrides), paths, recipe, score)

    assert recipe.data.classes is not None  # a resolved recipe names its classes
    predictions = []
    for path, picture, shown in zip(paths, pictures, found, strict=True):
        image = read_image(path, upright=True).permute(1, 2, 0).numpy()
        with atomic_write(picture, "wb") as file:
            draw_detections(image, shown, recipe.data.classes).save(file, "JPEG", quality=92, subsampling=0)
        columns = (shown[name].tolist() for name in ("labels", "scores", "boxes"))
        objects = tuple(
            DetectedObject(recipe.data.classes[label - 1], confidence, tuple(box))
            for label, confidence, box in zip(*columns, strict=True)
        )
        height, width = image.shape[:2]
        predictions.append(Prediction(str(path), str(picture), width, height, objects))
    with atomic_write(out / "predictions.json") as file:
        json.dump([asdict(prediction) for prediction in predictions], file, indent=2, ensure_ascii=False)
        file.write("\n")
    return predictions


def detect_photographs(
    detector: FastRCNN, paths: Sequence[Path], recipe: Recipe, score: float
) -> list[dict[str, Tensor]]:
    """Detect objects in photographs, by proposals made as those that the detector was trained with.

    Args:
        detector: the trained detector; it moves to the device of the recipe.
        paths: the photographs.
        recipe: the run's, which says how proposals are made, and on what machine.
        score: the lowest score, in [0, 1], of what is returned.

    Returns:
        For each photograph ``boxes`` (D x 4, XYXY pixels), ``labels`` (D) and ``scores`` (D), best first, on the CPU.

    Raises:
        UserError: an image is damaged, the score is out of range, or such proposals cannot be made.
    """
    if not 0 <= score <= 1:
        raise UserError(f"{score} is out of range", field="score", fix="choose from 0 to 1")
    mode = recipe.data.proposal_method
    if mode not in get_args(Mode):
        problem = f"{mode!r} proposals cannot be made for new images"
        raise UserError(problem, field="data.proposal_method", fix=f"choose one of {', '.join(get_args(Mode))}")
    # The threshold is this one, lower or higher than the recipe's.
    detector.score_threshold = min(score, detector.score_threshold)
    photographs = _Photographs(paths, cast(Mode, mode), recipe.data.proposals_per_image)
    workers = min(recipe.data.workers, len(paths))
    fabric = build_fabric(recipe.engine.accelerator, precision=recipe.engine.precision)
    found = detect(detector, photographs, fabric=fabric, workers=workers)
    return [{name: value[each["scores"] >= score] for name, value in each.items()} for each in found]


class _Photographs(Dataset[tuple[Tensor, Target]]):
    """Photographs with their proposals: as much of a dataset as detection needs."""

    def __init__(self, paths: Sequence[Path], mode: Mode, limit: int) -> None:
        self.paths, self.mode, self.limit = paths, mode, limit

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        image = read_image(self.paths[index], upright=True)
        proposals = _propose(image.permute(1, 2, 0).numpy(), self.mode)
        return image, {"proposals": torch.from_numpy(proposals[: self.limit])}


def _propose(image: NDArray[np.uint8], mode: Mode) -> NDArray[np.float32]:
    """Return the proposals (P x 4) of an image of any size, in its pixels."""
    height, width = image.shape[:2]
    scale = LARGEST_SEARCHED / max(height, width)
    if scale >= 1:
        return selective_search(image, mode)
    small = (max(round(width * scale), 1), max(round(height * scale), 1))
    boxes = selective_search(cv2.resize(image, small, interpolation=cv2.INTER_AREA).astype(np.uint8), mode)
    x, y = width / small[0], height / small[1]
    return boxes * np.array([x, y, x, y], dtype=np.float32)


def photograph_files(images: Iterable[Path | str]) -> list[Path]:
    """Return the files of images and of folders of images, each once.

    Raises:
        UserError: an image is missing, or a folder holds none.
    """
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
    paths: list[Path] = []
    for path in map(Path, images):
        if path.is_dir():
            files = sorted(file for file in path.glob("[!.]*") if file.suffix.lower() in suffixes)
            if not files:
                raise UserError("the folder holds no images", file=path, fix="name images, or a folder that holds some")
            paths += files
        elif path.is_file():
            paths.append(path)
        else:
            raise UserError("no such image", file=path, fix="name images, or folders that hold some")
    return list(dict.fromkeys(paths))


def picture_files(paths: Sequence[Path], out: Path, suffix: str) -> list[Path]:
    """Name a picture with a suffix, as ``.jpg``, for each image: no two the same, and none where an image lies.

    Raises:
        UserError: the folder ``out`` is that of an image.
    """
    if source := next((path for path in paths if path.parent.resolve() == out.resolve()), None):
        problem = f"pictures would mix with the images, as {source.name}"
        raise UserError(problem, file=out, fix="choose another folder with --out")
    taken: set[str] = set()
    pictures = []
    for path in paths:
        name, number = path.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name.casefold())
        pictures.append(out / f"{name}{suffix}")
    return pictures
