"""The engine: Lightning Fabric on the devices and in the precision that are asked for."""

from __future__ import annotations

from typing import Literal

from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from afrcnn.core.errors import UserError

_Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


def build_fabric(
    accelerator: str = "auto", devices: int = 1, nodes: int = 1, precision: _Precision = "32-true"
) -> Fabric:
    """Return Fabric on devices.

    Args:
        accelerator: kind of device: auto, cpu, gpu, ...
        devices: processes on each machine, a device each.
        nodes: machines.
        precision: of forward and backward passes; weights are always float32.

    Raises:
        UserError: this machine has no such devices, or they cannot compute in that precision.
    """
    try:
        return Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, precision=precision)
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        problem = str(error).rstrip("!.")
        fix = "choose what this machine has, as --engine.accelerator cpu"
        raise UserError(problem, field="engine", fix=fix) from error
