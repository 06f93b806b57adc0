"""The paper's numbers, as they are shipped."""

import json
from importlib.resources import files

import numpy as np
import pytest

from afrcnn.reporting.paper import paper_rows


def test_the_aps_of_a_row_are_twenty_and_agree_with_its_mean():
    rows = [row for row in paper_rows() if row.ap]
    assert len(rows) == 12 + 3 + 3  # Tables 1 and 3, and the rows of Table 2 that Table 1 lacks
    for row in rows:
        assert len(row.ap) == 20
        assert np.mean(list(row.ap.values())) == pytest.approx(row.mean_ap, abs=0.0006)


def test_they_are_the_facts_as_they_were_checked(shared):
    shipped = json.loads(files("afrcnn.reporting").joinpath("paper.json").read_text(encoding="utf-8"))
    checked = json.loads((shared / "paper" / "results.json").read_text(encoding="utf-8"))
    assert {**shipped, "source": ""} == {**checked, "source": ""}


def test_known_rows_are_found():
    rows = {(row.method, row.network, row.dataset): row.mean_ap for row in paper_rows()}
    known = {
        ("Ours (full)", "ResNet-101", "VOC2007 test"): 0.736,
        ("Ours (full)", "VGG16", "VOC2012 test"): 0.69,
        ("Ours (full)", "VGG16", "COCO minival"): 0.462,
        ("OHEM", "VGG16", "VOC2007 test"): 0.699,
    }
    assert {row: rows[row] for row in known} == pytest.approx(known)
