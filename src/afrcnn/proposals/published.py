"""Proposals that others published: selective search for VOC, and DeepMask's JSON."""

from __future__ import annotations

from array import array
from collections import ChainMap, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import ijson
import joblib
import numpy as np
from numpy.typing import NDArray

from afrcnn.core.errors import UserError
from afrcnn.core.workers import end_with_parent
from afrcnn.data.image import fingerprint
from afrcnn.data.target import DetectionDataset
from afrcnn.proposals.store import Proposals, ProposalStore

_Boxes = NDArray[np.float32]

_ORDERS: dict[bool, dict[str, Callable[[_Boxes], _Boxes]]] = {
    False: {"y1 x1 y2 x2": lambda boxes: boxes, "x1 y1 x2 y2": lambda boxes: boxes[:, [1, 0, 3, 2]]},
    True: {
        "x y width height": lambda boxes: boxes,
        "y x height width": lambda boxes: boxes[:, [1, 0, 3, 2]],
        "x1 y1 x2 y2": lambda boxes: np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1),
    },
}
"""Orders of a box's four numbers that are met in files without scores (selective search's) and with them (DeepMask's),
the published one first, and what makes boxes of these of what the published order takes them for."""

_other_split = partial(UserError, fix="take the file of this dataset and split")


def _read_selective_search_mat(path: Path | str) -> dict[str, Proposals]:
    """Read selective search's boxes from MATLAB's format, as published for VOC.

    The files that came with Fast R-CNN (``voc_2007_trainval.mat``) and those of the authors of selective
    search (``SelectiveSearchVOC2007trainval.mat``) have the same two variables: ``images``, a cell array of
    N ids, and ``boxes``, a cell array of N matrices K x 4 of y1, x1, y2, x2, 1-based and inclusive.

    Returns:
        The boxes of each image by its id, in the file's order, without scores.

    Raises:
        UserError: the file is missing, not MATLAB's, or does not hold the two variables.
    """
    path = Path(path)
    mistake = partial(UserError, file=path)
    if not path.is_file():
        raise mistake("is missing")
    try:
        from scipy.io import loadmat  # noqa: PLC0415  100 MB that nothing else needs
    except ImportError as error:
        raise mistake("needs SciPy to be read", fix="install it with `pip install 'afrcnn[matlab]'`") from error
    try:
        # In a process of its own: a damaged file can crash SciPy's parser, and what calls it with it. That process
        # may be an earlier call's, in another working directory.
        load = joblib.delayed(loadmat)(path.absolute(), variable_names=["images", "boxes"])
        with joblib.parallel_config(backend="loky", initializer=end_with_parent):
            [content] = joblib.Parallel(n_jobs=2)([load])
    except NotImplementedError as error:
        problem = "is in MATLAB's 7.3 format, which is not read"
        raise mistake(problem, fix="save it in MATLAB with -v7") from error
    except Exception as error:  # a damaged file can fail anywhere in the parser, with any exception
        problem = f"cannot be read as a MATLAB file ({type(error).__name__})"
        raise mistake(problem, fix="fetch the file again") from error
    for name in ("images", "boxes"):
        if name not in content or content[name].dtype != object:
            raise mistake("is missing or not a cell array", field=name)
    ids, boxes = content["images"].ravel(), content["boxes"].ravel()
    if len(ids) != len(boxes):
        raise mistake(f"{len(ids)} images, but boxes of {len(boxes)}")
    published = {}
    for number, (image_id, matrix) in enumerate(zip(ids, boxes, strict=True), start=1):
        if image_id.size != 1 or image_id.dtype.kind != "U":
            raise mistake("is not a string", field=f"images{{{number}}}")
        if matrix.size and (matrix.ndim != 2 or matrix.shape[1] != 4 or matrix.dtype.kind not in "iuf"):
            raise mistake("is not a matrix K x 4", field=f"boxes{{{number}}}")
        y1, x1, y2, x2 = matrix.reshape(-1, 4).astype(np.float32).T
        published[str(image_id.item())] = Proposals(np.stack([x1 - 1, y1 - 1, x2, y2], axis=1))
    return published


def _read_deepmask_json(paths: Iterable[Path | str]) -> dict[str, Proposals]:
    """Read proposals in DeepMask's and SharpMask's format: COCO's results JSON.

    Each file is a list of ``{"image_id": ..., "bbox": [x, y, width, height], "score": ...}``; other fields,
    such as the masks, are passed over. The files are read as streams: five numbers a proposal are all that
    is kept in memory, however long the masks.

    Args:
        paths: the files, which may share images.

    Returns:
        The boxes and scores of each image by its id (as str), best first.

    Raises:
        UserError: a file is missing, or malformed; names the file and the number of the proposal in it.
    """
    rows: defaultdict[str, array[float]] = defaultdict(lambda: array("f"))
    for path in map(Path, paths):
        for image_id, row in _entries(path):
            rows[image_id].extend(row)
    published = {}
    for image_id in list(rows):
        table: NDArray[np.float32] = np.array(rows.pop(image_id), dtype=np.float32).reshape(-1, 5)
        table = table[np.argsort(-table[:, 4], kind="stable")]
        x, y, width, height, scores = table.T
        published[image_id] = Proposals(np.stack([x, y, x + width, y + height], axis=1), scores.copy())
    return published


