"""`afrcnn train`: train the detector of a recipe, or a first detector of a dataset."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast, get_args

from afrcnn.core.errors import UserError
from afrcnn.core.terminal import printable, say
from afrcnn.recipe import Recipe, load_recipe
from afrcnn.run import Run, training_splits
from afrcnn.shipped import are_parts, shipped_recipes

_FIRST = ("squeezenet", "occluding_cutout")
"""The recipes of a first detector: what found most of what was hidden on sets of some hundred images, and lost nothing
else (docs/results.md)."""

_VALIDATION = ("val", "valid", "validation")
"""Names of splits that a first detector is validated on, where they are nothing else."""

_FEWEST_TO_DIVIDE = 5
"""Training images from which on some are held out."""

_MEASUREMENTS = 6
"""How often AP is measured in the last stage, where there is validation."""

_PICTURES = 8
"""Images of the test split that a first detector is shown on."""


def train(
    recipes: Path | str | Sequence[Path | str], *, run: Path | str | None = None, overrides: Sequence[str] = ()
) -> Run:
    """Train the detector of a recipe, or a first detector of a dataset.

    A recipe is a YAML file that names what differs from the defaults below, or the name of one that ships (`afrcnn
    recipes`). Of several, later ones win. A folder, or its data.yaml, is the dataset. Every field can be set on the
    command line. Proposals that are missing are made. Interrupted, the same command goes on from the last checkpoint.
    Another image is drawn in place of one that cannot be decoded. It is named at the end, and the exit status is 1.

    Where only a network or methods are named, as squeezenet and cutout, there are as many updates as the images need. A
    dataset alone gets the recipe that works best on small sets, and its detector is evaluated and shown, too. It is
    validated on the dataset's val or valid, where that is neither trained nor tested on, or else on a fifth of the
    training images, which is held out; nothing is chosen by what it is tested on.

    Args:
        recipes: YAML file or name of a recipe, and a dataset's folder.
        run: folder of the run (default: runs/<dataset>/<recipe>-seed<seed>).
        overrides: fields of the recipe to set differently, as ``["--data.root", "VOC2007"]``.

    Returns:
        The run.

    Raises:
        UserError: the recipe, the data or the folder is at fault, or a loss is not finite.

    Examples:
        afrcnn train photos
        afrcnn train squeezenet occluding --data.root photos
        afrcnn train voc07/vgg16_frcn --data.root VOCdevkit/VOC2007
    """
    words = [recipes] if isinstance(recipes, str | Path) else list(recipes)
    names, root = split_words(words)
    first, names = not names, names or list(_FIRST)
    fields = [*(root_fields(root) if root else ()), *overrides]
    loaded = load_recipe(names, fields)
    (folder, _), *_ = training_splits(loaded)
    if first and not any(word.startswith("--data.val_") for word in overrides):
        fields += _validation(loaded)
        loaded = load_recipe(names, fields)

    from afrcnn.training.train import train_stages

    speaks = _is_first_process()
    if speaks:  # and makes what is missing
        propose_missing(loaded)
    if are_parts(names):
        from afrcnn.training.images import open_training_images
        from afrcnn.training.stages import epochs_to_iterations

        # Without proposals, which the first process may still be making.
        images = len(open_training_images(replace(loaded, data=replace(loaded.data, proposal_method=None))))
        loaded = epochs_to_iterations(load_recipe(names, [*schedule_for(images, loaded), *fields]), images)
        if speaks:
            print(f"updates: {_told(loaded, images)}", flush=True)
    name = "first" if first else "+".join(Path(one).stem for one in names)
    trained = Path("runs", folder.resolve().name, f"{name}-seed{loaded.seed}") if run is None else Path(run)
    if speaks:
        print(printable(f"run:     {trained}"), flush=True)
    made = train_stages(loaded, trained)
    if first and speaks:
        _examine(made)
    return made


def show(run: Run) -> None:
    """Print what was made, and what comes next."""
    if not _is_first_process():
        return
    say(f"weights: {run.trained()}")
    if run.predictions.is_dir():
        from afrcnn.commands.evaluate import show as show_results
        from afrcnn.evaluation.results import read_results

        if run.results_file.is_file():
            show_results(read_results(run.results_file), run=run.folder)
        say(f"shown:   {run.predictions}")
    command = "predict {} IMAGE" if run.results_file.is_file() else "evaluate {}"
    say(f"next:    afrcnn {command.format(shlex.quote(str(run.folder)))}")


def _is_first_process() -> bool:
    """Tell whether this is the first of the processes that train together, or the only one."""
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def split_words(words: Sequence[Path | str]) -> tuple[list[Path | str], str | None]:
    """Return the recipes among words, and the dataset's folder.

    Raises:
        UserError: two folders are named.
    """
    known = shipped_recipes()
    roots = [str(word) for word in words if str(word) not in known and _is_dataset(Path(word))]
    if roots[1:]:
        raise UserError("a second dataset", file=roots[1], fix="name further ones with --data.also")
    return [word for word in words if str(word) not in roots], roots[0] if roots else None


def _is_dataset(path: Path) -> bool:
    """Tell whether a word names a dataset: its folder, a JSON file, or a YAML file that names classes, as YOLO's."""
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return re.search(r"^names\s*:", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE) is not None
    return path.is_dir() or (path.suffix == ".json" and path.is_file())


def root_fields(root: str) -> list[str]:
    """Return the fields of a recipe that name a dataset: the folder, and where one of its files is given, the layout.

    Raises:
        UserError: the file does not describe a dataset.
    """
    if Path(root).is_dir():
        return ["--data.root", root]

    from afrcnn.data.layouts import dataset_of

    folder, layout, splits = dataset_of(root)
    return ["--data.root", str(folder), "--data.layout", layout, *(("--data.train_split", splits[0]) if splits else ())]


