"""The engine: Lightning Fabric on the devices and in the precision that are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from afrcnn.core.distributed import gather
from afrcnn.core.errors import UserError

_T = TypeVar("_T")

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
        fix = "choose what this machine has, as --engine.devices 1 --engine.accelerator cpu"
        raise UserError(problem, field="engine", fix=fix) from error


def in_every_process(fabric: Fabric, work: Callable[[], _T]) -> list[_T]:
    """Do work in every process, and return in all of them what each made, in the order of their ranks.

    Where it fails in one process it fails in all, so that none waits for one that has stopped.

    Args:
        fabric: the processes, launched.
        work: what each does; it calls no other process.

    Raises:
        UserError: raised by the work, in this process or another.
        RuntimeError: the work raised another exception in another process; in this one, that exception is raised.
    """
    if fabric.world_size == 1:
        return [work()]
    made, failure = None, None
    try:
        made = work()
    except Exception as error:  # whatever it is, the others wait to hear of it
        failure = error
    # An exception of any kind may not survive the way to another process; the user's errors do.
    told = failure if isinstance(failure, UserError | None) else f"process {fabric.global_rank} failed: {failure!r}"
    outcomes = gather((made, told))
    if failure is not None:
        raise failure
    for _, problem in outcomes:
        if problem is not None:
            raise problem if isinstance(problem, UserError) else RuntimeError(problem)
    return [result for result, _ in outcomes]


def in_first_process(fabric: Fabric, work: Callable[[], object]) -> None:
    """Do work, as writing a file, in the first process, while the others wait; where it fails, it fails in all.

    Raises:
        UserError, RuntimeError: as of :func:`in_every_process`.
    """
    in_every_process(fabric, work if fabric.is_global_zero else lambda: None)
