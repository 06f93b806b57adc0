"""TIDE's six errors (Bolya et al., ECCV 2020), through hotcoco where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from afrcnn.evaluation.coco_ap import coco_content
from afrcnn.evaluation.matching import Images

_ERRORS = {
    "Cls": "class",
    "Loc": "localisation",
    "Both": "class and localisation",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
}
"""hotcoco's names of the errors, and ours."""


@dataclass(frozen=True)
class TideErrors:
    """What TIDE says of detections.

    Attributes:
        ap: COCO's AP at an IoU of 0.5, in [0, 1].
        counts: by error, how many there are.
        gains: by error, the AP in [0, 1] that mending all of them would add.
    """

    ap: float
    counts: dict[str, int]
    gains: dict[str, float]


def tide_errors(
    detections: Images, targets: Images, classes: Sequence[str], ids: Sequence[str] = ()
) -> TideErrors | None:
    """Return TIDE's six errors, at its thresholds of 0.5 and 0.1; None where hotcoco is not installed.

    Arguments and errors are those of ``afrcnn.evaluation.coco_ap.evaluate_coco``; what is difficult counts as a crowd.
    """
    if find_spec("hotcoco") is None:
        return None
    hotcoco = import_module("hotcoco")
    content, records = coco_content(detections, targets, classes, ids)
    truth = hotcoco.COCO(content)
    evaluation = hotcoco.COCOeval(truth, truth.load_res(records), "bbox")
    evaluation.evaluate()
    errors = evaluation.tide_errors()
    counts, gains = ({name: errors[key][short] for short, name in _ERRORS.items()} for key in ("counts", "delta_ap"))
    return TideErrors(errors["ap_base"], counts, gains)
