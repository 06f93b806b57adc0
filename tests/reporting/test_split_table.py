"""What a split put where, as it stands on the screen."""

import io
from pathlib import Path

from rich.console import Console

from afrcnn.data.splits import OcclusionSplit
from afrcnn.reporting.split_table import split_table


def test_each_class_has_one_row_with_its_objects_in_both_splits():
    splits = [
        OcclusionSplit("unoccluded", Path("a"), ["1", "2"], {"cat": 3, "[dog]": 4}, {"cat": 0, "[dog]": 0}),
        OcclusionSplit("occluded", Path("b"), ["3"], {"cat": 5, "[dog]": 6}, {"cat": 2, "[dog]": 1}),
    ]
    file = io.StringIO()
    Console(file=file, width=80).print(split_table(splits))
    lines = [line.replace("│", " ").replace("┃", " ").split() for line in file.getvalue().splitlines()]
    assert ["cat", "3", "(0)", "5", "(2)"] in lines
    assert ["[dog]", "4", "(0)", "6", "(1)"] in lines
    assert ["all", "7", "(0)", "11", "(3)"] in lines
    assert ["class", "2", "images", "1", "images"] in lines or ["2", "images", "1", "images"] in lines
