"""The engine that a recipe asks for, or one line that says why not."""

import pytest
import torch

from afrcnn.core.engine import build_fabric
from afrcnn.core.errors import UserError


def test_the_cpu_is_there():
    fabric = build_fabric("cpu")
    assert (fabric.device.type, fabric.world_size) == ("cpu", 1)


def test_an_unknown_accelerator_is_named():
    with pytest.raises(UserError, match=r"^engine: .*abacus.*--engine.accelerator cpu$"):
        build_fabric("abacus")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_the_users_error():
    with pytest.raises(UserError, match=r"^engine: "):
        build_fabric("cuda")
