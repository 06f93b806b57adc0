"""Detection in images that belong to no dataset: proposals, boxes, pictures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.run import Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torchvision import tv_tensors

    from afrcnn.data.target import Target
    from afrcnn.detectors.rcnn import FastRCNN
    from afrcnn.proposals.selective_search import Mode
    from afrcnn.recipe import Recipe

_LARGEST_SEARCHED = 640
"""Longer side in pixels from which on an image is searched in a smaller copy. Selective search is made for images of
VOC's and COCO's sizes (500 and 640); with those of a camera it takes minutes and gigabytes, and the detector resizes
them anyway."""


_MOST_PIXELS = 25_000_000
"""Pixels from which on an image is decoded at a fraction of its size: larger ones take gigabytes, and the detector
resizes them to less than a megapixel."""


@dataclass(frozen=True)
class _DetectedObject:
    """One object of an image.

    Attributes:
        name: its class.
        score: the detector's confidence, in [0, 1].
        box: x1, y1, x2, y2 in pixels of the image, half-open, from 0.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class _Prediction:
    """Detections in one image.

    Attributes:
        image: its file.
        picture: the file of the picture that shows the objects.
        width: the image's width in pixels, upright, as its EXIF says.
        height: its height.
        objects: the objects, best first.
    """

    image: str
    picture: str
    width: int
    height: int
    objects: tuple[_DetectedObject, ...]


