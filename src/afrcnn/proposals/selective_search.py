"""Selective search (Uijlings et al., IJCV 2013): boxes of grouped segments, as Fast R-CNN uses them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, Literal

import cv2
import joblib
import numpy as np
from numpy.typing import NDArray

from afrcnn.core.errors import UserError
from afrcnn.data.image import read_image
from afrcnn.data.target import DetectionDataset
from afrcnn.proposals.journal import Journal
from afrcnn.proposals.store import Proposals, ProposalStore, fingerprint

Mode = Literal["fast", "quality"]
Backend = Literal["loky", "dask", "ray"]

# The scales k of the initial segmentations, section 5.2 and table 5; k is also the smallest segment in pixels, as
# in the authors' code. OpenCV's own (150, 300, 450; 100 pixels) find 80% of the cells of BCCD, these 90%.
SCALES = {"fast": [50, 100], "quality": [50, 100, 150, 300]}
SIGMA = 0.8


def selective_search(image: NDArray[np.uint8], mode: Mode = "fast", min_side: int = 8) -> NDArray[np.float32]:
    """Propose boxes that may hold an object.

    OpenCV's implementation finds the boxes; scales and order are the paper's, not OpenCV's, which draws the
    order from the C library's ``rand`` and puts the smallest segments first. In the paper (section 3.3) boxes
    are ordered by RND x i, where i is the position in the hierarchy from its top, which is taken here from
    the box's area, and RND is uniform in [0, 1), here from a fixed seed. The same image gives the same
    boxes in the same order, always.

    Args:
        image: H x W x 3, uint8, RGB.
        mode: ``"fast"``, the paper's two colour spaces, two scales and two similarities, or ``"quality"``
            with five, four and four: some three times the boxes in some five times the time.
        min_side: boxes narrower or lower than this many pixels are left out: 8 is half a cell of the feature
            maps. The authors' own code leaves out those under 20, which are objects in some data.

    Returns:
        P x 4, float32, XYXY in pixels, half-open, each box once, best first. P may be 0.

    Raises:
        ValueError: the image is not as said above.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"an image is H x W x 3, uint8, and not empty; this is {image.dtype}, {image.shape}")
    segmentation = cv2.ximgproc.segmentation
    search = segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))  # its colour spaces start from BGR
    if mode == "fast":
        search.switchToSelectiveSearchFast()
    else:
        search.switchToSelectiveSearchQuality()
    search.clearGraphSegmentations()
    for k in SCALES[mode]:
        search.addGraphSegmentation(segmentation.createGraphSegmentation(SIGMA, k, k))
    x, y, width, height = np.unique(np.asarray(search.process()), axis=0).T
    large = (width >= min_side) & (height >= min_side)
    boxes: NDArray[np.float32] = np.stack([x, y, x + width, y + height], axis=1)[large].astype(np.float32)
    boxes = boxes[np.argsort(-(width * height)[large], kind="stable")]
    position = np.arange(1, len(boxes) + 1)
    return boxes[np.argsort(position * np.random.default_rng(0).random(len(boxes)), kind="stable")]


