"""Proposals for the splits of a dataset, made or imported, with a report of their recall."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from afrcnn.core.errors import require_dataset

if TYPE_CHECKING:
    from afrcnn.proposals.recall import Recall
    from afrcnn.proposals.store import ProposalStore


def proposals(
    dataset: Path | str,
    *,
    split: Sequence[str] = (),
    layout: Literal["auto", "voc", "coco"] = "auto",
    out: Path | str | None = None,
    mode: Literal["fast", "quality"] = "fast",
    jobs: int = -1,
    backend: Literal["loky", "dask", "ray"] = "loky",
    published: Sequence[Path | str] = (),
    method: str | None = None,
    allow_missing: bool = False,
) -> dict[str, tuple[ProposalStore, Recall | None]]:
    """Propose boxes by selective search, or import published ones.

    Proposes boxes for the images of a dataset, and reports how many of its objects they cover. Interrupted, the same
    command goes on with the images that are left. A recipe finds them by data.proposals, the folder given by --out,
    and data.proposal_method: the mode, or the name of what was imported.

    Args:
        dataset: folder in PASCAL VOC or COCO layout
        split: splits to work on (default: all, but no image twice)
        layout: layout of DATASET (default: what is found)
        out: folder that gets a store for each split (default: DATASET/proposals)
        mode: of selective search; quality finds more, more slowly
        jobs: images searched at a time (default: one for each core)
        backend: this machine (loky), or the cluster of DASK_SCHEDULER_ADDRESS or RAY_ADDRESS
        published: import selective search's .mat files or DeepMask's JSON files instead of searching
        method: name for what is imported (default: selective_search or deepmask)
        allow_missing: accept that the files lack some of the images

    Examples:
        afrcnn proposals VOCdevkit/VOC2007
        afrcnn proposals photos --split test --mode quality --out proposals
        afrcnn proposals VOCdevkit/VOC2007 --split test --import voc_2007_test.mat

    Returns:
        By split, the store and its recall; None where the split is not annotated.

    Raises:
        UserError: the dataset, a file or the folder is at fault.
    """
    require_dataset(dataset)

    from afrcnn.core.progress import progress
    from afrcnn.data.layouts import list_splits, open_dataset
    from afrcnn.proposals.propose import propose
    from afrcnn.proposals.published import import_published, read_published
    from afrcnn.proposals.recall import recall
    from afrcnn.proposals.selective_search import SelectiveSearch
    from afrcnn.proposals.store import default_folder

    if published:
        default_method, boxes = read_published(published)
        method, source = method or default_method, ", ".join(map(str, published))
    else:
        method = mode
    made = {}
    # Without any split, opening one says what is missing.
    for name in split or list_splits(dataset, layout) or ["trainval"]:
        images = open_dataset(dataset, name, layout)
        folder = default_folder(dataset, name, method, out)
        if published:
            store = import_published(images, folder, boxes, method=method, source=source, allow_missing=allow_missing)
        else:
            with progress(f"searching {name}", len(images), "image") as report:
                search = SelectiveSearch(mode)
                store = propose(images, folder, search, jobs=jobs, backend=backend, progress=report)
        made[name] = store, recall(images, store) if images.annotated else None
    return made


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
        say(f"proposals of {split}: {store.folder}")
