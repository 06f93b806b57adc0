"""A trained detector in one's own Python: from an image, whatever it is, to boxes with names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from afrcnn.commands.new_images import detect_image, load_detector_at, proposal_mode
from afrcnn.core.errors import UserError
from afrcnn.run import Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor, nn

    _Pixels = str | Path | Image.Image | NDArray[Any] | Tensor
    """A path, an address, a picture, or pixels."""


@dataclass(frozen=True)
class Detected:
    """What was detected in an image.

    Attributes:
        image: its pixels, H x W x 3, uint8, RGB.
        boxes: D x 4, float32, XYXY in pixels, half-open, best first.
        labels: D, int64, 1..K.
        scores: D, float32, in [0, 1].
        classes: the names of the classes 1..K.
    """

    image: NDArray[np.uint8]
    boxes: Tensor
    labels: Tensor
    scores: Tensor
    classes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The class of each object."""
        return [self.classes[label - 1] for label in self.labels.tolist()]

    def __len__(self) -> int:
        """Return D, the number of objects."""
        return len(self.boxes)

    def plot(self) -> Image.Image:
        """Return the image with boxes, names and scores drawn over it."""
        from afrcnn.visualize.detections import draw_detections

        detections = {"boxes": self.boxes, "labels": self.labels, "scores": self.scores}
        return draw_detections(self.image, detections, self.classes)

    def to_supervision(self) -> Any:
        """Return the same as ``supervision.Detections``; its class ids count from 0.

        Raises:
            UserError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise UserError("is not installed", field="supervision", fix="pip install supervision") from error
        import numpy as np

        return supervision.Detections(
            xyxy=self.boxes.numpy(),
            confidence=self.scores.numpy(),
            class_id=self.labels.numpy() - 1,
            data={"class_name": np.array(self.names)},
        )


class TrainedDetector:
    """A trained detector, from any image to what is in it; proposals are made as those that it was trained with.

    Args:
        module: the detector, in evaluation mode.
        run: whose it is.
        score: the lowest score, in [0, 1], of what is detected.
    """

    def __init__(self, module: nn.Module, run: Run, score: float) -> None:
        self.module, self.classes, self.score = module, tuple(run.classes), score
        self._mode, self._limit = proposal_mode(run.recipe), run.recipe.data.for_evaluation().proposals_per_image

    def predict(self, images: _Pixels | Sequence[_Pixels]) -> Detected | list[Detected]:
        """Detect objects.

        Args:
            images: a file, an address (http or https), a picture of Pillow, or pixels: an array H x W x 3, or a tensor
                3 x H x W, uint8, or floating point in [0, 1]; a folder, which stands for its images at any depth, or a
                pattern of files, as ``photos/*.jpg``; or a list of such.

        Returns:
            What is in the image; of a list, a folder or a pattern, a list.

        Raises:
            UserError: an image is missing or damaged, an address does not answer, or pixels are of another kind.
        """
        if isinstance(images, list | tuple):
            return [self._detect(_pixels_of(image)) for given in images for image in _expanded(given)]
        expanded = _expanded(cast("_Pixels", images))
        if isinstance(images, str | Path) and list(map(str, expanded)) != [str(images)]:
            return [self._detect(_pixels_of(file)) for file in expanded]
        return self._detect(_pixels_of(cast("_Pixels", images)))

    def _detect(self, image: NDArray[np.uint8]) -> Detected:
        detection = detect_image(cast(Any, self.module), image, mode=self._mode, limit=self._limit)
        chosen = detection["scores"] >= self.score
        boxes, labels, scores = (detection[name][chosen].cpu() for name in ("boxes", "labels", "scores"))
        return Detected(image, boxes, labels, scores, self.classes)


def load(
    run: Path | str, *, score: float | None = None, device: str = "cpu", trust: Sequence[str] = ()
) -> TrainedDetector:
    """Load the trained detector of a run.

    Args:
        run: folder that ``train`` made, or a file of weights from one.
        score: the lowest score, in [0, 1], of what is detected; that of best F1 in validation when None, or 0.5 where
            the detector was not validated.
        device: where it works, as ``"cuda"``.
        trust: modules that a detector of your own may be imported from.

    Raises:
        UserError: the run is not finished, or its proposals cannot be made for new images.
    """
    trained = Run(run)
    proposal_mode(trained.recipe)
    score = trained.score if score is None else score
    return TrainedDetector(load_detector_at(trained, score, trust).to(device), trained, score)


def _expanded(image: _Pixels) -> Sequence[_Pixels]:
    """Return the files of a folder or a pattern; what else there is, itself."""
    from afrcnn.data.sources import files_of, is_address

    return files_of(image) if isinstance(image, str | Path) and not is_address(image) else [image]


def _pixels_of(image: _Pixels) -> NDArray[np.uint8]:
    """Return an image's pixels, H x W x 3, uint8, RGB, upright.

    Args:
        image: as of ``TrainedDetector.predict``, one.

    Raises:
        UserError: it is missing, damaged, or of another kind.
    """
    import numpy as np
    from PIL import Image
    from torch import Tensor

    from afrcnn.data.image import read_image, to_rgb, to_uint8
    from afrcnn.data.sources import content_of, is_address

    if isinstance(image, str | Path):
        content = content_of(str(image)) if is_address(image) else None
        read = read_image(Path(image), upright=True, content=content)
        image = read.as_subclass(Tensor)
    if isinstance(image, Image.Image):
        return np.array(to_rgb(image, upright=True))
    array = image.permute(1, 2, 0).cpu().numpy() if isinstance(image, Tensor) and image.ndim == 3 else np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3:
        fix = "give H x W x 3, or a tensor 3 x H x W"
        raise UserError(f"has the shape {'x'.join(map(str, array.shape))}", field="image", fix=fix)
    try:
        return to_uint8(array)
    except ValueError as error:
        raise UserError(str(error), field="image", fix="scale them, and give uint8") from error
