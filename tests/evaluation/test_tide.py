"""TIDE's six errors, each in an image made by hand."""

import sys

import pytest

from afrcnn.evaluation.coco_ap import evaluate_coco
from afrcnn.evaluation.tide import tide_errors
from reference import found, truth

CLASSES = ["cat", "dog"]
OBJECT, PART, FAR = [100, 100, 200, 200], [100, 100, 200, 130], [300, 300, 400, 400]
IMAGES = {
    "class": found([OBJECT], [0.9], [2]),
    "localisation": found([PART], [0.9]),
    "class and localisation": found([PART], [0.9], [2]),
    "duplicate": found([OBJECT, OBJECT], [0.9, 0.8]),
    "background": found([OBJECT, FAR], [0.9, 0.8]),
    "missed": found([], []),
}


@pytest.mark.parametrize("error", IMAGES)
def test_one_image_of_each_error(error):
    pytest.importorskip("hotcoco")
    detections, targets = [IMAGES[error], found([OBJECT], [0.1])], [truth([OBJECT]), truth([OBJECT])]
    errors = tide_errors(detections, targets, CLASSES)
    missed = error in {"class and localisation", "missed"}  # both leave the object without any detection
    assert errors.counts == dict.fromkeys(IMAGES, 0) | {error: 1} | ({"missed": 1} if missed else {})
    assert errors.ap == pytest.approx(evaluate_coco(detections, targets, CLASSES).numbers["AP50"], abs=1e-9)
    assert errors.gains[error] >= 0


def test_what_is_difficult_is_neither_missed_nor_background():
    pytest.importorskip("hotcoco")
    errors = tide_errors([found([OBJECT], [0.9])], [truth([OBJECT, FAR], difficult=[False, True])], CLASSES)
    assert (errors.ap, sum(errors.counts.values())) == (pytest.approx(1), 0)


def test_without_hotcoco_there_is_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    monkeypatch.setattr("afrcnn.evaluation.tide.find_spec", lambda name: None)
    assert tide_errors([found([], [])], [truth([OBJECT])], CLASSES) is None
