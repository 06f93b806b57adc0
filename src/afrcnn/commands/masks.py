"""What a run's adversaries do to the objects of photographs: figure 3b of the paper, for photographs of one's own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.ops import box_iou

from afrcnn.adversaries import ASDN, ASTN, Chain, Hardened
from afrcnn.adversaries.base import Head, true_class_score
from afrcnn.commands.predict import detect_photographs, photograph_files, picture_files
from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.data.image import read_image
from afrcnn.detectors.rcnn import FastRCNN
from afrcnn.run import Run
from afrcnn.visualize.masks import draw_masks

GRID = 5
"""Windows along a side of the grid from which a photograph's background is taken."""

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of a photograph, half-open, from 0."""


@dataclass(frozen=True)
class Step:
    """What one adversary of a chain did to an object, as those before it had left it.

    Attributes:
        adversary: its name in the chain.
        score: the score of the object's class after it, in [0, 1].
        heatmap: where ASDN expects that hiding hurts, d x d values in [0, 1]; None of other adversaries.
        mask: the cells it hid, d x d; None of adversaries that hide nothing.
        angles: by how many degrees ASTN turned each block of channels, clockwise; None of other adversaries.
    """

    adversary: str
    score: float
    heatmap: list[list[float]] | None
    mask: list[list[bool]] | None
    angles: list[float] | None


@dataclass(frozen=True)
class MaskedObject:
    """One object of a photograph, and what the adversaries made of it.

    Attributes:
        name: its class.
        box: where it is; the d x d cells of heatmaps and masks divide it evenly, row by row from its upper left.
        score: the score of its class, in [0, 1], before any adversary. It is that of this very box, classified anew; a
            detection's own score is that of the proposal that became the box.
        steps: the adversaries, in their order.
    """

    name: str
    box: Box
    score: float
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class MaskedImage:
    """What was drawn of one photograph.

    Attributes:
        image: its file.
        picture: the file of the figure.
        width: the photograph's width in pixels, upright, as its EXIF says.
        height: its height.
        left_out: how many further objects were detected.
        objects: the objects, best first, or as they were given.
    """

    image: str
    picture: str
    width: int
    height: int
    left_out: int
    objects: tuple[MaskedObject, ...]


def masks(
    run: Path | str,
    images: Iterable[Path | str],
    out: Path | str | None = None,
    *,
    boxes: Sequence[tuple[Box, str]] = (),
    limit: int = 6,
    score: float = 0.5,
    overrides: Sequence[str] = (),
) -> list[MaskedImage]:
    """Draw what the adversaries of a run do to objects: heatmaps, masks, angles, and scores before and after.

    Writes a figure of each photograph, and last ``masks.json``, a list with the fields of each ``MaskedImage``.
    What is random is drawn anew for each photograph from the recipe's seed: the same photograph gives the same figure.

    Args:
        run: the run's folder.
        images: photographs, and folders of photographs.
        out: the folder to write to; ``masks`` in the run's when None.
        boxes: objects, each with its class, to show in place of detections, if any; for one photograph.
        limit: how many detections of a photograph are shown, best first.
        score: the lowest score, in [0, 1], of the detections that are shown.
        overrides: fields of the run's recipe to set differently, as ``["--seed", "1"]``.

    Returns:
        What was drawn of each photograph, in order.

    Raises:
        UserError: the run has no trained adversary, an image is missing or damaged, a box lies outside its image or
            its class is unknown, or the folder cannot be written.
    """
    if limit < 1:
        raise UserError(f"{limit} is out of range", field="boxes", fix="choose 1 or more")
    out = Path(run) / "masks" if out is None else Path(out)
    paths = photograph_files(images)
    pictures = picture_files(paths, out, ".png")
    recipe = Run(run).recipe(overrides)
    classes = recipe.data.classes
    detector = Run(run).detector(overrides)
    chain = Run(run).adversary(detector, overrides)
    assert classes is not None  # a resolved recipe names its classes
    found = [_given(boxes, paths, classes)] if boxes else detect_photographs(detector, paths, recipe, score)
    chain.to(next(detector.parameters()).device)

    drawn = []
    for path, picture, objects in zip(paths, pictures, found, strict=True):
        pixels = read_image(path, upright=True)
        shown = {name: value[: None if boxes else limit] for name, value in objects.items()}
        masked = mask_objects(detector, chain, pixels, shown, classes, recipe.seed)
        height, width = pixels.shape[-2:]
        left_out = len(objects["labels"]) - len(masked)
        with atomic_write(picture, "wb") as file:
            draw_masks(pixels.permute(1, 2, 0).numpy(), masked, left_out).savefig(file, format="png")
        drawn.append(MaskedImage(str(path), str(picture), width, height, left_out, masked))
    with atomic_write(out / "masks.json") as file:
        json.dump([asdict(each) for each in drawn], file, ensure_ascii=False)
        file.write("\n")
    return drawn


def mask_objects(
    detector: FastRCNN, chain: Chain, image: Tensor, objects: Mapping[str, Tensor], classes: Sequence[str], seed: int
) -> tuple[MaskedObject, ...]:
    """Follow objects of one photograph through a chain of adversaries.

    Args:
        detector: a trained detector, in evaluation mode.
        chain: adversaries for it, on its device, in evaluation mode.
        image: 3 x H x W, uint8, RGB.
        objects: ``boxes`` n x 4 (XYXY, pixels) and ``labels`` n (1..K).
        classes: names of the classes 1..K.
        seed: of what is random; the same seed gives the same masks, whatever was drawn before.

    Occluders are cut from the photograph itself: its other objects, and windows that touch none.
    """
    device = next(detector.parameters()).device
    rois, labels = objects["boxes"].to(device), objects["labels"].to(device)
    beside = scenery(rois, image.shape[-2:])
    with torch.no_grad():
        pooled = detector.pool([image.to(device)], [torch.cat([rois, beside])])
    features = pooled[: len(rois)]
    chain.observe(pooled, torch.cat([labels, labels.new_zeros(len(beside))]))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        scores, steps = trace(chain, features, labels, detector.detached_head())
    return tuple(
        MaskedObject(classes[label - 1], tuple(box), before, each)
        for label, box, before, each in zip(labels.tolist(), rois.tolist(), scores, steps, strict=True)
    )


def scenery(objects: Tensor, size: Sequence[int]) -> Tensor:
    """Return windows (m x 4, XYXY) of a photograph, of a regular grid, that touch none of its objects (n x 4).

    They stand for the background RoIs of a training, which may hide objects. There may be none.

    Args:
        objects: boxes.
        size: height and width of the photograph in pixels.
    """
    rows, columns = (torch.arange(GRID, device=objects.device) / GRID for _ in size)
    y, x = torch.meshgrid(rows * size[0], columns * size[1], indexing="ij")
    corner = torch.stack([x.flatten(), y.flatten()], dim=1)
    windows = torch.cat([corner, corner + corner.new_tensor([size[1] / GRID, size[0] / GRID])], dim=1)
    return windows[(box_iou(windows, objects) == 0).all(dim=1)]


def trace(chain: Chain, features: Tensor, labels: Tensor, head: Head) -> tuple[list[float], list[tuple[Step, ...]]]:
    """Follow objects through a chain of adversaries.

    Args:
        chain: the adversaries, on the features' device, in evaluation mode.
        features: n x C x d x d, RoI features of objects.
        labels: n, int64, 1..K.
        head: the detector's classifier.

    Returns:
        The score of each object's class before any adversary, and for each object the steps of the chain.
    """
    before, nothing = _scores(features, labels, head), [None] * len(labels)
    steps: list[tuple[Step, ...]] = [()] * len(labels)
    for name, adversary in chain.items():
        given = features.detach().requires_grad_()
        # A copy, as in training: an adversary may work in place.
        features = Hardened(*adversary(given.clone(), labels, head)).features
        after = _scores(features, labels, head)
        heatmaps = adversary.network(given).sigmoid().tolist() if isinstance(adversary, ASDN) else nothing
        angles = adversary.angles(given).tolist() if isinstance(adversary, ASTN) else nothing
        columns = zip(after, heatmaps, hidden_cells(given, features) or nothing, angles, strict=True)
        steps = [(*earlier, Step(name, *values)) for earlier, values in zip(steps, columns, strict=True)]
    return before, steps


def hidden_cells(given: Tensor, hardened: Tensor) -> list[list[list[bool]]] | None:
    """Return the cells (n x d x d) of features that no harder feature depends on; None where there are none.

    The contract of an adversary makes its features differentiable in those given: a hidden cell is one whose gradient
    is zero. That finds the masks of any adversary, also of one that nobody here knows.

    Args:
        given: n x C x d x d, which requires a gradient.
        hardened: what an adversary made of it.
    """
    if not hardened.requires_grad:
        return None
    (gradient,) = torch.autograd.grad(hardened, given, torch.randn_like(hardened), materialize_grads=True)
    hidden = (gradient == 0).all(dim=1)
    return hidden.tolist() if hidden.any() else None


@torch.no_grad()
def _scores(features: Tensor, labels: Tensor, head: Head) -> list[float]:
    """Return the score of each object's class."""
    scores: list[float] = true_class_score(head(features), labels).tolist()
    return scores


def _given(boxes: Sequence[tuple[Box, str]], paths: Sequence[Path], classes: Sequence[str]) -> dict[str, Tensor]:
    """Return given boxes as a detector returns those that it found, after checking them."""
    if len(paths) > 1:
        raise UserError(f"boxes are given for one image, not for {len(paths)}", field="box", fix="name one image")
    height, width = read_image(paths[0], upright=True).shape[-2:]
    for (x1, y1, x2, y2), name in boxes:
        if name not in classes:
            raise UserError(f"{name!r} is no class of the run", field="box", fix=f"choose one of {', '.join(classes)}")
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            raise UserError(
                f"the box {x1:g} {y1:g} {x2:g} {y2:g} does not lie in the image of {width} x {height} pixels",
                file=paths[0],
                field="box",
                fix="give X1 Y1 X2 Y2 with X1 < X2 and Y1 < Y2, in pixels from the upper left corner",
            )
    labels = [classes.index(name) + 1 for _, name in boxes]
    return {"boxes": torch.tensor([box for box, _ in boxes]), "labels": torch.tensor(labels)}
