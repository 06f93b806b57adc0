"""The table of APs as it stands on a screen of 80 columns."""

import io

from rich.console import Console

from afrcnn.evaluation.results import Results
from afrcnn.reporting.table import ap_table

COCO = {"AP": 0.25, "AP50": 0.5, "AP75": float("nan")}


def render(classes, width=80):
    results = Results(
        images=4952,
        detections=495200,
        iou_threshold=0.5,
        objects={name: 1000 + i for i, name in enumerate(classes)},
        mean_ap={"11-point": 0.6812, "area": 0.6956},
        ap={
            "11-point": {name: i / 100 for i, name in enumerate(classes)},
            "area": {name: float("nan") if i == 1 else i / 50 for i, name in enumerate(classes)},
        },
        coco=COCO,
    )
    file = io.StringIO()
    Console(file=file, width=width).print(ap_table(results))
    return file.getvalue().splitlines()


def row(lines, name):
    return next(line.replace("│", " ").replace("┃", " ").split() for line in lines if name in line)


def test_every_class_has_one_row_and_the_mean_is_below():
    lines = render([f"class{i:02}" for i in range(50)])
    assert row(lines, "class07") == ["class07", "1007", "7.0", "14.0"]
    assert sum("class" in line for line in lines) == 51  # 50 classes and the heading
    assert row(lines, "mean") == ["mean", "51225", "68.1", "69.6"]
    assert any("AP 25.0  AP50 50.0  AP75 -" in line for line in lines)


def test_a_class_without_objects_has_a_dash():
    assert row(render(["cat", "dog"]), "dog") == ["dog", "1001", "1.0", "-"]


def test_long_names_and_markup_fit_into_80_columns_without_loss():
    names = ["x" * 100, "[bold]cat[/bold]"]
    lines = render(names)
    assert max(map(len, lines)) <= 80
    assert sum(line.count("x") for line in lines) == 100
    assert any("[bold]cat[/bold]" in line for line in lines)
