"""Images of the test split: what adversaries make of their objects, and where detectors see what is not there."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import cast

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.ops import box_area

from afrcnn.adversaries.trace import ObjectTrace, trace_objects
from afrcnn.build import load_adversary, load_detector
from afrcnn.core.errors import UserError
from afrcnn.data.target import DetectionDataset, Target
from afrcnn.detectors.rcnn import FastRCNN
from afrcnn.evaluation.error_kinds import class_groups
from afrcnn.evaluation.false_positives import FalsePositive, new_false_positives
from afrcnn.evaluation.matching import ignored_by_default
from afrcnn.reporting.elements import Picture, Section
from afrcnn.reporting.methods import Method, ReportedRun
from afrcnn.visualize.false_positives import draw_false_positive
from afrcnn.visualize.masks import draw_masks

_MASKED_IMAGES, _MASKED_OBJECTS = 3, 2
"""Images in which masks are shown, and objects of each."""

_DOTS_PER_INCH = 100
"""Of the figures of masks."""

_FALSE_POSITIVES = 8
"""How many are shown of a method."""


def adversary_examples(methods: Sequence[Method], trust: Sequence[str] = ()) -> Section:
    """Return figures of what the adversaries of each method's first run do to objects.

    Args:
        methods: the methods.
        trust: modules whose adversaries may be imported.
    """
    section = Section()
    for method in methods:
        run = method.runs[0]
        if run.recipe.adversaries:
            try:
                title, pictures = f"{method.name}, seed {run.recipe.seed}", _draw_traces(run, trust)
                section.pictures[title] = pictures[:1]
                if pictures[1:]:
                    section.more[f"More images: {title}"] = Section(pictures={"": pictures[1:]})
            except UserError as error:  # the rest of the report is worth having
                section.missing.append(f"{error}.")
    return section


def false_positive_examples(methods: Sequence[Method]) -> Section:
    """Return the most confident false positives that a method has and the first has not (the paper's Figure 6)."""
    section, baseline = Section(), methods[0]
    for method in methods[1:]:
        run = method.runs[0]
        other = baseline.of_seed(run.recipe.seed)
        try:
            matches = [one.matches for one in (run, other)]
            if (new := matches[0]) is None or (old := matches[1]) is None:
                unevaluated = [one for one, known in zip((run, other), matches, strict=True) if known is None]
                section.commands += [one.command("evaluate") for one in unevaluated]
                continue
            dataset, _ = run.test_split
            errors = new_false_positives(new, old, similar=class_groups(dataset.classes).similar)
            pictures = [_draw_error(error, dataset) for error in errors[:_FALSE_POSITIVES]]
        except UserError as error:
            section.missing.append(f"{error}.")
        else:
            title = f"{method.name}, seed {run.recipe.seed}, against {baseline.name}, seed {other.recipe.seed}"
            section.pictures[f"{title}: {len(pictures)} of {len(errors)}"] = pictures
    return section


def _draw_traces(run: ReportedRun, trust: Sequence[str]) -> list[Picture]:
    detector = cast(FastRCNN, load_detector(run, trust))
    chain = load_adversary(run, detector, trust)
    dataset, targets = run.test_split
    pictures = []
    for index in _spread(targets):
        image = dataset[index][0].as_subclass(Tensor)  # 3 x H x W
        objects = _largest(targets[index])
        traces = trace_objects(detector, chain, image, objects, run.classes, run.recipe.seed)
        figure = _pixels(draw_masks(image.permute(1, 2, 0).numpy(), traces))
        name = dataset.image_path(index).name
        pictures.append(Picture.of_image(figure, f"{name}: {' '.join(map(_in_words, traces))}", name))
    return pictures


def _spread(targets: Sequence[Target]) -> list[int]:
    """Return the indices of a few images that have objects, spread evenly."""
    filled = [index for index, target in enumerate(targets) if not ignored_by_default(target).all()]
    places = np.linspace(0, len(filled) - 1, min(_MASKED_IMAGES, len(filled)))
    return [filled[round(place)] for place in places]


def _largest(target: Target) -> dict[str, Tensor]:
    """Return ``boxes`` and ``labels`` of the largest objects that evaluation counts."""
    counted = ~ignored_by_default(target).bool()
    boxes, labels = target["boxes"].as_subclass(Tensor)[counted], target["labels"][counted]
    first = torch.argsort(box_area(boxes), descending=True, stable=True)[:_MASKED_OBJECTS]
    return {"boxes": boxes[first], "labels": labels[first]}


def _in_words(traced: ObjectTrace) -> str:
    """Say what was done to an object."""
    words = [f"{traced.name}, score {traced.score:.2f}"]
    for step in traced.steps:
        done = []
        if step.mask is not None:
            done.append(f"occludes {np.sum(step.mask)} of {np.size(step.mask)} cells")
        if step.angles is not None:
            done.append(f"rotates by {', '.join(f'{angle:+z.1f}' for angle in step.angles)} degrees")
        words.append(f"{step.adversary} {' and '.join(done) or 'changes it'}, score {step.score:.2f}")
    return f"{'; '.join(words)}."


def _draw_error(error: FalsePositive, dataset: DetectionDataset) -> Picture:
    image, _ = dataset[error.image]
    on = f", on {error.object_name} (IoU {error.iou:.2f})" if error.object_name else ""
    baseline = f"{error.baseline_score:.2f}" if error.baseline_score else "none"
    file = dataset.image_path(error.image).name
    caption = f"{error.name} {error.score:.2f} (baseline: {baseline}), {error.kind}{on}; {file}"
    drawn = draw_false_positive(image.permute(1, 2, 0).numpy(), error.box)
    return Picture.of_image(drawn, f"False positive: {caption}.", caption)


def _pixels(figure: Figure) -> Image.Image:
    """Return a figure as an image, RGB."""
    with BytesIO() as file:
        figure.savefig(file, format="png", dpi=_DOTS_PER_INCH)
        return Image.open(file).convert("RGB")
