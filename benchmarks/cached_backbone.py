"""A backbone whose features of each image are computed once: where all of it is fixed, every method sees the same."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CachedBackbone(nn.Sequential):
    """Stages of a backbone, none of them trained, and their features by image.

    Each image goes through alone, without the padding that a batch gives it; its map is then extended by its border to
    the size of the batch's, which RoIAlign reads as the end of a map.

    Args:
        backbone: the stages, frozen.
        cache: features by content, used by several detectors with the same backbone.
        limit: how many images it remembers at most.
    """

    def __init__(self, backbone: nn.Sequential, cache: dict[bytes, Tensor], limit: int = 1500) -> None:
        super().__init__(OrderedDict(backbone.named_children()))
        assert not any(parameter.requires_grad for parameter in self.parameters())
        self.out_channels = backbone.out_channels
        self.cache, self.limit = cache, limit

    def forward(self, batch: Tensor) -> Tensor:
        """Return the features (N x C x h x w) of a batch (N x 3 x H x W) that is padded with zeros."""
        maps = [self.features(without_padding(image)) for image in batch]
        height, width = (max(plane.shape[axis] for plane in maps) for axis in (-2, -1))
        padded = [
            F.pad(plane, (0, width - plane.shape[-1], 0, height - plane.shape[-2]), mode="replicate") for plane in maps
        ]
        return torch.cat(padded)

    def features(self, image: Tensor) -> Tensor:
        """Return the features (1 x C x h x w) of an image (3 x H x W)."""
        key = sha256(memoryview(image.contiguous().numpy())).digest() + bytes(str(image.shape), "ascii")
        known = self.cache.get(key)
        if known is None:
            # Whether they are known must make no difference: neither to what is drawn later, nor to gradients.
            with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.no_grad():
                known = super().forward(image.clone()[None].contiguous(memory_format=torch.channels_last))
            if len(self.cache) < self.limit:
                self.cache[key] = known
        return known


def without_padding(image: Tensor, multiple: int = 32) -> Tensor:
    """Return an image (3 x H x W) without rows and columns of zeros at its end, its sides multiples of 32 pixels."""
    filled = image.any(dim=0)
    height, width = (int(filled.any(dim=axis).nonzero().max()) + 1 for axis in (1, 0))
    return image[:, : -(-height // multiple) * multiple, : -(-width // multiple) * multiple]
