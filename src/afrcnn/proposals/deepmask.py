"""DeepMask: a network that proposes masks, and boxes by them (Pinheiro et al., NIPS 2015, arXiv:1506.06204).

Whatever patch of 224 x 224 pixels it sees, it answers with a mask of the one object in the middle, about 128 pixels
long, and with a score of there being one. Slid over an image in several scales, it finds objects of all sizes. Sections
are those of that paper.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms

from afrcnn.core.errors import UserError
from afrcnn.core.evaluation_mode import evaluating
from afrcnn.detectors.backbones import BACKBONES, Backbone
from afrcnn.detectors.weights import load_strict, read_state_dict
from afrcnn.proposals.proposer import check_image

PATCH = 224
"""Side of a patch in pixels (section 3.3)."""
STRIDE = 16
"""Pixels from one patch to the next, and of a cell of the features."""
MASK = 56
"""Side of a patch's mask in cells, of 4 pixels each."""
CONTEXT = 32
"""Pixels that the backbone sees around a patch on each side: patches of an image share its features, in training as in
inference, instead of each beginning with the padding of the backbone's convolutions."""

_CELLS, _CHANNELS = PATCH // STRIDE, 128
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DeepMaskNetwork(nn.Module):
    """A backbone with a head for masks and a head for scores (sections 3.1 and 3.2).

    Both heads see 128 channels of the backbone's features, as in the authors' released code; in the paper the masks'
    have 512, and the scores' are the backbone's. On a CPU that is a fourth of the time.

    Args:
        backbone: of stride 8 or 16; its box head is not used.
        name: the backbone's name in ``BACKBONES``, for the file of weights.
        dropout: after the score head's two layers, as in the paper.
    """

    def __init__(self, backbone: Backbone, name: str, dropout: float = 0.5) -> None:
        super().__init__()
        self.name, self.body = name, backbone.body
        self.reduce = nn.Sequential(
            nn.MaxPool2d(STRIDE // backbone.stride), nn.Conv2d(backbone.channels, _CHANNELS, 1), nn.ReLU()
        )
        # A classifier for each cell of the mask that sees the whole patch, of low rank (section 3.1).
        self.mask_head = nn.Sequential(nn.Linear(_CHANNELS * _CELLS**2, 512), nn.Linear(512, MASK**2))
        self.score_head = nn.Sequential(
            nn.Linear(_CHANNELS * (_CELLS // 2) ** 2, 512),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(512, 1024),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(1024, 1),
        )

    def features(self, images: Tensor) -> Tensor:
        """Return what the heads see of images N x 3 x H x W, as of :func:`normalise`.

        H and W are multiples of 16, and 288 or more.
        """
        return self.reduced(self.body(images))

    def reduced(self, features: Tensor) -> Tensor:
        """Return what the heads see of the body's features of images H x W, without their context.

        Args:
            features: N x C x H / stride x W / stride.

        Returns:
            N x 128 x (H / 16 - 4) x (W / 16 - 4). The patch in row r, column c of all patches, from pixel
            32 + 16 r, 32 + 16 c on, has the cells r to r + 13, c to c + 13.
        """
        margin = CONTEXT // STRIDE
        return self.reduce(features)[:, :, margin:-margin, margin:-margin]  # type: ignore[no-any-return]

    def scores(self, windows: Tensor) -> Tensor:
        """Return the logits of patches, K, of their windows, K x 128 x 14 x 14."""
        return self.score_head(F.max_pool2d(windows, 2).flatten(1))[:, 0]  # type: ignore[no-any-return]

    def score_map(self, features: Tensor) -> Tensor:
        """Return the logits of all patches, N x R x C, of features N x 128 x (R + 13) x (C + 13).

        The pooled cells of a patch are every other one of those pooled with stride 1, so that the first layer, as a
        convolution with dilation 2, is that of all patches at once.
        """
        first = self.score_head[0]
        assert isinstance(first, nn.Linear)
        weight = first.weight.view(-1, _CHANNELS, _CELLS // 2, _CELLS // 2)
        x = F.conv2d(F.max_pool2d(features, 2, stride=1), weight, first.bias, dilation=2)  # N x 512 x R x C
        return self.score_head[1:](x.movedim(1, -1))[..., 0]  # type: ignore[no-any-return]

    def masks(self, windows: Tensor) -> Tensor:
        """Return the logits of masks, K x 56 x 56, of the windows of patches, K x 128 x 14 x 14."""
        return self.mask_head(windows.flatten(1)).view(-1, MASK, MASK)  # type: ignore[no-any-return]


def cut_windows(features: Tensor, patches: Tensor) -> Tensor:
    """Return the features of single patches.

    Args:
        features: N x 128 x h x w, as of :meth:`DeepMaskNetwork.features`.
        patches: K x 3, int64: image, row and column of each patch.

    Returns:
        K x 128 x 14 x 14.
    """
    windows = [features[n, :, r : r + _CELLS, c : c + _CELLS] for n, r, c in patches.tolist()]
    return torch.stack(windows) if windows else features.new_zeros(0, _CHANNELS, _CELLS, _CELLS)


@dataclass(frozen=True)
class DeepMask:
    """DeepMask's proposals: boxes of the masks with the highest scores in all scales (section 3.3).

    Attributes:
        network: the trained network, on the CPU.
        scales: factors of the image's size; by default 1/4 to 2 in half octaves. Objects are found whose longer side is
            about 128 pixels at one of them: 64 to 512 pixels of the image.
        patches: how many patches, of the highest scores, have their mask computed.
        mask_threshold: probability from which on a cell belongs to the mask; 0.2 for COCO in the paper.
        nms_iou: of two boxes that overlap by more, the one with the lower score is left out. The paper has no such
            suppression, with which 100 boxes reach more objects.
        top: how many boxes an image is given at most.
    """

    network: DeepMaskNetwork
    scales: tuple[float, ...] = tuple(2 ** (half_octaves / 2) for half_octaves in range(-4, 3))
    patches: int = 2000
    mask_threshold: float = 0.2
    nms_iou: float = 0.6
    top: int = 1000

    @property
    def method(self) -> str:
        """What stores call its proposals."""
        return "deepmask"

    @property
    def parameters(self) -> dict[str, Any]:
        """What its boxes depend on, the weights by their fingerprint."""
        digest = hashlib.blake2b(digest_size=16)
        for tensor in self.network.state_dict().values():
            digest.update(tensor.numpy().tobytes())
        settings = {name: getattr(self, name) for name in ("patches", "mask_threshold", "nms_iou", "top")}
        return {"backbone": self.network.name, "weights": digest.hexdigest(), "scales": list(self.scales), **settings}

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Propose boxes that may hold an object.

        Args:
            image: H x W x 3, uint8, RGB.

        Returns:
            P x 4, float32, XYXY in pixels, half-open, best first. P may be 0.

        Raises:
            ValueError: the image is not as said above.
        """
        boxes, scores = self.candidates(image)
        kept: NDArray[np.float32] = boxes[nms(boxes, scores, self.nms_iou)[: self.top]].numpy()
        return kept

    @torch.inference_mode()
    def candidates(self, image: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Return the boxes of the masks with the highest scores, before suppression.

        Args:
            image: H x W x 3, uint8, RGB.

        Returns:
            Boxes, P x 4, float32, XYXY in pixels, of a pixel or more along each side; and their scores, P, logits.

        Raises:
            ValueError: the image is not as said above.
        """
        check_image(image)
        height, width = image.shape[:2]
        sizes = [(max(round(height * scale), 1), max(round(width * scale), 1)) for scale in self.scales]
        boxes, best = [], []
        with evaluating(self.network):
            features = [self.network.features(pad_patches(resize(image, size))) for size in sizes]
            scores = [self.network.score_map(level)[0] for level in features]  # R x C a scale
            ranked = torch.cat([level.flatten() for level in scores]).sort(descending=True).values
            lowest = ranked[: self.patches][-1]
            for (level_height, level_width), level, level_scores in zip(sizes, features, scores, strict=True):
                rows, columns = torch.where(level_scores >= lowest)
                patches = torch.stack([torch.zeros_like(rows), rows, columns], dim=1)
                masks = self.network.masks(cut_windows(level, patches))
                factors = torch.tensor([level_width / width, level_height / height] * 2)
                corners = torch.stack([columns, rows, columns, rows], dim=1) * STRIDE - PATCH / 2  # K x 4
                boxes.append((corners + mask_boxes(masks, self.mask_threshold)) / factors)
                best.append(level_scores[rows, columns])
        inside = torch.cat(boxes).clamp(torch.zeros(4), torch.tensor([width, height, width, height]))  # P x 4
        has_area = (inside[:, 2:] - inside[:, :2] >= 1).all(dim=1)
        return inside[has_area], torch.cat(best)[has_area]


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an image H x W x 3 in another height and width, smoothed where that is smaller."""
    method = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method), dtype=np.uint8)


def normalise(image: NDArray[np.uint8]) -> Tensor:
    """Return an image H x W x 3, uint8, as 3 x H x W, float32, normalised with ImageNet's mean and deviation."""
    values = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    return (values - torch.tensor(_IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(_IMAGENET_STD).view(3, 1, 1)


def pad_patches(image: NDArray[np.uint8]) -> Tensor:
    """Normalise an image, and pad it with the mean colour so that patches centre on every sixteenth pixel of it.

    Returns:
        1 x 3 x H' x W', float32; the first patch is centred on the image's corner, the last on its end or beyond.
    """
    height, width = image.shape[:2]
    margin = PATCH // 2 + CONTEXT
    return F.pad(normalise(image), (margin, margin + -width % STRIDE, margin, margin + -height % STRIDE))[None]


def mask_boxes(logits: Tensor, threshold: float) -> Tensor:
    """Return the boxes of masks.

    Args:
        logits: K x 56 x 56.
        threshold: probability from which on a pixel belongs to the mask, after bilinear interpolation of the logits.

    Returns:
        K x 4, float32, XYXY in pixels of the patch, half-open; zeros for an empty mask.
    """
    boxes = logits.new_zeros(len(logits), 4)
    for start in range(0, len(logits), 64):  # 200 kB a mask
        size = (PATCH, PATCH)
        inside = F.interpolate(logits[start : start + 64, None], size, mode="bilinear", align_corners=False)[:, 0]
        inside = inside > math.log(threshold / (1 - threshold))  # k x 224 x 224
        for axis in (0, 1):
            line = inside.any(dim=axis + 1).int()  # k x 224: whether any pixel of the column, or row, is inside
            boxes[start : start + 64, axis] = line.argmax(dim=1).float()
            boxes[start : start + 64, axis + 2] = (PATCH - line.flip(1).argmax(dim=1)) * line.amax(dim=1)
    return boxes


def load_deepmask(file: Path | str) -> DeepMaskNetwork:
    """Read the weights that ``afrcnn deepmask`` wrote; no code is run that the file may hold.

    Args:
        file: safetensors, whose metadata name the backbone.

    Raises:
        UserError: the file is missing, damaged, or not of a DeepMask.
    """
    fix = "give the file that `afrcnn deepmask` wrote"
    tensors = read_state_dict(file) if Path(file).suffix == ".safetensors" else {}
    try:
        with safe_open(file, "pt") as opened:
            description = json.loads((opened.metadata() or {}).get("afrcnn", "{}"))
        name = description["deepmask"]
        backbone = BACKBONES[name]
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise UserError("does not hold a DeepMask", file=file, fix=fix) from error
    if wrong := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise UserError("holds values that are not finite", file=file, field=wrong[0], fix=fix)
    with torch.device("meta"):  # the file has all numbers, and VGG16's box head takes half a gigabyte
        network = DeepMaskNetwork(backbone(), name)
    network.to_empty(device="cpu")
    load_strict(network, tensors, file)
    return network.eval()
