"""Proposals on the disk: one folder a dataset, split and method, read image by image."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from zlib import crc32

import numpy as np
from msgspec import Meta
from numpy.lib import format as npy
from numpy.typing import NDArray

from afrcnn import __version__
from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.core.schema import SchemaError, checked, parse_json

_FORMAT = 1
repeat_error = partial(UserError, fix="compute them again with `afrcnn proposals DATASET`")
"""The error of proposals that are missing, damaged, or of other images."""


class Proposals(NamedTuple):
    """The proposals of one image, best first.

    Attributes:
        boxes: P x 4, float32, XYXY in pixels, half-open.
        scores: P, float32, higher is better; None where the method gives none.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32] | None = None


_Record = tuple[str, bytes, Proposals]
"""An image's id, the fingerprint of its file, and its proposals."""


def is_complete(folder: Path) -> bool:
    """Tell whether a folder holds the proposals of all images of a split, and not the beginning of a search alone."""
    return (folder / "proposals.json").is_file()


def default_folder(root: Path | str, split: str, method: str, stores: Path | str | None = None) -> Path:
    """Return where the proposals of a dataset lie: in a folder of stores, by default beside its images."""
    return (Path(root) / "proposals" if stores is None else Path(stores)) / f"{split}-{method}"


@dataclass(frozen=True)
class _Description:
    """What ``proposals.json`` says."""

    format: int
    method: str
    parameters: dict[str, Any]
    images: Annotated[int, Meta(ge=0)]
    proposals: Annotated[int, Meta(ge=0)]
    scores: bool


