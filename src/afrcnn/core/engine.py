"""The engine: Lightning Fabric on devices and in a precision."""

from __future__ import annotations

from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from afrcnn.core.errors import UserError


def build_fabric(accelerator: str = "auto", devices: int = 1, nodes: int = 1, precision: str = "32-true") -> Fabric:
    """Return Fabric on some devices.

    Args:
        accelerator: kind of device: auto, cpu, gpu, ...
        devices: processes on each machine, a device each.
        nodes: machines.
        precision: arithmetic of forward and backward passes, as ``bf16-mixed``.

    Raises:
        UserError: this machine has no such devices, or they cannot compute in that precision.
    """
    try:
        return Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, precision=precision)  # type: ignore[arg-type]
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        problem = str(error).rstrip("!.")
        fix = "choose what this machine has, as --engine.accelerator cpu"
        raise UserError(problem, field="engine", fix=fix) from error
