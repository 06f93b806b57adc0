"""Proposals on the disk: one folder a dataset, split and method, read image by image."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torchvision import tv_tensors

from afrcnn import __version__
from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.data.target import DetectionDataset, Target

FORMAT = 1
REPEAT = "compute them again with `afrcnn proposals DATASET`"


class Proposals(NamedTuple):
    """The proposals of one image, best first.

    Attributes:
        boxes: P x 4, float32, XYXY in pixels, half-open.
        scores: P, float32, higher is better; None where the method gives none.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32] | None = None


def fingerprint(file: Path) -> bytes:
    """Return 16 bytes that change whenever the content of a file does (BLAKE2b).

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return hashlib.blake2b(file.read_bytes(), digest_size=16).digest()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=file, fix="restore the image") from error


def default_folder(root: Path | str, split: str, method: str) -> Path:
    """Return where the proposals of a dataset lie unless told otherwise: beside its images."""
    return Path(root) / "proposals" / f"{split}-{method}"


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
            header = json.loads(description.read_text(encoding="utf-8"))
            version = header["format"]
        except FileNotFoundError as error:
            raise UserError("holds no proposals", file=self.folder, fix=REPEAT) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError("is not a description of proposals", file=description, fix=REPEAT) from error
        if version != FORMAT:
            problem = f"is format {version!r}; this version of afrcnn reads {FORMAT}"
            raise UserError(problem, file=description, field="format", fix=REPEAT)
        try:
            self.method: str = header["method"]
            self.parameters: dict[str, Any] = header["parameters"]
            count, total, self.has_scores = header["images"], header["proposals"], header["scores"]
        except KeyError as error:
            raise UserError("is missing", file=description, field=error.args[0], fix=REPEAT) from error
        self.ids: list[str] = self._load("ids", (count,), "U").tolist()
        self._index = {image_id: index for index, image_id in enumerate(self.ids)}
        self._fingerprints = self._load("fingerprints", (count, 16), "u1")
        self._checksums = self._load("checksums", (count,), "u4")
        self._offsets = self._load("offsets", (count + 1,), "i8")
        if self._offsets[0] != 0 or self._offsets[-1] != total or (np.diff(self._offsets) < 0).any():
            raise UserError("is damaged", file=self.folder / "offsets.npy", fix=REPEAT)
        self._load("boxes", (total, 4), "f4", mapped=True)

    def _load(self, name: str, shape: tuple[int, ...], kind: str, mapped: bool = False) -> NDArray[Any]:
        """Read one array, of just this shape and kind."""
        file = self.folder / f"{name}.npy"
        try:
            array: NDArray[Any] = np.load(file, mmap_mode="r" if mapped else None, allow_pickle=False)
        except FileNotFoundError as error:
            raise UserError("is missing", file=file, fix=REPEAT) from error
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"is damaged ({error})", file=file, fix=REPEAT) from error
        if array.shape != shape or not array.dtype.str[1:].startswith(kind):
            raise UserError(f"is damaged (it is {array.dtype}, {array.shape})", file=file, fix=REPEAT)
        return array

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._index

    def _find(self, image_id: str) -> int:
        try:
            return self._index[image_id]
        except KeyError:
            problem = f"holds no proposals for the image {image_id!r}"
            raise UserError(problem, file=self.folder, fix=REPEAT) from None

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
            raise UserError("is damaged", file=self.folder / "boxes.npy", field=image_id, fix=REPEAT)
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
        cls,
        folder: Path | str,
        images: Iterable[tuple[str, bytes, Proposals]],
        *,
        method: str,
        parameters: dict[str, Any],
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
        folder = Path(folder)
        ids: list[str] = []
        prints, checksums, counts = [], [], []
        with ExitStack() as files:
            append_boxes = files.enter_context(_growing(folder / "boxes.npy", (4,)))
            append_scores: Callable[[NDArray[np.float32]], None] | None = None
            for image_id, digest, proposals in images:
                _check(image_id, proposals)
                if not ids and proposals.scores is not None:
                    append_scores = files.enter_context(_growing(folder / "scores.npy", ()))
                if (proposals.scores is None) != (append_scores is None):
                    raise ValueError(f"{image_id}: some images have scores and some have none")
                append_boxes(proposals.boxes)
                if append_scores is not None and proposals.scores is not None:
                    append_scores(proposals.scores)
                ids.append(image_id)
                prints.append(np.frombuffer(digest, np.uint8))
                checksums.append(crc32(proposals.boxes.tobytes()))
                counts.append(len(proposals.boxes))
            # From here until the new description is there, the folder is no store.
            (folder / "proposals.json").unlink(missing_ok=True)
            (folder / "scores.npy").unlink(missing_ok=True)
        small = {
            "ids": np.array(ids, dtype=np.str_),
            "fingerprints": np.array(prints, dtype=np.uint8).reshape(-1, 16),
            "checksums": np.array(checksums, dtype=np.uint32),
            "offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        }
        for name, array in small.items():
            with atomic_write(folder / f"{name}.npy", "wb") as file:
                np.save(file, array, allow_pickle=False)
        description = {
            "format": FORMAT,
            "method": method,
            "parameters": parameters,
            "afrcnn": __version__,
            "images": len(ids),
            "proposals": sum(counts),
            "scores": append_scores is not None,
        }
        with atomic_write(folder / "proposals.json") as file:
            json.dump(description, file, indent=2)
        return cls(folder)


def _check(image_id: str, proposals: Proposals) -> None:
    boxes, scores = proposals
    if boxes.dtype != np.float32 or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{image_id}: boxes are {boxes.dtype}, {boxes.shape}, not float32, P x 4")
    if not np.isfinite(boxes).all() or not (boxes[:, 2:] > boxes[:, :2]).all():
        raise ValueError(f"{image_id}: a box is not finite or has no area")
    if scores is not None and (scores.dtype != np.float32 or scores.shape != boxes.shape[:1]):
        raise ValueError(f"{image_id}: scores are {scores.dtype}, {scores.shape}, not float32, one a box")


@contextmanager
def _growing(path: Path, shape: tuple[int, ...]) -> Iterator[Callable[[NDArray[np.float32]], None]]:
    """Give a function that adds rows of a shape to a float32 ``.npy`` file, which is there at the end."""
    with atomic_write(path, "wb") as file:

        def write_header(count: int) -> None:
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, *shape)}
            npy.write_array_header_1_0(file, header)

        def append(rows: NDArray[np.float32]) -> None:
            file.write(rows.astype("<f4", copy=False).tobytes())

        write_header(0)
        start = file.tell()
        yield append
        count = (file.tell() - start) // (4 * math.prod(shape))
        # NumPy leaves room in the header for the first axis to grow: this one is as long as the first.
        file.seek(0)
        write_header(count)


class WithProposals:
    """A dataset whose targets hold the image's proposals: itself a ``DetectionDataset``.

    The first time that a process reads an image, it checks that the image is still the one that the
    proposals were made for.

    Args:
        dataset: the images, boxes and labels.
        store: proposals for each of the images.
        limit: how many proposals an image is given, the first ones (about 2000 in Fast R-CNN).

    Raises:
        UserError: the store lacks an image of the dataset; on reading also: the image has changed since
            the proposals were made, or they are for an image of another size.
    """

    def __init__(self, dataset: DetectionDataset, store: ProposalStore, limit: int = 2000) -> None:
        if missing := [image_id for image_id in dataset.ids if image_id not in store]:
            raise UserError(
                f"holds no proposals for {len(missing)} of {len(dataset)} images, {missing[0]!r} the first",
                file=store.folder,
                fix=REPEAT,
            )
        self.dataset, self.store, self.limit = dataset, store, limit
        self.root, self.classes, self.ids = dataset.root, dataset.classes, dataset.ids
        self._verified: set[int] = set()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, Target]:
        if index not in self._verified:
            path = self.dataset.image_path(index)
            if fingerprint(path) != self.store.fingerprint(self.ids[index]):
                problem = f"has changed since the proposals in {self.store.folder} were made"
                raise UserError(problem, file=path, fix=REPEAT)
            self._verified.add(index)
        image, target = self.dataset[index]
        height, width = image.shape[-2:]
        return image, {**target, "proposals": self._proposals(index, (height, width))}

    def target(self, index: int) -> Target:
        """Return the target, proposals included, without decoding the image or checking that it is the same."""
        return {
            **self.dataset.target(index),
            "proposals": self._proposals(index, self.dataset.image_size(index)),
        }

    def image_path(self, index: int) -> Path:
        """Return the image's file."""
        return self.dataset.image_path(index)

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the image's height and width in pixels."""
        return self.dataset.image_size(index)

    def _proposals(self, index: int, size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
        height, width = size
        boxes = self.store.boxes(self.ids[index])[: self.limit]
        inside = (boxes[:, :2] >= 0) & (boxes[:, 2:] <= (width, height))
        if not inside.all():
            raise UserError(
                f"a proposal lies outside the image of {width} x {height} pixels",
                file=self.store.folder,
                field=self.ids[index],
                fix=REPEAT,
            )
        return tv_tensors.BoundingBoxes(torch.from_numpy(boxes), format="XYXY", canvas_size=size)
