"""Selective search (Uijlings et al., IJCV 2013): boxes of grouped segments, as Fast R-CNN uses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from afrcnn.core.opencv import require_opencv
from afrcnn.proposals.proposer import check_image

require_opencv()
import cv2  # noqa: E402

Mode = Literal["fast", "quality"]

_SCALES = {"fast": [50, 100], "quality": [50, 100, 150, 300]}
"""The scales k of the initial segmentations, section 5.2 and table 5; k is also the smallest segment in
pixels, as in the authors' code. OpenCV's own (150, 300, 450; 100 pixels) find 80% of the cells of BCCD,
these 90%."""
_SIGMA = 0.8


@dataclass(frozen=True)
class SelectiveSearch:
    """Selective search: a function of an image.

    OpenCV's implementation finds the boxes; scales and order are the paper's, not OpenCV's, which draws the
    order from the C library's ``rand`` and puts the smallest segments first. In the paper (section 3.3) boxes
    are ordered by RND x i, where i is the position in the hierarchy from its top, which is taken here from
    the box's area, and RND is uniform in [0, 1), here from a fixed seed. The same image gives the same
    boxes in the same order, always.

    Attributes:
        mode: ``"fast"``, the paper's two colour spaces, two scales and two similarities, or ``"quality"``
            with five, four and four: some three times the boxes in some five times the time.
        min_side: boxes narrower or lower than this many pixels are left out: 8 is half a cell of the feature
            maps. The authors' own code leaves out those under 20, which are objects in some data.
    """

    mode: Mode = "fast"
    min_side: int = 8

    @property
    def method(self) -> str:
        """What stores call its proposals."""
        return f"selective_search-{self.mode}"

    @property
    def parameters(self) -> dict[str, Any]:
        """What its boxes depend on."""
        return {"scales": _SCALES[self.mode], "min_side": self.min_side, "opencv": cv2.__version__}

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Propose boxes that may hold an object.

        Args:
            image: H x W x 3, uint8, RGB.

        Returns:
            P x 4, float32, XYXY in pixels, half-open, each box once, best first. P may be 0.

        Raises:
            ValueError: the image is not as said above.
        """
        check_image(image)
        segmentation = cv2.ximgproc.segmentation
        search = segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))  # its colours start from BGR
        if self.mode == "fast":
            search.switchToSelectiveSearchFast()
        else:
            search.switchToSelectiveSearchQuality()
        search.clearGraphSegmentations()
        for k in _SCALES[self.mode]:
            search.addGraphSegmentation(segmentation.createGraphSegmentation(_SIGMA, k, k))
        x, y, width, height = np.unique(np.asarray(search.process()), axis=0).T
        large = (width >= self.min_side) & (height >= self.min_side)
        boxes: NDArray[np.float32] = np.stack([x, y, x + width, y + height], axis=1)[large].astype(np.float32)
        boxes = boxes[np.argsort(-(width * height)[large], kind="stable")]
        position = np.arange(1, len(boxes) + 1)
        return boxes[np.argsort(position * np.random.default_rng(0).random(len(boxes)), kind="stable")]
