"""ImageNet networks cut at RoI pooling, against the activations of torchvision's whole models."""

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torchvision import models
from torchvision.ops import FrozenBatchNorm2d

from afrcnn.detectors import backbones
from afrcnn.detectors.backbones import FullyConnectedHead

FROZEN = {  # the stages that the paper, or what it follows, does not train
    "alexnet": [],
    "caffenet": [],
    "vgg16": ["conv1", "conv2"],
    "resnet18": ["conv1", "layer1"],
    "resnet50": ["conv1", "layer1"],
    "resnet101": ["conv1", "layer1"],
    "squeezenet1_0": ["conv1"],
    "small": [],
}
CHANNELS = {
    "alexnet": 256,
    "caffenet": 256,
    "vgg16": 512,
    "resnet18": 256,
    "resnet50": 1024,
    "resnet101": 1024,
    "squeezenet1_0": 512,
    "small": 128,
}
OF_TORCHVISION = [name for name in FROZEN if name not in ("caffenet", "small")]
FEATURES = {"alexnet": 4096, "caffenet": 4096, "vgg16": 4096, "resnet18": 512, "resnet50": 2048, "resnet101": 2048}


class Pair:
    """A backbone, and the whole model of torchvision that holds the same weights."""

    def __init__(self, name, folder):
        self.name = name
        build = getattr(backbones, name)
        if name not in OF_TORCHVISION:
            self.backbone = build()
        elif name == "vgg16":  # half a gigabyte, which is not written to a file but shared
            self.backbone = build()
            with torch.device("meta"):
                self.whole = models.vgg16()
            self.whole.classifier[6] = nn.Identity()
            body, box_head = self.backbone.body.state_dict(), self.backbone.box_head.state_dict()
            layers = {f"features.{name.split('.', 1)[1]}": tensor for name, tensor in body.items()}
            for ours, theirs in (("fc6", "classifier.0"), ("fc7", "classifier.3")):
                layers |= {f"{theirs}.{part}": box_head[f"{ours}.{part}"] for part in ("weight", "bias")}
            self.whole.load_state_dict(layers, assign=True)
        else:
            self.whole = getattr(models, name)()
            if "resnet" in name:  # batch normalisation with statistics, so that they are seen to be loaded
                for module in self.whole.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.momentum = 1.0
                with torch.no_grad():
                    self.whole.train()(torch.randn(4, 3, 96, 96))
            save_file(self.whole.state_dict(), folder / "weights.safetensors")
            self.backbone = build(folder / "weights.safetensors")
            if "resnet" in name:
                self.whole.fc = nn.Identity()
        for part in (self.backbone.body, self.backbone.box_head, getattr(self, "whole", nn.Identity())):
            part.eval()


