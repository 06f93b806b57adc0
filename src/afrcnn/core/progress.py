"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from afrcnn.core.terminal import printable


class _Report(Protocol):
    """Called with how much is done in all, and perhaps a short note on how it goes (the losses, say)."""

    def __call__(self, done: int, note: str = "", /) -> None: ...


_SECONDS_BETWEEN_LINES = 10.0


class _RateColumn(ProgressColumn):
    """How many items a second; the task's field ``unit`` is what they are."""

    def render(self, task: Task) -> Text:
        """Return the rate, once there is one."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {task.fields['unit']}/s" if speed else "", style="progress.data.speed")


@contextmanager
def progress(description: str, total: int, unit: str, *, done: int = 0, quiet: bool = False) -> Iterator[_Report]:
    """Show how far a piece of work is, with its rate and the time that remains, on standard error.

    Args:
        description: what is being done, in a word or two.
        total: how many items there are.
        unit: one item's name, as ``image``.
        done: how many are done already, when work is resumed.
        quiet: show nothing (in all processes but the first).
    """
    console, description = Console(stderr=True), printable(description)
    if quiet:
        yield lambda _done, _note="": None
    elif console.is_terminal:
        columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn(bar_width=16)]
        columns += [MofNCompleteColumn(), _RateColumn(), TimeRemainingColumn()]
        columns += [TextColumn("{task.fields[note]}", style="dim")]
        # The default, 30 s, would show no rate where reports are further apart than that.
        with Progress(*columns, console=console, speed_estimate_period=300) as bar:
            task = bar.add_task(escape(description), total=total, completed=done, note="", unit=unit)
            yield lambda done, note="": bar.update(task, completed=done, note=note)
    else:
        yield _plain_lines(description, total, unit, done)


def _plain_lines(description: str, total: int, unit: str, start: int) -> _Report:
    """Return a report that prints a line at most every few seconds, and at the end."""
    began = time.monotonic()
    printed = began

    def report(done: int, note: str = "") -> None:
        nonlocal printed
        now = time.monotonic()
        if done < total and now - printed < _SECONDS_BETWEEN_LINES:
            return
        printed = now
        rate = (done - start) / max(now - began, 1e-9)
        remaining = timedelta(seconds=round((total - done) / rate)) if rate > 0 else "?"
        line = f"{description} {done}/{total}  {rate:.1f} {unit}/s  {remaining} left  {note}"
        print(line.rstrip(), file=sys.stderr, flush=True)

    return report
