"""Training of DeepMask (Pinheiro et al., NIPS 2015, arXiv:1506.06204, sections 3.2 and 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_convert

from afrcnn.core.atomic import remove_parts
from afrcnn.core.errors import UnreadableImageError, UserError
from afrcnn.core.image_warnings import warn_of
from afrcnn.data.overlap import not_crowds
from afrcnn.data.segmentation import ObjectMasks
from afrcnn.data.target import DetectionDataset, require_annotations
from afrcnn.proposals.deepmask import CONTEXT, MASK, PATCH, STRIDE, DeepMaskNetwork, cut_windows, normalise, resize
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

    An object's canonical patch has it in the middle, its longer side 128 pixels. A patch is positive if it is at most
    16 pixels off, and the object at most 2^(1/4) larger or smaller. It is negative if, of every object, it is 32 pixels
    off or more, or the object is twice as large or more, or half as large or less. Distances are along each axis.

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
        images: N x 3 x 448 x 448, float32, normalised; or the body's features of them.
        scores: N x 11 x 11, int64: 1 for a positive patch, 0 for a negative, -1 for neither.
        positives: K x 3, int64: crop, row and column of each positive patch.
        masks: K x 56 x 56, float32: 1 inside the object, 0 outside.
    """

    images: Tensor
    scores: Tensor
    positives: Tensor
    masks: Tensor

    @classmethod
    def of(cls, images: Tensor, scores: Tensor, masks: Tensor) -> PatchBatch:
        """Return the batch of these fields."""
        return cls(images, scores, (scores == 1).nonzero(), masks)

    @classmethod
    def join(cls, batches: Sequence[PatchBatch]) -> PatchBatch:
        """Return the batch of all crops of some."""
        images, scores, _, masks = map(torch.cat, zip(*batches, strict=True))
        return cls.of(images, scores, masks)


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
        low, high = _OBJECT / 2 ** (_SCALES[1] + 0.25), _OBJECT / 2 ** (_SCALES[0] - 0.25)
        objects = []
        for index in range(len(dataset)):
            target = dataset.target(index)
            sides = (target["boxes"][:, 2:] - target["boxes"][:, :2]).amax(dim=1)
            suitable = not_crowds(target) & (sides >= low) & (sides <= high)
            objects += [(index, row) for row in suitable.nonzero()[:, 0].tolist()]
        if not objects:
            problem = f"has no object of {low:.0f} to {high:.0f} pixels, the sizes that DeepMask finds"
            raise UserError(problem, file=dataset.annotation_file, fix="give larger images")
        self.objects = [objects[i] for i in np.random.default_rng(seed).permutation(len(objects))]

    def __getitem__(self, n: int) -> PatchBatch:
        """Return sample n, a batch of one crop; the next of its kind in place of one whose image cannot be decoded."""
        for number in range(n, n + 2000, 2):
            try:
                return self._draw(number)
            except UnreadableImageError as error:
                warn_of(error, left_out=True)
        raise UserError("hardly any image can be decoded", file=self.dataset.root, fix="replace the files")

    def _draw(self, n: int) -> PatchBatch:
        rng = np.random.default_rng((self.seed, n))
        around = n % 2 == 0
        index, row = self.objects[n // 2 % len(self.objects)] if around else (rng.integers(len(self.dataset)), 0)
        image, target = self.dataset[int(index)]
        height, width = image.shape[1:]
        boxes = torch.as_tensor(target["boxes"])
        if around:
            x, y, object_width, object_height = box_convert(boxes[row], "xyxy", "cxcywh").tolist()
            scale = _OBJECT / max(object_width, object_height) * 2 ** rng.uniform(-0.25, 0.25)
        else:
            x, y, scale = rng.uniform(0, width), rng.uniform(0, height), 2 ** rng.uniform(*_SCALES)
        # The sides and the crop's corner are multiples of 4: cells of masks are pixels of a mask scaled by 1/4.
        size = max(round(height * scale / 4), 1), max(round(width * scale / 4), 1)
        scaled = resize(image.permute(1, 2, 0).numpy(), (4 * size[0], 4 * size[1]))
        factors = 4 * size[1] / width, 4 * size[0] / height
        reach = (_SIDE - 1) * STRIDE / 2  # the object is somewhere between the centres of the first and the last patch
        corners = (
            at * factor - _CROP / 2 + rng.uniform(-reach, reach) for at, factor in zip((x, y), factors, strict=True)
        )
        left, top = (4 * round(corner / 4) for corner in corners)

        labels = self._label(left, top, boxes * torch.tensor(factors * 2), not_crowds(target))  # 11 x 11
        positives = [(r, c, int(labels[r, c])) for r, c in (labels >= 0).nonzero().tolist()]
        cells = {row: self._cells(int(index), row, size) for row in {row for _, _, row in positives}}
        origin = CONTEXT // 4, STRIDE // 4  # in cells
        masks = [
            _cut(cells[row][None], left // 4 + origin[0] + c * origin[1], top // 4 + origin[0] + r * origin[1], MASK)
            for r, c, row in positives
        ]
        crop = _cut(normalise(scaled), left, top, _CROP) * rng.uniform(0.7, 1.4) + rng.uniform(-0.4, 0.4)
        sample = crop.float(), torch.where(labels >= 0, 1, labels + 1), torch.cat([torch.zeros(0, MASK, MASK), *masks])
        crop, scores, of_objects = _mirror(*sample) if rng.random() < 0.5 else sample
        return PatchBatch.of(crop[None], scores[None], of_objects)

    def _label(self, left: int, top: int, boxes: Tensor, counted: Tensor) -> Tensor:
        """Return the labels of a crop's patches, 11 x 11, by rows of the image's boxes, which are scaled."""
        steps = torch.arange(_SIDE) * STRIDE + CONTEXT + PATCH / 2
        centres = torch.cartesian_prod(top + steps, left + steps).flip(1)  # 121 x 2: x, y
        labels = label_patches(centres, boxes[counted])
        rows = counted.nonzero()[:, 0]
        labels = torch.where(labels >= 0, rows[labels.clamp(min=0)] if len(rows) else labels, labels)
        corners = boxes[~counted]  # C x 4
        in_crowd = ((centres[:, None] >= corners[:, :2]) & (centres[:, None] < corners[:, 2:])).all(dim=2).any(dim=1)
        return labels.masked_fill(in_crowd & (labels == NEGATIVE), NEITHER).view(_SIDE, _SIDE)

    def _cells(self, index: int, row: int, size: tuple[int, int]) -> Tensor:
        """Return an object's mask in cells, h x w, float32, 0 or 1."""
        mask: NDArray[np.float32] = self.masks.mask(index, row).astype(np.float32)
        scaled = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_AREA)
        return torch.from_numpy(np.asarray(scaled >= 0.5, dtype=np.float32))


class _BodyFeatures:
    """Samples with a frozen body's features, as float16, in place of their images; each is computed once.

    Args:
        sampler: the samples.
        body: the frozen body.
    """

    def __init__(self, sampler: PatchSampler, body: nn.Module) -> None:
        self.sampler, self.body = sampler, body
        self._known: dict[int, PatchBatch] = {}

    def __getitem__(self, n: int) -> PatchBatch:
        """Return sample n."""
        if n not in self._known:
            sample = self.sampler[n]
            device = next(self.body.parameters()).device
            with torch.no_grad():
                features = self.body(sample.images.to(device)).half().cpu()
            self._known[n] = sample._replace(images=features)
        return self._known[n]


def _mirror(crop: Tensor, scores: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a sample mirrored, its masks in the order of the positive patches as they are then."""
    rows, columns = (scores == 1).nonzero().T
    order = np.lexsort((-columns.numpy(), rows.numpy()))
    return crop.flip(2), scores.flip(1), masks.flip(2)[torch.from_numpy(order)]


def _cut(planes: Tensor, left: int, top: int, side: int) -> Tensor:
    """Return a square of planes C x H x W, C x side x side, 0 where it reaches over the border."""
    height, width = planes.shape[1:]
    padded = F.pad(planes, (max(-left, 0), max(left + side - width, 0), max(-top, 0), max(top + side - height, 0)))
    left, top = max(left, 0), max(top, 0)
    return padded[:, top : top + side, left : left + side]


def deepmask_losses(network: DeepMaskNetwork, features: Tensor, batch: PatchBatch) -> dict[str, Tensor]:
    """Return the logistic losses of scores and masks (section 3.2).

    The score learns from as many negative as positive patches in the paper. Here four times as many are drawn at
    random, and the means over positive and over negative ones weigh the same.

    Args:
        network: the network.
        features: N x 128 x 24 x 24, of the crops.
        batch: the crops' patches, on the network's device.

    Returns:
        ``mask``, a mean over cells of positive patches, and ``score``, weighted with 1/32; 0 where there are none.
    """
    negatives = (batch.scores == 0).nonzero()  # all x 3
    drawn = torch.randperm(len(negatives))[: 4 * max(len(batch.positives), len(features))]
    kinds = cut_windows(features, batch.positives), cut_windows(features, negatives[drawn.to(negatives.device)])
    losses = [F.softplus(sign * network.scores(windows)) for sign, windows in zip((-1, 1), kinds, strict=True)]
    score = torch.stack([loss.mean() if len(loss) else loss.sum() for loss in losses]).mean()
    masks = network.masks(kinds[0])  # K x 56 x 56
    mask = F.binary_cross_entropy_with_logits(masks, batch.masks) if len(masks) else masks.sum()
    return {"mask": mask, "score": _SCORE_WEIGHT * score}


def train_deepmask(
    network: DeepMaskNetwork,
    dataset: DetectionDataset,
    file: Path | str,
    *,
    frozen_stages: int,
    iterations: int = 1000,
    batch: int = 8,
    crops: int = 0,
    learning_rate: float = 5e-4,
    seed: int = 0,
    checkpoint_every: int = 200,
    progress: Callable[[int, str], object] | None = None,
) -> None:
    """Train a DeepMask, and write its weights.

    Interrupted, the same call goes on from the last checkpoint, beside the weights, and ends with the same bits. With
    Adam and a learning rate that falls along half a cosine, a thousand updates do for some tens of images; the paper
    trains for days, with SGD, on 80,000.

    Args:
        network: the network, whose device is that of the training.
        dataset: images with masks.
        file: the ``.safetensors`` file to write.
        frozen_stages: how many of the backbone's first stages remain as they are.
        iterations: updates.
        batch: crops of an update, each of 121 patches.
        crops: how many different crops are drawn, or 0 for new ones in each update. If the whole backbone is frozen,
            its features of each are computed once and kept in memory, 0.8 MB a crop of SqueezeNet's: on a CPU, nearly
            all of the time is the backbone's.
        learning_rate: the first.
        seed: of the samples and of dropout; new layers are the caller's.
        checkpoint_every: updates from one checkpoint to the next.
        progress: called with the number of updates done, and the losses as running averages.

    Raises:
        UserError: of the dataset; an argument is out of its range; a loss is not finite; or the checkpoint is damaged,
            or of another training.
    """
    file = Path(file)
    least = {"iterations": (iterations, 1), "batch": (batch, 1)}
    for field, (value, low) in (least | {"crops": (crops, 0), "frozen_stages": (frozen_stages, 0)}).items():
        if value < low:
            raise UserError(f"is {value}", field=field, fix=f"choose {low} or more")
    sampler = PatchSampler(dataset, seed)
    network.body.requires_grad_(True)
    for stage in list(network.body.children())[:frozen_stages]:
        stage.requires_grad_(False)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=5e-4, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    settings = {"backbone": network.name, "frozen_stages": frozen_stages, "iterations": iterations, "batch": batch}
    settings |= {"crops": crops, "learning_rate": learning_rate, "seed": seed, "images": dataset.ids}
    checkpoint = file.with_name(f"{file.name}.checkpoint")
    trained: dict[str, Any] = {"network": network, "optimizer": optimizer, "schedule": schedule}
    done = _resume(checkpoint, trained, settings)
    device = next(network.parameters()).device
    network.train()
    network.body.eval()  # statistics of normalisation are ImageNet's
    frozen = frozen_stages >= len(network.body)
    source: PatchSampler | _BodyFeatures = _BodyFeatures(sampler, network.body) if crops and frozen else sampler
    averages: dict[str, float] = {}
    with torch.random.fork_rng():
        for iteration in range(done, iterations):
            torch.manual_seed((seed << 32) + iteration)  # dropout
            if crops:
                numbers = np.random.default_rng((seed, iteration)).integers(crops, size=batch).tolist()
            else:
                numbers = list(range(iteration * batch, (iteration + 1) * batch))
            samples = PatchBatch(*(tensor.to(device) for tensor in PatchBatch.join([source[n] for n in numbers])))
            body_features = samples.images.float() if source is not sampler else network.body(samples.images)
            losses = deepmask_losses(network, network.reduced(body_features), samples)
            loss = torch.stack(list(losses.values())).sum()
            if not loss.isfinite():
                fix = "lower the learning rate"
                raise UserError(f"the loss is {loss.item()} after {iteration} updates", field="learning_rate", fix=fix)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            now = {name: value.item() for name, value in losses.items()}
            averages = {name: 0.95 * averages.get(name, value) + 0.05 * value for name, value in now.items()}
            if progress:
                progress(iteration + 1, "  ".join(f"{name} {average:.4f}" for name, average in averages.items()))
            if (iteration + 1) % checkpoint_every == 0 and iteration + 1 < iterations:
                states = {name: stateful.state_dict() for name, stateful in trained.items()}
                save_checkpoint(checkpoint, {"settings": settings, "iteration": iteration + 1, **states})
    save_weights(file, network, {"deepmask": network.name})
    checkpoint.unlink(missing_ok=True)


def _resume(checkpoint: Path, trained: dict[str, Any], settings: dict[str, Any]) -> int:
    """Load what a checkpoint, if there is one, has for modules by name; return how many updates are done.

    Raises:
        UserError: it is damaged, or of a training with other settings.
    """
    remove_parts(checkpoint)
    if not checkpoint.is_file():
        return 0
    state = load_checkpoint(checkpoint, "settings", "iteration", *trained)
    if state["settings"] != settings:
        fix = "choose another file to write, or delete this one to train from the beginning"
        raise UserError("is the checkpoint of another training", file=checkpoint, fix=fix)
    for name, stateful in trained.items():
        stateful.load_state_dict(state[name])
    return int(state["iteration"])
