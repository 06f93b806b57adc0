"""Training of DeepMask (Pinheiro et al., NIPS 2015, arXiv:1506.06204, sections 3.2 and 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert

from afrcnn.core.atomic import remove_parts
from afrcnn.core.errors import UserError
from afrcnn.data.overlap import not_crowds
from afrcnn.data.segmentation import ObjectMasks
from afrcnn.data.target import DetectionDataset, require_annotations
from afrcnn.proposals.deepmask import CONTEXT, MASK, PATCH, STRIDE, DeepMaskNetwork, normalise, resize
from afrcnn.training.checkpoint import load_checkpoint, save_checkpoint, save_weights

_OBJECT = 128
"""Longer side, in pixels, of the object in a canonical patch."""
_SCORE_WEIGHT = 1 / 32
"""Weight of the score's loss beside that of a mask's cell."""
_SCALES = (-2.0, 1.0)
"""Range of the scales of inference, as powers of 2."""
_SIDE = 11
"""Patches of a crop along each side."""
_CROP = PATCH + 2 * CONTEXT + (_SIDE - 1) * STRIDE
NEGATIVE, NEITHER = -1, -2


def label_patches(centres: Tensor, boxes: Tensor) -> Tensor:
    """Say of patches whether they show an object as they should (section 3.2).

    An object's canonical patch has it in the middle, its longer side 128 pixels. A patch is positive if it is at most 16
    pixels off, and the object at most 2^(1/4) larger or smaller. It is negative if it is 32 pixels off or more from
    every object, or that is twice as large or more, or half or less. Distances are along each axis.

    Args:
        centres: P x 2, float32: x, y of the patches, in pixels of the scaled image.
        boxes: M x 4, float32, XYXY, likewise.

    Returns:
        P, int64: the row of the nearest object whose positive the patch is, or ``NEGATIVE`` or ``NEITHER``.
    """
    labels = torch.full((len(centres),), NEGATIVE)
    if not len(boxes):
        return labels
    x, y, width, height = box_convert(boxes, "xyxy", "cxcywh").T
    off = (centres[:, None] - torch.stack([x, y], dim=1)).abs().amax(dim=2)  # P x M
    octaves = (torch.maximum(width, height) / _OBJECT).log2().abs()  # M
    positive = (off <= 16) & (octaves <= 0.25)
    labels[((off < 32) & (octaves < 1)).any(dim=1)] = NEITHER
    nearest = off.masked_fill(~positive, torch.inf).min(dim=1)
    return torch.where(positive.any(dim=1), nearest.indices, labels)


class PatchBatch(NamedTuple):
    """Crops of images with all their patches.

    Attributes:
        images: N x 3 x 448 x 448, float32, normalised.
        scores: N x 11 x 11, int64: 1 for a positive patch, 0 for a negative, -1 for neither.
        positives: K x 3, int64: crop, row and column of each positive patch.
        masks: K x 56 x 56, float32: 1 inside the object, 0 outside.
    """

    images: Tensor
    scores: Tensor
    positives: Tensor
    masks: Tensor


class PatchSampler:
    """Draws crops: every other one around an object, at a scale at which it is canonical, the others anywhere.

    Crops are mirrored at random, and their brightness and contrast change. Patches that are centred in a crowd are
    neither positive nor negative.

    Args:
        dataset: images and objects.
        seed: sample n is a function of the seed and n.

    Raises:
        UserError: the dataset has no masks, is not annotated, or no object is of a size that DeepMask finds.
    """

    def __init__(self, dataset: DetectionDataset, seed: int = 0) -> None:
        self.dataset, self.seed = require_annotations(dataset), seed
        self.masks = ObjectMasks(dataset)
        low, high = (_OBJECT / 2 ** (octave + margin) for octave, margin in zip(_SCALES[::-1], (0.25, -0.25), strict=True))
        self.objects = []
        for index in range(len(dataset)):
            target = dataset.target(index)
            sides = (target["boxes"][:, 2:] - target["boxes"][:, :2]).amax(dim=1)
            suitable = not_crowds(target) & (sides >= low) & (sides <= high)
            self.objects += [(index, row) for row in suitable.nonzero()[:, 0].tolist()]
        if not self.objects:
            problem = f"has no object of {low:.0f} to {high:.0f} pixels, the sizes that DeepMask finds"
            raise UserError(problem, file=dataset.annotation_file, fix="give larger images")

    def batch(self, start: int, size: int) -> PatchBatch:
        """Return the samples ``start`` to ``start + size - 1``."""
        crops = [self._crop(n) for n in range(start, start + size)]
        images, labels, masks = zip(*crops, strict=True)
        scores = torch.stack(labels)  # N x 11 x 11
        return PatchBatch(torch.stack(images), scores, (scores == 1).nonzero(), torch.cat(masks))

    def _crop(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return sample n: crop, scores (11 x 11) and masks (K x 56 x 56)."""
        rng = np.random.default_rng((self.seed, n))
        around = n % 2 == 0
        index, row = self.objects[rng.integers(len(self.objects))] if around else (rng.integers(len(self.dataset)), 0)
        image, target = self.dataset[int(index)]
        pixels = image.permute(1, 2, 0).numpy()
        height, width = pixels.shape[:2]
        boxes = torch.as_tensor(target["boxes"])
        if around:
            x1, y1, x2, y2 = boxes[row].tolist()
            scale = _OBJECT / max(x2 - x1, y2 - y1) * 2 ** rng.uniform(-0.25, 0.25)
            centre = (x1 + x2) / 2, (y1 + y2) / 2
        else:
            scale = 2 ** rng.uniform(*_SCALES)
            centre = rng.uniform(0, width), rng.uniform(0, height)
        # Sides of multiples of 4 pixels, and a corner at one: then cells of masks are pixels of a mask scaled by 1/4.
        scaled = resize(pixels, scale)
        h4, w4 = max(round(scaled.shape[0] / 4), 1), max(round(scaled.shape[1] / 4), 1)
        scaled = cv2.resize(scaled, (4 * w4, 4 * h4), interpolation=cv2.INTER_LINEAR)
        boxes = boxes * torch.tensor([4 * w4 / width, 4 * h4 / height] * 2)
        reach = (_SIDE - 1) * STRIDE / 2  # the centre lies between those of the first and of the last patch
        factors = 4 * w4 / width, 4 * h4 / height
        left, top = (
            4 * round((at * factor - _CROP / 2 + rng.uniform(-reach, reach)) / 4)
            for at, factor in zip(centre, factors, strict=True)
        )
        crop = _cut(normalise(np.asarray(scaled)), left, top, _CROP)
        steps = torch.arange(_SIDE) * STRIDE + CONTEXT + PATCH / 2
        centres = torch.cartesian_prod(steps + top, steps + left).flip(1)  # 121 x 2: x, y
        counted = not_crowds(target)
        labels = label_patches(centres, boxes[counted])
        for x1, y1, x2, y2 in boxes[~counted].tolist():
            x, y = centres.T
            labels[(x >= x1) & (x < x2) & (y >= y1) & (y < y2) & (labels == NEGATIVE)] = NEITHER
        labels = labels.view(_SIDE, _SIDE)

        rows = counted.nonzero()[:, 0].tolist()
        cells = {label: self._cells(int(index), rows[label], (h4, w4)) for label in labels.unique().tolist() if label >= 0}
        flip = rng.random() < 0.5
        scores, masks = torch.where(labels >= 0, 1, labels + 1), []
        if flip:
            crop, scores, labels = crop.flip(2), scores.flip(1), labels.flip(1)
        for r, c in (labels >= 0).nonzero().tolist():
            column = _SIDE - 1 - c if flip else c
            x, y = (corner + CONTEXT + step * STRIDE for corner, step in ((left, column), (top, r)))
            mask = _cut(cells[int(labels[r, c])][None], x // 4, y // 4, MASK)[0]
            masks.append(mask.flip(1) if flip else mask)
        contrast, brightness = rng.uniform(0.7, 1.4), rng.uniform(-0.4, 0.4)  # in deviations of ImageNet's pixels
        crop = (crop * contrast + brightness).float()
        return crop, scores, torch.stack(masks) if masks else torch.zeros(0, MASK, MASK)

    def _cells(self, index: int, row: int, size: tuple[int, int]) -> Tensor:
        """Return an object's mask in cells, h x w, float32, 0 or 1."""
        mask: NDArray[np.float32] = self.masks.mask(index, row).astype(np.float32)
        scaled = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_AREA)
        return torch.from_numpy(np.asarray(scaled >= 0.5, dtype=np.float32))


