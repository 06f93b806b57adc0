"""`afrcnn show`: what runs find and miss, the more of the objects is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from afrcnn.core.errors import UserError, suggest
from afrcnn.core.terminal import say
from afrcnn.run import Run, dataset_root

if TYPE_CHECKING:
    from afrcnn.data.target import DetectionDataset
    from afrcnn.robustness.benchmark import StressedImages
    from afrcnn.robustness.found import FoundObjects


@dataclass(frozen=True)
class _Found:
    """What runs find in images.

    Attributes:
        strips: the pictures, in their order.
        counts: by run, how many objects it finds at each level, in all images that were looked at.
        levels: the fractions of every box that are hidden.
        objects: how many objects these images have.
        images: how many images were looked at.
    """

    strips: tuple[Path, ...]
    counts: dict[str, tuple[int, ...]]
    levels: tuple[float, ...]
    objects: int
    images: int


def found(
    runs: Sequence[Path | str],
    *,
    image: Sequence[str] = (),
    split: str | None = None,
    among: int = 100,
    limit: int = 8,
    levels: Sequence[float] = (0.0, 0.2, 0.4, 0.6),
    score: float = 0.5,
    stress_seed: int = 0,
    out: Path | str | None = None,
    trust: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> _Found:
    """Show what runs find and miss, the more of the objects is hidden.

    Hides 0, 20, 40 and 60 % of every object of test images by pieces of other images, at the same places for all runs,
    and draws each image as a strip: levels side by side, runs below each other, found objects with their score, missed
    ones dashed. Shown first are the images in which the last run differs most from the first: in how many objects it
    finds, more or fewer, at all levels together; of as many, by the image's id.

    Args:
        runs: folders that `afrcnn train` made, of the same classes; a baseline first
        image: ids of the images to show, instead of those that differ most
        split: split of the first run's dataset (default: its data.test_split)
        among: how many images of the split are looked at, evenly spread over it
        limit: how many strips are drawn
        levels: fractions of every box that are hidden, from 0 to below 1
        score: lowest score of a detection that finds an object
        stress_seed: of what hides, and where
        out: folder to write to (default: found, in the last run)
        trust: modules that a detector of your own may be imported from
        overrides: fields of the recipes to set differently, as ``["--data.root", "elsewhere"]``

    Examples:
        afrcnn show runs/plain runs/occluding
        afrcnn show runs/plain runs/occluding --image 000005 000008 --out strips

    Returns:
        The strips, and how many objects each run finds.

    Raises:
        UserError: a run is not finished or knows other classes, an image is not in the split, or nothing can hide its
            objects.
    """
    for wrong, field, value in ((among < 1, "among", among), (limit < 1, "limit", limit)):
        if wrong:
            raise UserError(f"{value} is out of range", field=field, fix="choose 1 or more")
    shown = [Run(folder, overrides) for folder in runs]
    for run in shown:
        run.trained()
        run.require_classes_of(shown[0], "show runs of the same classes")
    recipe = shown[0].recipe
    dataset_root(recipe)

    from functools import partial

    from afrcnn.build import load_detector, open_split
    from afrcnn.data.target import require_annotations
    from afrcnn.evaluation.detect import detect
    from afrcnn.robustness.found import count_found, find_objects

    split = split or recipe.data.test_split
    dataset = require_annotations(open_split(recipe, split))
    indices = _indices(dataset, split, image, among)
    detectors = [partial(detect, load_detector(run, trust), workers=recipe.data.workers) for run in shown]
    objects, images = find_objects(detectors, dataset, indices, levels=levels, score=score, seed=stress_seed)
    folder, names = shown[-1].folder / "found" if out is None else Path(out), Run.names(shown)
    strips = draw_strips(objects, images, names, levels, folder, limit=None if image else limit)
    counts = dict(zip(names, (tuple(row) for row in count_found(objects).tolist()), strict=True))
    return _Found(tuple(strips), counts, tuple(levels), sum(len(one.labels) for one in objects), len(objects))


def draw_strips(
    objects: Sequence[FoundObjects],
    images: StressedImages,
    names: Sequence[str],
    levels: Sequence[float],
    folder: Path,
    *,
    limit: int | None = 8,
) -> list[Path]:
    """Write strips of what detectors find and miss.

    Args:
        objects: of the images that were looked at, in the order in which they were.
        images: what the detectors saw: all levels of the first image, then of the next.
        names: of the detectors.
        levels: fractions of every box that are hidden.
        folder: where to write.
        limit: how many strips, of the images in which the last detector differs most from the first; all, in their
            order, when None.

    Returns:
        The files.
    """
    from afrcnn.core.atomic import atomic_write
    from afrcnn.core.names import file_name
    from afrcnn.robustness.found import by_difference
    from afrcnn.visualize.found import draw_found

    ids, strips = images.dataset.ids, list[Path]()
    firsts = {one.image: number * len(levels) for number, one in enumerate(objects)}
    chosen = objects if limit is None else by_difference([one for one in objects if len(one.labels)], ids)[:limit]
    for one in chosen:
        numbers = range(firsts[one.image], firsts[one.image] + len(levels))
        pixels = [images[number][0].permute(1, 2, 0).numpy() for number in numbers]
        strips.append(folder / f"{file_name(ids[one.image])}.png")
        with atomic_write(strips[-1], "wb") as file:
            draw_found(pixels, one, names, levels).save(file, "PNG")
    return strips


def show(made: _Found) -> None:
    """Print how many objects each run finds at each level, and where the strips are."""
    from rich.console import Console

    from afrcnn.visualize.tables import found_table

    Console().print(found_table(made.counts, made.levels, made.objects, made.images))
    for strip in made.strips:
        say(str(strip))


def _indices(dataset: DetectionDataset, split: str, ids: Sequence[str], among: int) -> list[int]:
    """Return the indices of the images to look at.

    Raises:
        UserError: an id is not in the split, or the split has no images.
    """
    known = {image_id: index for index, image_id in enumerate(dataset.ids)}
    for image_id in ids:
        if image_id not in known:
            fix = suggest(image_id, list(known), "name images by their ids in the split")
            raise UserError(f"is not in the split {split}", field=image_id, fix=fix)
    if not known:
        raise UserError("the split has no images", file=dataset.root, field=split, fix="name another split")
    count = min(among, len(known))
    return [known[image_id] for image_id in ids] or [number * len(known) // count for number in range(count)]
