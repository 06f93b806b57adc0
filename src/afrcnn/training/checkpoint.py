"""Checkpoints and weights: files that restore a run or a detector, and that run no code when they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError

_FORMAT = 2
"""Of checkpoints; those without any are of the first, which held other names."""


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
    fix = "delete it to train from the beginning"
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive raises whatever its reader stumbles over
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"is not a valid checkpoint ({problem})", file=file, fix=fix) from error
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
