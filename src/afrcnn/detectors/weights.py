"""ImageNet weights: downloaded through torchvision, or read from a local file without running its code."""

from __future__ import annotations

import pickle
import sys
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from afrcnn.core.errors import UserError


def load_weights(
    model: nn.Module, weights: str | Path, published: type[WeightsEnum] | None, *, ignore: tuple[str, ...] = ()
) -> None:
    """Fill an ImageNet model with weights.

    Tensors of another floating point type (float16, say) are cast to the model's.

    Args:
        model: a model of torchvision, or CaffeNet.
        weights: a member of ``published`` by name (``"IMAGENET1K_V1"``, ``"DEFAULT"``), which is downloaded
            once and checked against its hash; or a ``.safetensors``, ``.pth`` or ``.pt`` file that holds
            a state dict in the names of ``model``.
        published: torchvision's weights for ``model``; None where it has none.
        ignore: beginnings of the names of tensors that are not loaded; the weights may lack them or hold them
            in another shape.

    Raises:
        UserError: the download failed, the file cannot be read, or its tensors are not those of ``model``.
    """
    known, source = {}, "that `afrcnn convert-weights` wrote"
    if published is not None:
        known, source = published.__members__, f"in torchvision's names, made for the model of {published.__name__}"
    if weights in known:
        given = _download(known[str(weights)])
    elif Path(weights).suffix in (".safetensors", ".pth", ".pt"):
        given = read_state_dict(weights)
    else:
        raise UserError(
            "neither a .safetensors, .pth or .pt file nor the name of published weights",
            file=weights,
            fix=f"give a file or one of {', '.join(known)}" if known else f"give a file {source}",
        )
    expected = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(ignore)}
    given = {name: tensor for name, tensor in given.items() if not name.startswith(ignore)}
    differences = _other_shapes(expected, given)
    if not differences:  # load_state_dict knows which names each module lets pass, but it refuses other shapes
        names = model.load_state_dict(given, strict=False)
        differences += [f"{name} is missing" for name in names.missing_keys if name in expected]
        differences += [f"{name} is not expected" for name in names.unexpected_keys]
        finite = (name for name in expected if name in given and not given[name].isfinite().all())
        differences += [f"{name} holds values that are not finite" for name in finite]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise UserError(
            f"not the weights of {type(model).__name__}: {'; '.join(differences[:3])}{more}",
            file=weights,
            fix=f"give weights {source}",
        )


def require_normalisation(weights: str | Path, normalisation: str) -> None:
    """Refuse weights that were trained on images normalised otherwise, where that is known.

    It is known of torchvision's, and of files whose metadata says it, as ``afrcnn convert-weights`` writes them. A
    file that cannot be read is not refused here, but where it is read.

    Args:
        weights: as of :func:`load_weights`.
        normalisation: ``"imagenet"`` or ``"caffe"``.

    Raises:
        UserError: they do not fit; names the field of the recipe.
    """
    stated, suffix = None, Path(weights).suffix
    if suffix == ".safetensors":
        with suppress(OSError, SafetensorError), safe_open(weights, "pt") as file:
            stated = (file.metadata() or {}).get("normalisation")
    elif suffix not in (".pth", ".pt"):
        stated = "imagenet"
    if stated in {"imagenet", "caffe"} - {normalisation}:
        problem = f"is {normalisation}, and these weights were trained on images normalised as {stated}"
        raise UserError(problem, file=weights, field="detector.normalisation", fix=f"set it to {stated}")


RENAMED = {
    "trunk.": "backbone.",
    "head.": "roi_heads.box_head.",
    "predictor.": "roi_heads.predictor.",
    "box_coder.": "roi_heads.box_coder.",
}
"""Beginnings of tensors' names in files of detectors that version 0.1 wrote at first, and what they became."""


def load_strict(module: nn.Module, tensors: dict[str, Tensor], file: Path | str) -> None:
    """Load a state dict that was read from ``file``; a difference in names or shapes is an error that names it.

    Raises:
        UserError: the tensors are those of another model.
    """
    expected, given = module.state_dict(), {_renamed(name, tensors): tensor for name, tensor in tensors.items()}
    differences = _other_shapes(expected, given)
    differences += [f"{name} is missing" for name in expected if name not in given]
    differences += [f"{name} is not expected" for name in given if name not in expected]
    if differences:
        problem = f"holds another model than the recipe's: {differences[0]} ({len(differences)} differences)"
        raise UserError(problem, file=file, fix="use the recipe it was trained with")
    module.load_state_dict(given)


def _renamed(name: str, tensors: dict[str, Tensor]) -> str:
    """Return the name that a tensor of a file has today."""
    if not any(name.startswith("trunk.") for name in tensors):
        return name
    old = next((old for old in RENAMED if name.startswith(old)), "")
    return RENAMED.get(old, "") + name.removeprefix(old)


def read_state_dict(file: str | Path) -> dict[str, Tensor]:
    """Read a file of named tensors without running code that it may hold.

    Args:
        file: safetensors where its name ends in ``.safetensors``, otherwise what ``torch.save`` wrote.

    Returns:
        The tensors by name, on the CPU.

    Raises:
        UserError: the file is missing, truncated, or holds anything but named tensors.
    """
    try:
        if Path(file).suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", file=file, fix="check the path") from error
    except SafetensorError as error:
        raise UserError(
            f"not a whole safetensors file ({error})", file=file, fix="download or write it again"
        ) from error
    except Exception as error:  # a damaged or hostile pickle can raise anything
        raise UserError(
            "truncated, or not a plain PyTorch state dict; objects other than tensors are not loaded",
            file=file,
            fix="download it again, or save model.state_dict() as .safetensors",
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise UserError("not a state dict of named tensors", file=file, fix="save model.state_dict() alone")
    return dict(state)


def _download(weights: WeightsEnum) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = weights.get_state_dict(
            progress=sys.stderr.isatty(), check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"cannot be downloaded and read ({error})",
            file=weights.url,
            fix=f"fetch it elsewhere and put it into {Path(torch.hub.get_dir()) / 'checkpoints'}, or set "
            "detector.weights to its path",
        ) from error
    return state


def _other_shapes(expected: dict[str, Tensor], given: dict[str, Tensor]) -> list[str]:
    """Say which tensors have other shapes than expected."""
    both = [(name, given[name], tensor) for name, tensor in expected.items() if name in given]
    return [
        f"{name} is {_shape(one)}, expected {_shape(tensor)}" for name, one, tensor in both if one.shape != tensor.shape
    ]


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
