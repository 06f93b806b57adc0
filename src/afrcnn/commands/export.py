"""Export of a trained detector, to run without afrcnn or PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from afrcnn.core.errors import UserError
from afrcnn.run import Run


def export(
    run: Path | str,
    *,
    format: Literal["onnx", "pt2"] = "onnx",
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
) -> list[Path]:
    """Export the detector of a run as ONNX or as PyTorch's .pt2.

    The file holds backbone, RoI pooling, box head, softmax and decoding, for images of any size and any number of
    proposals; in its metadata are the class names, how images are resized and normalised, and the thresholds. Beside
    an ONNX file comes detect.py, which resizes, runs it and suppresses, and needs numpy, Pillow and onnxruntime alone.
    A detector that was trained with adversaries exports the graph of a plain one.

    Args:
        run: folder that `afrcnn train` made.
        format: onnx, for onnxruntime and others; pt2, for torch.export.load.
        out: folder to write to (default: export, in RUN).
        overrides: fields of the recipe to set differently, as ``["--detector.score_threshold", "0.3"]``.

    Examples:
        afrcnn export runs/full
        afrcnn export runs/full --format pt2 --out deployed

    Returns:
        The files.

    Raises:
        UserError: the run is not finished, its detector is of another class than ours, or ONNX is not installed.
    """
    exported = Run(run, overrides)
    if exported.recipe.detector.model != "fast_rcnn":
        fix = "export it by its own means, as with torch.onnx.export"
        raise UserError("a detector of another class is not exported", field="detector.model", fix=fix)
    exported.trained()
    if format == "onnx" and not all(map(find_spec, ("onnx", "onnxscript"))):
        raise UserError("ONNX is not installed", field="format", fix="pip install 'afrcnn[export]', or choose pt2")

    from importlib.resources import files as resources
    from io import BytesIO
    from json import dumps
    from typing import cast

    import torch

    from afrcnn.build import load_detector
    from afrcnn.core.atomic import atomic_write
    from afrcnn.detectors.exported import export_program, export_settings, onnx_bytes
    from afrcnn.detectors.rcnn import FastRCNN

    detector = cast(FastRCNN, load_detector(exported))
    program, settings = export_program(detector), {"classes": exported.classes, **export_settings(detector)}
    folder = exported.folder / "export" if out is None else Path(out)
    if format == "onnx":
        files = {
            "model.onnx": onnx_bytes(program, settings),
            "detect.py": resources("afrcnn.detectors").joinpath("standalone.py").read_bytes(),
        }
    else:
        with BytesIO() as buffer:
            extra = {f"{name}.json": dumps(value) for name, value in settings.items()}
            torch.export.save(program, buffer, extra_files=extra)
            files = {"model.pt2": buffer.getvalue()}
    for name, content in files.items():
        with atomic_write(folder / name, "wb") as file:
            file.write(content)
    return [folder / name for name in files]


def show(files: list[Path]) -> None:
    """Print the files."""
    from afrcnn.core.terminal import say

    for file in files:
        say(f"exported: {file}")