class ProposalStore:
    """The proposals of every image of a dataset, in arrays of a folder.

    =====================  ======================================================================
    ``proposals.json``     format, method, parameters, version of afrcnn, numbers; written last
    ``ids.npy``            N, str: the images, in the order of the dataset
    ``fingerprints.npy``   N x 16, uint8: of the image files, to tell when one has changed
    ``offsets.npy``        N + 1, int64: image i owns the rows offsets[i] to offsets[i + 1]
    ``checksums.npy``      N, uint32: CRC-32 of each image's rows of ``boxes.npy``
    ``boxes.npy``          sum(P) x 4, float32, XYXY in pixels, half-open, best first
    ``scores.npy``         sum(P), float32; absent where the method gives none
    =====================  ======================================================================

    Only the small arrays are held in memory. ``boxes.npy`` and ``scores.npy`` are memory-mapped for each
    read and let go after it: pages of a mapping that lives on count as memory of the process, and after
    an epoch in random order they would be the whole file.

    Args:
        folder: the folder that ``ProposalStore.write`` wrote.

    Attributes:
        folder: the same.
        method: how the proposals were made, such as ``"selective_search-fast"``.
        parameters: the method's parameters.
        ids: the images, in order.

    Raises:
        UserError: there are no proposals in the folder, they are of another format, or damaged.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        description = self.folder / "proposals.json"
        try:
            record = parse_json(description.read_bytes())
            if isinstance(record, dict) and (version := record.get("format", _FORMAT)) != _FORMAT:
                problem = f"is format {version!r}; this version of afrcnn reads {_FORMAT}"
                raise repeat_error(problem, file=description, field="format")
            header = checked(record, _Description)
        except FileNotFoundError as error:
            raise repeat_error("holds no proposals", file=self.folder) from error
        except (OSError, SchemaError) as error:
            raise repeat_error(f"is not a description of proposals ({error})", file=description) from error
        self.method, self.parameters = header.method, header.parameters
        count, total, self.has_scores = header.images, header.proposals, header.scores
        try:
            self.ids: list[str] = self._load("ids", (count,), "U").tolist()
        except ValueError as error:  # characters that there are not
            raise repeat_error(f"is damaged ({error})", file=self.folder / "ids.npy") from error
        self._index = {image_id: index for index, image_id in enumerate(self.ids)}
        self._fingerprints = self._load("fingerprints", (count, 16), "u1")
        self._checksums = self._load("checksums", (count,), "u4")
        self._offsets = offsets = self._load("offsets", (count + 1,), "i8")
        if offsets[0] != 0 or offsets[-1] != total or (np.diff(offsets) < 0).any():
            raise repeat_error("is damaged", file=self.folder / "offsets.npy")
        self._load("boxes", (total, 4), "f4", mapped=True)

    def _load(self, name: str, shape: tuple[int, ...], kind: str, mapped: bool = False) -> NDArray[Any]:
        """Read one array, of just this shape and kind; nothing of it before its header is known to be right."""
        file = self.folder / f"{name}.npy"
        try:
            array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise repeat_error("is missing", file=file) from error
        except Exception as error:  # NumPy reads a header as Python's own parser does, with all that this can raise
            raise repeat_error(f"is damaged ({error})", file=file) from error
        if array.shape != shape or not array.dtype.str.startswith((f"<{kind}", f"|{kind}")):
            raise repeat_error(f"is damaged (it is {array.dtype}, {array.shape})", file=file)
        return array if mapped else np.array(array)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._index

    def _find(self, image_id: str) -> int:
        if image_id not in self._index:
            raise repeat_error(f"holds no proposals for the image {image_id!r}", file=self.folder)
        return self._index[image_id]

    def _rows(self, name: str, shape: tuple[int, ...], index: int) -> NDArray[np.float32]:
        start, end = self._offsets[index : index + 2]
        mapped = self._load(name, (int(self._offsets[-1]), *shape), "f4", mapped=True)
        return np.array(mapped[start:end], dtype=np.float32)

    def boxes(self, image_id: str) -> NDArray[np.float32]:
        """Return the boxes of an image.

        Returns:
            P x 4, float32, XYXY in pixels, half-open, best first; the caller's own copy.

        Raises:
            UserError: there are no proposals for the image, or they are damaged.
        """
        index = self._find(image_id)
        boxes = self._rows("boxes", (4,), index)
        if crc32(boxes.tobytes()) != self._checksums[index]:
            raise repeat_error("is damaged", file=self.folder / "boxes.npy", field=image_id)
        return boxes

    def scores(self, image_id: str) -> NDArray[np.float32] | None:
        """Return the scores of an image's boxes, P, float32, or None where the method gives none.

        Raises:
            UserError: there are no proposals for the image, or they are damaged.
        """
        index = self._find(image_id)
        return self._rows("scores", (), index) if self.has_scores else None

    def fingerprint(self, image_id: str) -> bytes:
        """Return the fingerprint of the image file that the proposals were made for.

        Raises:
            UserError: there are no proposals for the image.
        """
        return bytes(self._fingerprints[self._find(image_id)])

    @classmethod
    def write(
        cls, folder: Path | str, images: Iterable[_Record], *, method: str, parameters: dict[str, Any]
    ) -> ProposalStore:
        """Write a store, in place of any other in the folder.

        The boxes go to the disk as they come: no more than one image's are in memory. Until the last of
        them is there, what the folder held before remains.

        Args:
            folder: the folder, made if need be.
            images: of each image the id, the fingerprint and the proposals, in the dataset's order. Scores
                are for all images or for none.
            method: how the proposals were made.
            parameters: the method's parameters, as JSON can say them.

        Raises:
            UserError: the folder cannot be written.
            ValueError: proposals of the wrong type or shape, without area, or not finite.
        """
        folder, rows = Path(folder), []
        boxes_file, scores_file = (folder / f"{name}.npy" for name in ("boxes", "scores"))
        with _growing(scores_file, ()) as append_scores, _growing(boxes_file, (4,)) as append_boxes:
            for image_id, digest, (boxes, scores) in images:
                check_boxes(image_id, boxes, scores)
                append_boxes(boxes)
                if scores is not None:
                    append_scores(scores)
                scored = scores is not None
                rows.append((image_id, digest, crc32(boxes.tobytes()), len(boxes), scored))
                if rows[0][-1] != scored:
                    raise ValueError(f"{image_id}: some images have scores and some have none")
            # From here until the new description is there, the folder is not a store.
            (folder / "proposals.json").unlink(missing_ok=True)
        ids, digests, checksums, counts, flags = zip(*rows, strict=True) if rows else [()] * 5
        if not any(flags):
            scores_file.unlink()
        for name, array in {
            "ids": np.array(ids, dtype=np.str_),
            "fingerprints": np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 16),
            "checksums": np.array(checksums, dtype=np.uint32),
            "offsets": np.cumsum([0, *counts], dtype=np.int64),
        }.items():
            with atomic_write(folder / f"{name}.npy", "wb") as file:
                np.save(file, array, allow_pickle=False)
        header = {"format": _FORMAT, "method": method, "parameters": parameters, "afrcnn": __version__}
        numbers = {"images": len(ids), "proposals": sum(counts), "scores": any(flags)}
        with atomic_write(folder / "proposals.json") as file:
            json.dump(header | numbers, file, indent=2)
        return cls(folder)


def check_boxes(image_id: str, boxes: NDArray[Any], scores: NDArray[Any] | None = None) -> None:
    """Refuse proposals that are not P x 4, float32, finite and with an area, or whose scores are not P, float32.

    Raises:
        ValueError: they are not; it names the image.
    """
    if boxes.dtype != np.float32 or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{image_id}: boxes are {boxes.dtype}, {boxes.shape}, not float32, P x 4")
    if not np.isfinite(boxes).all() or not (boxes[:, 2:] > boxes[:, :2]).all():
        raise ValueError(f"{image_id}: a box is not finite or has no area")
    if scores is not None and (scores.dtype != np.float32 or scores.shape != boxes.shape[:1]):
        raise ValueError(f"{image_id}: scores are {scores.dtype}, {scores.shape}, not float32, one a box")


@contextmanager
def _growing(path: Path, shape: tuple[int, ...]) -> Iterator[Callable[[NDArray[np.float32]], object]]:
    """Give a function that adds rows of a shape to a float32 ``.npy`` file, which is there at the end."""
    with atomic_write(path, "wb") as file:

        def write_header(count: int) -> None:
            # NumPy leaves room in the header for the first axis to grow: all are of one length.
            file.seek(0)
            npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (count, *shape)})

        write_header(0)
        start = file.tell()
        yield lambda rows: file.write(rows.astype("<f4", copy=False).tobytes())
        write_header((file.tell() - start) // (4 * math.prod(shape)))
