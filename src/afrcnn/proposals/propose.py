"""Proposing boxes for a whole dataset: many images at a time, on one machine or a cluster, through kills."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, Literal

import joblib
import numpy as np
from numpy.typing import NDArray

from afrcnn.core.errors import UnreadableImageError, UserError
from afrcnn.core.image_warnings import collecting, warn_of
from afrcnn.core.lock import locked
from afrcnn.core.opencv import require_opencv
from afrcnn.core.workers import end_with_parent
from afrcnn.data.image import fingerprint, read_image
from afrcnn.data.target import DetectionDataset
from afrcnn.proposals.journal import Journal
from afrcnn.proposals.proposer import Proposer
from afrcnn.proposals.store import Proposals, ProposalStore, check_boxes

_Backend = Literal["loky", "dask", "ray"]


def propose(
    dataset: DetectionDataset,
    folder: Path | str,
    proposer: Proposer,
    *,
    jobs: int = -1,
    backend: _Backend = "loky",
    progress: Callable[[int], object] | None = None,
) -> ProposalStore:
    """Propose boxes for the images of a dataset, many images at a time, and store them.

    Each image's boxes are in a journal in the folder as soon as they are found. After a kill, or Ctrl-C,
    the same call goes on with the images that are left. Called again on a finished store, it searches only
    images that are new or have changed. An image that cannot be decoded gets no boxes, with a warning
    (``ImageWarning``), which ``refusing`` makes an error; it is tried again by the next call.

    Args:
        dataset: the images.
        folder: where to store the proposals (see ``default_folder``).
        proposer: what proposes boxes.
        jobs: how many images to search at a time; -1 is one for every core, or all of the cluster.
        backend: ``"loky"``, processes on this machine; or the cluster that joblib reaches as ``"dask"`` (the
            current ``distributed.Client``, else that of ``DASK_SCHEDULER_ADDRESS``) or ``"ray"``
            (``RAY_ADDRESS``). Its machines must find the images under the same paths.
        progress: called with the number of finished images, at the start and after each.

    Returns:
        The store.

    Raises:
        UserError: the dataset has no images, an image is missing, the folder holds proposals of another method or
            cannot be written, or the cluster's package is not installed.
        ValueError: the proposer's boxes are not what ``Proposer`` says.
    """
    require_opencv()
    folder = Path(folder)
    if not len(dataset):
        raise UserError("the split has no images", file=dataset.root)
    with locked(folder, "filled"):
        for leftover in folder.glob(".*.part"):  # of a process that was killed
            leftover.unlink()
        return _propose(dataset, folder, proposer, jobs, backend, progress)


def _propose(
    dataset: DetectionDataset,
    folder: Path,
    proposer: Proposer,
    jobs: int,
    backend: _Backend,
    progress: Callable[[int], object] | None,
) -> ProposalStore:
    """Propose boxes as :func:`propose` does, in a folder that is this process's alone."""
    # As they will be read back: JSON knows no tuples.
    method, parameters = proposer.method, json.loads(json.dumps(proposer.parameters))
    earlier = _earlier_store(folder, method, parameters)
    # Absolute, for worker processes that may be an earlier call's, in another working directory.
    paths = [dataset.image_path(index).absolute() for index in range(len(dataset))]
    keys = [fingerprint(path) for path in paths]
    with Journal(folder / "finished.journal", {"method": method, "parameters": parameters}) as finished:
        if earlier:
            for image_id in earlier.ids:
                # One without boxes may be one that could not be decoded.
                if (key := earlier.fingerprint(image_id)) not in finished and len(boxes := earlier.boxes(image_id)):
                    finished.append(key, boxes)
        sizes = map(dataset.image_size, range(len(dataset)))
        left = {key: (path, size) for key, path, size in zip(keys, paths, sizes, strict=True) if key not in finished}
        report = progress or (lambda _done: None)
        done = len(keys) - len(left)
        report(done)
        searched, unreadable = _propose_all(proposer, list(left.values()), jobs, backend), set[bytes]()
        for number, (key, made) in enumerate(searched, start=done + 1):
            if isinstance(made, UnreadableImageError):
                warn_of(made, left_out=True)
                unreadable.add(key)
            else:
                finished.append(key, made)
            report(number)
        if changed := [path for key, (path, _) in left.items() if key not in finished and key not in unreadable]:
            raise UserError("has changed while it was searched", file=changed[0], fix="run the same again")
        none = np.empty((0, 4), np.float32)
        images = (
            (image_id, key, Proposals(none if key in unreadable else finished[key]))
            for image_id, key in zip(dataset.ids, keys, strict=True)
        )
        store = ProposalStore.write(folder, images, method=method, parameters=parameters)
    finished.path.unlink()
    return store


