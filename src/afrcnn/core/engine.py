"""The engine: one device by itself, or Lightning Fabric, in the precision that is asked for."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from afrcnn.core.distributed import gather
from afrcnn.core.errors import UserError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_T = TypeVar("_T")
_Module = TypeVar("_Module", bound=nn.Module)

_Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


class _OneDevice:
    """One process on one device: what of Fabric is needed where nothing is trained.

    Importing Fabric takes 0.3 s of processor time, and more where the disk is slow: a command that detects objects need
    not wait for it.

    Args:
        device: the device.
        precision: of forward passes, as Fabric's.
    """

    global_rank, world_size, is_global_zero = 0, 1, True

    def __init__(self, device: torch.device, precision: _Precision) -> None:
        self.device = device
        # As in Fabric, float16 on the CPU is bfloat16.
        half = torch.float16 if precision == "16-mixed" and device.type != "cpu" else torch.bfloat16
        self.dtype = torch.float32 if precision == "32-true" else half

    def launch(self) -> None:
        """Do nothing: the process is there."""

    def to_device(self, module: _Module) -> _Module:
        """Move a module to the device."""
        return module.to(self.device)

    def __call__(self, module: nn.Module, *inputs: Any) -> Any:
        """Return what a module makes of inputs in the precision; they stay as they are (see `_keep_inputs`)."""
        if self.dtype == torch.float32:
            return module(*inputs)
        with torch.autocast(self.device.type, dtype=self.dtype):
            outputs = module(*inputs)
        return _full_precision(outputs)


def _full_precision(data: Any) -> Any:
    """Return floating-point tensors, in lists and dictionaries, as float32."""
    if isinstance(data, Tensor):
        return data.to(torch.get_default_dtype()) if data.is_floating_point() else data
    if isinstance(data, list | tuple):
        return type(data)(_full_precision(item) for item in data)
    return {name: _full_precision(item) for name, item in data.items()} if isinstance(data, dict) else data


def _keep_inputs(fabric: Fabric) -> Fabric:
    """Let Fabric leave inputs as they are; in mixed precision, it would round all that are floating-point to 16 bits.

    Boxes are: in bfloat16, a coordinate between 256 and 512 pixels would be a multiple of 2, beyond that of 4. Autocast
    rounds what layers compute with, which is what mixed precision means.
    """
    precision: Any = fabric.strategy.precision
    precision.convert_input = lambda data: data
    return fabric


def build_fabric(
    accelerator: str = "auto", devices: int = 1, nodes: int = 1, precision: _Precision = "32-true"
) -> Fabric | _OneDevice:
    """Return the device of one process, or Fabric on several; to detect, not to train.

    Args:
        accelerator: kind of device: auto, cpu, gpu, ...
        devices: processes on each machine, a device each.
        nodes: machines.
        precision: of forward passes; weights are always float32.

    Raises:
        UserError: this machine has no such devices, or they cannot compute in that precision.
    """
    device = _device(accelerator) if devices == nodes == 1 else None
    if device is not None:
        return _OneDevice(device, precision)
    return build_training_fabric(accelerator, devices, nodes, precision)


def _device(accelerator: str) -> torch.device | None:
    """Return the device that Fabric would choose; None where it is left to Fabric, which may refuse it."""
    if accelerator == "cpu":
        return torch.device("cpu")
    if accelerator not in ("auto", "gpu", "cuda", "mps") or importlib.util.find_spec("torch_xla") is not None:
        return None
    mps = torch.backends.mps.is_available() and platform.processor() in ("arm", "arm64")
    for name, available in (("mps", mps), ("cuda", torch.cuda.is_available())):
        if available and accelerator in ("auto", "gpu", name):
            device = torch.device(name, 0)
            if name == "cuda":
                torch.cuda.set_device(device)
            return device
    return torch.device("cpu") if accelerator == "auto" else None


def build_training_fabric(
    accelerator: str = "auto", devices: int = 1, nodes: int = 1, precision: _Precision = "32-true"
) -> Fabric:
    """Return Fabric on one device or several; arguments and errors as of :func:`build_fabric`."""
    from lightning_fabric import Fabric  # noqa: PLC0415  for who trains, or has several devices
    from lightning_fabric.utilities.exceptions import MisconfigurationException  # noqa: PLC0415

    try:
        return _keep_inputs(Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, precision=precision))
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        problem = str(error).rstrip("!.")
        fix = "choose what this machine has, as --engine.devices 1 --engine.accelerator cpu"
        raise UserError(problem, field="engine", fix=fix) from error


def for_inference(fabric: Fabric | _OneDevice, module: nn.Module) -> Callable[..., Any]:
    """Return a module on the device of Fabric, called in its precision."""
    module = fabric.to_device(module)
    if isinstance(fabric, _OneDevice):
        return lambda *inputs: fabric(module, *inputs)
    from lightning_fabric.wrappers import _FabricModule  # noqa: PLC0415

    # Of `fabric.setup`, the precision alone: what is not trained needs no process to wait for the others.
    return _FabricModule(module, fabric.strategy)


def in_every_process(fabric: Fabric | _OneDevice, work: Callable[[], _T]) -> list[_T]:
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


def in_first_process(fabric: Fabric | _OneDevice, work: Callable[[], object]) -> None:
    """Do work, as writing a file, in the first process, while the others wait; where it fails, it fails in all.

    Raises:
        UserError, RuntimeError: as of :func:`in_every_process`.
    """
    in_every_process(fabric, work if fabric.is_global_zero else lambda: None)
