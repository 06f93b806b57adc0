"""Ensembles: detectors that answer together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from afrcnn.detectors.rcnn import FastRCNN


class Ensemble(nn.Module):
    """Detectors that score the same proposals and answer with the mean of their probabilities and offsets.

    Section 5.4 has ensembles of two, and does not say how they are joined. Since all members see the same proposals,
    nothing has to be matched: the mean comes before non-maximum suppression, which works as the first member's does.

    Args:
        members: one or more detectors of the same classes, in evaluation mode; their networks and sizes of images may
            differ.

    Raises:
        ValueError: there are no members, or they have different numbers of classes.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        detectors = [member for member in members if isinstance(member, FastRCNN)]
        if len(detectors) < len(members) or len({member.roi_heads.num_classes for member in detectors}) != 1:
            raise ValueError("an ensemble needs Fast R-CNNs, all of the same classes")
        self.members = nn.ModuleList(members)

    def forward(self, images: Sequence[Tensor], proposals: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Return the detections in images, given as to ``FastRCNN`` in evaluation."""
        scores, offsets, sizes = [], [], [(image.shape[-2], image.shape[-1]) for image in images]
        for member in cast(Sequence[FastRCNN], self.members):
            score, deltas = member.roi_heads.score(member.features(images), proposals)
            scores.append(score)
            offsets.append(member.roi_heads.box_coder.denormalise(deltas.view(len(deltas), -1, 4)))
        first = cast(FastRCNN, self.members[0]).roi_heads
        deltas = first.box_coder.normalise(torch.stack(offsets).mean(0)).flatten(1)
        return first.detect(torch.stack(scores).mean(0), deltas, proposals, sizes)
