"""The table of subsets as it stands on a screen of 80 columns."""

import io
import math

from rich.console import Console

from afrcnn.evaluation.subsets import SubsetResult
from afrcnn.reporting.subset_table import subset_table


def test_every_subset_has_one_row_in_80_columns():
    def result(ap):
        return SubsetResult(
            objects={"cat": 3000, "dog": 12},
            mean_ap={"11-point": ap, "area": 0.5},
            ap={"11-point": {"cat": ap, "dog": ap}, "area": {"cat": 0.5, "dog": 0.5}},
            recall=0.25,
            confident_recall=math.nan,
        )

    file = io.StringIO()
    Console(file=file, width=80).print(subset_table({"in the open": result(0.123), "[x]" + "y" * 40: result(1)}))
    lines = [line.replace("│", " ").split() for line in file.getvalue().splitlines()]
    assert ["in", "the", "open", "3012", "12.3", "50.0", "25.0", "-"] in lines
    assert max(map(len, file.getvalue().splitlines())) <= 80
    assert sum(word.count("y") for line in lines for word in line if "yy" in word) == 40
