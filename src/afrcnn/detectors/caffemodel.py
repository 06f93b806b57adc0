"""Caffe's files of weights (.caffemodel), read from their bytes: nothing in them is run, and nothing is generated.

A file is one message of Protocol Buffers. A message is a row of fields, each a number and a value; a value is an
integer, 4 or 8 bytes, or so many bytes, which may be a message again. The numbers of the fields are those of Caffe's
own schema (BVLC/caffe, src/caffe/proto/caffe.proto), which has described layers in three ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from afrcnn.core.errors import UserError

_LAYER, _V1_LAYER = 100, 2
"""Fields of a net that are its layers, in today's files and in older ones."""

_V0_LAYER = 1
"""Field of an older layer that holds all of it in the oldest files."""

_NAME_AND_BLOBS, _V1_NAME_AND_BLOBS, _V0_NAME_AND_BLOBS = (1, 7), (4, 6), (1, 50)
"""Fields of a layer."""

_OLD_SIZES, _SINGLE, _SHAPE, _DOUBLE = (1, 2, 3, 4), 5, 7, 8
"""Fields of a blob: num, channels, height, width; its values as float32; its shape; its values as float64."""

_INTEGER, _DELIMITED, _FIXED = 0, 2, {1: 8, 5: 4}
"""Kinds of values in a field's key; those of fixed length have it in bytes."""

_MOST_LAYERS, _MOST_BLOBS, _MOST_AXES = 10_000, 16, 32
"""Bounds on what a file may make us hold; Caffe's own on axes is 32 (kMaxBlobAxes)."""


def read_caffemodel(file: Path | str) -> dict[str, list[NDArray[np.float32]]]:
    """Read the layers of a .caffemodel file of any version, in their order.

    Memory stays small: arrays are views of the file, which is mapped, unless their values lie apart or are float64.

    Args:
        file: the file.

    Returns:
        For each layer by its name its arrays, weight and bias of a convolution or a linear layer; none where it has
        none. In older files all arrays have four axes, the first of which may be 1.

    Raises:
        UserError: the file is missing, truncated, or not a .caffemodel.
    """
    layers: dict[str, list[NDArray[np.float32]]] = {}
    try:
        for name, blobs in _layers(np.memmap(file, np.uint8, "r").data):
            if len(layers) == _MOST_LAYERS:
                raise ValueError(f"more than {_MOST_LAYERS} layers")
            if blobs and layers.get(name):
                raise ValueError(f"layer {name!r} has weights twice")
            layers[name] = [_array(blob) for blob in blobs] or layers.get(name, [])
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", file=file, fix="check the path") from error
    except ValueError as error:
        fix = "give a .caffemodel file, or download it again"
        raise UserError(f"not a whole .caffemodel ({error})", file=file, fix=fix) from error
    return layers


def _layers(net: memoryview) -> Iterator[tuple[str, list[memoryview]]]:
    """Yield the name and the blobs of each layer."""
    for number, value in _fields(net):
        if number == _LAYER:
            yield _layer(_message(value), *_NAME_AND_BLOBS)
        elif number == _V1_LAYER:
            layer = _message(value)
            old = next((inner for field, inner in _fields(layer) if field == _V0_LAYER), None)
            if old is None:
                yield _layer(layer, *_V1_NAME_AND_BLOBS)
            else:
                yield _layer(_message(old), *_V0_NAME_AND_BLOBS)


def _layer(layer: memoryview, name_field: int, blobs_field: int) -> tuple[str, list[memoryview]]:
    name, blobs = "", list[memoryview]()
    for number, value in _fields(layer):
        if number == name_field:
            name = str(_message(value)[:200], "utf-8", "replace")  # no name that we know is as long
        elif number == blobs_field:
            blobs.append(_message(value))
            if len(blobs) > _MOST_BLOBS:
                raise ValueError(f"layer {name!r} has more than {_MOST_BLOBS} blobs")
    return name, blobs


def _array(blob: memoryview) -> NDArray[np.float32]:
    """Return the values of a blob in its shape, as Caffe's ``Blob::FromProto`` does."""
    old: dict[int, int] = {}
    shape: list[int] = []
    single: memoryview | bytearray = bytearray()
    double: memoryview | bytearray = bytearray()
    for number, value in _fields(blob):
        if number in _OLD_SIZES and isinstance(value, int):
            old[number] = value
        elif number == _SHAPE:
            shape += _sizes(_message(value))
        elif number == _SINGLE:
            single = _joined(single, _message(value))
        elif number == _DOUBLE:
            double = _joined(double, _message(value))
    if old:
        shape = [old.get(number, 0) for number in _OLD_SIZES]
    with np.errstate(over="ignore"):  # infinite values are refused where weights are loaded
        values = np.frombuffer(double, "<f8").astype("<f4") if double else np.frombuffer(single, "<f4")
    if len(shape) > _MOST_AXES or min(shape, default=1) < 1 or prod(shape) != len(values):
        raise ValueError(f"{len(values)} values in a blob of shape {shape[:4]}")
    return values.reshape(shape)


def _sizes(shape: memoryview) -> list[int]:
    """Return the sizes of a shape's axes, written one by one or as one run of integers; a few more than may be."""
    sizes: list[int] = []
    for number, value in _fields(shape):
        if number == 1:
            run = [value] if isinstance(value, int) else _integers(value)
            for size in run:
                sizes.append(size - (size >> 63 << 64))  # two's complement
                if len(sizes) > _MOST_AXES:
                    return sizes
    return sizes


def _joined(values: memoryview | bytearray, more: memoryview) -> memoryview | bytearray:
    """Return the bytes of a repeated field; of one run, which is the rule, they are not copied."""
    if not values:
        return more
    joined = values if isinstance(values, bytearray) else bytearray(values)
    joined += more
    return joined


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of each field: an integer, or bytes as a view of the message.

    Raises:
        ValueError: the message ends within a field, or is not one.
    """
    position = 0
    while position < len(message):
        key, position = _integer(message, position)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError("a field without a number")
        if kind == _INTEGER:
            value, position = _integer(message, position)
            yield number, value
            continue
        if kind == _DELIMITED:
            size, position = _integer(message, position)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise ValueError(f"a field of kind {kind}")
        end = position + size
        if end > len(message):
            raise ValueError(f"field {number} is longer than what it is in")
        yield number, message[position:end]
        position = end


def _message(value: int | memoryview) -> memoryview:
    """Return the bytes of a field that must not be an integer."""
    if isinstance(value, int):
        raise ValueError("an integer in place of bytes")
    return value


def _integers(run: memoryview) -> Iterator[int]:
    """Yield integers that follow each other."""
    position = 0
    while position < len(run):
        value, position = _integer(run, position)
        yield value


def _integer(message: memoryview, position: int) -> tuple[int, int]:
    """Return the integer (64 bits, without sign) that begins at a position, seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position == len(message):
            raise ValueError("ends within an integer")
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), position
    raise ValueError("an integer of more than ten bytes")
