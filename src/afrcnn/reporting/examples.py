"""Photographs of the test split: what adversaries make of their objects, and where detectors see what is not there."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from shlex import quote

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from afrcnn.commands.masks import MaskedObject, mask_objects
from afrcnn.core.errors import UserError
from afrcnn.data import DetectionDataset, Target, open_dataset
from afrcnn.evaluation.diagnosis import FalsePositive, new_false_positives
from afrcnn.evaluation.formats import Detection, read_coco_results
from afrcnn.evaluation.matching import ignored_by_default, match
from afrcnn.reporting.comparison import ONE_METHOD
from afrcnn.reporting.elements import Picture, Section, photograph
from afrcnn.reporting.methods import Method, ReportedRun
from afrcnn.visualize.false_positives import draw_false_positive
from afrcnn.visualize.masks import draw_masks

MASKED_IMAGES, MASKED_OBJECTS = 3, 2
"""Photographs in which masks are shown, and objects of each."""

DOTS_PER_INCH = 100
"""Of the figures of masks."""

FALSE_POSITIVES = 8
"""How many are shown of a method."""


def masks(methods: Sequence[Method], overrides: Sequence[str] = ()) -> Section:
    """Return figures of what the adversaries of each method's first run do to objects.

    Args:
        methods: the methods.
        overrides: fields of their recipes to set differently.
    """
    section = Section(
        "What the adversaries do",
        f"The {MASKED_OBJECTS} largest objects of {MASKED_IMAGES} photographs, spread evenly over the test split, as "
        "the adversaries make them harder in training, and the score of the object's class before and after.",
    )
    adversarial = [method for method in methods if method.runs[0].recipe.adversary.chain]
    if not adversarial:
        section.missing.append("no run has an adversary; train one with --adversary.chain [asdn,astn].")
    for method in adversarial:
        run = method.runs[0]
        try:
            section.pictures[f"{method.name}, seed {run.recipe.seed}"] = _masks(run, overrides)
        except UserError as error:  # the rest of the report is worth having
            section.missing.append(f"{error}.")
    return section


def false_positives(methods: Sequence[Method]) -> Section:
    """Return the most confident false positives that a method has and the first has not (the paper's Figure 6)."""
    baseline = methods[0]
    section = Section(
        "New false positives",
        f"The most confident detections of each method's first run that overlap no object of their class, and where "
        f"{baseline.name} detects none of that class. Detected is what has a score of 0.5 or more, and boxes overlap "
        "above an IoU of 0.5. The paper's Figure 6, but nothing is picked by hand.",
    )
    if len(methods) == 1:
        section.missing.append(ONE_METHOD)
    for method in methods[1:]:
        run = method.runs[0]
        other = baseline.of_seed(run.recipe.seed)
        if lacking := [each for each in (other, run) if not each.detections_file.is_file()]:
            section.commands += [f"afrcnn evaluate {quote(str(each.run.folder))}" for each in lacking]
            continue
        try:
            dataset = _test_split(run)
            targets = [dataset.target(index) for index in range(len(dataset))]
            own, others = (match(_detections(each, dataset), targets, dataset.classes) for each in (run, other))
            found = new_false_positives(own, others)
            title = f"{method.name}, seed {run.recipe.seed}, against {baseline.name}, seed {other.recipe.seed}"
            shown = [_picture(each, dataset) for each in found[:FALSE_POSITIVES]]
        except UserError as error:
            section.missing.append(f"{error}.")
        else:
            section.pictures[f"{title}: {len(shown)} of {len(found)}"] = shown
    section.commands = list(dict.fromkeys(section.commands))
    return section


def _masks(run: ReportedRun, overrides: Sequence[str]) -> list[Picture]:
    detector = run.run.detector(overrides)
    chain = run.run.adversary(detector, overrides)
    dataset = _test_split(run)
    pictures = []
    for index in _spread([dataset.target(index) for index in range(len(dataset))]):
        image, target = dataset[index]
        pixels = image.as_subclass(Tensor)
        masked = mask_objects(detector, chain, pixels, _largest(target), run.classes, run.recipe.seed)
        with BytesIO() as file:
            draw_masks(pixels.permute(1, 2, 0).numpy(), masked).savefig(file, format="png", dpi=DOTS_PER_INCH)
            figure = Image.open(file).convert("RGB")
        name = f"image {dataset.ids[index]}"
        pictures.append(photograph(figure, f"{name}: {' '.join(map(_in_words, masked))}", name))
    return pictures


def _spread(targets: Sequence[Target]) -> list[int]:
    """Return the indices of a few images that have objects, spread evenly."""
    filled = [index for index, target in enumerate(targets) if not ignored_by_default(target).all()]
    places = np.linspace(0, len(filled) - 1, min(MASKED_IMAGES, len(filled)))
    return [filled[round(place)] for place in places]


def _largest(target: Target) -> dict[str, Tensor]:
    """Return ``boxes`` and ``labels`` of the largest objects that evaluation counts."""
    counted = ~ignored_by_default(target).bool()
    boxes, labels = target["boxes"].as_subclass(Tensor)[counted], target["labels"][counted]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    first = torch.argsort(areas, descending=True, stable=True)[:MASKED_OBJECTS]
    return {"boxes": boxes[first], "labels": labels[first]}


def _in_words(masked: MaskedObject) -> str:
    """Say what was done to an object."""
    parts = [f"{masked.name}, score {masked.score:.2f}"]
    for step in masked.steps:
        done = []
        if step.mask is not None:
            done.append(f"hides {np.sum(step.mask)} of {np.size(step.mask)} cells")
        if step.angles is not None:
            done.append(f"turns by {', '.join(f'{angle:+z.1f}' for angle in step.angles)} degrees")
        parts.append(f"{step.adversary} {' and '.join(done) or 'changes it'}, score {step.score:.2f}")
    return f"{'; '.join(parts)}."


def _picture(found: FalsePositive, dataset: DetectionDataset) -> Picture:
    image, _ = dataset[found.image]
    on = f"on {found.object_name} (IoU {found.iou:.2f})" if found.object_name else "on background"
    baseline = f"{found.baseline_score:.2f}" if found.baseline_score else "none"
    caption = f"{found.name} {found.score:.2f} (baseline: {baseline}), {on}; image {dataset.ids[found.image]}"
    drawn = draw_false_positive(image.permute(1, 2, 0).numpy(), found.box)
    return photograph(drawn, f"Falsely detected: {caption}.", caption)


def _test_split(run: ReportedRun) -> DetectionDataset:
    data = run.recipe.data
    return open_dataset(data.root, data.test_split, data.layout, data.classes)


def _detections(run: ReportedRun, dataset: DetectionDataset) -> list[Detection]:
    category_ids = getattr(dataset, "category_ids", range(1, len(dataset.classes) + 1))
    return read_coco_results(run.detections_file, dataset.ids, category_ids)
