"""The sequence of training samples: endless, and each sample is a function of its position.

Order, mirroring, every other random choice of sample n, and whether it is adversarial, come from (seed, n) alone. A run
can therefore stop anywhere and go on at n, in another process or with another number of workers, and see what it would
have seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from afrcnn.adversaries.base import is_adversarial
from afrcnn.core.errors import UnreadableImageError, UserError
from afrcnn.data.overlap import intersection_over_foreground, not_crowds
from afrcnn.data.target import DetectionDataset, Target
from afrcnn.data.transforms import CopyPaste, CutOut, RandomErasing
from afrcnn.recipe import DataRecipe

_CROWD_COVER = 0.7
"""A proposal of which a crowd region covers more is neither object nor background (py-faster-rcnn's protocol)."""

_DRAWS = 1000
"""Images that are tried in place of one that is not eligible or cannot be decoded."""

Batch = tuple[list[Tensor], list[Target]]
"""Images, 3 x H x W, and their targets."""

SampleTransform = Callable[[tv_tensors.Image, Target], tuple[tv_tensors.Image, Target]]


class TrainableSamples(Dataset[tuple[tv_tensors.Image, Target]]):
    """A dataset's images with what of their targets is trained on.

    Args:
        dataset: images with boxes and proposals.
        use_difficult: whether objects that VOC marks difficult are trained on.
    """

    def __init__(self, dataset: DetectionDataset, use_difficult: bool = False) -> None:
        self.dataset, self.use_difficult = dataset, use_difficult

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, Target]:
        """Return the image (3 x H x W, uint8) and its trainable target."""
        image, target = self.dataset[index]
        return image, trainable(target, self.use_difficult)


class _ReadableSamples:
    """Samples, of which the next takes the place of one whose image cannot be decoded."""

    def __init__(self, samples: TrainableSamples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, Target]:
        for further in range(len(self)):
            with suppress(UnreadableImageError):
                return self.samples[(index + further) % len(self)]
        raise UserError("no image can be decoded", file=self.samples.dataset.root, fix="replace the files")


class SampleSequence(Dataset[tuple[tv_tensors.Image, Target]]):
    """Training samples by position: epoch after epoch over a dataset, each in an order of its own.

    Args:
        dataset: images with boxes and proposals.
        seed: of the order and of the transform's random choices.
        flip: the probability that a sample is mirrored.
        use_difficult: whether objects that VOC marks difficult are trained on.
        transform: a further transform of (image, target), as those of ``torchvision.transforms.v2``.
        augmentation: another, before it, of the samples that are perturbed.
        perturbed: how many samples, the first, are; those after them are clean. All when None.
        clean_fraction: of the perturbed samples, the fraction that no adversary touches; 1 where there is none.
        adversarial_first: whether the first of them is one that an adversary touches.
        eligible: whether an image is trained on, by its target; another is drawn in place of one that is not.
        strict: whether an image that cannot be decoded is refused; another is drawn in its place when False.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        *,
        seed: int = 0,
        flip: float = 0.5,
        use_difficult: bool = False,
        transform: SampleTransform | None = None,
        augmentation: SampleTransform | None = None,
        perturbed: int | None = None,
        clean_fraction: float = 1.0,
        adversarial_first: bool = False,
        eligible: Callable[[Target], bool] | None = None,
        strict: bool = False,
    ) -> None:
        self.samples, self.seed = TrainableSamples(dataset, use_difficult), seed
        self.flip = v2.RandomHorizontalFlip(flip)
        self.transform, self.augmentation = transform, augmentation
        self.perturbed, self.clean_fraction, self.adversarial_first = perturbed, clean_fraction, adversarial_first
        self.eligible, self.strict = eligible, strict

    def __getitem__(self, position: int) -> tuple[tv_tensors.Image, Target]:
        """Return sample ``position`` (0, 1, ...): image (3 x H x W, uint8) and its trainable target.

        The target says by ``adversarial`` whether the features of its objects may be perturbed; ``left_out``, where it
        is there, has the errors of images that could not be decoded, in whose place this one was drawn.
        """
        image, target, unreadable = self._sample(position)
        perturbed = self.perturbed is None or position < self.perturbed
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(self.seed, 1, position))
            image, target = self.flip(image, target)
            if self.augmentation is not None and perturbed:
                image, target = self.augmentation(image, target)
            if self.transform is not None:
                with _seeded(self.seed, position):
                    image, target = self.transform(image, target)
        adversarial = perturbed and is_adversarial(position, self.clean_fraction, self.adversarial_first)
        left_out = {"left_out": tuple(unreadable)} if unreadable else {}
        return image, target | {"adversarial": adversarial} | left_out

    def _sample(self, position: int) -> tuple[tv_tensors.Image, Target, list[UnreadableImageError]]:
        """Return the image that is next in the epoch, or the first suitable one of some that are drawn in its place.

        Returns:
            Image and target, and the errors of those that could not be decoded.

        Raises:
            UserError: none of them is suitable.
        """
        epoch, place = divmod(position, len(self.samples))
        drawn = np.random.default_rng([self.seed, 2, position]).integers(len(self.samples), size=_DRAWS)
        unreadable = list[UnreadableImageError]()
        for index in chain([_order(self.seed, epoch, len(self.samples))[place]], drawn):
            try:
                image, target = self.samples[int(index)]
            except UnreadableImageError as error:
                if self.strict:
                    raise
                unreadable.append(error)
                continue
            if self.eligible is None or self.eligible(target):
                return image, target, unreadable
        if unreadable and self.eligible is None:
            raise unreadable[0]
        problem = "no image was found that has both foreground and background proposals"
        raise UserError(problem, field="data.redraw", fix="compute proposals anew, or set it to false")


class BatchSampler(Sampler[list[int]]):
    """Positions of the sample sequence by update: those of one process of several.

    Args:
        first: the update to begin with.
        last: the update to end before.
        images: images of an update in one process.
        rank: which process this is.
        world_size: how many there are.
    """

    def __init__(self, first: int, last: int, images: int, rank: int = 0, world_size: int = 1) -> None:
        self.first, self.last, self.images, self.rank, self.world_size = first, last, images, rank, world_size

    def __len__(self) -> int:
        """Return the number of updates."""
        return self.last - self.first

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the positions of each update."""
        for update in range(self.first, self.last):
            start = (update * self.world_size + self.rank) * self.images
            yield list(range(start, start + self.images))


