"""Videos: their frames as images, and images as the frames of a video."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from afrcnn.core.atomic import atomic_write, writing
from afrcnn.core.errors import UserError

# A broken video gets one line, which is ours.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
with suppress(AttributeError):  # an OpenCV without it has no videos either; who needs one is told
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_RATE = 25.0
"""Frames per second of a video that does not say how many it has."""


class Video:
    """Every ``stride``-th frame of a video, by its number; frames are read in rising order, or from the beginning anew.

    Args:
        path: the file.
        stride: of how many frames one is taken, 1 or more.

    Attributes:
        rate: the frames taken, per second.

    Raises:
        UserError: the file is missing, or no frame of it can be decoded.
    """

    def __init__(self, path: Path, stride: int = 1) -> None:
        self.path, self.stride = path, stride
        capture = self._open()
        frames = 0
        while capture.grab():  # what the header says of their number need not be true
            frames += 1
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.rate = (rate if 0 < rate <= 1000 else _RATE) / stride
        self._length = -(-frames // stride)
        if not frames:
            raise self._broken()
        self._capture: cv2.VideoCapture | None = None
        self._next = self._process = 0

    def __len__(self) -> int:
        """Return how many frames are taken."""
        return self._length

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Return a frame that is taken: H x W x 3, uint8, RGB.

        Raises:
            UserError: it cannot be decoded.
        """
        number = range(len(self))[index] * self.stride
        # A process that was forked would share the file's position with its parent.
        if self._capture is None or number < self._next or self._process != os.getpid():
            self._capture, self._next, self._process = self._open(), 0, os.getpid()
        while self._next < number and self._capture.grab():
            self._next += 1
        right, frame = self._capture.read()
        self._next += 1
        if not right:
            raise self._broken()
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames that are taken."""
        return (self[index] for index in range(len(self)))

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.path.absolute()), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise self._broken()
        return capture

    def _broken(self) -> UserError:
        problem = "the video cannot be decoded" if self.path.is_file() else "no such video"
        return UserError(problem, file=self.path, fix="replace the file; it may be truncated")


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], rate: float) -> None:
    """Write frames as a video, MPEG-4 in an .mp4 file: whole, or not at all.

    Args:
        path: the file.
        frames: H x W x 3 each, uint8, RGB, all of one size; a last row or column beyond an even number is left out.
        rate: frames per second.

    Raises:
        UserError: the file cannot be written.
    """
    writer: cv2.VideoWriter | None = None
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name[:40]}.")
    with folder as name:
        file = Path(name, "video.mp4")
        try:
            for frame in frames:
                height, width = (side - side % 2 or 1 for side in frame.shape[:2])
                if writer is None:
                    code = cv2.VideoWriter.fourcc(*"mp4v")
                    writer = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, code, rate, (width, height))
                writer.write(cv2.cvtColor(frame[:height, :width], cv2.COLOR_RGB2BGR))
        finally:
            if writer is not None:
                writer.release()
        if not file.is_file() or not file.stat().st_size:
            raise UserError("cannot be written as a video", file=path, fix="choose a larger --stride, or images")
        with file.open("rb") as written, atomic_write(path, "wb") as stream:
            shutil.copyfileobj(written, stream)
