"""What a run's adversaries do to the objects of images: figure 3 of the paper, for images of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from afrcnn.commands.new_images import _MOST_PIXELS, detect_images, load_detector_at
from afrcnn.commands.predict import count_names
from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.run import Run

if TYPE_CHECKING:
    from torch import Tensor

    from afrcnn.adversaries.trace import ObjectTrace, SearchTrace
    from afrcnn.adversaries.window_search import WindowSearch
    from afrcnn.recipe import Recipe

_GivenBox = tuple[tuple[float, float, float, float], str]
"""x1, y1, x2, y2 in pixels of an image, half-open, from 0, and the class of the object."""


@dataclass(frozen=True)
class _MaskedImage:
    """What was drawn of one image.

    Attributes:
        image: its file.
        picture: the file of the figure.
        width: the image's width in pixels, upright, as its EXIF says.
        height: its height.
        left_out: how many further objects were detected.
        objects: the objects, best first, or as they were given.
    """

    image: str
    picture: str
    width: int
    height: int
    left_out: int
    objects: tuple[ObjectTrace, ...] | tuple[SearchTrace, ...]


def masks(
    run: Path | str,
    images: Iterable[Path | str],
    out: Path | str | None = None,
    *,
    boxes: Sequence[_GivenBox] = (),
    limit: int = 6,
    score: float = 0.5,
    search: bool = False,
    trust: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> list[_MaskedImage]:
    """Show what adversaries occlude and bend in images.

    Draws a figure of each image: for each detected object ASDN's heatmap and mask, ASTN's angles, and the score of the
    object's class before and after each adversary of the run. Scores are of the box as it is drawn, classified anew.
    Writes masks.json with all of it.

    With --search, draws what ASDN learns from instead: every window that the exhaustive search hides, the loss that is
    left, and the hardest one, marked; search.json has all of it. Any run will do.

    Masks are drawn at random, anew for each image: the same --seed, by default the run's, gives the same figure. A run
    trained without adversaries can show those that learn nothing, as in the last example.

    Args:
        run: folder that `afrcnn train` made.
        images: image, or folder of images.
        out: folder to write to (default: RUN/masks).
        boxes: object to show instead of detections, in pixels of the only IMAGE; once for each object.
        limit: how many detections an image shows at most, best first.
        score: lowest score, from 0 to 1, of detections that are shown.
        search: show the windows of the exhaustive search instead of what adversaries do.
        trust: modules that adversaries of your own may be imported from.
        overrides: fields of the run's recipe to set differently, as ``["--seed", "1"]``.

    Examples:
        afrcnn masks run photo.jpg
        afrcnn masks run photos --boxes 3 --seed 1 --out figures
        afrcnn masks run photo.jpg --box 40 12 180 300 person --box 200 9 250 80 dog
        afrcnn masks run photo.jpg --adversaries '[hard_dropout]'
        afrcnn masks run photo.jpg --search --boxes 2

    Returns:
        What was drawn of each image, in order.

    Raises:
        UserError: the run has no trained adversary, an image is missing or damaged, a box lies outside its image or
            its class is unknown, or the folder cannot be written.
    """
    if limit < 1:
        raise UserError(f"{limit} is out of range", field="boxes", fix="choose 1 or more")
    trained = Run(run, overrides)
    recipe, classes = trained.recipe, trained.classes
    out = trained.masks if out is None else Path(out)
    from afrcnn.data.sources import files_of, picture_files

    files = [file for word in images for file in files_of(word, leave_out=out)]
    pictures = picture_files(files, out, "-search.png" if search else ".png")
    detector = load_detector_at(trained, score, trust)

    import torch

    from afrcnn.adversaries.trace import trace_objects, trace_search
    from afrcnn.build import load_adversary
    from afrcnn.data.image import read_image, read_image_size
    from afrcnn.evaluation.results import write_record
    from afrcnn.visualize.masks import draw_masks
    from afrcnn.visualize.windows import draw_windows

    draw: Any
    trace: Any  # of an image, its objects and the classes
    fast_rcnn, paths = cast(Any, detector), list(pictures)
    if search:
        draw, trace = draw_windows, partial(trace_search, fast_rcnn, _search(recipe, fast_rcnn.roi_heads.roi_pool.size))
    else:
        chain = load_adversary(trained, detector, trust)
        draw, trace = draw_masks, partial(trace_objects, fast_rcnn, chain, seed=recipe.seed)
    objects = [_given(boxes, paths, classes)] if boxes else detect_images(detector, paths, recipe, score)
    drawn = []
    for (path, picture), detected in zip(pictures.items(), objects, strict=True):
        image = read_image(path, upright=True, most_pixels=_MOST_PIXELS)
        height, width = read_image_size(path, upright=True)
        scale = torch.tensor([width / image.shape[2], height / image.shape[1]] * 2)
        shown = detected if boxes else {name: value[:limit] for name, value in detected.items()}
        traces = trace(image, {**shown, "boxes": shown["boxes"] / scale}, classes)
        left_out = len(detected["labels"]) - len(traces)
        with atomic_write(picture, "wb") as file:
            draw(image.permute(1, 2, 0).numpy(), traces, left_out).savefig(file, format="png")
        # Boxes are those of the file, of which a smaller copy may have been drawn.
        objects_of_file = (
            replace(item, box=tuple(box))
            for item, box in zip(traces, shown["boxes"][: len(traces)].tolist(), strict=True)
        )
        drawn.append(_MaskedImage(str(path), str(picture), width, height, left_out, tuple(objects_of_file)))
    write_record(out / ("search.json" if search else "masks.json"), drawn, indent=None)
    return drawn


def show(images: Sequence[_MaskedImage], *, run: Path, out: Path | None = None, search: bool = False) -> None:
    """Print what is shown of each image, and where it is written."""
    from afrcnn.core.terminal import say

    for image in images:
        left_out = f"; {image.left_out} left out" if image.left_out else ""
        say(f"{image.picture}: {count_names(item.name for item in image.objects)}{left_out}")
    name = "search" if search else "masks"
    say(f"{name}: {(out or Run(run).masks) / f'{name}.json'}")


def _search(recipe: Recipe, size: int) -> WindowSearch:
    """Return the search of the recipe's ASDN or hard dropout, or the paper's, over features of d x d cells.

    Raises:
        UserError: the recipe's window or stride does not fit.
    """
    from afrcnn.adversaries.window_search import WindowSearch

    name = next((name for name in ("asdn", "hard_dropout") if name in recipe.adversaries), "asdn")
    arguments = recipe.adversaries.get(name, {})
    try:
        return WindowSearch(size, arguments.get("window"), arguments.get("stride", 1))
    except (TypeError, ValueError) as error:
        raise UserError(str(error), field=f"adversaries.{name}", fix="see docs/adversaries.md") from error


def _given(boxes: Sequence[_GivenBox], paths: Sequence[Path], classes: Sequence[str]) -> dict[str, Tensor]:
    """Return given boxes as a detector returns its detections, after checking them."""
    import torch

    from afrcnn.data.image import read_image_size

    mistake = partial(UserError, field="box")
    if len(paths) > 1:
        raise mistake(f"boxes are given for one image, not for {len(paths)}", fix="name one image")
    height, width = read_image_size(paths[0], upright=True)
    for (x1, y1, x2, y2), name in boxes:
        if name not in classes:
            raise mistake(f"{name!r} is not a class of the run", fix=f"choose one of {', '.join(classes)}")
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            given = f"the box {x1:g} {y1:g} {x2:g} {y2:g}"
            problem = f"{given} does not lie in the image of {width} x {height} pixels"
            fix = "give X1 Y1 X2 Y2 with X1 < X2 and Y1 < Y2, in pixels from the upper left corner"
            raise mistake(problem, file=paths[0], fix=fix)
    labels = [classes.index(name) + 1 for _, name in boxes]
    return {"boxes": torch.tensor([box for box, _ in boxes]), "labels": torch.tensor(labels)}
