"""Plain implementations that others are compared with, and what several tests draw at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from afrcnn.proposals.store import Proposals, ProposalStore, fingerprint

# proposals


def random_proposals(rng: np.random.Generator, count: int, side: float = 50) -> np.ndarray:
    """Boxes, count x 4, float32, in an image of a side."""
    corners = rng.uniform(0, side, (2, count, 2))
    return np.concatenate([corners.min(0), corners.max(0) + 0.01], axis=1).clip(0, side).astype(np.float32)


def write_store(folder: Path, scenes, proposals: list[Proposals]) -> ProposalStore:
    """A store of proposals for the images of a dataset."""
    images = [
        (image_id, fingerprint(scenes.image_path(index)), proposals[index]) for index, image_id in enumerate(scenes.ids)
    ]
    return ProposalStore.write(folder, images, method="random", parameters={"seed": 0})
