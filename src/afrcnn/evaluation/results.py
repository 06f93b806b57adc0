"""Results of an evaluation: AP and recall on a split; ``results.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.data.target import DetectionDataset
from afrcnn.evaluation.coco_ap import evaluate_coco
from afrcnn.evaluation.matching import Images, Matches, match
from afrcnn.evaluation.subsets import SubsetResult, subset_ap

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
        """Return the results that a record of ``results.json`` holds, also one of an earlier version."""
        record["mean_ap"].setdefault(COCO_METRIC, record["coco"].get("AP50", math.nan))
        subsets = record.get("subsets", {}).items()
        by_name = {_OLD_SUBSETS.get(name, name): SubsetResult(**result) for name, result in subsets}
        return cls(**record | {"subsets": by_name})


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
    content = _replace(record, math.nan, None)
    with atomic_write(path) as file:
        json.dump(content, file, indent=indent, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def read_record(path: Path | str, build: Callable[[Any], _T], problem: str, fix: str) -> _T:
    """Return what ``build`` makes of a file of ``write_record``.

    Raises:
        UserError: the file cannot be read; or it is not JSON or not what ``build`` expects, which is the ``problem``.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return build(_replace(content, None, math.nan))
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=path, fix=fix) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(problem, file=path, fix=fix) from error


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
