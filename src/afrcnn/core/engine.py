"""The engine: Lightning Fabric on the devices and in the precision of a recipe."""

from __future__ import annotations

from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from afrcnn.core.errors import UserError
from afrcnn.recipe import EngineRecipe


def build_fabric(engine: EngineRecipe) -> Fabric:
    """Return Fabric on the devices of a recipe.

    Raises:
        UserError: this machine has no such devices, or they cannot compute in that precision.
    """
    try:
        return Fabric(
            accelerator=engine.accelerator,
            devices=engine.devices,
            num_nodes=engine.nodes,
            precision=engine.precision,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        problem = str(error).rstrip("!.")
        fix = "choose what this machine has, as --engine.accelerator cpu"
        raise UserError(problem, field="engine", fix=fix) from error
