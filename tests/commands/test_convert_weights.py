"""Caffe's weights in our files: the tensors of a network to the bit, and whatever is not such a network refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from torchvision import models

import afrcnn.detectors.caffemodel
from afrcnn.build import build_detector
from afrcnn.cli import main
from afrcnn.commands.convert_weights import convert_weights
from afrcnn.core.errors import UserError
from afrcnn.detectors import backbones
from afrcnn.detectors.caffenet import CaffeNet
from afrcnn.recipe import DetectorRecipe
from caffemodels import caffemodel

SIZES = {
    "caffenet": [
        *(("conv1", (96, 3, 11, 11)), ("relu1", None), ("pool1", None), ("norm1", None)),
        *(("conv2", (256, 48, 5, 5)), ("relu2", None), ("pool2", None), ("norm2", None)),
        *(("conv3", (384, 256, 3, 3)), ("conv4", (384, 192, 3, 3)), ("conv5", (256, 192, 3, 3))),
        *(("fc6", (4096, 9216)), ("fc7", (4096, 4096)), ("fc8", (1000, 4096)), ("prob", None)),
    ],
    "vgg16": [
        *(("conv1_1", (64, 3, 3, 3)), ("conv1_2", (64, 64, 3, 3)), ("pool1", None)),
        *(("conv2_1", (128, 64, 3, 3)), ("conv2_2", (128, 128, 3, 3)), ("pool2", None)),
        *(("conv3_1", (256, 128, 3, 3)), ("conv3_2", (256, 256, 3, 3)), ("conv3_3", (256, 256, 3, 3))),
        *(("conv4_1", (512, 256, 3, 3)), ("conv4_2", (512, 512, 3, 3)), ("conv4_3", (512, 512, 3, 3))),
        *(("conv5_1", (512, 512, 3, 3)), ("conv5_2", (512, 512, 3, 3)), ("conv5_3", (512, 512, 3, 3))),
        *(("fc6", (4096, 25088)), ("fc7", (4096, 4096)), ("fc8", (1000, 4096)), ("prob", None)),
    ],
}


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """Lets a .caffemodel hold layers of these shapes, all of one number each; returns what convert would write."""
    written = {}

    def save(tensors, file, metadata):
        written.update(tensors=tensors, metadata=metadata)

    def convert_layers(sizes, four_axes=False):
        def array(shape, value):
            shape = (1,) * (4 - len(shape)) + shape if four_axes else shape
            return np.broadcast_to(np.float32(value), shape)  # takes no memory

        layers = {
            name: [array(shape, count), array(shape[:1], -count)] if shape else []
            for count, (name, shape) in enumerate(sizes, start=1)
        }
        monkeypatch.setattr(afrcnn.detectors.caffemodel, "read_caffemodel", lambda file: layers)
        monkeypatch.setattr("safetensors.numpy.save_file", save)
        network = convert_weights("net.caffemodel", tmp_path / "out.safetensors")
        return network, written["tensors"], written["metadata"]

    return convert_layers


@pytest.mark.parametrize("four_axes", [False, True])
@pytest.mark.parametrize("name", SIZES)
def test_each_layer_becomes_the_layer_of_our_model_in_the_same_place(name, four_axes, pretend):
    network, tensors, metadata = pretend(SIZES[name], four_axes)
    assert network == name
    assert metadata == {"network": name, "normalisation": "caffe"}
    with torch.device("meta"):
        model = CaffeNet() if name == "caffenet" else models.vgg16()
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items() if "classifier.6" not in key}
    assert {key: tensor.shape for key, tensor in tensors.items()} == expected
    with_weights = [key for key, layer in model.named_modules() if f"{key}.weight" in expected]
    numbers = [count for count, (layer, shape) in enumerate(SIZES[name], start=1) if shape and layer != "fc8"]
    for key, value in zip(with_weights, numbers, strict=True):  # both in the order of their networks
        assert tensors[f"{key}.weight"].flat[0] == value
        assert tensors[f"{key}.bias"].flat[0] == -value


def changed(name, **sizes):
    """The layers of a network, some of other shapes, some more, and without those of which the shape is 0."""
    layers = dict(SIZES[name]) | sizes
    return [(layer, shape) for layer, shape in layers.items() if shape != 0]


OTHERS = {
    "conv5 has 0 tensors": changed("caffenet", conv5=0),
    "conv1 has 0 tensors": [("conv1/7x7_s2", (64, 3, 7, 7))],
    "weight of conv2 is 256x96x5x5, expected 256x48x5x5": changed("caffenet", conv2=(256, 96, 5, 5)),
    "weight of fc6 is 1024x512x3x3, expected 4096x25088": changed("vgg16", fc6=(1024, 512, 3, 3)),
    "weight of fc7 is 2x4096x4096, expected 4096x4096": changed("vgg16", fc7=(2, 4096, 4096)),
    "it has a layer 'conv3_4'": changed("vgg16", conv3_4=(256, 256, 3, 3)),  # VGG19
    "it has a layer 'cls_score'": changed("vgg16", fc8=0, cls_score=(21, 4096)),  # a detector
    "it normalises before it pools": [
        *(layer for layer in SIZES["caffenet"][:2]),
        *(("norm1", None), ("pool1", None)),
        *(layer for layer in SIZES["caffenet"] if layer[0] not in ("conv1", "relu1", "norm1", "pool1")),
    ],
}


@pytest.mark.parametrize(("problem", "sizes"), OTHERS.items(), ids=list(OTHERS))
def test_another_network_is_refused_and_nothing_is_written(problem, sizes, pretend, tmp_path):
    with pytest.raises(UserError, match=rf"net\.caffemodel: not Caffe's weights of \w+: {problem}"):
        pretend(sizes)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """CaffeNet in full, in an older layout, converted by the command; and the arrays that went in."""
    folder, rng = tmp_path_factory.mktemp("convert"), np.random.default_rng(0)
    layers = {
        name: [rng.standard_normal(size, dtype=np.float32) * 0.01 for size in (shape, shape[:1])] if shape else []
        for name, shape in SIZES["caffenet"]
    }
    (folder / "net.caffemodel").write_bytes(caffemodel(layers, "V1"))
    assert main(["convert-weights", str(folder / "net.caffemodel"), str(folder / "made" / "caffenet.safetensors")]) == 0
    (folder / "net.caffemodel").unlink()
    return folder / "made" / "caffenet.safetensors", layers


@torch.no_grad()
def test_a_converted_network_computes_with_the_arrays_of_the_file(converted):
    file, layers = converted
    with safe_open(file, "np") as opened:
        assert opened.metadata() == {"network": "caffenet", "normalisation": "caffe"}
        assert {f"{name}.{kind}" for name in layers for kind in ("weight", "bias") if layers[name]} == {
            *opened.keys(),
            "fc8.weight",
            "fc8.bias",
        }
    detector = build_detector(DetectorRecipe(backbone="caffenet", weights=str(file), normalisation="caffe"), 3)
    state = detector.state_dict()
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"):
        ours = f"backbone.{name}.{name}" if name.startswith("conv") else f"roi_heads.box_head.{name}"
        for kind, array in zip(("weight", "bias"), layers[name], strict=True):
            assert state[f"{ours}.{kind}"].numpy().tobytes() == array.tobytes()
    whole = CaffeNet()
    whole.load_state_dict(
        {f"{name}.{kind}": torch.from_numpy(array) for name in layers for kind, array in
         zip(("weight", "bias"), layers[name], strict=False) if name != "fc8"}
    )  # fmt: skip
    images = torch.randn(2, 3, 70, 84) * 60
    vectors = detector.eval().roi_heads.box_head(detector.backbone(images))
    torch.testing.assert_close(vectors, whole(images), rtol=1e-5, atol=1e-6)


def test_a_converted_file_is_refused_without_its_normalisation_and_by_another_network(converted):
    file = str(converted[0])
    with pytest.raises(UserError, match=r"detector\.normalisation: is imagenet, .* as caffe; set it to caffe"):
        build_detector(DetectorRecipe(backbone="caffenet", weights=file), 3)
    with pytest.raises(UserError, match="not the weights of AlexNet"):
        build_detector(DetectorRecipe(backbone="alexnet", weights=file, normalisation="caffe"), 3)
    assert backbones.caffenet(file).box_features == 4096


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["absent.caffemodel", "new.safetensors"], "absent.caffemodel: cannot be read"),
        (["damaged.caffemodel", "new.safetensors"], "damaged.caffemodel: not a whole .caffemodel"),
        (["damaged.caffemodel", "new.pth"], "new.pth: is not a name of a safetensors file"),
        (["damaged.caffemodel"], "OUT"),
    ],
)
def test_what_a_person_gets_wrong_is_told_in_one_line(words, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.caffemodel").write_bytes(caffemodel({"conv1": [np.ones(3)]})[:-9])
    assert main(["convert-weights", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert [file.name for file in tmp_path.iterdir()] == ["damaged.caffemodel"]


def test_a_full_disk_leaves_what_was_there(pretend, tmp_path, monkeypatch):
    def fail(tensors, file, metadata):
        Path(file).write_bytes(b"half")
        raise SafetensorError("No space left on device")

    pretend(SIZES["caffenet"])
    (tmp_path / "out.safetensors").write_bytes(b"before")
    monkeypatch.setattr("safetensors.numpy.save_file", fail)
    with pytest.raises(UserError, match=r"out\.safetensors: cannot be written \(No space left"):
        convert_weights("net.caffemodel", tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["out.safetensors"]
