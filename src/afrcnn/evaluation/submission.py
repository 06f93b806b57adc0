"""Archives of detections for the evaluation servers of PASCAL VOC and COCO, checked by reading them back.

VOC's is that of its development kit's documentation (VOC 2012, sections 4.2 and 4.3): for each of the 20 classes a file
``results/VOC2012/Main/comp4_det_test_<class>.txt``, of lines ``image_id confidence xmin ymin xmax ymax``. COCO's is
that of cocodataset.org/#upload: ``detections_<split>_<name>_results.json`` in a zip of the same name, in no folder
there. The same detections give the same bytes.
"""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import IO, Any

from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.core.names import file_name
from afrcnn.core.schema import SchemaError, parse_json

_VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

_AGAIN = "write the detections anew with `afrcnn evaluate`"


@dataclass(frozen=True)
class Submission:
    """An archive that an evaluation server takes.

    Attributes:
        file: the archive.
        members: the names of the files in it, in order.
        images: the number of images of the split.
        detections: the number of detections.
        server: the address to upload it at.
    """

    file: Path
    members: tuple[str, ...]
    images: int
    detections: int
    server: str


def write_voc_archive(
    path: Path, folder: Path, split: str, ids: Sequence[str], classes: Sequence[str], *, competition: str, year: str
) -> Submission:
    """Write the archive that VOC's server takes, ``results.tar.gz``.

    Args:
        path: the archive to write.
        folder: holds ``comp4_det_<split>_<class>.txt`` of each class, as ``write_voc_results`` writes them.
        split: the split.
        ids: the ids of its images.
        classes: the classes of the detector: VOC's 20, in any order.
        competition: ``"comp4"``, or ``"comp3"`` for a detector that was trained on VOC's images alone (section 4.2).
        year: the name of the dataset, e.g. ``VOC2012``.

    Raises:
        UserError: the classes are others; a file is missing, or has a line that breaks the rules; or the archive cannot
            be written. What was at ``path`` is as it was then.
    """
    if odd := sorted(set(classes).symmetric_difference(_VOC_CLASSES)):
        problem, fix = f"the server takes VOC's 20 classes; {odd[0]!r} differs", "submit a run that was trained on VOC"
        raise UserError(problem, field="data.classes", fix=fix)
    sources = {
        f"results/{year}/Main/{competition}_det_{split}_{name}.txt": folder / f"comp4_det_{file_name(split)}_{name}.txt"
        for name in _VOC_CLASSES
    }
    with atomic_write(path, "w+b") as file:
        # No name, time or owner goes in, so that the same detections give the same bytes.
        with (
            gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            for name, source in sources.items():
                with _open(source) as lines:
                    member = tarfile.TarInfo(name)
                    member.size = source.stat().st_size
                    archive.addfile(member, lines)
        file.seek(0)
        detections = _check_voc_archive(file, sources, set(ids))
    server = "http://host.robots.ox.ac.uk:8080"
    return Submission(path, tuple(sources), len(ids), detections, server)


def write_coco_archive(
    path: Path, source: Path, split: str, name: str, ids: Sequence[str], category_ids: Sequence[int]
) -> Submission:
    """Write the archive that COCO's server takes, ``detections_<split>_<name>_results.zip``.

    Args:
        path: the archive to write.
        source: the detections, as ``write_coco_results`` writes them.
        split: the split, e.g. ``test-dev2017``.
        name: the name of the method.
        ids: the ids of the split's images, integers in decimal.
        category_ids: COCO's ids of the detector's classes.

    Raises:
        UserError: the file is missing, or has a record that breaks the rules; or the archive cannot be written. What
            was at ``path`` is as it was then.
    """
    member = zipfile.ZipInfo(f"detections_{split}_{name}_results.json", (1980, 1, 1, 0, 0, 0))
    member.compress_type, member.create_system, member.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
    with atomic_write(path, "w+b") as file:
        with (
            _open(source) as records,
            zipfile.ZipFile(file, "w") as archive,
            archive.open(member, "w", force_zip64=source.stat().st_size >= 2**31) as packed,
        ):
            shutil.copyfileobj(records, packed)
        file.seek(0)
        detections = _check_coco_archive(file, member.filename, source, set(map(int, ids)), set(category_ids))
    return Submission(path, (member.filename,), len(ids), detections, "https://cocodataset.org/#upload")


def _open(source: Path) -> IO[bytes]:
    try:
        return source.open("rb")
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=source, fix=_AGAIN) from error


