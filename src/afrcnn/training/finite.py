"""Refusing losses and weights that are not finite, before they reach a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from afrcnn.core.distributed import gather, sum_over_processes
from afrcnn.core.errors import UserError
from afrcnn.data.target import Target
from afrcnn.run import Run


class FiniteGuard:
    """Stops all processes of a stage at the first loss that is not finite.

    On the CPU that is before its update. Elsewhere, where every look at a number waits for the device, it is when
    ``check`` is called: before a line of the log and before a checkpoint.

    Args:
        run: whose training it is.
        section: the recipe's section of the stage.
    """

    def __init__(self, run: Run, section: str) -> None:
        self.run, self.section = run, section
        self.unchecked: list[tuple[int, Tensor, Sequence[Target]]] = []

    def watch(self, iteration: int, loss: Tensor, targets: Sequence[Target]) -> None:
        """Note the loss (scalar) of an iteration, and its images.

        Raises:
            UserError: as of ``check``.
        """
        self.unchecked.append((iteration, loss.detach(), targets))
        if loss.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Look at the losses that were noted since the last time.

        Raises:
            UserError: one is infinite or not a number in some process; says which, and names its images.
        """
        if not self.unchecked:
            return
        values = torch.stack([loss for _, loss, _ in self.unchecked])
        wrong = sum_over_processes((~torch.isfinite(values)).float()).tolist()
        for (iteration, _, targets), processes in zip(self.unchecked, wrong, strict=True):
            if processes:
                raise self._error(f"the loss of iteration {iteration} is", targets)
        self.unchecked.clear()

    def check_weights(self, iteration: int, detector: nn.Module, targets: Sequence[Target]) -> None:
        """Look at the weights after an iteration, whose images ``targets`` name; losses are looked at before.

        Raises:
            UserError: a weight is infinite or not a number in some process.
        """
        norm = nn.utils.get_total_norm(detector.parameters())
        if sum_over_processes((~torch.isfinite(norm.detach())).float()) > 0:
            raise self._error(f"the weights after iteration {iteration} are", targets)

    def _error(self, what: str, targets: Sequence[Target]) -> UserError:
        """Return the error; all processes ask for it together."""
        ids = gather([target["image_id"] for target in targets])
        images = ", ".join(image_id for process in ids for image_id in process)
        written = self.run.checkpoint_file.is_file()
        state = "the last checkpoint remains" if written else "no checkpoint was written yet"
        return UserError(
            f"{what} not finite (images {images}); {state}",
            field=f"{self.section}.learning_rate",
            fix=f"lower it, or add {self.section}.warmup_iterations",
        )
