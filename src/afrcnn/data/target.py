"""What a detection dataset is: images, boxes and labels under stable ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, TypeVar

from torchvision import tv_tensors

from afrcnn.core.errors import UserError

Target = dict[str, Any]
"""The annotation of one image, in torchvision's convention.

=================  ============================================================================================
``boxes``          ``tv_tensors.BoundingBoxes`` M x 4, float32, XYXY in pixels; a box covers the half-open
                   ranges [x1, x2) and [y1, y2), so that x2 - x1 is its width (VOC's inclusive, 1-based
                   xmin..xmax is x1 = xmin - 1, x2 = xmax)
``labels``         M, int64, 1..K; 0 is background
``image_id``       str, the dataset's own name of the image
``difficult``      M, bool: VOC's flag, not trained on unless asked for, neither hit nor miss in evaluation
``truncated``      M, bool: VOC's flag (VOC layout only)
``occluded``       M, bool: VOC's flag (VOC layout only)
``occlusion``      M, float32: the fraction of the object that is occluded, in [0, 1] (``<hidden>`` in the XML
                   file); NaN where not recorded (annotations of the generated set only)
``bend``           M, float32: the mean angle of its joints in degrees, likewise
``iscrowd``        M, bool: COCO's crowd regions, never trained on (COCO layout only)
``area``           M, float32: the area of COCO's segmentation in pixels (COCO layout only)
``annotation_id``  M, int64: COCO's id of each annotation (COCO layout only)
``adversarial``    bool: whether the features of the image's objects may be perturbed; in training alone
``proposals``      ``tv_tensors.BoundingBoxes`` P x 4, float32, as ``boxes``; added by ``WithProposals``
=================  ============================================================================================
"""


class DetectionDataset(Protocol):
    """Images with boxes: what training, evaluation and proposals need of a dataset.

    Attributes:
        root: the folder that the dataset was read from.
        classes: the names of the classes 1..K, in order; background is not among them.
        category_ids: the ids of the classes 1..K in COCO's files; 1..K where the dataset has no other ids.
        ids: the image ids of the split, in order, each once.
        annotation_file: COCO's JSON file, which holds masks, too; None in layouts that have none.
        annotated: whether anything says where the objects are; False of a test set whose annotations are not
            published: its targets have no objects.
    """

    root: Path
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    ids: list[str]
    annotation_file: Path | None
    annotated: bool

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, Target]:
        """Return the image (3 x H x W, uint8, RGB) and its target."""

    def target(self, index: int) -> Target:
        """Return the target alone, without decoding the image."""

    def image_path(self, index: int) -> Path:
        """Return the image's file."""

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the image's height and width in pixels, without decoding it."""

    def describe(self) -> str:
        """Return split, layout, images, objects and classes in a few words."""


_Dataset = TypeVar("_Dataset", bound=DetectionDataset)


def require_annotations(dataset: _Dataset) -> _Dataset:
    """Return a dataset that is annotated.

    Raises:
        UserError: it is not.
    """
    if not dataset.annotated:
        problem = f"the split has no annotations ({len(dataset)} images, {dataset.ids[0]} the first)"
        file, fix = dataset.annotation_file or dataset.root, "choose a split whose images are annotated"
        raise UserError(problem, file=file, fix=fix)
    return dataset
