"""Detection in images and videos that belong to no dataset: pictures, videos and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from afrcnn.commands.new_images import detect_frames, detect_images, load_detector_at, read_upright, size_and_scale
from afrcnn.core.atomic import atomic_write
from afrcnn.core.errors import UserError
from afrcnn.run import Run

if TYPE_CHECKING:
    from torch import Tensor, nn

    from afrcnn.data.video import Video

_MANY = 100
"""Files whose reading shows its progress."""


@dataclass(frozen=True)
class _DetectedObject:
    """One object of an image.

    Attributes:
        name: its class.
        score: the detector's confidence, in [0, 1].
        box: x1, y1, x2, y2 in pixels of the image, half-open, from 0.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class _Prediction:
    """Detections in one image, or in one frame of a video.

    Attributes:
        image: its file, or its address.
        picture: the file of the picture, or of the video, that shows the objects.
        width: the image's width in pixels, upright, as its EXIF says.
        height: its height.
        objects: the objects, best first.
        frame: the number of the frame in its video, from 0; None of an image.
    """

    image: str
    picture: str
    width: int
    height: int
    objects: tuple[_DetectedObject, ...]
    frame: int | None = None


class Predictions(list[_Prediction]):
    """The predictions of images, and of the frames of videos, in order.

    Attributes:
        skipped: what was named and could not be read, with what is wrong.
    """

    def __init__(self, predictions: Iterable[_Prediction] = (), skipped: Mapping[str, UserError] | None = None) -> None:
        super().__init__(predictions)
        self.skipped = dict(skipped or {})


