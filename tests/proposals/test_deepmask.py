"""DeepMask's network and what it proposes."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from afrcnn.core.errors import UserError
from afrcnn.detectors.backbones import Backbone
from afrcnn.proposals.deepmask import (
    CONTEXT,
    MASK,
    PATCH,
    STRIDE,
    DeepMask,
    DeepMaskNetwork,
    cut_windows,
    load_deepmask,
    mask_boxes,
    normalise,
    pad_patches,
)
from afrcnn.proposals.proposer import Proposer
from afrcnn.proposals.selective_search import SelectiveSearch
from deepmask_network import SCALES, save_network, tiny_network


def near_sighted(stride):
    """A network whose cells see less than the context around them, so that no patch sees an image's padding."""
    body = nn.Sequential(nn.Conv2d(3, 6, stride, stride), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
    backbone = Backbone(body, nn.Identity(), 6, 7, stride, 0.0, 6, 0)
    torch.manual_seed(0)
    return DeepMaskNetwork(backbone, "near_sighted").eval()


@pytest.mark.parametrize("stride", [8, 16])
def test_an_image_at_once_is_its_patches_one_by_one(stride):
    network, rng = near_sighted(stride), np.random.default_rng(0)
    image = normalise(rng.integers(0, 256, (320, 368, 3), dtype=np.uint8))
    with torch.inference_mode():
        features = network.features(image[None])
        scores = network.score_map(features)[0]
        assert scores.shape == (3, 6)
        for row, column in [(0, 0), (1, 3), (2, 5)]:
            top, left = CONTEXT + STRIDE * row, CONTEXT + STRIDE * column
            side = PATCH + 2 * CONTEXT
            patch = image[:, top - CONTEXT : top - CONTEXT + side, left - CONTEXT : left - CONTEXT + side]
            alone = network.features(patch[None])
            window = cut_windows(features, torch.tensor([[0, row, column]]))
            torch.testing.assert_close(window, alone)
            torch.testing.assert_close(network.scores(alone), scores[row, column][None])
            torch.testing.assert_close(network.masks(alone), network.masks(window))


def test_patches_are_centred_on_every_sixteenth_pixel_from_the_corner_to_the_end():
    for height, width in [(1, 1), (16, 17), (100, 64)]:
        padded = pad_patches(np.full((height, width, 3), 255, dtype=np.uint8))
        image = torch.zeros(padded.shape[-2:])
        corner = CONTEXT + PATCH // 2
        image[corner : corner + height, corner : corner + width] = 1
        assert ((padded[0, 0] > 0) == (image > 0)).all()
        assert not padded.shape[2] % STRIDE
        last = (padded.shape[3] - PATCH - 2 * CONTEXT) // STRIDE * STRIDE  # the centre of the last patch
        assert width <= last < width + STRIDE


def test_boxes_surround_the_masks():
    rng = np.random.default_rng(0)
    masks = torch.from_numpy(rng.normal(-4, 1.5, (70, MASK, MASK))).float()
    masks[3] = -9
    masks[4] = 9
    for threshold in (0.2, 0.5):
        boxes = mask_boxes(masks, threshold)
        for mask, box in zip(masks, boxes.tolist(), strict=True):
            large = F.interpolate(mask[None, None], (PATCH, PATCH), mode="bilinear")[0, 0].sigmoid() > threshold
            rows, columns = torch.where(large)
            if not len(rows):
                assert box[2:] == [0, 0]
                continue
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box == [value.item() for value in expected]
    assert mask_boxes(masks[4:5], 0.5).tolist() == [[0, 0, 224, 224]]
    assert mask_boxes(masks[:0], 0.5).shape == (0, 4)


@pytest.mark.parametrize("size", [(1, 1), (40, 300), (230, 190)])
def test_boxes_are_inside_the_image_each_once_and_few_enough(size):
    search = DeepMask(tiny_network(), scales=SCALES, patches=60, top=20, nms_iou=0.6)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    boxes = search(image)
    assert boxes.dtype == np.float32
    assert boxes.shape[1:] == (4,)
    assert 1 <= len(boxes) <= 20
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= size[::-1]).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 1).all()
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    assert (search(image) == boxes).all()
    candidates, scores = search.candidates(image)
    assert (candidates[scores.argmax()].numpy() == boxes[0]).all()
    assert len(candidates) <= 60


