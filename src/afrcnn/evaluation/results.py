"""Results of an evaluation: AP and recall on a split; ``results.json``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from torch import Tensor

from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.core.schema import SchemaError, checked, parse_json
from afrcnn.data.target import DetectionDataset
from afrcnn.evaluation.coco_ap import evaluate_coco
from afrcnn.evaluation.matching import Images, Matches, match
from afrcnn.evaluation.subsets import SubsetResult, subset_ap
from afrcnn.evaluation.voc_ap import Metric

_T = TypeVar("_T")

COCO_METRIC = "COCO"
"""The third of the metrics of AP at one IoU: COCOeval's, at 0.5 (MultiPathNet's, whichever the paper's tables are)."""

_OLD_SUBSETS = {"in the open": "unoccluded"}
"""Names of subsets in files of earlier versions."""


@dataclass(frozen=True)
class Results:
    """The results of one evaluation; ``results.json`` holds the same fields, with null for NaN.

    Attributes:
        images: number of images.
        detections: number of detections.
        iou_threshold: IoU that a hit of VOC's AP exceeds.
        objects: by class, the number of objects that VOC's AP counts.
        mean_ap: mean AP in [0, 1] by metric: VOC's ``11-point`` and ``area``, and ``COCO``, COCOeval's at 0.5.
        ap: AP in [0, 1] by metric and class; NaN for a class without objects.
        coco: COCO's twelve numbers in [0, 1], named as in ``afrcnn.evaluation.coco_ap``; NaN where there are no
            objects to find.
        subsets: by name, AP and recall on subsets of the objects; empty where not asked for.
        split: the split that was evaluated on; empty where it has no name.
    """

    images: int
    detections: int
    iou_threshold: float
    objects: dict[str, int]
    mean_ap: dict[str, float]
    ap: dict[str, dict[str, float]]
    coco: dict[str, float]
    subsets: dict[str, SubsetResult] = field(default_factory=dict)
    split: str = ""

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Results:
        """Return the results that a record of ``results.json`` holds, also one of an earlier version.

        Raises:
            SchemaError: it is not such a record.
        """
        results = checked(record, cls)
        results.mean_ap.setdefault(COCO_METRIC, results.coco.get("AP50", math.nan))
        for metric in {*get_args(Metric), *results.ap}:
            if metric not in results.mean_ap or results.ap.get(metric, {}).keys() != results.objects.keys():
                raise SchemaError(f"mean_ap or ap: {metric} is missing, or of other classes than objects")
        if "AP" not in results.coco:
            raise SchemaError("AP is missing", "coco")
        for of_subset in results.subsets.values():
            if absent := [metric for metric in get_args(Metric) if metric not in of_subset.mean_ap]:
                raise SchemaError(f"subsets: mean_ap: {absent[0]} is missing")
        by_name = {_OLD_SUBSETS.get(name, name): result for name, result in results.subsets.items()}
        return replace(results, subsets=by_name)


def evaluate_detections(
    detections: Images,
    dataset: DetectionDataset,
    *,
    iou_threshold: float = 0.5,
    subsets: Mapping[str, Sequence[Tensor]] | None = None,
    matches: Matches | None = None,
) -> Results:
    """Compare detections with a dataset's objects, by VOC's AP and by COCO's numbers.

    Args:
        detections: for each image of the dataset, in its order: ``boxes`` D x 4 (XYXY, pixels), ``labels`` D
            (1..K), ``scores`` D.
        dataset: the images' objects, in VOC or COCO layout.
        iou_threshold: IoU in [0, 1] that a hit of VOC's AP exceeds; COCO's numbers have their own.
        subsets: the subsets of the objects to look at, by name, as of ``afrcnn.evaluation.subsets``.
        matches: of the detections with the objects, where they are known; their IoU takes the place of the other.

    Returns:
        The results.

    Raises:
        ValueError: there are not as many images as detections.
    """
    targets = [dataset.target(index) for index in range(len(dataset))]
    matches = matches or match(detections, targets, dataset.classes, iou_threshold)
    total, coco = subset_ap(matches), evaluate_coco(detections, targets, dataset.classes, dataset.ids)
    return Results(
        images=len(targets),
        detections=len(matches.scores),
        iou_threshold=matches.iou_threshold,
        objects=total.objects,
        mean_ap=total.mean_ap | {COCO_METRIC: coco.numbers["AP50"]},
        ap=total.ap | {COCO_METRIC: coco.ap50},
        coco=coco.numbers,
        subsets={name: subset_ap(matches, members) for name, members in (subsets or {}).items()},
    )


def read_results(path: Path | str) -> Results:
    """Read ``results.json``, as ``write_record`` wrote it.

    Raises:
        UserError: the file is missing or is not such a file.
    """
    fix = "name a results.json that `afrcnn evaluate` wrote"
    return read_record(path, Results.from_record, "holds no results", fix)


def write_record(path: Path | str, record: Any, indent: int | None = 2) -> None:
    """Write nested dataclasses, mappings and sequences as JSON, with null for NaN.

    Raises:
        UserError: the file cannot be written.
    """
    text = json.dumps(_replace(record, math.nan, None), indent=indent, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as file:
        # A file's name that is not UTF-8 has characters that only JSON's own way of writing them can hold.
        file.write(re.sub("[\ud800-\udfff]", lambda half: json.dumps(half[0])[1:-1], text) + "\n")


def read_record(path: Path | str, build: Callable[[Any], _T], problem: str, fix: str) -> _T:
    """Return what ``build`` makes of a file of ``write_record``.

    Raises:
        UserError: the file cannot be read; or it is not JSON or ``build`` raises SchemaError, which is the
            ``problem``.
    """
    try:
        return build(_replace(parse_json(Path(path).read_bytes()), None, math.nan))
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=path, fix=fix) from error
    except (SchemaError, RecursionError) as error:
        raise UserError(f"{problem} ({error})", file=path, fix=fix) from error


def _replace(value: Any, old: float | None, new: float | None) -> Any:
    """Return nested mappings and sequences with NaN where there was None, or the other way round."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {key: _replace(item, old, new) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace(item, old, new) for item in value]
    same = value is None if old is None else isinstance(value, float) and math.isnan(value)
    return new if same else value
