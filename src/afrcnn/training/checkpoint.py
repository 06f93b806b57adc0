"""Checkpoints and weights: files that restore a run or a detector, and that run no code when they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import torch
from lightning_fabric import Fabric
from msgspec import Meta
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from afrcnn.core.atomic import atomic_write
from afrcnn.core.distributed import gather
from afrcnn.core.errors import UserError
from afrcnn.core.schema import SchemaError, checked

_FORMAT = 2
"""Of checkpoints; those without any are of the first, which held other names."""

_BEGIN_ANEW = "delete it to train from the beginning"


class _State(TypedDict, total=False):
    """Types of what a checkpoint holds."""

    format: int
    iteration: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    detector: dict[str, Tensor]
    optimizer: dict[str, Any]
    precision: dict[str, Any]
    randomness: list[dict[str, Tensor]]
    unlogged: list[dict[str, Tensor]]
    validation: dict[str, Any]


NAMES = ("iteration", "detector", "optimizer", "precision", "randomness")
"""What a checkpoint of a training holds. Since it was defined also ``unlogged``, the losses since the last line of the
log, by process; and ``validation``, what it knows from one measurement to the next."""


def training_state(
    fabric: Fabric, iteration: int, detector: nn.Module, optimizer: Optimizer, unlogged: Mapping[str, Sequence[Tensor]]
) -> dict[str, Any]:
    """Return all that the next iteration depends on; every process must call this.

    Args:
        fabric: the engine.
        iteration: how many updates the run has made.
        detector: the detector; what else is trained is in the optimizer.
        optimizer: the stage's.
        unlogged: what this process measured since the last line of the log, by name.
    """
    cuda = fabric.device.type == "cuda"
    randomness = {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state(fabric.device)} if cuda else {})
    return {
        "iteration": iteration,
        "detector": detector.state_dict(),
        "optimizer": optimizer.state_dict(),
        "precision": fabric.strategy.precision.state_dict(),
        "randomness": gather(randomness),
        "unlogged": gather({name: torch.stack(list(values)).cpu() for name, values in unlogged.items()}),
    }


def restore_training(
    fabric: Fabric, saved: dict[str, Any], optimizer: Optimizer, file: Path
) -> dict[str, list[Tensor]]:
    """Bring optimizer and random numbers to where a checkpoint was saved, and return what was not logged yet.

    Raises:
        UserError: the checkpoint is of another number of processes, or its parts are not those of this training.
    """
    if len(saved["randomness"]) != fabric.world_size:
        raise UserError(
            f"was written by {len(saved['randomness'])} processes, not {fabric.world_size}",
            file=file,
            fix="go on with as many devices and nodes",
        )
    try:
        optimizer.load_state_dict(saved["optimizer"])
        fabric.strategy.precision.load_state_dict(saved["precision"])
        randomness = saved["randomness"][fabric.global_rank]
        torch.set_rng_state(randomness["cpu"])
        if fabric.device.type == "cuda":
            torch.cuda.set_rng_state(randomness["cuda"], fabric.device)
        unlogged = saved.get("unlogged", [{}] * fabric.world_size)[fabric.global_rank]
        return {name: list(values.to(fabric.device).unbind()) for name, values in unlogged.items()}
    except Exception as error:  # a damaged state fails wherever PyTorch first uses it
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"is not a checkpoint of this training ({problem})", file=file, fix=_BEGIN_ANEW) from error


def save_checkpoint(file: Path, state: dict[str, Any]) -> None:
    """Write the state of a run, atomically: tensors, numbers, strings, and lists and dictionaries of them.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_write(file, "wb") as stream:
        try:
            torch.save(state | {"format": _FORMAT}, stream)
        except RuntimeError as error:
            # The archive's writer covers what stopped it, a full disk or Ctrl-C, with an error of its own.
            raise (error.__context__ or error) from None


def load_checkpoint(file: Path, *names: str) -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote.

    Args:
        file: the checkpoint.
        names: what it must hold.

    Raises:
        UserError: the file is damaged, holds anything but plain data, lacks one of ``names``, or is of another version.
    """
    fix = _BEGIN_ANEW
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive raises whatever its reader stumbles over
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"is not a valid checkpoint ({problem})", file=file, fix=fix) from error
    try:
        checked(state, _State)
    except SchemaError as error:
        raise UserError(f"is not a valid checkpoint ({error})", file=file, fix=fix) from error
    missing = [name for name in names if not isinstance(state, dict) or name not in state]
    if missing or not isinstance(state, dict):
        raise UserError(f"is not a valid checkpoint ({' '.join(missing[:1])} is missing)", file=file, fix=fix)
    if state.pop("format", 1) != _FORMAT:
        fix = "finish that training with the version that began it, or delete the file to begin anew"
        raise UserError("was written by another version of afrcnn", file=file, fix=fix)
    return state


def save_weights(file: Path, module: nn.Module, description: dict[str, Any]) -> None:
    """Write a module's weights as safetensors, with a description (JSON) in the file's metadata."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in module.state_dict().items()}
    with atomic_write(file, "wb") as stream:
        stream.write(save(tensors, metadata={"afrcnn": json.dumps(description)}))
