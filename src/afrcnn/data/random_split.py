"""Dividing the images of a dataset at random, by class, alike on every machine."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

from afrcnn.core.errors import UserError
from afrcnn.data.annotations import AnnotatedImages

TEST_FRACTION = 0.2
"""The fraction of the images to test on, where nothing else is said."""

SEED = 0
"""The seed of the division, where nothing else is said."""


def divide(dataset: AnnotatedImages, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Divide images into those to train on and those to test on.

    Of the images that show a class, those to test on are the fraction, rounded, but at least one and not all, where
    there are two. Images without objects count as a class of their own. Rare classes choose first. Which images they
    are depends on the images' ids and classes and on the seed, not on their order.

    Args:
        dataset: the images.
        fraction: of the images to test on, between 0 and 1.
        seed: another seed, another division.

    Returns:
        The indices of the images to train on, and of those to test on, in order.

    Raises:
        UserError: the fraction is out of range, or there are too few images.
    """
    if not 0 < fraction < 1:
        raise UserError(f"{fraction} is out of range", field="random", fix="choose a number between 0 and 1")
    if len(dataset) < 2:
        raise UserError("has too few images to divide", file=dataset.root, fix="name the splits, or add images")
    # The label 0 stands for "nothing".
    labels = [set(dataset.target(index)["labels"].tolist()) or {0} for index in range(len(dataset))]
    order = sorted(range(len(dataset)), key=lambda index: sha256(f"{seed}/{dataset.ids[index]}".encode()).digest())
    images = Counter(label for shown in labels for label in shown)
    wanted = {label: min(max(round(fraction * n), 1), n - 1) for label, n in images.items()}
    chosen, counts = set[int](), Counter[int]()
    for label in sorted(images, key=lambda label: (images[label], label)):
        for index in order:
            if counts[label] >= wanted[label]:
                break
            # No class gives its last image to the test.
            if label in labels[index] and index not in chosen and all(counts[n] + 1 < images[n] for n in labels[index]):
                chosen.add(index)
                counts.update(labels[index])
    if not chosen:
        chosen = {order[0]}
    return [index for index in range(len(dataset)) if index not in chosen], sorted(chosen)