def predict(
    run: Path | str,
    images: Iterable[Path | str],
    out: Path | str | None = None,
    *,
    score: float | None = None,
    trust: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> list[_Prediction]:
    """Detect objects in images, as pictures and JSON.

    Proposes boxes as those that the trained detector of a run knows. Writes a picture of each image with its objects,
    and last predictions.json: for each image its file, its size, and the objects with class, score and box in pixels.
    Nothing is written before all images have been read.

    Args:
        run: folder that `afrcnn train` made, or a file of weights from one.
        images: image, or folder of images.
        out: folder to write to (default: RUN/predictions).
        score: lowest score, from 0 to 1, that is shown and written (default: that of best F1 in validation; 0.5 where
            the detector was not validated).
        trust: modules that a detector of your own may be imported from.
        overrides: fields of the run's recipe to set differently, as ``["--data.workers", "8"]``.

    Examples:
        afrcnn predict run photo.jpg
        afrcnn predict run photos --score 0.7 --out pictures

    Returns:
        A prediction for each image, in order.

    Raises:
        UserError: the run is not finished, an image is missing or damaged, or the folder cannot be written.
    """
    trained = Run(run, overrides)
    recipe, classes = trained.recipe, trained.classes
    out = trained.predictions if out is None else Path(out)
    score = trained.score if score is None else score
    pictures = picture_files(images, out, ".jpg")
    detections = detect_images(load_detector_at(trained, score, trust), [*pictures], recipe, score)

    from afrcnn.evaluation.results import write_record
    from afrcnn.visualize.detections import draw_detections

    predictions = []
    for (path, picture), detection in zip(pictures.items(), detections, strict=True):
        pixels = _read_upright(path)
        (height, width), scale = _size_and_scale(path, pixels)
        drawn = {**detection, "boxes": detection["boxes"] / scale}
        with atomic_write(picture, "wb") as file:
            draw_detections(pixels.permute(1, 2, 0).numpy(), drawn, classes).save(
                file, "JPEG", quality=92, subsampling=0
            )
        names = [classes[label - 1] for label in detection["labels"].tolist()]
        boxes = map(tuple, detection["boxes"].tolist())
        objects = tuple(map(_DetectedObject, names, detection["scores"].tolist(), boxes))
        predictions.append(_Prediction(str(path), str(picture), width, height, objects))
    write_record(out / "predictions.json", predictions)
    return predictions


def show(predictions: Sequence[_Prediction], *, run: Path, out: Path | None = None) -> None:
    """Print what was detected in each image, and where it is written."""
    from afrcnn.core.terminal import say

    for prediction in predictions:
        say(f"{prediction.picture}: {count_names(item.name for item in prediction.objects)}")
    say(f"predictions: {(out or Run(run).predictions) / 'predictions.json'}")


def detect_image(
    detector: FastRCNN, image: NDArray[np.uint8], *, mode: Mode = "fast", limit: int = 2000
) -> dict[str, Tensor]:
    """Detect objects in one image, from its pixels to boxes.

    Args:
        detector: a trained detector in evaluation mode, as of ``load_detector``.
        image: H x W x 3, RGB, uint8 or floating point from 0 to 1.
        mode: of selective search, as in training.
        limit: how many proposals are used at most, best first.

    Returns:
        ``boxes`` (D x 4, float32, XYXY pixels of the image), ``labels`` (D, int64, 1..K) and ``scores`` (D, float32
        in [0, 1]), best first, on the detector's device.

    Raises:
        ValueError: the image is not as said above.
    """
    import torch

    from afrcnn.data.image import to_uint8

    image = to_uint8(image)
    device = next(detector.parameters()).device
    proposals = torch.from_numpy(_propose(image, mode)[:limit]).to(device)
    with torch.inference_mode():
        detections = detector([torch.from_numpy(image).permute(2, 0, 1).to(device)], [proposals])
    detection: dict[str, Tensor] = detections[0]
    return detection


def load_detector_at(run: Run, score: float, trust: Sequence[str] = ()) -> nn.Module:
    """Return the trained detector of a run, which drops no detection of a score or higher.

    Raises:
        UserError: the run is not finished, or the score is not in [0, 1].
    """
    if not 0 <= score <= 1:
        raise UserError(f"{score} is out of range", field="score", fix="choose from 0 to 1")
    threshold = min(score, run.recipe.detector.score_threshold)

    from afrcnn.build import load_detector

    overrides = [*run.overrides, f"--detector.score_threshold={threshold}"]
    return load_detector(Run(run.source, overrides), trust)


def detect_images(detector: nn.Module, paths: Sequence[Path], recipe: Recipe, score: float) -> list[dict[str, Tensor]]:
    """Detect objects in images, by proposals made as those that the detector was trained with.

    Args:
        detector: the trained detector.
        paths: the images.
        recipe: the run's, which says how proposals are made, and on what machine.
        score: the lowest score, in [0, 1], of what is returned.

    Returns:
        For each image ``boxes`` (D x 4, XYXY pixels), ``labels`` (D) and ``scores`` (D), best first, on the CPU.

    Raises:
        UserError: an image is damaged, or such proposals cannot be made.
    """
    from afrcnn.core.engine import build_fabric
    from afrcnn.data.image import read_image_size
    from afrcnn.evaluation.detect import detect

    images = _ProposedImages(paths, proposal_mode(recipe), recipe.data.for_evaluation().proposals_per_image)
    fabric = build_fabric(recipe.engine.accelerator, precision=recipe.engine.precision)
    workers = min(recipe.data.workers, len(paths))
    detections = detect(detector, cast(Any, images), fabric=fabric, workers=workers)
    for path, detection in zip(paths, detections, strict=True):
        if math.prod(read_image_size(path)) > _MOST_PIXELS:
            detection["boxes"] = detection["boxes"] * _size_and_scale(path, _read_upright(path))[1]
    return [{name: value[item["scores"] >= score] for name, value in item.items()} for item in detections]


def proposal_mode(recipe: Recipe) -> Mode:
    """Return how selective search makes proposals as those that a detector was trained with.

    Raises:
        UserError: they came from elsewhere.
    """
    from afrcnn.proposals.selective_search import Mode

    mode: Any = recipe.data.proposal_method
    if mode not in get_args(Mode):
        problem = f"{mode!r} proposals cannot be made for new images"
        raise UserError(problem, field="data.proposal_method", fix=f"choose one of {', '.join(get_args(Mode))}")
    return cast("Mode", mode)


class _ProposedImages:
    """Images that are searched for proposals when they are read: as much of a dataset as detection needs."""

    def __init__(self, paths: Sequence[Path], mode: Mode, limit: int) -> None:
        self.paths, self.mode, self.limit = paths, mode, limit

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        import torch

        image = _read_upright(self.paths[index])
        proposals = _propose(image.permute(1, 2, 0).numpy(), self.mode)
        return image, {"proposals": torch.from_numpy(proposals[: self.limit])}


def _read_upright(path: Path) -> tv_tensors.Image:
    """Return an image as its EXIF says it is to be seen, smaller if it is larger than ``_MOST_PIXELS``."""
    from afrcnn.data.image import read_image

    return read_image(path, upright=True, most_pixels=_MOST_PIXELS)


def _size_and_scale(path: Path, image: tv_tensors.Image) -> tuple[tuple[int, int], Tensor]:
    """Return height and width of an image's file, upright, and the factors from boxes in what was read to those in it.

    Args:
        path: the file.
        image: what ``_read_upright`` made of it.
    """
    import torch

    from afrcnn.data.image import read_image_size

    (height, width), (rows, columns) = read_image_size(path), image.shape[-2:]
    if (height > width) != (rows > columns):  # turned by EXIF
        height, width = width, height
    x, y = width / columns, height / rows
    return (height, width), torch.tensor([x, y, x, y])


def _propose(image: NDArray[np.uint8], mode: Mode) -> NDArray[np.float32]:
    """Return the proposals (P x 4) of an image of any size, in its pixels."""
    import cv2
    import numpy as np

    from afrcnn.proposals.selective_search import SelectiveSearch

    height, width = image.shape[:2]
    scale, search = _LARGEST_SEARCHED / max(height, width), SelectiveSearch(mode)
    if scale >= 1:
        return search(image)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    smaller = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    x, y = width / size[0], height / size[1]
    return search(smaller) * np.array([x, y, x, y], dtype=np.float32)


def picture_files(images: Iterable[Path | str], out: Path, suffix: str) -> dict[Path, Path]:
    """Return the file of each image, once, also of those in folders, with that of its picture.

    Args:
        images: files of images, and folders of images.
        out: the folder of the pictures.
        suffix: of the pictures, as ``.jpg``. They are all different.

    Raises:
        UserError: an image is missing, a folder holds none, or ``out`` is the folder of an image.
    """
    pictures: dict[Path, Path] = {}
    taken: set[str] = set()
    for source in map(Path, images):
        files = image_files(source)
        if not source.is_file() and not files:
            problem = "the folder holds no images" if source.is_dir() else "no such image"
            raise UserError(problem, file=source, fix="name images, or folders that hold some")
        for path in files or [source]:
            if path.parent.resolve() == out.resolve():
                problem = f"pictures would mix with the images, as {path.name}"
                raise UserError(problem, file=out, fix="choose another folder with --out")
            if path not in pictures:
                names = chain([path.stem], (f"{path.stem}-{number}" for number in count(2)))
                name = next(name for name in names if name.casefold() not in taken)
                taken.add(name.casefold())
                pictures[path] = out / f"{name}{suffix}"
    return pictures


def image_files(folder: Path) -> list[Path]:
    """Return the images in a folder, in order; none where it is no folder."""
    from afrcnn.data.image import image_suffixes

    return sorted(file for file in folder.glob("[!.]*") if file.suffix.lower() in image_suffixes())


def count_names(names: Iterable[str]) -> str:
    """Return how many objects of each class there are, in words."""
    return ", ".join(f"{number} {name}" for name, number in Counter(names).items()) or "nothing"
