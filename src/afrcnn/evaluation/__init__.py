"""What detections are worth: VOC's and COCO's average precision, and the files of both."""

from afrcnn.evaluation.coco_ap import coco_ap
from afrcnn.evaluation.formats import (
    read_coco_results,
    read_voc_results,
    write_coco_results,
    write_voc_results,
)
from afrcnn.evaluation.results import Results, evaluate, read_results, write_results
from afrcnn.evaluation.subsets import SubsetResult, all_subsets, subset_ap, subsets
from afrcnn.evaluation.voc_ap import VOCResult, voc_ap

__all__ = [
    "Results",
    "SubsetResult",
    "VOCResult",
    "all_subsets",
    "coco_ap",
    "evaluate",
    "read_coco_results",
    "read_results",
    "read_voc_results",
    "subset_ap",
    "subsets",
    "voc_ap",
    "write_coco_results",
    "write_results",
    "write_voc_results",
]