def test_an_object_is_where_the_mask_says_at_every_scale():
    """A network that answers with a disc of half the patch, and scores only the patch in a given place."""
    network = near_sighted(16)
    steps = torch.arange(MASK) - (MASK - 1) / 2
    disc = torch.where(steps[:, None] ** 2 + steps**2 < 14**2, 9.0, -9.0)
    network.masks = lambda windows: disc.expand(len(windows), MASK, MASK)
    network.score_map = lambda features: F.pad(
        torch.ones(1, 1, 1), (4, features.shape[3] - 18, 3, features.shape[2] - 17)
    )
    for scale in (0.5, 1, 2):
        [box] = DeepMask(network, scales=(scale,), patches=1)(np.zeros((400, 400, 3), dtype=np.uint8))
        x, y, half = 64 / scale, 48 / scale, 56 / scale  # centred on the fifth and fourth sixteenth pixel
        expected = np.clip([x - half, y - half, x + half, y + half], 0, 400)
        assert np.abs(box - expected).max() <= 3 / scale


def test_another_kind_of_array_is_refused():
    with pytest.raises(ValueError, match="H x W x 3, uint8"):
        DeepMask(tiny_network())(np.zeros((4, 4, 3)))


def test_both_are_proposers_and_parameters_tell_weights_and_settings_apart():
    network = tiny_network()
    search = DeepMask(network)
    assert isinstance(search, Proposer)
    assert isinstance(SelectiveSearch(), Proposer)
    parameters = search.parameters
    assert pickle.loads(pickle.dumps(search)).parameters == parameters
    assert DeepMask(network, top=10).parameters != parameters
    with torch.no_grad():
        network.mask_head[0].bias[0] += 1
    assert DeepMask(network).parameters != parameters


def test_weights_survive_the_disk(tmp_path):
    network = tiny_network()
    loaded = load_deepmask(save_network(tmp_path / "weights.safetensors", network))
    assert not loaded.training
    assert DeepMask(loaded).parameters == DeepMask(network).parameters


def test_files_that_are_not_of_a_deepmask_are_refused(tmp_path):
    good = save_network(tmp_path / "good.safetensors", tiny_network())
    tensors, metadata = load_file(good), {"afrcnn": '{"deepmask": "small"}'}
    bias = tensors["mask_head.0.bias"]

    def refused(match, name="bad.safetensors"):
        with pytest.raises(UserError, match=match) as caught:
            load_deepmask(tmp_path / name)
        assert name in str(caught.value)

    refused("cannot be read", "missing.safetensors")
    for content in (b"", good.read_bytes()[:1000], b"not safetensors" * 100):
        (tmp_path / "bad.safetensors").write_bytes(content)
        refused("not a whole safetensors file")
    torch.save(tensors, tmp_path / "bad.pth")  # a pickle is not even opened
    refused("does not hold a DeepMask", "bad.pth")
    for text in (None, "[]", "{}", "{", '{"deepmask": "os.system"}', '{"deepmask": ["small"]}', '"small"'):
        save_file({"bias": bias}, tmp_path / "bad.safetensors", None if text is None else {"afrcnn": text})
        refused("does not hold a DeepMask")
    save_file({"bias": bias}, tmp_path / "bad.safetensors", metadata)
    refused("holds another model")
    save_file(tensors | {"mask_head.0.bias": bias[:5].clone()}, tmp_path / "bad.safetensors", metadata)
    refused("mask_head.0.bias")
    save_file(tensors | {"mask_head.0.bias": bias * torch.nan}, tmp_path / "bad.safetensors", metadata)
    refused("mask_head.0.bias: holds values that are not finite")
