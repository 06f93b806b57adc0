"""Files of detections: COCO's results JSON and the text files of the PASCAL VOC server."""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.core.names import file_name
from afrcnn.core.schema import SchemaError, parse_json

Detection = dict[str, torch.Tensor]
"""What was detected in one image: ``boxes`` D x 4 float32 (XYXY, pixels), ``labels`` D int64 (1..K), ``scores`` D
float32."""

_LARGEST = float(np.finfo(np.float32).max)

_Detections = Sequence[Mapping[str, Any]]
"""Those of each image, as ``Detection`` or likewise."""

_Row = tuple[int, int, float, float, float, float, float]
"""A detection: its image's index, label, score, x1, y1, x2, y2."""

_FIELDS = {
    "image_id": ("the image {!r:.80} is not in the dataset", "give the results of this split"),
    "category_id": ("the category {!r:.80} is not in the dataset", "give the results of this dataset"),
    "bbox": ("{!r:.80} is not a box", "give x, y, width, height in pixels"),
    "score": ("{!r:.80} is not a finite number", "give a finite score"),
}
"""By field of a record of COCO's results, what can be wrong with it and what to do."""


def write_coco_results(
    path: Path | str, detections: _Detections, ids: Sequence[str], category_ids: Sequence[int]
) -> None:
    """Write detections as COCO's results: a JSON list with one record, on one line, for each detection.

    A record holds ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in pixels from 0) and
    ``score``. An image id that is the decimal writing of an integer, as all are in COCO layout, becomes that
    integer; any other, ``apple_1`` and also VOC's ``000012``, stays a string.

    Args:
        path: the file to write.
        detections: those of each image: ``boxes`` D x 4 (XYXY), ``labels`` D, ``scores`` D.
        ids: the image ids, in the same order.
        category_ids: the ids to write for the labels 1..K: ``DetectionDataset.category_ids``.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_write(path) as file:
        separator = "[\n"
        for image_id, label, score, x1, y1, x2, y2 in _rows(detections, ids):
            values = coco_image_id(image_id), category_ids[label - 1], [x1, y1, x2 - x1, y2 - y1], score
            file.write(separator + json.dumps(dict(zip(_FIELDS, values, strict=True))))
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
        records = parse_json(_read_text(path))
    except SchemaError as error:
        problem, fix = f"is not valid JSON ({error.problem})", "write the file anew"
        raise UserError(problem, file=path, field=error.place, fix=fix) from error
    if not isinstance(records, list):
        raise UserError("is not a list of detections", file=path, fix="give a file in COCO's results format")
    indices = {image_id: index for index, image_id in enumerate(ids)}
    labels = {category_id: label for label, category_id in enumerate(category_ids, start=1)}
    valid: dict[str, Callable[[Any], bool]] = {
        "image_id": lambda image_id: str(image_id) in indices,
        "category_id": lambda category_id: isinstance(category_id, int) and category_id in labels,
        "bbox": lambda box: isinstance(box, list) and len(box) == 4 and all(map(_fits, box)) and min(box[2:]) >= 0,
        "score": _fits,
    }
    rows: list[_Row] = []
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise UserError("is not a record", file=path, field=f"[{number}]", fix=f"write {', '.join(_FIELDS)}")
        for name, (problem, fix) in _FIELDS.items():
            field = f"[{number}].{name}"
            if name not in record:
                raise UserError("is missing", file=path, field=field, fix="add it")
            if not valid[name](record[name]):
                raise UserError(problem.format(record[name]), file=path, field=field, fix=fix)
        image_id, category_id, (x, y, width, height), score = (record[name] for name in _FIELDS)
        index, label = indices[str(image_id)], labels[category_id]
        rows.append((index, label, score, x, y, x + width, y + height))
    return _by_image(rows, len(ids))


def coco_image_id(image_id: str) -> int | str:
    """Return an image's id as COCO's files hold it: an integer where it is the decimal writing of one."""
    return int(image_id) if image_id.isdecimal() and str(int(image_id)) == image_id else image_id


def write_voc_results(
    folder: Path | str, detections: _Detections, ids: Sequence[str], classes: Sequence[str], split: str
) -> None:
    """Write detections as the VOC server takes them: ``comp4_det_<split>_<class>.txt`` for each class.

    A line holds the image id, the score, and xmin, ymin, xmax, ymax in VOC's inclusive pixels from 1. Nine
    significant digits keep every score as it is, so that no ties arise, and boxes within 1e-8 of their size.

    Args:
        folder: the folder to write to; the server's archive has it as ``results/VOC2007/Main``.
        detections: those of each image: ``boxes`` D x 4 (XYXY), ``labels`` D, ``scores`` D.
        ids: the image ids, in the same order.
        classes: names of the classes 1..K.
        split: the split, e.g. ``test``.

    Raises:
        UserError: a file cannot be written, or a class's name is too long for one.
    """
    lines: list[list[str]] = [[] for _ in classes]
    for image_id, label, score, x1, y1, x2, y2 in _rows(detections, ids):
        numbers = " ".join(f"{number:.9g}" for number in (score, x1 + 1, y1 + 1, x2, y2))
        lines[label - 1].append(f"{image_id} {numbers}\n")
    names = [_voc_file(split, name) for name in classes]  # all of them before any is written
    for name, of_class in zip(names, lines, strict=True):
        with atomic_write(Path(folder) / f"comp4_{name}") as file:
            file.writelines(of_class)


def read_voc_results(path: Path | str, ids: Sequence[str], classes: Sequence[str], split: str) -> list[Detection]:
    """Read what ``write_voc_results`` or another program wrote.

    Args:
        path: the folder with ``comp4_det_<split>_<class>.txt`` for each class, or one of these files. Another prefix
            than ``comp4_`` will do, as ``comp3_`` or none.
        ids: the ids of the images to return detections for, in this order.
        classes: names of the classes 1..K.
        split: the split, e.g. ``test``.

    Returns:
        The detections of each image, by class, those of a class in the order of its file.

    Raises:
        UserError: a file is missing or malformed, or speaks of other images; there are files of several prefixes.
    """
    indices = {image_id: index for index, image_id in enumerate(ids)}
    rows: list[_Row] = []
    for label, name in enumerate(classes, start=1):
        file = _find_voc_file(Path(path), _voc_file(split, name))
        for number, line in enumerate(_read_text(file).splitlines(), start=1):
            mistake = partial(UserError, file=file, field=f"line {number}")
            image_id, *fields = line.strip().rsplit(maxsplit=5) or [""]
            try:
                score, xmin, ymin, xmax, ymax = map(float, fields)
            except ValueError:
                problem = f"{line[:80]!r} is not a detection"
                raise mistake(problem, fix="write: id score xmin ymin xmax ymax") from None
            if not all(map(_fits, (score, xmin, ymin, xmax, ymax))):
                raise mistake("a number is not finite", fix="give finite numbers")
            if xmax < xmin - 1 or ymax < ymin - 1:
                raise mistake("the box ends before it begins", fix="swap its sides")
            if image_id not in indices:
                raise mistake(f"the image {image_id!r:.80} is not in the dataset", fix="give the results of this split")
            rows.append((indices[image_id], label, score, xmin - 1, ymin - 1, xmax, ymax))
    return _by_image(rows, len(ids))


def _voc_file(split: str, name: str) -> str:
    """Return the name of the file of a class, without the competition's prefix."""
    return f"det_{file_name(split)}_{file_name(name)}.txt"


