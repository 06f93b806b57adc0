"""A DeepMask of random weights on the small backbone."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from afrcnn.detectors.backbones import small
from afrcnn.proposals.deepmask import DeepMaskNetwork

SCALES = (0.5, 1.0)


def tiny_network() -> DeepMaskNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DeepMaskNetwork(small(), "small").eval()


def save_network(file: Path, network: DeepMaskNetwork) -> Path:
    save_file(network.state_dict(), file, {"afrcnn": json.dumps({"deepmask": network.name})})
    return file