def predict(
    run: Path | str,
    images: Iterable[str] | Iterable[Path | str],  # the first is the command line's: a path would change an address
    out: Path | str | None = None,
    *,
    score: float | None = None,
    stride: int = 1,
    strict: bool = False,
    trust: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> Predictions:
    """Detect objects in images and videos, as pictures and JSON.

    Proposes boxes as those that the trained detector of a run knows. Writes a picture of each image with its objects, a
    video of each video, and last predictions.json: for each image, and each frame of a video, its file, its size, and
    the objects with class, score and box in pixels. What cannot be read is left out and named at the end, and the exit
    status is 1. No picture is written before all images have been read.

    Args:
        run: folder that `afrcnn train` made, or a file of weights from one.
        images: image or video (.mp4, .avi, .mov, .mkv, .webm, ...), folder that holds some at any depth, pattern in
            quotes, or address (http, https).
        out: folder to write to (default: RUN/predictions).
        score: lowest score, from 0 to 1, that is shown and written (default: that of best F1 in validation; 0.5 where
            the detector was not validated).
        stride: of how many frames of a video one is looked at, and written.
        strict: refuse everything at once where something cannot be read.
        trust: modules that a detector of your own may be imported from.
        overrides: fields of the run's recipe to set differently, as ``["--data.workers", "8"]``.

    Examples:
        afrcnn predict run photo.jpg
        afrcnn predict run photos --score 0.7 --out pictures
        afrcnn predict weights.safetensors clip.mp4 --stride 5

    Returns:
        A prediction for each image and frame, in order, and what was skipped.

    Raises:
        UserError: the run is not finished, nothing can be read, or ``strict`` and something cannot; or the folder
            cannot be written.
    """
    if stride < 1:
        raise UserError(f"{stride} is out of range", field="stride", fix="choose 1 or more")
    trained = Run(run, overrides)
    out = trained.predictions if out is None else Path(out)
    score = trained.score if score is None else score
    detector = load_detector_at(trained, score, trust)

    from afrcnn.data.sources import VIDEO_SUFFIXES, picture_files
    from afrcnn.data.video import Video
    from afrcnn.evaluation.results import write_record

    with TemporaryDirectory(prefix="afrcnn-") as fetched:
        skipped = dict[str, UserError]()
        names = _readable(images, out, Path(fetched), skipped, strict)
        pictures = picture_files(names, out, ".jpg")
        videos = [path for path in pictures if path.suffix.lower() in VIDEO_SUFFIXES]
        paths = [path for path in pictures if path not in videos]
        detections = detect_images(detector, paths, trained.recipe, score) if paths else []
        drawn = _Drawn(trained, names, pictures)
        predictions = Predictions(map(drawn.image, paths, detections), skipped)
        for path in videos:
            predictions += drawn.video(path, Video(path, stride), detector, score)
    write_record(out / "predictions.json", predictions)
    return predictions


def show(predictions: Predictions, *, run: Path, out: Path | None = None) -> int:
    """Print what was detected in each image, what was skipped, and where it is written; return the exit status."""
    from afrcnn.core.terminal import say

    by_picture: dict[str, list[_Prediction]] = {}
    for prediction in predictions:
        by_picture.setdefault(prediction.picture, []).append(prediction)
    for picture, frames in by_picture.items():
        number = f"{len(frames)} frames, " if frames[0].frame is not None else ""
        say(f"{picture}: {number}{count_names(item.name for frame in frames for item in frame.objects)}")
    say(f"predictions: {(out or Run(run).predictions) / 'predictions.json'}")
    for error in predictions.skipped.values():
        say(f"skipped: {error}")
    if predictions.skipped:
        say(f"{len(predictions.skipped)} could not be read; --strict refuses them")
    return 1 if predictions.skipped else 0


def _readable(
    words: Iterable[Path | str], out: Path, fetched: Path, skipped: dict[str, UserError], strict: bool
) -> dict[Path, str]:
    """Return the files that can be read of those that were named, with their names.

    Args:
        words: files, folders, patterns and addresses.
        out: a folder of which nothing counts.
        fetched: a folder for what lies at addresses.
        skipped: takes what cannot be read.
        strict: whether the first of it is raised.

    Raises:
        UserError: nothing can be read; or ``strict`` and something cannot.
    """
    from afrcnn.core.progress import progress
    from afrcnn.data.image import image_suffixes
    from afrcnn.data.sources import VIDEO_SUFFIXES, fetch_into, files_of, is_address
    from afrcnn.data.video import Video

    suffixes, names = image_suffixes() | VIDEO_SUFFIXES, dict[Path, str]()

    def skip(name: str, error: UserError) -> None:
        error = UserError(error.problem, file=name, fix=error.fix)
        if strict:
            raise error
        skipped[name] = error

    for number, word in enumerate(words):
        try:
            if is_address(word):
                (folder := fetched / str(number)).mkdir()
                names[fetch_into(folder, str(word))] = str(word)
            else:
                names |= {file: str(file) for file in files_of(word, suffixes, leave_out=out)}
        except UserError as error:
            skip(str(word), error)
    with progress("reading", len(names), "file", quiet=len(names) < _MANY) as report:
        for done, (path, name) in enumerate([*names.items()], start=1):
            try:
                if path.suffix.lower() in VIDEO_SUFFIXES:
                    Video(path)
                else:
                    read_upright(path)
            except UserError as error:
                skip(name, error)
                del names[path]
            report(done)
    if skipped and not names:
        raise next(iter(skipped.values()))
    return names


class _Drawn:
    """What draws detections: pictures of images, and videos of videos.

    Args:
        run: whose detections they are.
        names: what each file is called.
        pictures: the file of each one's picture.
    """

    def __init__(self, run: Run, names: Mapping[Path, str], pictures: Mapping[Path, Path]) -> None:
        self.run, self.names, self.pictures = run, names, pictures

    def image(self, path: Path, detection: dict[str, Tensor]) -> _Prediction:
        """Write the picture of an image."""
        from afrcnn.visualize.detections import draw_detections

        pixels = read_upright(path)
        size, scale = size_and_scale(path, pixels)
        drawn = {**detection, "boxes": detection["boxes"] / scale}
        with atomic_write(self.pictures[path], "wb") as file:
            draw_detections(pixels.permute(1, 2, 0).numpy(), drawn, self.run.classes).save(
                file, "JPEG", quality=92, subsampling=0
            )
        return self._prediction(path, size, detection)

    def video(self, path: Path, video: Video, detector: nn.Module, score: float) -> list[_Prediction]:
        """Detect objects in the frames of a video, and write the video that shows them."""
        import numpy as np

        from afrcnn.data.video import write_video
        from afrcnn.visualize.detections import draw_detections

        detections = detect_frames(detector, video, self.run.recipe, score)
        predictions: list[_Prediction] = []

        def drawn() -> Iterator[np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]]:
            for frame, detection in zip(video, detections, strict=True):
                number, (height, width) = len(predictions) * video.stride, frame.shape[:2]
                predictions.append(self._prediction(path, (height, width), detection, number))
                yield np.array(draw_detections(frame, detection, self.run.classes))

        write_video(self.pictures[path], drawn(), video.rate)
        return predictions

    def _prediction(
        self, path: Path, size: tuple[int, int], detection: dict[str, Tensor], frame: int | None = None
    ) -> _Prediction:
        height, width = size
        names = [self.run.classes[label - 1] for label in detection["labels"].tolist()]
        boxes = map(tuple, detection["boxes"].tolist())
        objects = tuple(map(_DetectedObject, names, detection["scores"].tolist(), boxes))
        return _Prediction(self.names[path], str(self.pictures[path]), width, height, objects, frame)


def count_names(names: Iterable[str]) -> str:
    """Return how many objects of each class there are, in words."""
    return ", ".join(f"{number} {name}" for name, number in Counter(names).items()) or "nothing"