def compute(
    dataset: DetectionDataset,
    folder: Path | str,
    *,
    mode: Mode = "fast",
    min_side: int = 8,
    jobs: int = -1,
    backend: Backend = "loky",
    progress: Callable[[int, int], None] | None = None,
) -> ProposalStore:
    """Run selective search over a dataset, many images at a time, and store what it finds.

    Each image's boxes are in a journal in the folder as soon as they are found. After a kill, or Ctrl-C,
    the same call goes on with the images that are left. Called again on a finished store, it searches only
    images that are new or have changed.

    Args:
        dataset: the images.
        folder: where to store the proposals (see ``default_folder``).
        mode: see ``selective_search``.
        min_side: see ``selective_search``.
        jobs: how many images to search at a time; -1 is one for every core, or all of the cluster.
        backend: ``"loky"``, processes on this machine; or the cluster that joblib reaches as ``"dask"`` (the
            current ``distributed.Client``, else that of ``DASK_SCHEDULER_ADDRESS``) or ``"ray"``
            (``RAY_ADDRESS``). Its machines must find the images under the same paths.
        progress: called with the number of finished images and of all images, at the start and after each.

    Returns:
        The store.

    Raises:
        UserError: the dataset has no images, an image is missing or truncated, the folder holds proposals of
            another method or cannot be written, or the cluster's package is not installed.
    """
    folder = Path(folder)
    if not len(dataset):
        raise UserError("the split has no images", file=dataset.root)
    method = f"selective_search-{mode}"
    parameters = {"scales": SCALES[mode], "min_side": min_side, "opencv": cv2.__version__}
    earlier = _earlier(folder, method, parameters)
    # Absolute, for worker processes that may be an earlier call's, in another working directory.
    paths = [dataset.image_path(index).absolute() for index in range(len(dataset))]
    keys = [fingerprint(path) for path in paths]
    with Journal(folder / "finished.journal", {"method": method, "parameters": parameters}) as finished:
        if earlier:
            for image_id in earlier.ids:
                if (key := earlier.fingerprint(image_id)) not in finished:
                    finished.append(key, earlier.boxes(image_id))
        left = {key: path for key, path in zip(keys, paths, strict=True) if key not in finished}
        done = len(keys) - len(left)
        if progress:
            progress(done, len(keys))
        for key, boxes in _search_all(list(left.values()), mode, min_side, jobs, backend):
            finished.append(key, boxes)
            done += 1
            if progress:
                progress(done, len(keys))
        for key, path in left.items():
            if key not in finished:
                raise UserError("has changed while it was searched", file=path, fix="run the same again")
        found = ((image_id, key, Proposals(finished[key])) for image_id, key in zip(dataset.ids, keys, strict=True))
        store = ProposalStore.write(folder, found, method=method, parameters=parameters)
    finished.path.unlink()
    return store


def _earlier(folder: Path, method: str, parameters: dict[str, Any]) -> ProposalStore | None:
    """Return what an earlier run stored in the folder, if any, and refuse what another method did."""
    if not (folder / "proposals.json").exists():
        return None
    store = ProposalStore(folder)
    if (store.method, store.parameters) != (method, parameters):
        problem = f"holds proposals of {store.method}, {store.parameters}, not {method}, {parameters}"
        raise UserError(problem, file=folder, fix="choose another folder or delete this one")
    return store


def _search_all(
    paths: list[Path], mode: Mode, min_side: int, jobs: int, backend: Backend
) -> Iterator[tuple[bytes, NDArray[np.float32]]]:
    """Yield the fingerprint and boxes of each image as soon as they are found, in any order."""
    # joblib's backend for Ray cannot hand over results one by one, but a hundred at a time.
    one_by_one = backend != "ray"
    step = max(len(paths), 1) if one_by_one else 100
    with _connect(backend), joblib.parallel_config(backend=backend, n_jobs=jobs):
        for start in range(0, len(paths), step):
            yield from joblib.Parallel(return_as="generator_unordered" if one_by_one else "list", batch_size=1)(
                joblib.delayed(_search_file)(path, mode, min_side) for path in paths[start : start + step]
            )


def _connect(backend: Backend) -> AbstractContextManager[object]:
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

        with suppress(ValueError):  # there is no client yet
            return nullcontext(Client.current())
        try:
            return Client()  # type: ignore[no-any-return]
        except OSError as error:
            problem = f"no Dask scheduler answers ({error})"
            raise UserError(problem, field="DASK_SCHEDULER_ADDRESS", fix="start it or mend the address") from error
    return nullcontext()


def _search_file(path: Path, mode: Mode, min_side: int) -> tuple[bytes, NDArray[np.float32]]:
    cv2.setNumThreads(1)  # the images are what runs in parallel
    key = fingerprint(path)
    return key, selective_search(read_image(path).permute(1, 2, 0).numpy(), mode, min_side)