def _check_voc_archive(file: IO[bytes], sources: Mapping[str, Path], ids: Collection[str]) -> int:
    """Refuse an archive that breaks the rules, by the line it came from; return the number of detections."""
    count = 0
    with tarfile.open(fileobj=file, mode="r:gz") as archive:
        members = archive.getmembers()
        assert [member.name for member in members if member.isfile()] == list(sources)
        for member in members:
            with io.TextIOWrapper(archive.extractfile(member) or io.BytesIO(), "utf-8", errors="replace") as lines:
                for number, line in enumerate(lines, start=1):
                    if problem := _mistake_of_line(line, ids):
                        raise UserError(problem, file=sources[member.name], field=f"line {number}", fix=_AGAIN)
                    count += 1
    return count


def _mistake_of_line(line: str, ids: Collection[str]) -> str | None:
    """Return what is wrong with a line of VOC's files, whose pixels count from 1 and include the last."""
    image_id, *fields = line.removesuffix("\n").split(" ")
    try:
        score, xmin, ymin, xmax, ymax = map(float, fields)
    except ValueError:
        return f"{line[:80]!r} is not `image_id confidence xmin ymin xmax ymax`"
    if image_id not in ids:
        return f"the image {image_id!r} is not in the split"
    if not all(map(isfinite, (xmin, ymin, xmax, ymax))):
        return "a number is not finite"
    if min(xmin, ymin) < 1 or xmax < xmin - 1 or ymax < ymin - 1:
        return f"{xmin:g} {ymin:g} {xmax:g} {ymax:g} is not a box of pixels from 1"
    return None if 0 <= score <= 1 else f"the confidence {score:g} is not in [0, 1]"


def _check_coco_archive(
    file: IO[bytes], name: str, source: Path, ids: Collection[int], category_ids: Collection[int]
) -> int:
    """Refuse an archive that breaks the rules, by the record it came from; return the number of detections."""
    mistake = partial(UserError, file=source, fix=_AGAIN)
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == [name]
        try:
            records = parse_json(archive.read(name))
        except SchemaError as error:
            raise mistake(f"is not valid JSON ({error})") from error
    if not isinstance(records, list):
        raise mistake("is not a list of detections")
    for number, record in enumerate(records):
        if problem := _mistake_of_record(record, ids, category_ids):
            raise mistake(problem, field=f"[{number}]")
    return len(records)


def _mistake_of_record(record: Any, ids: Collection[int], category_ids: Collection[int]) -> str | None:
    """Return what is wrong with a record of COCO's results."""

    def are_numbers(values: list[Any]) -> bool:
        return all(isinstance(value, int | float) and isfinite(value) for value in values)

    names = ("image_id", "category_id", "bbox", "score")
    if not isinstance(record, dict) or not all(name in record for name in names):
        return f"is not a record of {', '.join(names)}"
    image_id, category_id, box, score = (record[name] for name in names)
    if not isinstance(image_id, int) or image_id not in ids:
        return f"the image {image_id!r} is not in the split"
    if not isinstance(category_id, int) or category_id not in category_ids:
        return f"the category {category_id!r} is not in the dataset"
    if not (isinstance(box, list) and len(box) == 4 and are_numbers(box) and min(box[2:]) >= 0):
        return f"{box!r} is not a box of x, y, width, height"
    return None if are_numbers([score]) and 0 <= score <= 1 else f"the score {score!r} is not in [0, 1]"
