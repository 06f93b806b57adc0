"""Strips of what detectors find and miss, the more of the objects is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from afrcnn.build import load_detector, open_split
from afrcnn.core.errors import UserError
from afrcnn.data.target import DetectionDataset, require_annotations
from afrcnn.evaluation.detect import detect
from afrcnn.reporting.elements import Picture, Section
from afrcnn.reporting.methods import Method
from afrcnn.robustness.benchmark import StressedImages
from afrcnn.robustness.found import FoundObjects, by_difference, count_found, find_objects
from afrcnn.visualize.found import draw_found

_IMAGES, _SHOWN = 20, 3
"""Images that are looked at, evenly spread over the split, and strips that are shown."""

_LEVELS = (0.0, 0.2, 0.4, 0.6)
"""Fractions of every object that are hidden."""


def found_and_missed(methods: Sequence[Method], trust: Sequence[str] = ()) -> Section:
    """Return strips of the images in which the first runs of the first and of the last method differ most.

    Args:
        methods: the methods, a row of each strip for each.
        trust: modules that detectors of other classes may be imported from.
    """
    runs, section = [method.runs[0] for method in methods], Section()
    if not all(run.weights_file.is_file() for run in runs):
        return section
    try:
        dataset = require_annotations(open_split(runs[0].recipe, runs[0].recipe.data.test_split))
        detectors = [partial(detect, load_detector(run, trust), workers=run.recipe.data.workers) for run in runs]
        count = min(_IMAGES, len(dataset))
        indices = [number * len(dataset) // count for number in range(count)]
        objects, images = find_objects(detectors, dataset, indices, levels=_LEVELS)
    except UserError as error:  # the rest of the report is worth having
        section.missing.append(f"{error}.")
        return section
    names = [method.name for method in methods]
    chosen = by_difference([image for image in objects if len(image.labels)], dataset.ids)[:_SHOWN]
    pictures = [_draw(image, indices.index(image.image), images, dataset, names) for image in chosen]
    section.pictures[""] = pictures[:1]
    if pictures[1:]:
        section.more["More images"] = Section(pictures={"": pictures[1:]})
    section.text = _in_words(objects, names, len(methods) > 1)
    return section


def _draw(
    objects: FoundObjects, number: int, images: StressedImages, dataset: DetectionDataset, names: Sequence[str]
) -> Picture:
    pixels = [images[number * len(_LEVELS) + level][0].permute(1, 2, 0).numpy() for level in range(len(_LEVELS))]
    file = dataset.image_path(objects.image).name
    counts = objects.is_found.sum(axis=2)
    words = "; ".join(f"{name} {_listed(row)}" for name, row in zip(names, counts.tolist(), strict=True))
    words = f"{file}: of {len(objects.labels)} objects, with {_hidden()} of each hidden, are found: {words}."
    return Picture.of_image(draw_found(pixels, objects, names, _LEVELS), words, file)


def _in_words(objects: Sequence[FoundObjects], names: Sequence[str], differ: bool) -> str:
    """Say how many objects are found in all images, and which images are shown."""
    total = sum(len(image.labels) for image in objects)
    counts = zip(names, count_found(objects).tolist(), strict=True)
    words = "; ".join(f"{name} {_listed(row)}" for name, row in counts)
    order = "Shown first are those in which both differ most, for or against. " if differ else ""
    return (
        f"Of {total} objects in {len(objects)} images, with {_hidden()} of each hidden, are found with a score of at "
        f"least 0.5: {words}. {order}Dashed: missed."
    )


def _hidden() -> str:
    return _listed([f"{100 * level:.0f}" for level in _LEVELS]) + "%"


def _listed(items: Sequence[object]) -> str:
    """Join words as a list of a sentence."""
    *first, last = map(str, items)
    return f"{', '.join(first)} and {last}" if first else last
