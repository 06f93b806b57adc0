"""Converting Caffe's ImageNet weights."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from afrcnn.core.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LAYERS = {
    "caffenet": {name: name for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")},
    "vgg16": {
        "conv1_1": "features.0",
        "conv1_2": "features.2",
        "conv2_1": "features.5",
        "conv2_2": "features.7",
        "conv3_1": "features.10",
        "conv3_2": "features.12",
        "conv3_3": "features.14",
        "conv4_1": "features.17",
        "conv4_2": "features.19",
        "conv4_3": "features.21",
        "conv5_1": "features.24",
        "conv5_2": "features.26",
        "conv5_3": "features.28",
        "fc6": "classifier.0",
        "fc7": "classifier.3",
    },
}
"""Caffe's layers of the networks, and their names in the models that have our backbones' weights."""

_LAST = "fc8"
"""The layer of ImageNet's 1000 classes, which no backbone has."""


def convert_weights(file: Path | str, out: Path | str) -> str:
    r"""Convert Caffe's weights of CaffeNet or VGG16.

    Reads a .caffemodel, of any version of Caffe's format, without Caffe and without running code, and writes the
    weights as safetensors for `detector.weights`. The paper's AlexNet is CaffeNet, for which torchvision has no
    weights; its VGG16 has Caffe's weights, too. Their images are normalised as Caffe's are, which the file says, so
    that it is refused without `detector.normalisation caffe`.

    Args:
        file: the .caffemodel: bvlc_reference_caffenet, VGG_ILSVRC_16_layers, or those that came with Fast R-CNN,
            CaffeNet.v2 and VGG16.v2
        out: the .safetensors file to write

    Examples:
        afrcnn convert-weights CaffeNet.v2.caffemodel caffenet.safetensors
        afrcnn train configs/voc07/alexnet_frcn.yaml --detector.backbone caffenet \
          --detector.weights caffenet.safetensors --detector.normalisation caffe

    Returns:
        The backbone whose weights they are, ``"caffenet"`` or ``"vgg16"``.

    Raises:
        UserError: the file is missing, damaged, or of another network; or OUT cannot be written, or does not end in
            .safetensors.
    """
    if Path(out).suffix != ".safetensors":
        raise UserError("is not a name of a safetensors file", file=out, fix="choose one that ends in .safetensors")

    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    from afrcnn.core.atomic import atomic_write
    from afrcnn.detectors.caffemodel import read_caffemodel

    layers = read_caffemodel(file)
    network = "vgg16" if "conv1_1" in layers else "caffenet"
    try:
        tensors = _tensors(layers, network)
    except ValueError as error:
        fix = "give ImageNet's weights of CaffeNet or VGG16"
        raise UserError(f"not Caffe's weights of {network}: {error}", file=file, fix=fix) from error
    with atomic_write(out, "wb") as temporary:  # by its name: whole in memory, VGG16 would take a gigabyte more
        try:
            save_file(tensors, temporary.name, metadata={"network": network, "normalisation": "caffe"})
        except SafetensorError as error:
            raise OSError(str(error)) from error
    return network


def show(network: str, *, out: Path) -> None:
    """Print where the weights are, and what takes them."""
    from afrcnn.core.terminal import say

    say(f"weights: {out}")
    fields = ["--detector.backbone", network, "--detector.weights", str(out), "--detector.normalisation", "caffe"]
    say(f"next:    afrcnn train RECIPE {shlex.join(fields)}")


def _tensors(layers: dict[str, list[NDArray[np.float32]]], network: str) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of a network by our names.

    Raises:
        ValueError: the layers are another network's; says which of them.
    """
    import torch
    from torchvision import models

    from afrcnn.detectors.caffenet import CaffeNet

    with torch.device("meta"):
        model = CaffeNet() if network == "caffenet" else models.vgg16()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tensors: dict[str, NDArray[np.float32]] = {}
    for layer, name in _LAYERS[network].items():
        blobs = layers.get(layer, [])
        if len(blobs) != 2:
            raise ValueError(f"{layer} has {len(blobs)} tensors, expected weight and bias")
        for blob, kind in zip(blobs, ("weight", "bias"), strict=True):
            shape = shapes[f"{name}.{kind}"]
            if blob.shape != (1,) * (blob.ndim - len(shape)) + shape:  # once, all tensors of Caffe had four axes
                given, expected = ("x".join(map(str, sizes)) for sizes in (blob.shape, shape))
                raise ValueError(f"{kind} of {layer} is {given}, expected {expected}")
            tensors[f"{name}.{kind}"] = blob.reshape(shape)
    extra = [layer for layer, blobs in layers.items() if blobs and layer not in (*_LAYERS[network], _LAST)]
    if extra:
        raise ValueError(f"it has a layer {extra[0]!r}")
    order = list(layers)
    if {"norm1", "pool1"} <= layers.keys() and order.index("norm1") < order.index("pool1"):
        raise ValueError("it normalises before it pools, as Krizhevsky's own network (bvlc_alexnet) does")
    return tensors