def _cut(planes: Tensor, left: int, top: int, side: int) -> Tensor:
    """Return a square of planes C x H x W, C x side x side, 0 where it reaches over the border."""
    height, width = planes.shape[1:]
    padding = (max(-left, 0), max(left + side - width, 0), max(-top, 0), max(top + side - height, 0))
    padded = F.pad(planes, padding)
    left, top = max(left, 0), max(top, 0)
    return padded[:, top : top + side, left : left + side]


def deepmask_losses(network: DeepMaskNetwork, batch: PatchBatch) -> dict[str, Tensor]:
    """Return the logistic losses of scores and masks (section 3.2).

    The paper draws as many positive as negative patches for the score. Here all patches of a crop share its features,
    and all count: the means over positive and over negative ones weigh the same.

    Args:
        network: the network.
        batch: crops with their patches, on the network's device.

    Returns:
        ``mask``, a mean over cells of positive patches, and ``score``, weighted with 1/32.
    """
    features = network.features(batch.images)
    logits = network.scores(features)  # N x 11 x 11
    kinds = [F.softplus(-logits[batch.scores == 1]), F.softplus(logits[batch.scores == 0])]
    score = torch.stack([kind.mean() for kind in kinds if len(kind)]).mean() if any(map(len, kinds)) else logits.sum() * 0
    masks = network.masks(features, batch.positives)  # K x 56 x 56
    mask = F.binary_cross_entropy_with_logits(masks, batch.masks) if len(masks) else masks.sum()
    return {"mask": mask, "score": _SCORE_WEIGHT * score}


