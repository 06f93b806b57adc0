"""The images of a training: those that it learns from, and those that it is validated on."""

from __future__ import annotations

from afrcnn.build import open_split, with_proposals
from afrcnn.core.errors import UserError
from afrcnn.data.layouts import open_dataset
from afrcnn.data.random_split import SEED, divide
from afrcnn.data.target import DetectionDataset, require_annotations
from afrcnn.data.union import JoinedImages
from afrcnn.evaluation.matching import ignored_by_default
from afrcnn.recipe import Recipe
from afrcnn.run import training_splits


def open_training_images(recipe: Recipe) -> DetectionDataset:
    """Open what a recipe trains on, its ``data.train_split`` and ``data.also``, with proposals to train on.

    Of the first, the images that ``data.val_fraction`` holds out are left out.

    Raises:
        UserError: as of ``afrcnn.build.open_split``; or a split is not annotated, or of other classes than the first.
    """
    data, datasets = recipe.data, list[DetectionDataset]()
    for root, split in training_splits(recipe):
        field = "data.also" if datasets else "data.train_split"
        images = require_annotations(open_dataset(root, split, data.layout, data.classes, field=field))
        if _holds_out(recipe) and not datasets:
            images = images.subset(divide(images, data.val_fraction, SEED)[0])
        datasets.append(with_proposals(images, data, None if datasets else data.proposals))
    return JoinedImages(datasets) if datasets[1:] else datasets[0]


def open_validation_images(recipe: Recipe, training: DetectionDataset) -> DetectionDataset | None:
    """Open what a recipe validates on, with the proposals of evaluation; None where it does not.

    Args:
        recipe: names a split, ``data.val_split``, or holds out a part of the training split, ``data.val_fraction``.
        training: what it trains on.

    Raises:
        UserError: as of ``afrcnn.build.open_split``; or the images are not annotated, show no object that counts, or
            are trained on, too.
    """
    data = recipe.data
    if data.val_split is not None:
        field, images = "data.val_split", require_annotations(open_split(recipe, data.val_split))
    elif _holds_out(recipe):
        (root, split), *_ = training_splits(recipe)
        field, whole = "data.val_fraction", open_dataset(root, split, data.layout, data.classes)
        held_out = whole.subset(divide(whole, data.val_fraction, SEED)[1])
        images = with_proposals(held_out, data.for_evaluation(), data.proposals)
    else:
        return None
    trained = set(map(training.image_path, range(len(training))))
    for path in map(images.image_path, range(len(images))):
        if path in trained:
            fix = "name splits that have no image in common, as --data.train_split train --data.val_split val"
            raise UserError("would be both trained and validated on", file=path, field=field, fix=fix)
    if not any(_counts(images, index) for index in range(len(images))):
        raise UserError("shows no object that counts", file=images.root, field=field, fix="validate on other images")
    return images


def _holds_out(recipe: Recipe) -> bool:
    return recipe.data.val_fraction > 0 and recipe.data.val_split is None


def _counts(images: DetectionDataset, index: int) -> bool:
    """Tell whether an image shows an object that has to be detected."""
    return not bool(ignored_by_default(images.target(index)).all())
