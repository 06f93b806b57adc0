"""The engine that a recipe asks for, or one line that says why not."""

import pytest
import torch

from afrcnn.core.engine import build_fabric, build_training_fabric, for_inference
from afrcnn.core.errors import UserError


def test_the_cpu_is_there():
    fabric = build_fabric("cpu")
    assert (fabric.device.type, fabric.world_size) == ("cpu", 1)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_one_device_computes_the_bits_of_fabric(precision):
    layer, inputs = torch.nn.Linear(7, 5), ([torch.rand(3, 7), torch.arange(3)],)

    class Module(torch.nn.Module):
        def forward(self, items):
            return [{"boxes": layer(items[0]), "rounded": items[0], "labels": items[1]}]

    one, fabric = build_fabric("cpu", precision=precision), build_training_fabric("cpu", precision=precision)
    assert one.device == fabric.device
    with torch.inference_mode():
        (made,), (expected,) = (for_inference(engine, Module())(*inputs) for engine in (one, fabric))
    assert all(torch.equal(made[name], expected[name]) for name in expected)
    assert {name: value.dtype for name, value in made.items()} == {n: value.dtype for n, value in expected.items()}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_boxes_come_to_a_module_with_all_their_bits(precision):
    boxes = torch.rand(50, 4) * 1000
    received = []

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, proposals, targets):
            received.extend([*proposals, targets[0]["boxes"]])
            return self.layer(proposals[0]).sum()

    fabric = build_training_fabric("cpu", precision=precision)
    fabric.setup(Module())([boxes], [{"boxes": boxes}])
    for engine in (build_fabric("cpu", precision=precision), fabric):
        for_inference(engine, Module())([boxes], [{"boxes": boxes}])
    assert len(received) == 6
    assert all(torch.equal(tensor, boxes) for tensor in received)


def test_the_device_is_the_one_that_fabric_chooses():
    assert build_fabric().device == build_training_fabric().device


def test_an_unknown_accelerator_is_named():
    with pytest.raises(UserError, match=r"^engine: .*abacus.*--engine.accelerator cpu$"):
        build_fabric("abacus")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_the_users_error():
    with pytest.raises(UserError, match=r"^engine: "):
        build_fabric("cuda")