def build_augmentation(recipe: DataRecipe, dataset: DetectionDataset) -> list[SampleTransform]:
    """Return what hides objects in training images, in the order in which a recipe's probabilities are drawn."""
    wanted, samples = recipe.augmentation, TrainableSamples(dataset, recipe.use_difficult)
    sources = samples if recipe.strict else _ReadableSamples(samples)
    return [
        *([v2.RandomApply([CopyPaste(sources, recipe.flip)], wanted.copy_paste)] if wanted.copy_paste else []),
        *([v2.RandomApply([CutOut(wanted.cutout_fraction)], wanted.cutout)] if wanted.cutout else []),
        *([RandomErasing(wanted.random_erasing)] if wanted.random_erasing else []),
    ]


def collate(samples: Sequence[tuple[tv_tensors.Image, Target]]) -> Batch:
    """Put samples of different sizes into lists."""
    images, targets = zip(*samples, strict=True)
    return [image.as_subclass(Tensor) for image in images], list(targets)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, length: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the order of ``length`` images in an epoch, a permutation."""
    return np.random.default_rng([seed, 0, epoch]).permutation(length)


def trainable(target: Target, use_difficult: bool = False) -> Target:
    """Return what of a target is trained on.

    Objects that VOC marks difficult (unless ``use_difficult``) and COCO's crowd regions leave it, and so do proposals
    that lie in a crowd region, where unlabelled objects would be taken for background.
    """
    target = dict(target)
    remaining, boxes = not_crowds(target), target["boxes"]
    crowds = boxes.as_subclass(Tensor)[~remaining]
    if len(crowds) and "proposals" in target:
        proposals = target["proposals"]
        outside = intersection_over_foreground(proposals.as_subclass(Tensor), crowds).amax(dim=1) <= _CROWD_COVER
        target["proposals"] = tv_tensors.wrap(proposals[outside], like=proposals)
    if "difficult" in target and not use_difficult:
        remaining &= ~target["difficult"]
    for name, value in target.items():
        if isinstance(value, Tensor) and name != "proposals" and len(value) == len(remaining):
            target[name] = value[remaining]
    target["boxes"] = tv_tensors.wrap(boxes[remaining], like=boxes)
    return target


@contextmanager
def _seeded(seed: int, position: int) -> Iterator[None]:
    """Seed NumPy's and Python's own random numbers for a sample, as PyTorch's are, and put them back as they were.

    Transforms of other packages draw from these, which worker processes would else have in the same state each time.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002  the one that others draw from
    np.random.seed(seed_of(seed, 3, position) % 2**32)  # noqa: NPY002
    random.seed(seed_of(seed, 4, position))
    try:
        yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


def seed_of(*words: int) -> int:
    """Return a seed of 63 bits that depends on every one of ``words``."""
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)
