"""The seam between RoI pooling and the head, where an adversary meets the detector (section 3, figure 2)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil

import torch
from torch import Tensor, nn

from afrcnn.adversaries.base import Hardened, Head, show
from afrcnn.core.distributed import mean_count, rank_and_size


class Seam(nn.Module):
    """Hands the foreground RoIs of adversarial images to an adversary, and puts back what it made of them.

    Used in training alone. What the adversary measured in the last update is in ``metrics``.

    Args:
        adversary: an ``Adversary`` (see ``afrcnn.adversaries.base``).
        clean_fraction: the share of the images, in [0, 1], that no adversary touches, so that the detector does not
            overfit to hard examples (section 5.1: one image of two).
        least_iou: the smallest IoU with its object, in [0, 1], of a RoI that is made harder (0, any, in the paper). A
            RoI that shows part of an object, and most of that hidden, shows little else than background.
    """

    def __init__(self, adversary: nn.Module, clean_fraction: float = 0.5, least_iou: float = 0.0) -> None:
        super().__init__()
        if not 0 <= least_iou <= 1:
            raise ValueError(f"a least IoU of {least_iou:g} is not in [0, 1]")
        self.adversary = adversary
        self.least_iou = least_iou
        self.adversarial = AdversarialImages(clean_fraction)
        self.metrics: dict[str, Tensor] = {}

    def forward(
        self, features: Tensor, labels: Sequence[Tensor], head: Head, overlaps: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return features of which some are harder, and the adversary's loss.

        Args:
            features: n x C x d x d, of the RoIs of all images.
            labels: the RoIs' labels by image, n in all; 0 is background.
            head: the detector's classifier.
            overlaps: the foreground RoIs' IoU with their object, by image as the labels; of background, any numbers.

        Returns:
            Features n x C x d x d and a scalar, which over processes averages to the mean over all their objects.
        """
        turns = zip(labels, overlaps, self.adversarial(len(labels)), strict=True)
        chosen = torch.cat(
            [(label > 0) & (overlap >= self.least_iou) & adversarial for label, overlap, adversarial in turns]
        )
        chosen = chosen.nonzero().flatten()
        joined = torch.cat(list(labels))
        show(self.adversary, features.detach(), joined)
        hardened = Hardened(*self.adversary(features[chosen], joined[chosen], head))
        self.metrics = hardened.metrics
        loss = hardened.loss * (len(chosen) / mean_count(len(chosen), features.device))
        return features.index_copy(0, chosen, hardened.features.to(features.dtype)), loss


class AdversarialImages(nn.Module):
    """Says which images of an update are adversarial, in turns: of two, with the paper's half, the second.

    Images are counted over all processes and from update to update (in the state dict), so that the fraction holds for
    any number of images of an update, also for one image at a time.

    Args:
        clean_fraction: the share of the images, in [0, 1], that are not.

    Attributes:
        resting: whether no image is, for the time being; the turns go on.
    """

    count: Tensor

    def __init__(self, clean_fraction: float) -> None:
        super().__init__()
        if not 0 <= clean_fraction <= 1:
            raise ValueError(f"a clean fraction of {clean_fraction:g} is not in [0, 1]")
        self.clean_fraction = Fraction(clean_fraction).limit_denominator(1_000_000)
        self.resting = False
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, images: int) -> list[bool]:
        """Return for each of the next ``images`` images of this process whether it is adversarial."""
        rank, size = rank_and_size()
        first = int(self.count) + rank * images
        self.count += size * images
        return [not self._is_clean(number) for number in range(first, first + images)]

    def ahead(self, images: int) -> int:
        """Return how many are adversarial of the next images of all processes, ``images`` in each."""
        first, (_, size) = int(self.count), rank_and_size()
        return sum(not self._is_clean(number) for number in range(first, first + size * images))

    def _is_clean(self, number: int) -> bool:
        return self.resting or ceil((number + 1) * self.clean_fraction) > ceil(number * self.clean_fraction)
