"""Proposals for the splits of a dataset, made or imported, with a report of their recall."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from afrcnn.core.errors import UserError
from afrcnn.core.progress import progress
from afrcnn.data import open_dataset
from afrcnn.proposals.published import import_published, read_deepmask_json, read_selective_search_mat
from afrcnn.proposals.recall import Recall, recall
from afrcnn.proposals.selective_search import Backend, Mode, compute
from afrcnn.proposals.store import ProposalStore, default_folder

Layout = Literal["auto", "voc", "coco"]


def prepare(
    root: Path | str,
    splits: Sequence[str] | None = None,
    *,
    layout: Layout = "auto",
    out: Path | str | None = None,
    mode: Mode = "fast",
    jobs: int = -1,
    backend: Backend = "loky",
    published: Sequence[Path | str] = (),
    method: str | None = None,
    allow_missing: bool = False,
) -> Iterator[tuple[str, ProposalStore, Recall]]:
    """Store the proposals of splits of a dataset where recipes look for them, and measure their recall.

    Args:
        root: the dataset.
        splits: its splits; see ``list_splits`` for those taken when None.
        layout: the layout of its folder.
        out: what recipes name ``data.proposals``: the folder that holds a store ``<split>-<method>`` for each split;
            ``proposals`` in the dataset's when None.
        mode: of selective search; also the name of the method.
        jobs: how many images to search at a time; -1 is one for every core.
        backend: see ``compute``.
        published: files to import instead of searching, all ``.mat`` or all JSON.
        method: what to call imported proposals; ``selective_search`` or ``deepmask`` by the kind of file when None.
        allow_missing: let images for which the files hold no proposals have none.

    Yields:
        Each split, its store and its recall, as soon as they are there.

    Raises:
        UserError: the dataset, a file or the folder is at fault.
    """
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
    for split in splits or list_splits(root, layout) or ["trainval"]:
        dataset = open_dataset(root, split, layout)
        folder = default_folder(root, split, method) if out is None else Path(out) / f"{split}-{method}"
        if published:
            source = ", ".join(str(file) for file in published)
            store = import_published(
                dataset, folder, imported, method=method, source=source, allow_missing=allow_missing
            )
        else:
            with progress(f"searching {split}", len(dataset), "image") as report:
                store = compute(
                    dataset, folder, mode=mode, jobs=jobs, backend=backend, progress=lambda done, _: report(done, "")
                )
        yield split, store, recall(dataset, store)


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
