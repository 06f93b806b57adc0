"""Proposals for the splits of a dataset, made or imported, with a report of their recall."""

# ruff: noqa: PLC0415
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from afrcnn.core.errors import UserError

if TYPE_CHECKING:
    from afrcnn.proposals.recall import Recall
    from afrcnn.proposals.store import ProposalStore

Layout = Literal["auto", "voc", "coco"]


def proposals(
    dataset: Path | str,
    *,
    split: Sequence[str] = (),
    layout: Layout = "auto",
    out: Path | str | None = None,
    mode: Literal["fast", "quality"] = "fast",
    jobs: int = -1,
    backend: Literal["loky", "dask", "ray"] = "loky",
    published: Sequence[Path | str] = (),
    method: str | None = None,
    allow_missing: bool = False,
) -> Iterator[tuple[str, ProposalStore, Recall]]:
    """Propose boxes by selective search, or import published ones.

    Proposes boxes for the images of a dataset, and reports how many of its objects they cover. Interrupted, the same
    command goes on with the images that are left. A recipe finds them by data.proposals, the folder given by --out,
    and data.proposal_method: the mode, or the name of what was imported.

    Args:
        dataset: folder in PASCAL VOC or COCO layout.
        split: splits to work on (default: all, but no image twice).
        layout: layout of DATASET (default: what is found).
        out: folder that gets a store for each split (default: DATASET/proposals).
        mode: of selective search; quality finds more, more slowly.
        jobs: images searched at a time (default: one for each core).
        backend: this machine (loky), or the cluster of DASK_SCHEDULER_ADDRESS or RAY_ADDRESS.
        published: import selective search's .mat files or DeepMask's JSON files instead of searching.
        method: name for what is imported (default: selective_search or deepmask).
        allow_missing: accept that the files lack some of the images.

    Examples:
        afrcnn proposals VOCdevkit/VOC2007
        afrcnn proposals photos --split test --mode quality --out proposals
        afrcnn proposals VOCdevkit/VOC2007 --split test --import voc_2007_test.mat

    Yields:
        Each split, its store and its recall, as soon as they are there.

    Raises:
        UserError: the dataset, a file or the folder is at fault.
    """
    root = dataset
    if not Path(root).is_dir():
        raise UserError("no such folder", file=root, fix="give the folder of a dataset")

    from afrcnn.core.progress import progress
    from afrcnn.data import open_dataset
    from afrcnn.proposals.published import import_published, read_deepmask_json, read_selective_search_mat
    from afrcnn.proposals.recall import recall
    from afrcnn.proposals.selective_search import compute
    from afrcnn.proposals.store import default_folder

    matlab = all(Path(file).suffix == ".mat" for file in published)
    if published and matlab:
        imported = {
            image_id: boxes for file in published for image_id, boxes in read_selective_search_mat(file).items()
        }
    elif published:
        imported = read_deepmask_json(published)
    if published and not imported:
        raise UserError("holds no proposals", file=published[0], fix="take the file of this dataset and split")
    method = (method or ("selective_search" if matlab else "deepmask")) if published else mode
    # Without any split, opening one says what is missing.
    for name in split or list_splits(root, layout) or ["trainval"]:
        images = open_dataset(root, name, layout)
        folder = default_folder(root, name, method) if out is None else Path(out) / f"{name}-{method}"
        if published:
            source = ", ".join(str(file) for file in published)
            store = import_published(
                images, folder, imported, method=method, source=source, allow_missing=allow_missing
            )
        else:
            with progress(f"searching {name}", len(images), "image") as report:
                store = compute(
                    images, folder, mode=mode, jobs=jobs, backend=backend, progress=lambda done, _: report(done, "")
                )
        yield name, store, recall(images, store)


def show(stores: Iterable[tuple[str, ProposalStore, Recall]]) -> None:
    """Print the recall of each split, and where its proposals are."""
    for split, store, recall in stores:
        from rich.console import Console

        from afrcnn.reporting.recall_table import recall_table  # after the first, so that mistakes answer at once

        Console().print(recall_table(recall))
        print(f"proposals of {split}: {store.folder}", flush=True)


def list_splits(root: Path | str, layout: Layout = "auto") -> list[str]:
    """Return the splits that together hold each image of a dataset once, as far as names tell.

    Left out are VOC's lists of single classes (``dog_trainval``), and ``train`` and ``val`` where there is
    ``trainval``.
    """
    voc = {file.stem for file in Path(root, "ImageSets", "Main").glob("*.txt")} if layout != "coco" else set()
    voc = {name for name in voc if name.rpartition("_")[2] not in voc - {name}}
    if "trainval" in voc:
        voc -= {"train", "val"}
    files = Path(root, "annotations").glob("instances_*.json") if layout != "voc" else ()
    coco = {file.stem.removeprefix("instances_") for file in files}
    return sorted(voc | coco, reverse=True)  # trainval before test
