"""`afrcnn demo`: a page on which a detector and its adversaries can be tried, object by object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from afrcnn.commands.load import TrainedDetector
from afrcnn.commands.new_images import load_detector_at
from afrcnn.run import Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from afrcnn.adversaries.chain import Chain
    from afrcnn.adversaries.trace import ObjectTrace
    from afrcnn.reporting.interactive import Side, Tried, TriedObject

_GREY = (124, 116, 104)
"""ImageNet's mean colour, which is nothing to a detector."""

_LIMIT = 20
"""How many detections can be chosen from."""

_LOWEST_SCORE = 0.1
"""Of detections that can be chosen: those that are hardly found are of interest, too."""


def demo(
    run: Path | str,
    *,
    port: int = 7860,
    trust: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> None:
    """Open a page on which a run can be tried on images.

    Give it an image and choose an object that the detector found, or draw a box: the page shows where ASDN would
    hide it and how ASTN would turn its features, and the score after each. Paint over the object, or move a bar in
    front of it, and the score moves.

    The page is served to this machine alone, until Ctrl-C.

    Args:
        run: folder that `afrcnn train` made.
        port: where the page is served.
        trust: modules that classes of your own may be imported from.
        overrides: fields of the run's recipe to set differently, as ``["--adversaries", "[hard_dropout]"]``.

    Examples:
        afrcnn demo run
        afrcnn demo run --port 8000 --adversaries '[hard_dropout]'

    Raises:
        UserError: the run is not finished, Gradio is not installed, or the port is in use.
    """
    from afrcnn.reporting.interactive import serve

    serve(_Playground(run, trust=trust, overrides=overrides), port)


def show(_: None) -> None:
    """Print nothing: the page has been closed."""


class _Playground:
    """A trained detector with its adversaries, asked about one object of one image at a time.

    Args:
        run: folder that ``train`` made.
        trust: modules that classes of one's own may be imported from.
        overrides: fields of its recipe to set differently.

    Raises:
        UserError: the run is not finished.
    """

    def __init__(self, run: Path | str, *, trust: Sequence[str] = (), overrides: Sequence[str] = ()) -> None:
        trained = Run(run, overrides)
        self.name, self.classes, self.seed = str(trained.folder), list(trained.classes), trained.recipe.seed
        self.module = cast(Any, load_detector_at(trained, _LOWEST_SCORE, trust))
        self.detector = TrainedDetector(self.module, trained, _LOWEST_SCORE)
        self.chain: Chain | None = None
        if trained.recipe.adversaries:
            from afrcnn.build import load_adversary

            self.chain = load_adversary(trained, self.module, trust)

    def find(self, image: NDArray[np.uint8]) -> dict[str, TriedObject]:
        """Return the objects of an image (H x W x 3, uint8), best first, by what they are called on the page."""
        from afrcnn.reporting.interactive import TriedObject

        seen = self.detector.predict(image)
        assert not isinstance(seen, list)
        rows = zip(seen.names, seen.scores.tolist(), seen.boxes.tolist(), seen.labels.tolist(), strict=True)
        return {
            f"{number}. {name}, {score:.2f}": TriedObject(tuple(box), label)
            for number, (name, score, box, label) in enumerate(list(rows)[:_LIMIT], start=1)
        }

    def look(
        self,
        image: NDArray[np.uint8],
        painted: NDArray[np.uint8],
        item: TriedObject,
        *,
        side: Side = "left",
        hidden: float = 0.0,
        seed: int = 0,
    ) -> Tried:
        """Look at one object.

        Args:
            image: H x W x 3, uint8, RGB.
            painted: the same with what somebody painted over it.
            item: the object.
            side: from where a bar comes before it.
            hidden: the fraction of the box, in [0, 1], that the bar hides.
            seed: of the masks that are drawn.
        """
        from afrcnn.reporting.interactive import Tried
        from afrcnn.visualize.detections import draw_detections

        occluded = _behind_bar(painted, item.box, side, hidden)
        scores = {"as it is": self._score(image, item)}
        if (occluded != image).any():
            scores["behind what you put before it"] = self._score(occluded, item)
        trace = None if self.chain is None else self._trace(image, item, seed)
        for step in () if trace is None else trace.steps:
            scores[f"after {step.adversary.upper()}"] = step.score
        score = scores.get("behind what you put before it", scores["as it is"])
        return Tried(scores, _drawn(draw_detections, occluded, item, score, self.classes), trace)

    def _score(self, image: NDArray[np.uint8], item: TriedObject) -> float:
        """Return the score of an object's class in an image: of this very box, classified anew."""
        import torch

        boxes, labels = torch.tensor([item.box]), torch.tensor([item.label])
        with torch.no_grad():
            features = self.module.pool([_tensor(image)], [boxes])  # 1 x C x d x d
            return float(self.module.frozen_head().scores(features, labels))

    def _trace(self, image: NDArray[np.uint8], item: TriedObject, seed: int) -> ObjectTrace:
        """Follow an object through the run's adversaries."""
        import torch

        from afrcnn.adversaries.trace import trace_objects

        objects = {"boxes": torch.tensor([item.box]), "labels": torch.tensor([item.label])}
        (trace,) = trace_objects(self.module, cast(Any, self.chain), _tensor(image), objects, self.classes, seed)
        return trace


def _behind_bar(image: NDArray[np.uint8], box: Sequence[float], side: Side, hidden: float) -> NDArray[np.uint8]:
    """Return an image (H x W x 3, uint8) in which a grey bar comes from a side and hides a fraction of a box."""
    changed = image.copy()
    x1, y1, x2, y2 = box
    width, height = hidden * (x2 - x1), hidden * (y2 - y1)
    left, right = (x2 - width, x2) if side == "right" else (x1, x1 + width if side == "left" else x2)
    top, bottom = (y2 - height, y2) if side == "bottom" else (y1, y1 + height if side == "top" else y2)
    if hidden > 0:
        changed[round(top) : round(bottom), round(left) : round(right)] = _GREY
    return changed


def _tensor(image: NDArray[np.uint8]) -> Any:
    import torch

    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def _drawn(draw: Any, image: NDArray[np.uint8], item: TriedObject, score: float, classes: Sequence[str]) -> Any:
    """Return an image with an object's box, class and score, as pixels."""
    import numpy as np
    import torch

    objects = {"boxes": [item.box], "labels": [item.label], "scores": [score]}
    return np.asarray(draw(image, {name: torch.tensor(value) for name, value in objects.items()}, classes))
