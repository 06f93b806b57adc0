"""The paper's own numbers, to be set beside those of runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import nan


@dataclass(frozen=True)
class PaperRow:
    """A row of the paper's tables.

    Attributes:
        method: the method, in the paper's words.
        network: its backbone.
        dataset: what it was tested on.
        where: the table or section.
        mean_ap: mean AP in [0, 1].
        ap: AP in [0, 1] by class; empty where the paper gives the mean alone.
        coco_ap: on COCO, AP over IoUs in [0, 1]; NaN elsewhere.
    """

    method: str
    network: str
    dataset: str
    where: str
    mean_ap: float
    ap: dict[str, float]
    coco_ap: float = nan


@cache
def paper_rows() -> tuple[PaperRow, ...]:
    """Return the rows of Tables 1 to 3, each once, and those of sections 5.2.1, 5.3 (AP at IoU 0.5) and 5.4."""
    facts = json.loads(files("afrcnn.reporting").joinpath("paper.json").read_text(encoding="utf-8"))
    rows: dict[tuple[float, ...], PaperRow] = {}
    for table in (name for name in facts if name.startswith("table")):
        where, dataset = f"Table {table[5]}", f"{table.split('_')[1].upper()} test"
        for fact in facts[table]:
            ap = {name: value / 100 for name, value in fact["AP"].items()}
            row = PaperRow(fact["method"], fact["arch"], dataset, where, fact["mAP"] / 100, ap)
            rows.setdefault(tuple(ap.values()), row)  # Table 2 repeats two of Table 1, one renamed
    text = []
    for fact in facts["text"]:
        dataset, where = fact["dataset"].replace("VOC ", "VOC"), f"section {fact['where']}"
        mean, coco = fact.get("mAP") or fact["AP50_voc_metric"], fact.get("AP_coco", nan)
        text.append(PaperRow(fact["method"], fact["arch"], dataset, where, mean / 100, {}, coco / 100))
    return (*rows.values(), *text)