@pytest.fixture(scope="module", params=list(FROZEN))
def pair(request, tmp_path_factory):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return Pair(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("pair", OF_TORCHVISION, indirect=True, scope="module")
@torch.no_grad()
def test_body_and_box_head_compute_what_the_whole_model_computes(pair):
    for ours, whole in zip(geometry(pair.backbone.body), geometry(pair.whole), strict=False):
        for name in ("padding", "ceil_mode"):  # which move cells, and are no weights
            setattr(whole, name, getattr(ours, name, None))
    images = torch.randn(1, 3, 224, 224)
    features = pair.backbone.body(images)
    if "resnet" in pair.name:
        torch.testing.assert_close(pair.backbone.box_head(features), pair.whole(images), rtol=1e-3, atol=1e-3)
    elif pair.name == "squeezenet1_0":
        torch.testing.assert_close(features * 30, pair.whole.features(images), rtol=1e-5, atol=1e-5)
    else:
        torch.testing.assert_close(features, pair.whole.features[:-1](images), rtol=1e-5, atol=1e-5)
        pooled = pair.whole.features[-1](features)  # d x d of a 224-pixel image
        expected = pair.whole.classifier[:-1](pair.whole.avgpool(pooled).flatten(1))
        torch.testing.assert_close(pair.backbone.box_head(pooled), expected, rtol=1e-5, atol=1e-5)


def geometry(module):
    """The layers that say where cells lie, in their order."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.MaxPool2d)]


@torch.no_grad()
@pytest.mark.parametrize("size", [(97, 131), (112, 96), (143, 110)])
def test_one_stride_more_of_pixels_is_one_cell_more_of_features(pair, size):
    backbone, (height, width) = pair.backbone, size
    features = backbone.body(torch.randn(1, 3, height, width))
    assert features.shape[1] == backbone.channels == CHANNELS[pair.name]
    assert abs(features.shape[2] - height / backbone.stride) < 2
    assert abs(features.shape[3] - width / backbone.stride) < 2
    longer = backbone.body(torch.randn(1, 3, height + backbone.stride, width + 2 * backbone.stride))
    assert longer.shape[2:] == (features.shape[2] + 1, features.shape[3] + 2)


@torch.no_grad()
@pytest.mark.parametrize("regions", [0, 3])
def test_the_box_head_returns_one_vector_for_each_region(pair, regions):
    backbone = pair.backbone
    output = backbone.box_head(torch.randn(regions, backbone.channels, backbone.pool_size, backbone.pool_size))
    assert output.shape == (regions, backbone.box_features)
    assert backbone.box_features == FEATURES.get(pair.name, backbone.box_features)


def test_pooling_is_that_of_the_paper(pair):
    expected = {"alexnet": 6, "caffenet": 6, "resnet18": 14, "resnet50": 14, "resnet101": 14}
    assert pair.backbone.pool_size == expected.get(pair.name, 7)
    assert pair.backbone.stride == (8 if pair.name == "small" else 16)


def test_the_frozen_stages_are_those_of_the_paper(pair):
    stages = [name for name, _ in pair.backbone.body.named_children()]
    assert stages[: pair.backbone.frozen_stages] == FROZEN[pair.name]


@pytest.mark.parametrize("pair", OF_TORCHVISION, indirect=True, scope="module")
def test_every_weight_but_the_classifiers_is_in_the_backbone_once(pair):
    tensors = [tensor for part in (pair.backbone.body, pair.backbone.box_head) for tensor in part.state_dict().values()]
    if pair.name == "squeezenet1_0":
        tensors = list(pair.backbone.body.state_dict().values())
        expected = pair.whole.features.state_dict()
    else:
        last = ("fc.", "classifier.6.")
        expected = {name: tensor for name, tensor in pair.whole.state_dict().items() if not name.startswith(last)}
    expected = [tensor for tensor in expected.values() if tensor.is_floating_point()]  # without counts of batches
    assert len(tensors) == len(expected)
    assert all(torch.equal(*tensors) for tensors in zip(tensors, expected, strict=True))


@pytest.mark.parametrize("build", [backbones.resnet18, backbones.resnet50, backbones.resnet101])
def test_batch_normalisation_is_frozen_everywhere(build):
    with torch.device("meta"):
        backbone = build()
    for part in (backbone.body, backbone.box_head):
        norms = [module for module in part.modules() if "Norm" in type(module).__name__]
        assert norms and all(isinstance(norm, FrozenBatchNorm2d) for norm in norms)
        assert not any("bn" in name for name, _ in part.named_parameters())


def test_random_weights_are_drawn_from_torchs_seed():
    first, second = (_seeded(backbones.squeezenet1_0, seed=3) for _ in range(2))
    for part in ("body", "box_head"):
        states = [getattr(backbone, part).state_dict().values() for backbone in (first, second)]
        assert all(torch.equal(*tensors) for tensors in zip(*states, strict=True))
    other = _seeded(backbones.squeezenet1_0, seed=4)
    assert not torch.equal(other.box_head.fc6.weight, first.box_head.fc6.weight)


@pytest.mark.parametrize("name", FROZEN)
def test_cells_lie_where_the_backbone_says(name):
    """By the gradient of a cell with respect to the pixels: with equal weights it is centred on the cell's pixel."""
    with torch.device("meta"):
        backbone = getattr(backbones, name)()
    body = averaging(backbone.body.to_empty(device="cpu")).double()
    for row, column in ((16, 18), (17, 20)):
        image = torch.ones(1, 3, 40 * backbone.stride, 44 * backbone.stride, dtype=torch.float64, requires_grad=True)
        body(image)[0, 0, row, column].backward()
        weight = image.grad[0].sum(0)
        for axis, cell in ((1, row), (0, column)):
            profile = weight.sum(axis)
            pixel = (profile * torch.arange(len(profile))).sum() / profile.sum()
            assert pixel.item() == pytest.approx(backbone.offset + cell * backbone.stride, abs=1e-3)


def averaging(module):
    """Replace what of a network depends on the values, so that every cell is a mean of pixels: the same geometry."""
    for name, child in module.named_children():
        if isinstance(child, nn.MaxPool2d):
            shape = (child.kernel_size, child.stride, child.padding, child.ceil_mode)
            setattr(module, name, nn.AvgPool2d(*shape))
        elif isinstance(child, nn.ReLU | nn.GroupNorm | FrozenBatchNorm2d | nn.LocalResponseNorm):
            setattr(module, name, nn.Identity())
        else:
            averaging(child)
    if isinstance(module, nn.Conv2d):
        nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return module


def test_the_backbones_are_listed_by_the_names_of_recipes():
    assert set(backbones.BACKBONES) == set(FROZEN)
    assert all(backbones.BACKBONES[name] is getattr(backbones, name) for name in FROZEN)


def test_imagenets_weights_are_also_the_box_heads_unless_it_is_new():
    with torch.device("meta"):
        new = {name for name, build in backbones.BACKBONES.items() if build().new_box_head}
    assert new == {"squeezenet1_0", "small"}


def _seeded(build, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def test_fc6_and_fc7_are_two_linear_layers_with_relu_and_dropout():
    head = FullyConnectedHead(nn.Linear(3 * 2 * 2, 4000), nn.Linear(4000, 4000), dropout=0.25)
    assert set(head.state_dict()) == {"fc6.weight", "fc6.bias", "fc7.weight", "fc7.bias"}
    features = torch.randn(5, 3, 2, 2)
    fc6 = F.relu(features.reshape(5, 12) @ head.fc6.weight.T + head.fc6.bias)
    fc7 = F.relu(fc6 @ head.fc7.weight.T + head.fc7.bias)
    torch.testing.assert_close(head.eval()(features), fc7, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head(features.to(memory_format=torch.channels_last)), fc7, rtol=1e-4, atol=1e-5)
    nn.init.zeros_(head.fc7.weight)
    nn.init.ones_(head.fc7.bias)
    dropped = head.train()(features)
    torch.testing.assert_close(dropped.unique(), torch.tensor([0, 1 / 0.75]))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("name", ["alexnet", "caffenet", "vgg16", "squeezenet1_0", "small"])
def test_the_dropout_asked_for_is_the_heads(name):
    with torch.device("meta"):
        assert getattr(backbones, name)(dropout=0.3).box_head.dropout.p == 0.3


def test_the_width_of_squeezenets_head_is_a_choice():
    backbone = backbones.squeezenet1_0(width=64)
    assert backbone.box_features == 64
    assert backbone.box_head(torch.randn(2, 512, 7, 7)).shape == (2, 64)


@torch.no_grad()
def test_squeezenet_knows_a_banana_by_its_imagenet_weights(shared):
    file = shared / "weights" / "squeezenet1_0-imagenet.safetensors"
    backbone = backbones.squeezenet1_0(file)
    weights = models.SqueezeNet1_0_Weights.IMAGENET1K_V1
    with Image.open(shared / "data" / "fruit" / "JPEGImages" / "banana_1.jpg") as opened:
        image = weights.transforms()(opened.convert("RGB"))
    features = backbone.body(image[None])
    assert 0.5 < features.std() < 2  # what a new box head can learn from
    classifier = models.squeezenet1_0().eval().classifier
    classifier[1].load_state_dict({key: load_file(file)[f"classifier.1.{key}"].float() for key in ("weight", "bias")})
    probabilities = classifier(features * 30).flatten().softmax(0)
    assert weights.meta["categories"][probabilities.argmax()] == "banana"


@torch.no_grad()
def test_an_image_of_the_small_network_has_the_same_features_alone_and_in_a_batch():
    body = backbones.small().body
    images = torch.randn(3, 3, 64, 80)
    images[1] *= 10
    alone = torch.cat([body(image[None]) for image in images])
    torch.testing.assert_close(body(images), alone, rtol=1e-4, atol=1e-5)
    last = body.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, alone, rtol=1e-4, atol=1e-4)


def test_the_small_network_learns_from_scratch():
    """Horizontal or vertical stripes under noise, told apart after a few steps of two images."""
    torch.manual_seed(0)
    backbone = backbones.small()
    predictor = nn.Linear(backbone.box_features, 2)
    parts = nn.ModuleList([backbone.body, backbone.box_head, predictor])
    optimiser = torch.optim.SGD(parts.parameters(), lr=0.01, momentum=0.9)
    stripes = (torch.arange(56) // 4 % 2).float().expand(3, 56, 56)
    labels = torch.tensor([0, 1])
    losses = []
    for _ in range(40):
        images = torch.stack([stripes, stripes.mT]) + torch.randn(2, 3, 56, 56)
        loss = F.cross_entropy(predictor(backbone.box_head(backbone.body(images))), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < 0.1 < losses[0]