def _earlier_store(folder: Path, method: str, parameters: dict[str, Any]) -> ProposalStore | None:
    """Return what an earlier call stored in the folder, if any, and refuse what another method did."""
    if not (folder / "proposals.json").exists():
        return None
    store = ProposalStore(folder)
    if (store.method, store.parameters) != (method, parameters):
        problem = f"holds proposals of {store.method}, {store.parameters}, not {method}, {parameters}"
        raise UserError(problem, file=folder, fix="choose another folder or delete this one")
    return store


def _propose_all(
    proposer: Proposer, images: list[tuple[Path, tuple[int, int]]], jobs: int, backend: _Backend
) -> Iterator[tuple[bytes, NDArray[np.float32] | UnreadableImageError]]:
    """Yield the fingerprint of each image and its boxes, or why there are none, as soon as they are found."""
    # joblib's backend for Ray cannot hand over results one by one, but a hundred at a time.
    step, order = (100, "list") if backend == "ray" else (max(len(images), 1), "generator_unordered")
    options = {"initializer": end_with_parent} if backend == "loky" else {}
    with _connect(backend), joblib.parallel_config(backend=backend, n_jobs=jobs, **options):
        try:
            for start in range(0, len(images), step):
                tasks = (joblib.delayed(_propose_file)(proposer, *image) for image in images[start : start + step])
                yield from joblib.Parallel(return_as=order, batch_size=1)(tasks)
        except BrokenProcessPool as error:
            problem = "a worker that searches images has ended; the memory may be full"
            fix = "start again with fewer, as --jobs 1: it goes on with the images that are left"
            raise UserError(problem, fix=fix) from error


def _connect(backend: _Backend) -> AbstractContextManager[object]:
    """Make a backend known to joblib, and return the connection to close in the end."""
    package = {"loky": "joblib", "dask": "distributed", "ray": "ray"}[backend]
    if importlib.util.find_spec(package) is None:
        fix = "install it with `pip install 'afrcnn[cluster]'`"
        raise UserError(f"{package} is not installed", field="backend", fix=fix)
    if backend == "ray":
        from ray.util.joblib import register_ray  # noqa: PLC0415

        register_ray()
    if backend == "dask":
        from distributed import Client  # noqa: PLC0415

        with suppress(ValueError):  # no client yet
            return nullcontext(Client.current())
        try:
            return Client()  # type: ignore[no-any-return]
        except OSError as error:
            problem = f"no Dask scheduler answers ({error})"
            raise UserError(problem, field="DASK_SCHEDULER_ADDRESS", fix="start it or mend the address") from error
    return nullcontext()


def _propose_file(
    proposer: Proposer, path: Path, size: tuple[int, int]
) -> tuple[bytes, NDArray[np.float32] | UnreadableImageError]:
    import cv2  # noqa: PLC0415  once `require_opencv` has seen to it

    cv2.setNumThreads(1)  # the images are what runs in parallel
    key = fingerprint(path)
    try:
        with collecting():  # of files that end too early: whoever announces the dataset tells
            image = read_image(path, size=size).permute(1, 2, 0).numpy()
    except UnreadableImageError as error:
        return key, error
    boxes = proposer(image)
    check_boxes(str(path), boxes)
    height, width = image.shape[:2]
    if (boxes[:, :2] < 0).any() or (boxes[:, 2:] > (width, height)).any():
        raise ValueError(f"{path}: a box of {proposer.method} lies outside the image of {width} x {height} pixels")
    return key, boxes
