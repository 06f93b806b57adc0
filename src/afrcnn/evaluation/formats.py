"""Files of detections: COCO's results JSON and the text files of the PASCAL VOC server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError

Detection = dict[str, torch.Tensor]
"""What was found in one image: ``boxes`` D x 4 float32 (XYXY, pixels), ``labels`` D int64 (1..K), ``scores`` D
float32."""

_LARGEST = float(np.finfo(np.float32).max)

_Row = tuple[int, int, float, float, float, float, float]  # image's index, label, score, x1, y1, x2, y2


def write_coco_results(
    path: Path | str,
    detections: Sequence[Mapping[str, torch.Tensor]],
    ids: Sequence[str],
    category_ids: Sequence[int],
) -> None:
    """Write detections as COCO's results: a JSON list with one record, on one line, for each detection.

    A record holds ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in pixels from 0) and
    ``score``. An image id that is the decimal writing of an integer, as all are in COCO layout, becomes that
    integer; any other, ``apple_1`` and also VOC's ``000012``, stays a string.

    Args:
        path: the file to write.
        detections: what was found in each image: ``boxes`` D x 4 (XYXY), ``labels`` D, ``scores`` D.
        ids: the image ids, in the same order.
        category_ids: the ids to write for the labels 1..K: ``COCODataset.category_ids``, or 1 to K.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_write(path) as file:
        separator = "[\n"
        for image_id, label, score, x1, y1, x2, y2 in _rows(detections, ids):
            record = {
                "image_id": int(image_id) if _is_integer(image_id) else image_id,
                "category_id": category_ids[label - 1],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            file.write(separator + json.dumps(record))
            separator = ",\n"
        file.write("\n]\n" if separator == ",\n" else "[]\n")


def read_coco_results(path: Path | str, ids: Sequence[str], category_ids: Sequence[int]) -> list[Detection]:
    """Read what ``write_coco_results`` or another program wrote.

    Args:
        path: the file.
        ids: the ids of the images to return detections for, in this order.
        category_ids: the file's ids of the labels 1..K.

    Returns:
        The detections of each image, in the order of the file.

    Raises:
        UserError: the file is missing or malformed, or speaks of other images or categories.
    """
    try:
        records = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(
            f"is no JSON ({error.msg})", file=path, field=f"line {error.lineno}", fix="write the file anew"
        ) from error
    if not isinstance(records, list):
        raise UserError("is no list of detections", file=path, fix="give a file in COCO's results format")
    indices = {image_id: index for index, image_id in enumerate(ids)}
    labels = {category_id: label for label, category_id in enumerate(category_ids, start=1)}

    def row(number: int, record: Any) -> _Row:
        where = f"[{number}]"
        if not isinstance(record, dict):
            raise UserError("is no record", file=path, field=where, fix="write image_id, category_id, bbox, score")
        for key in ("image_id", "category_id", "bbox", "score"):
            if key not in record:
                raise UserError("is missing", file=path, field=f"{where}.{key}", fix="add it")
        image_id, category_id, score = record["image_id"], record["category_id"], record["score"]
        if str(image_id) not in indices:
            problem = f"the image {image_id!r} is not in the dataset"
            raise UserError(problem, file=path, field=f"{where}.image_id", fix="give the results of this split")
        if not isinstance(category_id, int) or category_id not in labels:
            problem = f"the category {category_id!r} is not in the dataset"
            raise UserError(problem, file=path, field=f"{where}.category_id", fix="give the results of this dataset")
        bbox = record["bbox"]
        if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(_fits, bbox)) and min(bbox[2:]) >= 0):
            problem = f"{bbox!r} is no box"
            raise UserError(problem, file=path, field=f"{where}.bbox", fix="give x, y, width, height in pixels")
        if not _fits(score):
            raise UserError(f"{score!r} is no number", file=path, field=f"{where}.score", fix="give a finite score")
        x, y, width, height = bbox
        return indices[str(image_id)], labels[category_id], score, x, y, x + width, y + height

    return _by_image([row(number, record) for number, record in enumerate(records)], len(ids))


