"""What a run's adversaries do to the objects of photographs: figure 3b of the paper, for photographs of one's own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from afrcnn.adversaries.trace import Box, ObjectTrace, trace_objects
from afrcnn.commands.predict import detect_photographs, photograph_files, picture_files
from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.data.image import read_image
from afrcnn.run import Run
from afrcnn.visualize.masks import draw_masks


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
    objects: tuple[ObjectTrace, ...]


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
    device = next(detector.parameters()).device
    chain.to(device)

    drawn = []
    for path, picture, objects in zip(paths, pictures, found, strict=True):
        pixels = read_image(path, upright=True)
        shown = {name: value[: None if boxes else limit] for name, value in objects.items()}
        masked = trace_objects(detector, chain, pixels.to(device), shown, classes, recipe.seed)
        height, width = pixels.shape[-2:]
        left_out = len(objects["labels"]) - len(masked)
        with atomic_write(picture, "wb") as file:
            draw_masks(pixels.permute(1, 2, 0).numpy(), masked, left_out).savefig(file, format="png")
        drawn.append(MaskedImage(str(path), str(picture), width, height, left_out, masked))
    with atomic_write(out / "masks.json") as file:
        json.dump([asdict(each) for each in drawn], file, ensure_ascii=False)
        file.write("\n")
    return drawn


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
