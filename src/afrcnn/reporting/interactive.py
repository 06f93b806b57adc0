"""The page on which a detector and its adversaries are tried, object by object; served by Gradio."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray
from PIL import Image

from afrcnn.core.errors import UserError
from afrcnn.visualize.masks import draw_masks

if TYPE_CHECKING:
    from afrcnn.adversaries.trace import ObjectTrace

Side = Literal["left", "right", "top", "bottom"]
"""From where a bar comes before an object."""

_Editor = Mapping[str, Any]
"""What Gradio's editor holds: ``background``, the image, and ``composite``, with what was painted over it."""

_Pixels = NDArray[np.uint8]

_STYLE = """
.scores { border-collapse: collapse; width: 100%; font-size: 1rem }
.scores th, .scores td { text-align: left; padding: 0.3rem 0.6rem 0.3rem 0; font-weight: normal }
.scores td.number { text-align: right; font-variant-numeric: tabular-nums }
.min_value, .max_value { color: inherit !important }
.picture { margin: 0 }
.picture img { max-width: 100%; min-width: min(100%, 20rem) }
.scores caption, .picture figcaption { text-align: left; font-weight: 600; padding: 0.5rem 0 }
.scores meter { width: 100%; min-width: 6rem }
"""


class TriedObject(NamedTuple):
    """An object that can be looked at: its box (x1, y1, x2, y2 in pixels) and the number of its class, 1..K."""

    box: tuple[float, float, float, float]
    label: int


@dataclass(frozen=True)
class Tried:
    """One object, and how its score moves.

    Attributes:
        scores: the score of its class, in [0, 1], by what was done to it, in the order of the page.
        picture: the image as the detector sees it, with the box, H x W x 3, uint8.
        trace: what the adversaries do to it; None of a run without any.
    """

    scores: dict[str, float]
    picture: NDArray[np.uint8]
    trace: ObjectTrace | None


class Tryable(Protocol):
    """A detector that is asked about one object of one image at a time.

    Attributes:
        name: what the page calls it.
        classes: the names of the classes 1..K.
        seed: of masks, to begin with.
    """

    name: str
    classes: list[str]
    seed: int

    def find(self, image: _Pixels) -> dict[str, TriedObject]:
        """Return the objects of an image (H x W x 3, uint8), best first, by what they are called on the page."""

    def look(
        self, image: _Pixels, painted: _Pixels, item: TriedObject, *, side: Side, hidden: float, seed: int
    ) -> Tried:
        """Look at one object, in the image and behind what was painted, and a bar that hides a fraction of it."""


def serve(tried: Tryable, port: int) -> None:
    """Serve the page to this machine alone, until Ctrl-C.

    Raises:
        UserError: Gradio is not installed, or the port is in use.
    """
    page = build_page(tried)
    try:
        page.launch(server_name="127.0.0.1", server_port=port, css=_STYLE, theme=_theme(), footer_links=[])
    except OSError as error:
        raise UserError(f"{port} cannot be served on", field="port", fix="choose another with --port") from error


def build_page(tried: Tryable) -> Any:
    """Return the page, a ``gradio.Blocks``.

    Raises:
        UserError: Gradio is not installed.
    """
    try:
        import gradio as gr  # noqa: PLC0415  an extra
    except ImportError as error:
        raise UserError("is not installed", field="gradio", fix="pip install 'afrcnn[demo]'") from error
    with gr.Blocks(title="afrcnn: find what is hidden", analytics_enabled=False) as page:
        gr.Markdown(f"# Find what is hidden\nThe detector of `{tried.name}`: choose an object and hide it.")
        state = gr.State({})
        with gr.Row(equal_height=False):
            with gr.Column(min_width=320):
                editor = gr.ImageEditor(
                    label="Image: paint over an object to hide it",
                    type="numpy",
                    image_mode="RGB",
                    sources=["upload", "clipboard"],
                    brush=gr.Brush(default_size=24, colors=["#7c7468", "#000000", "#ffffff"], color_mode="fixed"),
                    layers=False,
                )
                said = gr.Markdown("")
                chosen = gr.Radio(label="Object", choices=[])
                with gr.Accordion("A box of your own", open=False):
                    name = gr.Dropdown(tried.classes, label="Class", value=tried.classes[0])
                    with gr.Row():
                        sides = [gr.Number(0, label=label, minimum=0) for label in ("left", "top", "right", "bottom")]
                    take = gr.Button("Look at this box")
            with gr.Column(min_width=320):
                scores = gr.HTML(label="Scores")
                side = gr.Radio(["left", "right", "top", "bottom"], value="left", label="A bar comes from the")
                percent = gr.Slider(0, 90, value=0, step=5, label="and hides, in % of the box")
                picture = gr.HTML(label="What the detector sees")
                figure = gr.HTML(label="What the adversaries do")
                seed = gr.Number(tried.seed, label="Seed of the masks", precision=0, minimum=0)
        handlers = _Handlers(tried, gr)
        take.click(handlers.own_box, [editor, name, *sides, state], [chosen, state, said])
        asked, answered = [editor, chosen, state, side, percent, seed], [scores, picture, figure]
        for control in (chosen, side, percent, seed):
            control.change(handlers.look, asked, answered, show_progress="hidden", trigger_mode="always_last")
        changed = editor.change(handlers.find, [editor, state], [chosen, state, said], show_progress="minimal")
        changed.then(handlers.look, asked, answered, show_progress="hidden")
    return page