def write_voc_results(
    folder: Path | str,
    detections: Sequence[Mapping[str, torch.Tensor]],
    ids: Sequence[str],
    classes: Sequence[str],
    split: str,
) -> None:
    """Write detections as the VOC server takes them: ``comp4_det_<split>_<class>.txt`` for each class.

    A line holds the image id, the score, and xmin, ymin, xmax, ymax in VOC's inclusive pixels from 1. Nine
    significant digits keep every score as it is, so that no ties arise, and boxes within 1e-8 of their size.

    Args:
        folder: the folder to write to; the server's archive has it as ``results/VOC2007/Main``.
        detections: what was found in each image: ``boxes`` D x 4 (XYXY), ``labels`` D, ``scores`` D.
        ids: the image ids, in the same order.
        classes: names of the classes 1..K.
        split: the split, e.g. ``test``.

    Raises:
        UserError: a file cannot be written, or a class cannot be part of a file's name.
    """
    lines: list[list[str]] = [[] for _ in classes]
    for image_id, label, score, x1, y1, x2, y2 in _rows(detections, ids):
        numbers = " ".join(f"{number:.9g}" for number in (score, x1 + 1, y1 + 1, x2, y2))
        lines[label - 1].append(f"{image_id} {numbers}\n")
    files = [_voc_file(folder, split, name) for name in classes]
    for path, own in zip(files, lines, strict=True):
        with atomic_write(path) as file:
            file.writelines(own)


def read_voc_results(folder: Path | str, ids: Sequence[str], classes: Sequence[str], split: str) -> list[Detection]:
    """Read what ``write_voc_results`` or another program wrote.

    Args:
        folder: the folder with ``comp4_det_<split>_<class>.txt`` for each class.
        ids: the ids of the images to return detections for, in this order.
        classes: names of the classes 1..K.
        split: the split, e.g. ``test``.

    Returns:
        The detections of each image, by class, those of a class in the order of its file.

    Raises:
        UserError: a file is missing or malformed, or speaks of other images.
    """
    indices = {image_id: index for index, image_id in enumerate(ids)}
    rows: list[_Row] = []
    for label, name in enumerate(classes, start=1):
        path = _voc_file(folder, split, name)
        for number, line in enumerate(_read_text(path).splitlines(), start=1):
            where = f"line {number}"
            image_id, *fields = line.strip().rsplit(maxsplit=5) or [""]
            try:
                score, xmin, ymin, xmax, ymax = map(float, fields)
            except ValueError:
                problem, fix = f"{line[:80]!r} is no detection", "write: id score xmin ymin xmax ymax"
                raise UserError(problem, file=path, field=where, fix=fix) from None
            if not all(map(_fits, (score, xmin, ymin, xmax, ymax))):
                raise UserError("a number is not finite", file=path, field=where, fix="give finite numbers")
            if xmax < xmin - 1 or ymax < ymin - 1:
                raise UserError("the box ends before it begins", file=path, field=where, fix="swap its sides")
            if image_id not in indices:
                problem = f"the image {image_id!r} is not in the dataset"
                raise UserError(problem, file=path, field=where, fix="give the results of this split")
            rows.append((indices[image_id], label, score, xmin - 1, ymin - 1, xmax, ymax))
    return _by_image(rows, len(ids))


def _voc_file(folder: Path | str, split: str, name: str) -> Path:
    file = f"comp4_det_{split}_{name}.txt"
    if Path(file).name != file:  # a stranger's class must not choose the folder that we write to
        raise UserError("cannot be part of a file's name", field=f"class {name!r}", fix="rename the class")
    return Path(folder) / file


def _rows(
    detections: Sequence[Mapping[str, torch.Tensor]], ids: Sequence[str]
) -> Iterable[tuple[str, int, float, float, float, float, float]]:
    """Yield id, label, score, x1, y1, x2, y2 of every detection."""
    for image_id, found in zip(ids, detections, strict=True):
        columns = (torch.as_tensor(found[key]).tolist() for key in ("labels", "scores", "boxes"))
        for label, score, (x1, y1, x2, y2) in zip(*columns, strict=True):
            yield image_id, label, score, x1, y1, x2, y2


def _by_image(rows: Sequence[_Row], count: int) -> list[Detection]:
    """Group rows by their image, each group in the order of the rows."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    images = table[:, 0].astype(np.int64)
    table = table[np.argsort(images, kind="stable")]
    ends = np.cumsum(np.bincount(images, minlength=count))[:-1]
    return [
        {
            "boxes": torch.from_numpy(own[:, 3:].astype(np.float32)),
            "labels": torch.from_numpy(own[:, 1].astype(np.int64)),
            "scores": torch.from_numpy(own[:, 2].astype(np.float32)),
        }
        for own in np.split(table, ends)
    ]


def _read_text(path: Path | str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=path, fix="name a file of detections") from error
    except UnicodeDecodeError as error:
        raise UserError("is no text", file=path, fix="save it as UTF-8") from error


def _is_integer(image_id: str) -> bool:
    return image_id.isdecimal() and str(int(image_id)) == image_id


def _fits(number: object) -> bool:
    """Tell whether this is a number that float32 can hold."""
    return isinstance(number, int | float) and -_LARGEST <= number <= _LARGEST
