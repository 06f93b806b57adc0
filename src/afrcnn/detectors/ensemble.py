"""Ensembles: detectors that answer together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from afrcnn.detectors.rcnn import FastRCNN, sizes_of


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

    def __init__(self, members: Sequence[FastRCNN]) -> None:
        super().__init__()
        if len({member.predictor.cls_score.out_features for member in members}) != 1:
            raise ValueError("an ensemble needs members, all of the same classes")
        self.members = nn.ModuleList(members)

    def forward(self, images: Sequence[Tensor], proposals: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Return the detections in images, given as to ``FastRCNN`` in evaluation."""
        members = cast(Sequence[FastRCNN], self.members)
        scores, offsets = [], []
        for member in members:
            score, deltas = member.score(images, proposals)
            scores.append(score)
            offsets.append(member.box_coder.denormalise(deltas.view(len(deltas), -1, 4)))
        deltas = members[0].box_coder.normalise(torch.stack(offsets).mean(0)).flatten(1)
        return members[0].detect(torch.stack(scores).mean(0), deltas, proposals, sizes_of(images))