def propose_missing(recipe: Recipe) -> None:
    """Search proposals for the splits that have none, where a recipe takes those of selective search."""
    from afrcnn.commands.proposals import proposals
    from afrcnn.data.layouts import open_dataset
    from afrcnn.proposals.selective_search import Mode
    from afrcnn.proposals.store import default_folder, is_complete

    data = recipe.data
    if data.proposal_method not in get_args(Mode):
        return
    mode, splits = cast(Mode, data.proposal_method), training_splits(recipe)
    if data.val_split is not None:
        splits.append((Path(data.root), data.val_split))
    if _has_test_split(recipe):
        splits.append((Path(data.root), data.test_split))
    for root, asked in splits:
        split = open_dataset(
            root, asked, data.layout, field="data.train_split"
        ).split  # which may stand for the one that is asked for
        folder = default_folder(root, split, mode, data.proposals)
        if not is_complete(folder):
            proposals(root, split=[split], layout=data.layout, out=folder.parent, mode=mode, strict=data.strict)


def _validation(recipe: Recipe) -> list[str]:
    """Return the fields that say what a first detector is validated on: nothing that it is trained or tested on."""
    from afrcnn.build import open_images
    from afrcnn.data.layouts import find_layout
    from afrcnn.data.random_split import TEST_FRACTION

    data, splits = recipe.data, find_layout(recipe.data.root, recipe.data.layout).splits(Path(recipe.data.root))
    training = open_images(recipe, data.train_split)
    taken = {training.split} | ({open_images(recipe, data.test_split).split} if _has_test_split(recipe) else set())
    for split in splits:
        if split.lower() in _VALIDATION and split not in taken:
            images = open_images(recipe, split)
            if images.annotated and not {*map(images.image_path, range(len(images)))} & {
                *map(training.image_path, range(len(training)))
            }:
                return [f"--data.val_split={split}"]
    return [f"--data.val_fraction={TEST_FRACTION}"] if len(training) >= _FEWEST_TO_DIVIDE else []


def _has_test_split(recipe: Recipe) -> bool:
    from afrcnn.build import open_images

    try:
        return len(open_images(recipe, recipe.data.test_split)) > 0
    except UserError:  # which the evaluation tells, to who asks for it
        return False


def schedule_for(images: int, recipe: Recipe) -> list[str]:
    """Return the updates of each stage for so many training images.

    Six for each image, which is twelve epochs of two images an update, within bounds; the lower one keeps a first try
    of some dozen images at a few minutes on two cores. Where a method acts, a third of
    them trains the detector alone, and the last part of the others is clean. On sets of 240 to 300 images these are the
    schedules of ``configs/fruit`` and ``configs/cards``.
    """
    total = min(max(6 * images, 200), 20_000)
    hides, augmentation = bool(recipe.adversaries), recipe.data.augmentation
    acts = hides or augmentation.cutout or augmentation.random_erasing or augmentation.copy_paste
    joint = 2 * total // 3 if acts else 0
    updates = {
        "schedule.iterations": total - joint,
        "schedule.decay_at": [] if joint else [3 * total // 4],
        "pretraining.iterations": total // 5 if hides else 0,
        "joint.iterations": joint,
        "joint.decay_at": [6 * joint // 10] if joint else [],
        "joint.clean_iterations": 4 * joint // 10,
        "evaluate_every": max((joint or total) // _MEASUREMENTS, 1),
    }
    return [f"--{name}={value}" for name, value in updates.items()]


def _told(recipe: Recipe, images: int) -> str:
    """Return the updates that a training makes, its epochs, and the minutes that it takes, by one that is measured."""
    stages = [recipe.schedule, recipe.pretraining, recipe.joint]
    updates = [stage.iterations for stage in stages]
    epochs = sum(stage.iterations * stage.images_per_iteration for stage in stages if stage is not recipe.pretraining)
    minutes = sum(updates) * _seconds(recipe) / 60
    written = " + ".join(map(str, updates))
    return f"{written} for {images} images ({epochs / images:.0f} epochs), about {minutes:.0f} minutes of training"


def _seconds(recipe: Recipe) -> float:
    """Return the seconds of an update of the first stage."""
    import torch

    from afrcnn.build import build_detector
    from afrcnn.core.engine import build_training_fabric
    from afrcnn.training.images import open_training_images
    from afrcnn.training.samples import SampleSequence, collate

    dataset = open_training_images(recipe)
    fabric = build_training_fabric(**asdict(recipe.engine))
    detector = build_detector(recipe.detector, len(dataset.classes), pretrained=False).to(fabric.device).train()
    samples = SampleSequence(dataset, seed=recipe.seed)
    began = 0.0
    for update in range(2):  # the first warms up
        began = time.monotonic()
        images, targets = fabric.to_device(collate([samples[2 * update], samples[2 * update + 1]]))
        with fabric.autocast():
            losses = detector(images, [target["proposals"] for target in targets], targets)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        if fabric.device.type == "cuda":
            torch.cuda.synchronize()
    return time.monotonic() - began


def _examine(run: Run) -> None:
    """Evaluate a first detector on its test split, and draw what it detects in some of the images."""
    from afrcnn.build import open_images
    from afrcnn.commands.evaluate import evaluate
    from afrcnn.commands.predict import predict

    if not _has_test_split(run.recipe):
        return
    evaluate(run.folder)
    images = open_images(run.recipe, run.recipe.data.test_split)
    predict(run.folder, [images.image_path(index) for index in range(min(_PICTURES, len(images)))])