def _find_voc_file(path: Path, name: str) -> Path:
    """Return the file of a class, with whatever prefix, in a folder; or the one that lies beside a file of another."""
    if path.is_file():
        return path.with_name(path.name.partition("det_")[0] + name)
    files = sorted(path.glob(f"*{glob.escape(name)}"))
    if len(files) > 1:
        problem = f"holds both {files[0].name} and {files[1].name}"
        raise UserError(problem, file=path, fix="name a file of those that are meant")
    return files[0] if files else path / f"comp4_{name}"


def _rows(detections: _Detections, ids: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    """Yield id, label, score, x1, y1, x2, y2 of every detection."""
    for image_id, detection in zip(ids, detections, strict=True):
        columns = (torch.as_tensor(detection[key]).tolist() for key in ("labels", "scores", "boxes"))
        for label, score, (x1, y1, x2, y2) in zip(*columns, strict=True):
            yield image_id, label, score, x1, y1, x2, y2


def _by_image(rows: Sequence[_Row], count: int) -> list[Detection]:
    """Group rows by their image, each group in the order of the rows."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    images = table[:, 0].astype(np.int64)
    table = table[np.argsort(images, kind="stable")]
    counts = np.bincount(images, minlength=count).tolist()
    return [
        {"boxes": image[:, 3:].float(), "labels": image[:, 1].long(), "scores": image[:, 2].float()}
        for image in torch.split(torch.from_numpy(table), counts)
    ]


def _read_text(path: Path | str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=path, fix="name a file of detections") from error
    except UnicodeDecodeError as error:
        raise UserError("is not text", file=path, fix="save it as UTF-8") from error


def _fits(number: object) -> bool:
    """Tell whether this is a number that float32 can hold."""
    return isinstance(number, int | float) and -_LARGEST <= number <= _LARGEST
