"""The log of a training: a CSV file and TensorBoard, continued without gaps or repeats when a run is resumed."""

from __future__ import annotations

import csv
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from afrcnn.atomic import atomic_write


class Log:
    """Appends a row of numbers at an iteration.

    Args:
        file: the CSV file; rows of iterations after ``iteration`` are dropped.
        tensorboard: the folder of TensorBoard's events.
        iteration: how many iterations are done already.
    """

    def __init__(self, file: Path, tensorboard: Path, iteration: int = 0) -> None:
        self.file = file
        if file.is_file():
            with file.open(encoding="utf-8", newline="") as lines:
                rows = [row for row in csv.reader(lines) if row]
            # What was logged after the checkpoint is done, and logged, again.
            kept = rows[:1] + [row for row in rows[1:] if row[0].isdigit() and int(row[0]) <= iteration]
            with atomic_write(file) as lines:
                csv.writer(lines).writerows(kept if len(kept) > 1 else [])
        self.writer = SummaryWriter(str(tensorboard), purge_step=iteration + 1)

    def write(self, iteration: int, values: dict[str, float]) -> None:
        """Log ``values`` as they are after ``iteration`` updates."""
        new = not self.file.is_file() or self.file.stat().st_size == 0
        with self.file.open("a", encoding="utf-8", newline="") as lines:
            rows = csv.writer(lines)
            if new:
                rows.writerow(["iteration", *values])
            rows.writerow([iteration, *(f"{value:.6g}" for value in values.values())])
        for name, value in values.items():
            self.writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        """Write out what TensorBoard still holds back."""
        self.writer.close()