def train_deepmask(
    network: DeepMaskNetwork,
    dataset: DetectionDataset,
    file: Path | str,
    *,
    frozen_stages: int,
    iterations: int = 2000,
    batch: int = 4,
    learning_rate: float = 5e-4,
    seed: int = 0,
    checkpoint_every: int = 200,
    progress: Callable[[int, str], object] | None = None,
) -> None:
    """Train a DeepMask, and write its weights.

    Interrupted, the same call goes on from the last checkpoint, beside the weights, and ends with the same bits. With
    Adam and a learning rate that falls along half a cosine, two thousand updates do for some tens of images; the paper
    trains for days, with SGD, on 80,000.

    Args:
        network: the network, whose device is that of the training.
        dataset: images with masks.
        file: the ``.safetensors`` file to write.
        frozen_stages: how many of the backbone's first stages remain as they are.
        iterations: updates.
        batch: crops of an update, each of 121 patches.
        learning_rate: the first.
        seed: of the samples and of dropout; new layers are the caller's.
        checkpoint_every: updates from one checkpoint to the next.
        progress: called with the number of updates done and the mean losses since the last time.

    Raises:
        UserError: of the dataset; a loss is not finite; or the checkpoint is damaged, or of another training.
    """
    file = Path(file)
    sampler = PatchSampler(dataset, seed)
    network.body.requires_grad_(True)
    for stage in list(network.body.children())[:frozen_stages]:
        stage.requires_grad_(False)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    settings = {"backbone": network.name, "frozen_stages": frozen_stages, "iterations": iterations, "batch": batch}
    settings |= {"learning_rate": learning_rate, "seed": seed, "images": dataset.ids}
    checkpoint, done = file.with_name(f"{file.name}.checkpoint"), 0
    remove_parts(checkpoint)
    if checkpoint.is_file():
        state = load_checkpoint(checkpoint, "settings", "iteration", "network", "optimizer", "schedule")
        if state["settings"] != settings:
            fix = "choose another file to write, or delete this one to train from the beginning"
            raise UserError("is the checkpoint of another training", file=checkpoint, fix=fix)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        done = state["iteration"]
    device = next(network.parameters()).device
    network.train()
    network.body.eval()  # statistics of normalisation are ImageNet's
    with torch.random.fork_rng():
        for iteration in range(done, iterations):
            torch.manual_seed((seed << 32) + iteration)  # dropout
            samples = PatchBatch(*(tensor.to(device) for tensor in sampler.batch(iteration * batch, batch)))
            losses = deepmask_losses(network, samples)
            loss = torch.stack(list(losses.values())).sum()
            if not loss.isfinite():
                fix = "lower the learning rate"
                raise UserError(f"the loss is {loss.item()} after {iteration} updates", field="learning_rate", fix=fix)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if progress:
                progress(iteration + 1, "  ".join(f"{name} {value.item():.3f}" for name, value in losses.items()))
            if (iteration + 1) % checkpoint_every == 0 and iteration + 1 < iterations:
                modules = {"network": network, "optimizer": optimizer, "schedule": schedule}
                states = {name: module.state_dict() for name, module in modules.items()}  # type: ignore[attr-defined]
                save_checkpoint(checkpoint, {"settings": settings, "iteration": iteration + 1, **states})
    save_weights(file, network, {"deepmask": network.name})
    checkpoint.unlink(missing_ok=True)
