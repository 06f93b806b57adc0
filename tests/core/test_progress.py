"""Progress: a bar on a terminal, plain lines elsewhere, nothing where it is not wanted."""

import io
import re
from functools import partial
from importlib import import_module

import pytest
from rich.console import Console

from afrcnn.core.progress import progress

module = import_module("afrcnn.core.progress")


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved on."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_tell_the_rate_what_remains_and_the_note(clock, capsys):
    with progress("training", 1000, "iteration", done=100) as report:
        clock[0] += 50
        report(200, "loss 1.234")
    out, err = capsys.readouterr()
    assert err == "training 200/1000  2.0 iteration/s  0:06:40 left  loss 1.234\n"
    assert not out


def test_plain_lines_are_few_and_the_last_comes_always(clock, capsys):
    with progress("detecting", 1000, "image") as report:
        for done in range(1, 1001):
            clock[0] += 0.1
            report(done, "")
    lines = capsys.readouterr().err.splitlines()
    assert 5 <= len(lines) <= 11
    assert lines[-1] == "detecting 1000/1000  10.0 image/s  0:00:00 left"


def test_a_line_before_any_progress_does_not_divide_by_nothing(clock, capsys):
    with progress("training", 10, "iteration", done=4) as report:
        clock[0] += 60
        report(4, "")
    assert "4/10  0.0 iteration/s  ? left" in capsys.readouterr().err


def test_quiet_shows_nothing(capsys):
    with progress("training", 3, "iteration", quiet=True) as report:
        report(3, "loss 1")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("description", "total", "unit", "note"),
    [("training", 86_380, "iteration", "loss 12.345"), ("detecting", 98_720, "image", "")],
)
def test_a_terminal_of_80_columns_gets_a_bar_that_fits(description, total, unit, note, monkeypatch):
    screen, now = io.StringIO(), [0.0]
    monkeypatch.delenv("COLUMNS", raising=False)
    terminal = partial(Console, file=screen, force_terminal=True, width=80, get_time=lambda: now[0])
    monkeypatch.setattr(module, "Console", terminal)
    with progress(description, total, unit) as report:
        for done in range(0, total + 1, 12_340):  # a report every 100 s
            report(done, note)
            now[0] += 100
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    lines = [line.strip() for line in re.split(r"[\r\n]+", plain) if line.strip()]
    assert all(len(line) <= 80 for line in lines)
    for part in (description, f"{total}/{total}", f"123.4 {unit}/s", "0:00:00"):
        assert part in lines[-1]
    assert lines[-1].endswith(note)
    assert "…" not in lines[-1]