class _Handlers:
    """What happens when somebody does something on the page.

    The state of a visitor has a digest of the image, and the objects that can be chosen.
    """

    def __init__(self, tried: Tryable, gr: Any) -> None:
        self.tried, self.gr = tried, gr

    def find(self, value: _Editor | None, state: dict[str, Any]) -> tuple[Any, dict[str, Any], Any]:
        """Look for objects where the image is another than before: painting changes what the editor holds, too."""
        image, _ = _images(value)
        if image is None:
            return self.gr.Radio(choices=[], value=None), {}, ""
        digest = sha256(image.tobytes()).hexdigest()
        if state.get("image") == digest:
            return self.gr.skip(), state, self.gr.skip()
        objects = {name: tuple(item) for name, item in self.tried.find(image).items()}
        said = f"{len(objects)} found. Choose one:" if objects else "Nothing found. Give a box of your own below."
        radio = self.gr.Radio(choices=list(objects), value=next(iter(objects), None))
        return radio, {"image": digest, "objects": objects}, said

    def look(
        self, value: _Editor | None, chosen: str | None, state: dict[str, Any], side: Side, percent: float, seed: int
    ) -> tuple[str, str, str]:
        """Return the scores, what the detector sees, and the figure of the adversaries."""
        image, painted = _images(value)
        if image is None or painted is None or chosen not in state.get("objects", {}):
            return "", "", ""
        item = TriedObject(*state["objects"][chosen])
        seen = self.tried.look(image, painted, item, side=side, hidden=percent / 100, seed=int(seed or 0))
        figure = "" if seen.trace is None else _picture("What the adversaries do", _figure(image, seen.trace))
        return _scores_table(seen.scores), _picture("What the detector sees", seen.picture), figure

    def own_box(
        self, value: _Editor | None, name: str, x1: float, y1: float, x2: float, y2: float, state: dict[str, Any]
    ) -> tuple[Any, dict[str, Any], str]:
        """Add a box to the objects, and choose it."""
        image, _ = _images(value)
        if image is None:
            return self.gr.skip(), state, "Choose an image first."
        height, width = image.shape[:2]
        if name not in self.tried.classes or not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            problem = f"Give a class, and a box that lies in the image of {width} x {height} pixels."
            return self.gr.skip(), state, problem
        key = f"{name}, your box {x1:g} {y1:g} {x2:g} {y2:g}"
        item = ((x1, y1, x2, y2), self.tried.classes.index(name) + 1)
        objects = {**state.get("objects", {}), key: item}
        return self.gr.Radio(choices=list(objects), value=key), {**state, "objects": objects}, "Your box is chosen."


def _images(value: _Editor | None) -> tuple[_Pixels | None, _Pixels | None]:
    """Return the image and what was painted over it, without transparency; None where there is none."""
    if not value or value.get("background") is None:
        return None, None
    return np.asarray(value["background"])[..., :3], np.asarray(value["composite"])[..., :3]


def _scores_table(scores: Mapping[str, float]) -> str:
    """Return scores, in [0, 1], as an HTML table that is read without colour, and aloud."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="number">{score:.2f}</td>'
        f'<td><meter min="0" max="1" value="{score:.3f}" aria-label="{escape(name)}: {score:.2f}"></meter></td></tr>'
        for name, score in scores.items()
    )
    return f'<table class="scores"><caption>Score of its class</caption><tbody>{rows}</tbody></table>'


def _picture(caption: str, pixels: _Pixels) -> str:
    """Return a picture (H x W x 3, uint8) with its caption, as HTML."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    source = f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
    return f'<figure class="picture"><figcaption>{caption}</figcaption><img src="{source}" alt="{caption}"></figure>'


def _theme() -> Any:
    """Return Gradio's theme with the machine's own fonts, so that the page asks the network for nothing."""
    import gradio as gr  # noqa: PLC0415

    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def _figure(image: _Pixels, trace: ObjectTrace) -> _Pixels:
    """Return the figure of what adversaries do to an object, as pixels."""
    canvas: Any = FigureCanvasAgg(draw_masks(image, [trace]))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
