"""What a long computation has finished so far, kept through a kill."""

from __future__ import annotations

import errno
import json
import os
import struct
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from afrcnn.core.atomic import writing
from afrcnn.core.errors import UserError

_RECORD = struct.Struct("<16sII")
"""Fingerprint of the image, number of boxes, CRC-32 of both and of the boxes that follow."""


class Journal(AbstractContextManager["Journal"]):
    """Boxes by the fingerprint of their image, in a file that only ever grows.

    Each record is on its way to the disk as soon as it is made, so that a process killed at any moment loses
    none but the last; a torn last record is found by its checksum and cut off. As the key is the content
    of the image, an image that has changed is not found.

    Args:
        path: the file, made if it is not there.
        purpose: what the boxes are, as JSON can say it; written into a new file, compared with an old one.

    Raises:
        UserError: the file cannot be written, or is there for another purpose.
    """

    def __init__(self, path: Path, purpose: dict[str, Any]) -> None:
        self.path = path
        self._where: dict[bytes, tuple[int, int]] = {}
        head = json.dumps(purpose, sort_keys=True).encode() + b"\n"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b", buffering=0)
            self._file.seek(0)
            start = self._file.read(len(head))
            if not head.startswith(start):
                problem = "is the journal of another computation"
                raise UserError(problem, file=path, fix="choose another folder or delete the file")
            if start != head:
                self._file.truncate(0)
                self._file.write(head)
            self._read_records(len(head))

    def _read_records(self, end: int) -> None:
        """Read the records from a position on, and cut off what follows the last whole one."""
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(end)
        while len(head := self._file.read(_RECORD.size)) == _RECORD.size:
            key, count, checksum = _RECORD.unpack(head)
            if end + _RECORD.size + 16 * count > size:
                break
            boxes = self._file.read(16 * count)
            if crc32(boxes, crc32(head[:20])) != checksum:
                break
            self._where[key] = (end + _RECORD.size, count)
            end += _RECORD.size + len(boxes)
        self._file.truncate(end)

    def __contains__(self, key: bytes) -> bool:
        return key in self._where

    def __getitem__(self, key: bytes) -> NDArray[np.float32]:
        offset, count = self._where[key]
        self._file.seek(offset)
        return np.frombuffer(self._file.read(16 * count), "<f4").reshape(-1, 4)

    def append(self, key: bytes, boxes: NDArray[np.float32]) -> None:
        """Add the boxes (P x 4, float32) of the image whose fingerprint is ``key`` (16 bytes).

        Raises:
            UserError: the file cannot be written.
        """
        data = boxes.astype("<f4", copy=False).tobytes()
        head = struct.pack("<16sI", key, len(boxes))
        record = head + struct.pack("<I", crc32(data, crc32(head))) + data
        with writing(self.path):
            if self._file.write(record) != len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # Where it really went: another process may have written to the same file.
        self._where[key] = (self._file.tell() - len(data), len(boxes))

    def __exit__(self, *_: object) -> None:
        self._file.close()
