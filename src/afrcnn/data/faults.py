"""The mistakes in a dataset: raised one by one while it is read, or collected, so that all are told at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from afrcnn.core.errors import UnreadableImageError, UserError
from afrcnn.core.image_warnings import warn_of

UNREADABLE = "unreadable images"
"""The kind of images that cannot be decoded."""

ODD_AREAS = "areas of objects that are not positive"
"""The kind of areas that tools write where they know none; not a mistake at which a training stops."""


class Faults:
    """Mistakes by kind, in the order in which they were met.

    A reader that is given one leaves out what is at fault and goes on; without one, it raises the first mistake.

    Attributes:
        messages: of each kind, which is a plural noun, the messages.
    """

    def __init__(self) -> None:
        self.messages: dict[str, list[str]] = {}

    def add(self, kind: str, message: object) -> None:
        """Note a mistake."""
        self.messages.setdefault(kind, []).append(str(message))

    @contextmanager
    def collect(self, kind: str) -> Iterator[None]:
        """Note a user's error of the block as a mistake of a kind, and go on after the block."""
        try:
            yield
        except UserError as error:
            self.add(kind, error)


@contextmanager
def readable(faults: Faults | None) -> Iterator[None]:
    """Note an image of the block that cannot be decoded, or warn of it, and go on after the block without it.

    Raises:
        UserError: it is refused (``afrcnn.core.image_warnings.refusing``).
    """
    try:
        yield
    except UnreadableImageError as error:
        if faults is None:
            warn_of(error, left_out=True)
        else:
            faults.add(UNREADABLE, error)


def collected(faults: Faults | None, kind: str) -> AbstractContextManager[None]:
    """Return a context that notes the error of its block where there is something to note it in, or lets it pass."""
    return nullcontext() if faults is None else faults.collect(kind)
