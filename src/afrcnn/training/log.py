"""The log of a training: a CSV file and TensorBoard, continued without gaps or repeats when a run is resumed."""

from __future__ import annotations

import csv
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from afrcnn.atomic import atomic_write, writing


class Log:
    """Appends a row of numbers at an iteration.

    Args:
        file: the CSV file; rows of iterations after ``iteration`` are dropped.
        tensorboard: the folder of TensorBoard's events.
        iteration: how many iterations are done already.

    Raises:
        UserError: the log cannot be written.
    """

    def __init__(self, file: Path, tensorboard: Path, iteration: int = 0) -> None:
        self.file = file
        if file.is_file():
            with file.open(encoding="utf-8", newline="") as lines:
                rows = [row for row in csv.reader(lines) if row]
            # What was logged after the checkpoint is done, and logged, again; the last row may have been cut short.
            whole = [row for row in rows[1:] if len(row) == len(rows[0]) and row[0].isdigit()]
            kept = rows[:1] + [row for row in whole if int(row[0]) <= iteration]
            with atomic_write(file) as lines:
                csv.writer(lines).writerows(kept if len(kept) > 1 else [])
        self.tensorboard = tensorboard
        with writing(tensorboard):
            self.writer = SummaryWriter(str(tensorboard), purge_step=iteration + 1)

    def write(self, iteration: int, values: dict[str, float]) -> None:
        """Log ``values`` as they are after ``iteration`` updates.

        Raises:
            UserError: the log cannot be written.
        """
        new = not self.file.is_file() or self.file.stat().st_size == 0
        with writing(self.file), self.file.open("a", encoding="utf-8", newline="") as lines:
            rows = csv.writer(lines)
            if new:
                rows.writerow(["iteration", *values])
            rows.writerow([iteration, *(f"{value:.6g}" for value in values.values())])
        with writing(self.tensorboard):
            for name, value in values.items():
                self.writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        """Write out what TensorBoard still holds back."""
        with writing(self.tensorboard):
            self.writer.close()