def _entries(path: Path) -> Iterator[tuple[str, list[float]]]:
    """Yield the image id, and x, y, width, height and score, of each element of a file's JSON list."""
    number = 0
    try:
        with path.open("rb") as file:
            if not file.read(64).lstrip().startswith(b"["):
                raise UserError("is not a JSON list of proposals", file=path)
            file.seek(0)
            for entry in ijson.items(file, "item", use_float=True):
                x, y, width, height = entry["bbox"]
                row = x, y, width, height, entry["score"]
                yield str(entry["image_id"]), [float(value) for value in row]
                number += 1
    except FileNotFoundError as error:
        raise UserError("is missing", file=path) from error
    except ijson.JSONError as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        problem = f"is malformed JSON after {number} proposals ({reason.splitlines()[0]})"
        raise UserError(problem, file=path, fix="fetch the file again") from error
    except (KeyError, TypeError, ValueError) as error:
        problem = "is not a proposal with image_id, bbox [x, y, width, height] and score"
        raise UserError(problem, file=path, field=f"[{number}]") from error


def read_published(paths: Sequence[Path | str]) -> tuple[str, dict[str, Proposals]]:
    """Read published files, all of selective search (``.mat``) or all of DeepMask.

    Returns:
        What the method is called, ``"selective_search"`` or ``"deepmask"``, and the proposals of each image by its id.

    Raises:
        UserError: a file is missing, malformed, or no file holds a proposal.
    """
    if all(Path(path).suffix == ".mat" for path in paths):
        method = "selective_search"
        published = dict(ChainMap(*map(_read_selective_search_mat, reversed(paths))))
    else:
        method, published = "deepmask", _read_deepmask_json(paths)
    if not published:
        raise _other_split("holds no proposals", file=paths[0])
    return method, published


def import_published(
    dataset: DetectionDataset,
    folder: Path | str,
    published: Mapping[str, Proposals],
    *,
    method: str,
    source: Path | str,
    allow_missing: bool = False,
) -> ProposalStore:
    """Store published proposals for the images of a dataset.

    Boxes that reach over the border by at most a pixel, as those of masks do that were computed on a scaled
    image, are clipped; boxes without area are left out. Images that are not in the dataset are passed over. Where the
    numbers of the boxes cannot be in the published order, since some boxes would lie outside their images, and can be
    in one other, as x1 y1 x2 y2 for y1 x1 y2 x2, they are read so; the parameter ``columns`` of the store says it.

    Args:
        dataset: the images.
        folder: where to store the proposals (see ``default_folder``).
        published: the proposals of each image by its id, as of ``read_published``.
        method: what to call the proposals, such as ``"deepmask"``.
        source: the file or folder that they came from, for the record and for errors.
        allow_missing: let images without proposals have none, instead of refusing.

    Raises:
        UserError: images lack proposals (says how many), or a proposal lies outside its image whatever the order.
    """
    if missing := [image_id for image_id in dataset.ids if image_id not in published]:
        problem = f"has no proposals for {len(missing)} of {len(dataset)} images, {missing[0]!r} the first"
        if len(missing) == len(dataset) or not allow_missing:
            raise _other_split(problem, file=source)
    scored = next(iter(published.values())).scores is not None
    columns = _order(dataset, published, scored, source)
    reorder = _ORDERS[scored][columns]
    none = Proposals(np.empty((0, 4), np.float32), np.empty(0, np.float32) if scored else None)

    def images() -> Iterator[tuple[str, bytes, Proposals]]:
        for index, image_id in enumerate(dataset.ids):
            boxes, scores = published.get(image_id, none)
            proposals = _clip(Proposals(reorder(boxes), scores), dataset.image_size(index))
            yield image_id, fingerprint(dataset.image_path(index)), proposals

    parameters = {"source": Path(source).name, "missing": len(missing)}
    if columns != next(iter(_ORDERS[scored])):
        parameters["columns"] = columns
    return ProposalStore.write(folder, images(), method=method, parameters=parameters)


def _order(dataset: DetectionDataset, published: Mapping[str, Proposals], scored: bool, source: Path | str) -> str:
    """Return the order of a box's numbers with which all boxes lie in their images: the published one, or the only one.

    Raises:
        UserError: there is none, or there are several and the published one is not among them.
    """
    images = [(image_id, dataset.image_size(index)) for index, image_id in enumerate(dataset.ids)]
    outside = {
        name: [id_ for id_, size in images if id_ in published and not _fits(reorder(published[id_].boxes), size)]
        for name, reorder in _ORDERS[scored].items()
    }
    usual, *further = outside
    fitting = [name for name in further if not outside[name]]
    if not outside[usual]:
        return usual
    if len(fitting) == 1:
        return fitting[0]
    height, width = dict(images)[outside[usual][0]]
    problem = f"a proposal lies outside the image of {width} x {height} pixels, or is not finite"
    problem += f", as in {len(outside[usual])} of {len(images)} images where the order is {usual}"
    if fitting:
        problem += f"; it may be {' or '.join(fitting)}"
        fix = f"write the boxes as {usual}"
    else:
        counts = (f"{len(outside[name])} where it is {name}" for name in further)
        problem += f", {', '.join(counts)}"
        fix = "take the file of this dataset and split: it is likely of other images, or of another size of these"
    raise UserError(problem, file=source, field=outside[usual][0], fix=fix)


def _fits(boxes: _Boxes, size: tuple[int, int]) -> bool:
    """Tell whether boxes are finite and lie in an image, but for a pixel, with no corner before the other."""
    border = np.array([size[1], size[0]] * 2, dtype=np.float32)
    inside = ((boxes >= -1) & (boxes <= border + 1)).all()  # NaN is neither
    return bool(inside and (boxes[:, 2:] >= boxes[:, :2] - 1).all())


def _clip(proposals: Proposals, size: tuple[int, int]) -> Proposals:
    """Clip boxes to the image, and leave out those without area."""
    boxes, scores = proposals
    boxes = boxes.clip(0, np.array([size[1], size[0]] * 2, dtype=np.float32))
    area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return Proposals(boxes[area], None if scores is None else scores[area])
