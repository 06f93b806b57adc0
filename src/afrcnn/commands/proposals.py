"""Proposals for the splits of a dataset, made or imported, with a report of their recall."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from afrcnn.core.errors import UserError, require_named, suggest
from afrcnn.recipe import LayoutName

if TYPE_CHECKING:
    from afrcnn.proposals.proposer import Proposer
    from afrcnn.proposals.recall import Recall
    from afrcnn.proposals.store import ProposalStore


def proposals(
    dataset: Path | str,
    *,
    split: Sequence[str] = (),
    layout: LayoutName = "auto",
    out: Path | str | None = None,
    method: str | None = None,
    mode: Literal["fast", "quality"] | None = None,
    weights: Path | str | None = None,
    jobs: int = -1,
    backend: Literal["loky", "dask", "ray"] = "loky",
    published: Sequence[Path | str] = (),
    allow_missing: bool = False,
    strict: bool = False,
) -> dict[str, tuple[ProposalStore, Recall | None]]:
    """Propose boxes, by selective search, DeepMask or a class of your own, or import published ones.

    Proposes boxes for the images of a dataset, and reports how many of its objects they cover. Interrupted, the same
    command goes on with the images that are left. A recipe finds them by data.proposals, the folder given by --out,
    and data.proposal_method: the mode of selective search, deepmask, or what the class or import is called.

    Images that cannot be decoded get no boxes. They are named at the end, and the exit status is 1.

    Args:
        dataset: folder of images and boxes, in any layout of docs/data.md, or its data.yaml or one of its COCO files
        split: splits to work on (default: all, but no image twice)
        layout: layout of DATASET (default: what is found)
        out: folder that gets a store for each split (default: DATASET/proposals)
        method: selective_search (default), deepmask, or package.module:Class of your own; of what is imported, its name
            (default: selective_search or deepmask)
        mode: of selective search: fast (default), or quality, which finds more, more slowly
        weights: what `afrcnn deepmask` wrote; a class of your own is built from it if given, or else from nothing
        jobs: images searched at a time (default: one for each core)
        backend: this machine (loky), or the cluster of DASK_SCHEDULER_ADDRESS or RAY_ADDRESS
        published: import selective search's .mat files or DeepMask's JSON files instead of searching
        allow_missing: accept that the files lack some of the images
        strict: refuse images that are damaged, in place of leaving them out

    Examples:
        afrcnn proposals VOCdevkit/VOC2007
        afrcnn proposals photos --split test --mode quality --out proposals
        afrcnn proposals photos --method deepmask --weights deepmask.safetensors
        afrcnn proposals VOCdevkit/VOC2007 --split test --import voc_2007_test.mat

    Returns:
        By split, the store and its recall; None where the split is not annotated.

    Raises:
        UserError: the dataset, a file or the folder is at fault.
    """
    require_named(dataset)

    from afrcnn.core.image_warnings import refusing
    from afrcnn.core.progress import progress
    from afrcnn.data.inspection import announce
    from afrcnn.data.layouts import dataset_of, list_splits, open_dataset
    from afrcnn.proposals.propose import propose
    from afrcnn.proposals.published import import_published, read_published
    from afrcnn.proposals.recall import recall
    from afrcnn.proposals.store import default_folder

    dataset, layout_name, splits = dataset_of(dataset, layout)
    if published:
        default_method, boxes = read_published(published)
        name_of_store, source = method or default_method, ", ".join(map(str, published))
    else:
        proposer = _build_proposer(method or "selective_search", mode, weights)
        # Stores of selective search have had the names of its modes before there were other methods.
        name_of_store = proposer.method.removeprefix("selective_search-")
    made = {}
    # Without any split, opening one says what is missing.
    for split_or_stand_in in split or splits or list_splits(dataset, layout_name) or ["trainval"]:
        with refusing(strict):
            images = open_dataset(dataset, split_or_stand_in, layout_name)
        name = images.split
        announce(images, strict=strict)
        folder = default_folder(dataset, name, name_of_store, out)
        if published:
            store = import_published(
                images, folder, boxes, method=name_of_store, source=source, allow_missing=allow_missing
            )
        else:
            with refusing(strict), progress(f"searching {name}", len(images), "image") as report:
                store = propose(images, folder, proposer, jobs=jobs, backend=backend, progress=report)
        made[name] = store, recall(images, store) if images.annotated else None
    return made


def _build_proposer(method: str, mode: Literal["fast", "quality"] | None, weights: Path | str | None) -> Proposer:
    """Return what proposes boxes.

    Args:
        method: a name of ours, or a class; a person has written it, so that its module may be imported.
        mode: of selective search.
        weights: a network's.

    Raises:
        UserError: there is no such method, it cannot be built, or an option is not one of it.
    """
    from afrcnn.build import load_class
    from afrcnn.proposals.deepmask import DeepMask, load_deepmask
    from afrcnn.proposals.proposer import Proposer
    from afrcnn.proposals.selective_search import SelectiveSearch

    for option, value, methods in (("--mode", mode, "selective_search"), ("--weights", weights, "deepmask :")):
        if value is not None and method not in methods.split() and not (":" in methods and ":" in method):
            raise UserError(f"{method} has none", field=option, fix="leave the option out")
    if method == "selective_search":
        return SelectiveSearch(mode or "fast")
    if method == "deepmask":
        if weights is None:
            fix = "give the file that `afrcnn deepmask DATASET` wrote, or import published proposals with --import"
            raise UserError("needs weights", field="deepmask", fix=fix)
        return DeepMask(load_deepmask(weights))
    if ":" not in method:
        names = ["selective_search", "deepmask"]
        fix = suggest(method, names, f"choose {' or '.join(names)}, or write package.module:Class for one of your own")
        raise UserError(f"there is no method named {method}", field="--method", fix=fix)
    build = load_class(method, object, "all", "--method")
    try:
        proposer = build() if weights is None else build(weights)
    except TypeError as error:
        fix = "let it be built from nothing, or from the file given by --weights"
        raise UserError(f"{method} cannot be built ({error})", field="--method", fix=fix) from error
    if not isinstance(proposer, Proposer) or proposer.method != Path(str(proposer.method)).name:
        problem = f"{method} is not a Proposer: method (the name of a folder), parameters and a call with an image"
        raise UserError(problem, field="--method", fix="see docs/data.md")
    return proposer


def show(made: dict[str, tuple[ProposalStore, Recall | None]]) -> None:
    """Print the recall of each split, and where its proposals are."""
    from rich.console import Console

    from afrcnn.core.terminal import say
    from afrcnn.visualize.tables import recall_table

    for split, (store, recall) in made.items():
        if recall is None:
            say(f"recall of {split}: none, since its images are not annotated")
        else:
            Console().print(recall_table(recall))
        if columns := store.parameters.get("columns"):
            say(f"columns of {split}: {columns}, as the sizes of its images tell")
        say(f"proposals of {split}: {store.folder}")
