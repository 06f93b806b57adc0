"""Validation: AP on images that are not trained on, while a detector is trained, and the weights of the highest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from afrcnn.core.engine import in_first_process
from afrcnn.core.errors import UserError
from afrcnn.core.schema import SchemaError, checked
from afrcnn.data.target import DetectionDataset
from afrcnn.evaluation.detect import detect
from afrcnn.evaluation.f1 import score_of_best_f1
from afrcnn.evaluation.matching import match
from afrcnn.evaluation.voc_ap import voc_ap
from afrcnn.recipe import Recipe
from afrcnn.training.stages import Stage


@dataclass(frozen=True)
class _Measured:
    """What a validation knows from one measurement to the next, and from a checkpoint.

    Attributes:
        best: the highest AP in the stage that counts, in [0, 1]; below 0 before the first measurement.
        since_best: how many measurements there were since.
        score: the score of best F1 at the last measurement; None where there was none, or nothing was right.
    """

    best: float = -1.0
    since_best: int = 0
    score: float | None = None


class Validation:
    """Measures VOC's AP (by area, at an IoU of 0.5) while a detector is trained; it changes nothing in the training.

    The last stage that trains the detector counts: its best weights are kept, and its patience is heard.

    Args:
        fabric: the processes, each of which must call what is called in one.
        recipe: says when it measures.
        images: what it measures on; None where it never does.
        keep: writes the weights, given the score of best F1.
    """

    def __init__(
        self,
        fabric: Fabric,
        recipe: Recipe,
        images: DetectionDataset | None,
        keep: Callable[[nn.Module, float | None], None],
    ) -> None:
        self._fabric, self._images, self._keep, self._workers = fabric, images, keep, recipe.data.workers
        self._every, self._patience = recipe.evaluate_every, recipe.patience
        self._counts = "joint" if recipe.joint.iterations else "detector"
        self._measured = _Measured()

    @property
    def score(self) -> float | None:
        """The score of best F1, all classes together, of the last measurement."""
        return self._measured.score

    def is_due(self, stage: Stage, done: int) -> bool:
        """Tell whether AP is to be measured after so many updates of a stage."""
        due = done % self._every == 0 or done == stage.schedule.iterations
        return self._images is not None and stage.name != "pretraining" and due

    def is_exhausted(self, stage: Stage) -> bool:
        """Tell whether a stage is to end, since its AP has not risen for as long as there is patience."""
        impatient = self._patience is not None and self._measured.since_best >= self._patience
        return stage.name == self._counts and impatient

    def measure(self, detector: nn.Module, stage: Stage, done: int) -> float:
        """Measure AP, keep the weights where it is the highest, and say so.

        Args:
            detector: the detector; it is left as it was, and so are random numbers.
            stage: the stage that trains it.
            done: how many updates of the stage are made.

        Returns:
            AP, in [0, 1].

        Raises:
            UserError: an image is at fault, or the weights cannot be written.
        """
        assert self._images is not None
        images = self._images
        devices = [self._fabric.device] if self._fabric.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # of which a detector of another class than ours may take some
            detections = detect(detector, images, fabric=self._fabric, workers=self._workers, quiet=True)
        matches = match(detections, [images.target(index) for index in range(len(images))], images.classes)
        ap, score, before = voc_ap(matches, "area").mean_ap, score_of_best_f1(matches), self._measured
        counts = stage.name == self._counts
        highest = counts and ap > before.best
        self._measured = _Measured(
            ap if highest else before.best, before.since_best + 1 if counts and not highest else 0, score
        )
        if highest:
            in_first_process(self._fabric, lambda: self._keep(detector, score))
        if self._fabric.is_global_zero:
            note = ", the highest so far" if highest else ""
            print(f"AP:      {ap:.3f} in validation after {stage.first + done} iterations{note}", flush=True)
        return ap

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it."""
        return asdict(self._measured)

    def restore(self, state: Mapping[str, Any], file: Path) -> None:
        """Bring it to where a checkpoint was saved.

        Raises:
            UserError: the checkpoint, ``file``, holds something else.
        """
        try:
            self._measured = checked(state, _Measured)
        except SchemaError as error:
            problem, fix = f"is not a valid checkpoint ({error})", "delete it to train from the beginning"
            raise UserError(problem, file=file, field="validation", fix=fix) from error
