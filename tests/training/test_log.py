"""The log: every iteration once, whatever was interrupted."""

import csv

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from afrcnn.core.errors import UserError
from afrcnn.training.log import Log


def read(file):
    with file.open(newline="") as lines:
        return list(csv.reader(lines))


def write(folder, iterations, start=0):
    log = Log(folder / "log.csv", folder / "tensorboard", start)
    for iteration in iterations:
        log.write(iteration, {"loss": iteration / 3, "rate": 0.001})
    log.close()


def test_a_row_holds_the_iteration_and_its_values(tmp_path):
    write(tmp_path, [10, 20])
    assert read(tmp_path / "log.csv") == [
        ["iteration", "loss", "rate"],
        ["10", "3.33333", "0.001"],
        ["20", "6.66667", "0.001"],
    ]


@pytest.mark.parametrize("start", [0, 10, 15, 30])
def test_what_comes_after_the_checkpoint_is_logged_again_and_stands_there_once(start, tmp_path):
    write(tmp_path, [10, 20, 30])
    write(tmp_path, [iteration for iteration in (10, 20, 30, 40) if iteration > start], start)
    assert [row[0] for row in read(tmp_path / "log.csv")] == ["iteration", "10", "20", "30", "40"]


@pytest.mark.parametrize("cut", ["ite", "iteration,loss,rate\n1", "iteration,loss,rate\n10,3.3,0.001\n2"])
def test_a_row_that_a_kill_cut_short_is_dropped(cut, tmp_path):
    (tmp_path / "log.csv").write_text(cut)
    start = 10 if "10," in cut else 5
    write(tmp_path, [iteration for iteration in (10, 20) if iteration > start], start)
    rows = read(tmp_path / "log.csv")
    assert [row[0] for row in rows] == ["iteration", "10", "20"] and {len(row) for row in rows} == {3}


def test_tensorboard_has_each_iteration_once(tmp_path):
    write(tmp_path, [10, 20, 30])
    (first,) = (tmp_path / "tensorboard").iterdir()
    first.rename(first.with_name("events.out.tfevents.0000000001.first"))  # files of one second have no order
    write(tmp_path, [20, 30, 40], start=10)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [10, 20, 30, 40]


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "tensorboard").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"tensorboard.*cannot be written"):
        Log(tmp_path / "log.csv", tmp_path / "tensorboard")
    (tmp_path / "log.csv").mkdir()
    log = Log(tmp_path / "log.csv", tmp_path / "events")
    with pytest.raises(UserError, match=r"log\.csv.*cannot be written"):
        log.write(1, {"loss": 1.0})
    log.close()


def test_without_tensorboard_there_is_the_file_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("afrcnn.training.log.find_spec", lambda name: None)
    log = Log(tmp_path / "log.csv", tmp_path / "tensorboard")
    log.write(1, {"loss": 0.5})
    log.close()
    assert (tmp_path / "log.csv").read_text().splitlines() == ["iteration,loss", "1,0.5"]
    assert not (tmp_path / "tensorboard").exists()


def test_a_log_that_is_no_text_is_named(tmp_path):
    (tmp_path / "log.csv").write_bytes(b"iteration,loss\n1,\xff\n")
    with pytest.raises(UserError, match=r"log\.csv: is not a log"):
        Log(tmp_path / "log.csv", tmp_path / "tensorboard")
