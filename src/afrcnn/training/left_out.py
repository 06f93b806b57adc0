"""Images that a training could not decode, noted in its run, so that they are told at its end whatever came between."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from afrcnn.core.atomic import atomic_write
from afrcnn.core.distributed import gather
from afrcnn.core.errors import UnreadableImageError, UserError
from afrcnn.core.image_warnings import warn_of
from afrcnn.core.schema import SchemaError, checked, parse_json
from afrcnn.data.target import Target


@dataclass(frozen=True)
class _Image:
    """An image, and why it cannot be decoded."""

    file: str
    problem: str


class LeftOut:
    """The images that a run has left out.

    Args:
        file: where they are written; absent as long as there are none.

    Raises:
        UserError: the file is damaged.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._images: set[_Image] = set()
        self._noted: list[UnreadableImageError] = []
        if file.is_file():
            try:
                self._images = set(checked(parse_json(file.read_bytes()), list[_Image]))
            except (OSError, SchemaError) as error:
                raise UserError(f"is damaged ({error})", file=file, fix="delete it") from error

    def note(self, targets: Sequence[Target]) -> None:
        """Take from the targets of samples the images that could not be decoded, in whose place they were drawn."""
        for target in targets:
            self._noted += target.pop("left_out", ())

    def share(self, first: bool) -> None:
        """Write down what all processes have noted, in the first of them; every process must call it.

        Raises:
            UserError: the file cannot be written.
        """
        errors, self._noted = gather(self._noted), []
        if first:
            self.add(chain.from_iterable(errors))

    def add(self, errors: Iterable[UnreadableImageError]) -> None:
        """Note images, and write them where there are new ones.

        Raises:
            UserError: the file cannot be written.
        """
        images = self._images | {_Image(str(error.file), error.problem) for error in errors}
        if images != self._images:
            self._images = images
            with atomic_write(self.file) as stream:
                json.dump([asdict(image) for image in self._in_order()], stream, indent=2)

    def warn(self) -> None:
        """Warn of every image (``ImageWarning``)."""
        for image in self._in_order():
            warn_of(UnreadableImageError(image.problem, file=image.file), left_out=True)

    def _in_order(self) -> list[_Image]:
        return sorted(self._images, key=lambda image: (image.file, image.problem))
