"""Files of Caffe's weights, written byte by byte in all three layouts of layers and all ways of writing numbers."""

import struct

import numpy as np

LAYOUTS = ("V0", "V1", "V2")


def integer(value):
    """A varint: seven bits a byte, lowest first; negative numbers in two's complement of 64 bits."""
    value, octets = value % 2**64, []
    while value > 127:
        octets.append(value % 128 + 128)
        value //= 128
    return bytes([*octets, value])


def number(field, value):
    return integer(field * 8) + integer(value)


def run(field, content):
    content = content.encode() if isinstance(content, str) else content
    return integer(field * 8 + 2) + integer(len(content)) + content


def floats(field, values, how="packed", kind="f"):
    """Numbers, in one run, in two, or one by one; as float32, or as float64 where ``kind`` is ``"d"``."""
    values = np.asarray(values).flatten().astype(f"<{kind}4" if kind == "f" else "<f8")
    if how == "packed":
        return run(field, values.tobytes())
    if how == "in two runs":
        return run(field, values[:1].tobytes()) + run(field, values[1:].tobytes())
    key = integer(field * 8 + (5 if kind == "f" else 1))
    return b"".join(key + struct.pack(f"<{kind}", value) for value in values)


def blob(array, *, four_axes=False, how="packed", kind="f"):
    """A blob with its shape, or with the four sizes that all blobs once had; and gradients, to be ignored."""
    if four_axes:
        sizes = (1,) * (4 - array.ndim) + array.shape
        shape = b"".join(number(field, size) for field, size in enumerate(sizes, start=1))
    elif how == "one by one":
        shape = run(7, b"".join(number(1, size) for size in array.shape))
    else:
        shape = run(7, run(1, b"".join(map(integer, array.shape))))
    values = floats(5 if kind == "f" else 8, array, how, kind)
    return values + floats(6, np.ones(3)) + shape


def layer(name, blobs, layout="V2"):
    """A layer of a net, with fields that nobody asks for around its name and blobs."""
    if layout == "V2":
        return run(100, run(1, name) + run(2, "Convolution") + b"".join(run(7, item) for item in blobs) + number(10, 1))
    if layout == "V1":
        return run(2, run(2, "data") + run(4, name) + number(5, 4) + b"".join(run(6, item) for item in blobs))
    inner = run(1, name) + run(2, "conv") + b"".join(run(50, item) for item in blobs)
    return run(2, run(1, inner) + run(2, "data") + run(3, name))


def caffemodel(layers, layout="V2", **how):
    """A file of layers, each by name with its arrays."""
    how = {"four_axes": layout != "V2"} | how
    content = [layer(name, [blob(array, **how) for array in arrays], layout) for name, arrays in layers.items()]
    return run(1, "CaffeNet") + run(3, "data") + b"".join(content) + number(5, 1)
