"""What proposes boxes: the contract that selective search, DeepMask and a class of one's own meet."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class Proposer(Protocol):
    """A function of an image that says what its boxes depend on, so that a store never mixes two kinds.

    The same image must give the same boxes. A proposer is pickled for worker processes.
    """

    @property
    def method(self) -> str:
        """What stores call its proposals; the name of a folder."""

    @property
    def parameters(self) -> dict[str, Any]:
        """What its boxes depend on besides the image, as JSON can say it."""

    def __call__(self, image: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Propose boxes that may hold an object.

        Args:
            image: H x W x 3, uint8, RGB.

        Returns:
            P x 4, float32, XYXY in pixels, half-open, inside the image, each with an area, best first. P may be 0.
        """


def check_image(image: NDArray[Any]) -> None:
    """Refuse what is not an image as proposers take it.

    Raises:
        ValueError: it is not H x W x 3, uint8, or it is empty.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"an image is H x W x 3, uint8, and not empty; this is {image.dtype}, {image.shape}")
