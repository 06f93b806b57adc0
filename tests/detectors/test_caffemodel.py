"""Files of Caffe's weights: every layout to the bit, and nothing but a UserError of damaged and hostile ones."""

import random
import time
import tracemalloc

import numpy as np
import pytest

from afrcnn.core.errors import UserError
from afrcnn.detectors.caffemodel import read_caffemodel
from caffemodels import LAYOUTS, blob, caffemodel, floats, integer, layer, number, run


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


LAYERS = {
    "data": [],
    "conv1": arrays((4, 3, 2, 2), (4,)),
    "relu1": [],
    "fc6": arrays((5, 16), (5,), seed=1),
    "bn": arrays((4,), (4,), (1,), seed=2),
}


@pytest.fixture
def read(tmp_path):
    def write_and_read(content):
        (tmp_path / "net.caffemodel").write_bytes(content)
        return read_caffemodel(tmp_path / "net.caffemodel")

    return write_and_read


@pytest.mark.parametrize("kind", ["f", "d"])
@pytest.mark.parametrize("how", ["packed", "in two runs", "one by one"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_of_every_layout_are_read_to_the_bit(layout, how, kind, read):
    layers = read(caffemodel(LAYERS, layout, how=how, kind=kind))
    assert list(layers) == list(LAYERS)
    for name, expected in LAYERS.items():
        for array, original in zip(layers[name], expected, strict=True):
            shape = original.shape if layout == "V2" else (1,) * (4 - original.ndim) + original.shape
            assert (array.shape, array.dtype) == (shape, np.float32)
            assert array.tobytes() == original.tobytes()


def test_a_file_that_googles_library_wrote_is_read(read):
    descriptors = pytest.importorskip("google.protobuf.descriptor_pb2")
    factory = pytest.importorskip("google.protobuf.message_factory")
    pools = pytest.importorskip("google.protobuf.descriptor_pool")
    schema = {
        "Shape": [("dim", 1, 3, 3, None)],
        "Blob": [
            ("shape", 7, 1, 11, "Shape"),
            ("data", 5, 3, 2, None),
            ("double_data", 8, 3, 1, None),
            ("num", 1, 1, 3, None),
        ],
        "Layer": [("name", 1, 1, 9, None), ("blobs", 7, 3, 11, "Blob")],
        "Net": [("name", 1, 1, 9, None), ("layer", 100, 3, 11, "Layer")],
    }  # fields by name, number, label and type, as the library numbers these
    file = descriptors.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for message, fields in schema.items():
        described = file.message_type.add(name=message)
        for name, index, label, kind, inner in fields:
            field = described.field.add(name=name, number=index, label=label, type=kind)
            if inner:
                field.type_name = f".caffe.{inner}"
            field.options.packed = label == 3 and kind != 11 and kind != 9
    pool = pools.DescriptorPool()
    pool.Add(file)
    net = factory.GetMessageClass(pool.FindMessageTypeByName("caffe.Net"))(name="x")
    weight, bias = LAYERS["fc6"]
    written = net.layer.add(name="fc6")
    written.blobs.add(data=weight.flatten().tolist()).shape.dim.extend(weight.shape)
    written.blobs.add(double_data=bias.tolist()).shape.dim.extend(bias.shape)
    layers = read(net.SerializeToString())
    assert [array.tobytes() for array in layers["fc6"]] == [weight.tobytes(), bias.tobytes()]


HOSTILE = {
    "empty": b"",
    "zeros": bytes(1000),
    "text": b'name: "CaffeNet"\nlayer { name: "conv1" }\n',
    "a length of 2 ** 63": integer(100 * 8 + 2) + integer(2**63) + b"x",
    "a length one too many": integer(100 * 8 + 2) + integer(4) + b"\x0a\x01x",
    "an integer without end": b"\xa0" * 40,
    "an integer cut off": b"\x08\xff",
    "a group": integer(100 * 8 + 3),
    "a layer that is an integer": number(100, 5),
    "a name that is an integer": run(100, number(1, 5)),
    "a blob that is an integer": run(100, run(1, "conv1") + number(7, 5)),
    "a negative size": run(100, run(7, run(7, run(1, integer(-1) + integer(-3))) + floats(5, [1, 2, 3]))),
    "a size of 0": run(100, run(7, run(7, run(1, integer(0))))),
    "sizes that no memory holds": run(100, run(7, run(7, run(1, integer(2**62) * 4)) + floats(5, [1]))),
    "more axes than Caffe allows": run(100, run(7, run(7, run(1, integer(1) * 33)) + floats(5, [1]))),
    "a million axes": run(100, run(7, run(7, run(1, integer(1) * 1_000_000)) + floats(5, [1]))),
    "too few values": run(100, run(7, run(7, run(1, integer(4))) + floats(5, [1, 2, 3]))),
    "values without a shape": run(100, run(7, floats(5, [1, 2, 3]))),
    "a shape without values": run(100, run(7, run(7, run(1, integer(4))))),
    "values of five bytes": run(100, run(7, run(7, run(1, integer(1))) + run(5, b"12345"))),
    "a blob of nothing": run(100, run(7, b"")),
    "only one of four sizes": run(100, run(7, number(1, 3) + floats(5, [1, 2, 3]))),
    "a layer twice": layer("conv1", [blob(np.ones(2))]) * 2,
    "a thousand blobs": run(100, run(7, b"") * 1000),
    "a million layers": b"".join(run(100, run(1, str(count))) for count in range(20_000)) + run(100, b"") * 1_000_000,
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_file_is_refused_by_name_at_once(content, read):
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(UserError, match=r"net\.caffemodel: not a whole \.caffemodel \(.*give a \.caffemodel file"):
        read(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**23 + 2 * len(content)
    assert time.perf_counter() - start < 60


def test_messages_within_messages_are_no_trouble_however_deep(read):
    content = b""
    for _ in range(20_000):
        content = run(100, content)
    assert read(content + layer("conv1", [])) == {"": [], "conv1": []}


def test_every_truncation_and_hundreds_of_mutations_are_read_or_refused(read):
    rng = random.Random(0)
    refused = 0
    for layout in LAYOUTS:
        whole = caffemodel(LAYERS, layout)
        contents = [whole[: rng.randrange(1, len(whole))] for _ in range(60)]
        for _ in range(150):
            damaged = bytearray(whole)
            for _ in range(rng.choice([1, 2, 8])):
                place = rng.randrange(len(damaged))
                change = rng.choice(["flip", "set", "drop", "insert", "copy"])
                if change == "flip":
                    damaged[place] ^= 1 << rng.randrange(8)
                elif change == "set":
                    damaged[place] = rng.choice([0, 127, 128, 255])
                elif change == "drop":
                    del damaged[place : place + rng.randrange(1, 9)]
                elif change == "insert":
                    damaged[place:place] = rng.randbytes(rng.randrange(1, 9))
                else:
                    damaged[place:place] = damaged[: rng.randrange(1, 99)]
            contents.append(bytes(damaged))
        for content in contents:
            try:
                layers = read(content)
            except UserError:
                refused += 1
            else:
                assert all(array.size * 4 <= len(content) for blobs in layers.values() for array in blobs)
    assert 300 < refused < 630


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for file in (tmp_path / "absent.caffemodel", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            read_caffemodel(file)
