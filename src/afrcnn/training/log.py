"""The log of a training: a CSV file and TensorBoard, continued without gaps or repeats when a run is resumed."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from afrcnn.core.atomic import atomic_write, writing
from afrcnn.core.distributed import gather
from afrcnn.core.errors import UserError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Log:
    """Appends a row of numbers at an iteration.

    Args:
        file: the CSV file; rows of iterations after ``iteration`` are dropped.
        tensorboard: the folder of TensorBoard's events; nothing is written there where TensorBoard is not installed.
        iteration: how many iterations are done already.

    Raises:
        UserError: the log cannot be written, or is damaged.
    """

    def __init__(self, file: Path, tensorboard: Path, iteration: int = 0) -> None:
        self.file, self.columns = file, ["iteration"]
        if file.is_file():
            rows = [row for row in self._read() if row]
            # What was logged after the checkpoint is done, and logged, again; the last row may have been cut short.
            whole = [row for row in rows[1:] if len(row) == len(rows[0]) and row[0].isdigit()]
            kept = [row for row in whole if int(row[0]) <= iteration]
            if kept:
                self.columns = rows[0]
            self._rewrite(kept)
        self.tensorboard = tensorboard
        self.writer: SummaryWriter | None = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  as long to import as PyTorch

            with writing(tensorboard):
                self.writer = SummaryWriter(str(tensorboard), purge_step=iteration + 1)

    def write(self, iteration: int, values: Mapping[str, float | str]) -> None:
        """Log ``values`` as they are after ``iteration`` updates; a name that is new becomes a new column.

        Raises:
            UserError: the log cannot be written.
        """
        row = {"iteration": str(iteration)}
        row |= {name: value if isinstance(value, str) else f"{value:.6g}" for name, value in values.items()}
        if new := [name for name in row if name not in self.columns]:
            with writing(self.file):
                rows = self._rows()
            self.columns = self.columns + new
            self._rewrite([line + [""] * len(new) for line in rows])
        with writing(self.file), self.file.open("a", encoding="utf-8", newline="") as lines:
            csv.writer(lines).writerow([row.get(name, "") for name in self.columns])
        if self.writer is None:
            return
        with writing(self.tensorboard):
            for name, value in values.items():
                if not isinstance(value, str):
                    self.writer.add_scalar(name, value, iteration)

    def _rows(self) -> list[list[str]]:
        """Return what the file holds below its header."""
        return self._read()[1:] if self.file.is_file() else []

    def _read(self) -> list[list[str]]:
        try:
            with self.file.open(encoding="utf-8", newline="") as lines:
                return list(csv.reader(lines))
        except (OSError, ValueError, csv.Error) as error:
            problem, fix = f"is not a log ({error})", "remove it, to begin another"
            raise UserError(problem, file=self.file, fix=fix) from error

    def _rewrite(self, rows: list[list[str]]) -> None:
        """Write the file anew: a header, where there is more to say than the iteration, and rows."""
        with atomic_write(self.file) as lines:
            csv.writer(lines).writerows([self.columns, *rows] if len(self.columns) > 1 else [])

    def close(self) -> None:
        """Write out what TensorBoard still holds back."""
        if self.writer is not None:
            with writing(self.tensorboard):
                self.writer.close()


def mean_over_processes(values: Mapping[str, Sequence[Tensor]]) -> dict[str, float]:
    """Return the mean by name of what all processes have; some may have nothing under a name."""
    processes = gather({name: torch.stack(list(items)).tolist() for name, items in values.items()})
    names = dict.fromkeys(name for process in processes for name in process)
    return {name: fmean(chain.from_iterable(process.get(name, []) for process in processes)) for name in names}
