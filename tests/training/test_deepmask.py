"""DeepMask's patches, losses and training."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import afrcnn.training.deepmask as training
from afrcnn.core.errors import UserError
from afrcnn.core.image_warnings import ImageWarning
from afrcnn.data.layouts import open_dataset
from afrcnn.proposals.deepmask import CONTEXT, MASK, PATCH, STRIDE, DeepMask
from afrcnn.proposals.propose import propose
from afrcnn.proposals.recall import recall
from afrcnn.training.deepmask import (
    NEGATIVE,
    NEITHER,
    PatchBatch,
    PatchSampler,
    deepmask_losses,
    label_patches,
    train_deepmask,
)
from coco_scenes import write_coco_scenes
from deepmask_network import SCALES, tiny_network


def label_one(x, y, boxes):
    """The rules, one patch and one object at a time."""
    candidates, near = [], False
    for row, (x1, y1, x2, y2) in enumerate(boxes):
        dx, dy = abs((x1 + x2) / 2 - x), abs((y1 + y2) / 2 - y)
        factor = max(x2 - x1, y2 - y1) / 128
        if dx <= 16 and dy <= 16 and 2**-0.25 <= factor <= 2**0.25:
            candidates.append((max(dx, dy), row))
        near |= not (dx >= 32 or dy >= 32 or factor >= 2 or factor <= 0.5)
    return min(candidates)[1] if candidates else NEITHER if near else NEGATIVE


def test_labels_are_those_of_the_rules():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        sides = 128 * 2 ** rng.uniform(-1.5, 1.5, (rng.integers(0, 4), 2))
        corners = rng.uniform(-100, 100, sides.shape)
        boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
        centres = rng.uniform(-100, 200, (40, 2)).astype(np.float32)
        labels = label_patches(torch.from_numpy(centres), torch.from_numpy(boxes)).tolist()
        assert labels == [label_one(x, y, boxes.tolist()) for x, y in centres.tolist()]
        seen |= set(labels)
    assert {NEGATIVE, NEITHER, 0, 1, 2} <= seen


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_coco_scenes(tmp_path_factory.mktemp("scenes") / "set", count=4, splits=("train", "val"))


@pytest.fixture
def images(scenes):
    return open_dataset(scenes, "train")


def test_masks_are_those_of_what_the_patches_show(images):
    """Objects are bright and all else is dark, so that a patch's pixels say what its mask should be."""
    sampler, agreeing = PatchSampler(images), []
    for n in range(0, 40, 2):
        sample = sampler[n]
        crop = sample.images[0].mean(dim=0)
        middle = (crop.quantile(0.02) + crop.quantile(0.999)) / 2
        for (_, r, c), mask in zip(sample.positives.tolist(), sample.masks, strict=True):
            top, left = CONTEXT + STRIDE * r, CONTEXT + STRIDE * c
            patch = crop[top : top + PATCH, left : left + PATCH]
            bright = patch.view(MASK, 4, MASK, 4).mean(dim=(1, 3)) > middle
            inside = mask > 0
            rows, columns = torch.where(inside)
            size = max(rows.max() - rows.min(), columns.max() - columns.min()).item() + 1
            assert 2**-0.25 - 0.05 <= size * 4 / 128 <= 2**0.25 + 0.05
            for line in (rows, columns):
                assert abs((line.min() + line.max() + 1) * 2 - PATCH / 2) <= 16 + 4
            box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
            agreeing.append((bright[box] == inside[box]).float().mean().item())
    assert len(agreeing) > 40
    assert np.mean(agreeing) > 0.95


def test_a_sample_is_a_function_of_its_number(images):
    first, again = PatchSampler(images, seed=3), PatchSampler(images, seed=3)
    again[5]
    for n in (4, 5):
        assert all(torch.equal(a, b) for a, b in zip(first[n], again[n], strict=True))
    assert not torch.equal(first[4].images, PatchSampler(images, seed=4)[4].images)
    joined = PatchBatch.join([first[0], first[1], first[2]])
    assert joined.images.shape == (3, 3, 448, 448)
    assert len(joined.positives) == len(joined.masks) == (joined.scores == 1).sum()
    assert torch.equal(joined.masks[: len(first[0].masks)], first[0].masks)


def test_the_next_sample_of_its_kind_takes_the_place_of_one_that_cannot_be_decoded(scenes, tmp_path):
    root = shutil.copytree(scenes, tmp_path / "set")
    images = open_dataset(root, "train")
    whole = PatchSampler(images)
    first, second = (whole.objects[number][0] for number in (0, 1))
    assert first != second
    expected = whole[2]
    images.image_path(first).write_bytes(b"nothing")
    with pytest.warns(ImageWarning, match="cannot be decoded"):
        sample = PatchSampler(images)[0]
    assert all(torch.equal(*pair) for pair in zip(sample, expected, strict=True))


def test_no_patch_in_a_crowd_is_a_negative(scenes, tmp_path):
    content = json.loads((scenes / "annotations" / "instances_train.json").read_text())
    for annotation in content["annotations"]:
        if annotation["image_id"] == 1:
            annotation |= {"iscrowd": 1, "bbox": [0, 0, 256, 224]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    (tmp_path / "train").symlink_to(scenes / "train")
    sampler = PatchSampler(open_dataset(tmp_path, "train"))
    assert {index for index, _ in sampler.objects} == {1, 2, 3}
    boxes, counted = torch.tensor([[0.0, 0, 200, 200]]), torch.tensor([False])
    labels = sampler._label(-224, -224, boxes, counted)  # centres from -80 to 80
    assert (labels[5:, 5:] == NEITHER).all()
    assert (labels[:5] == NEGATIVE).all()


def test_losses_are_logistic_balanced_and_weighted():
    network = tiny_network()
    scores = torch.full((1, 11, 11), -1)
    scores[0, 0, :3], scores[0, 4, 4] = 0, 1
    masks = (torch.rand(1, MASK, MASK) < 0.5).float()
    batch = PatchBatch.of(torch.zeros(0), scores, masks)
    features = torch.rand(1, 128, 24, 24)
    with torch.inference_mode():
        losses = deepmask_losses(network, features, batch)
        logits = network.score_map(features)[0].tolist()
        answer = network.masks(features[:, :, 4:18, 4:18])[0]

    def softplus(value):
        return math.log1p(math.exp(value))

    negatives = sum(softplus(logits[0][column]) for column in range(3)) / 3
    assert losses["score"].item() == pytest.approx((softplus(-logits[4][4]) + negatives) / 2 / 32, rel=1e-4)
    signs, values = (2 * masks[0] - 1).ravel().tolist(), answer.ravel().tolist()
    cells = [softplus(-sign * value) for sign, value in zip(signs, values, strict=True)]
    assert losses["mask"].item() == pytest.approx(sum(cells) / MASK**2, rel=1e-4)


def test_the_loss_of_crops_without_positives_is_finite():
    network = tiny_network()
    for value in (0, -1):
        batch = PatchBatch.of(torch.zeros(0), torch.full((1, 11, 11), value), torch.zeros(0, MASK, MASK))
        losses = deepmask_losses(network, torch.rand(1, 128, 24, 24), batch)
        sum(losses.values()).backward()
        assert losses["mask"] == 0
        assert losses["score"].isfinite()


def recall_at(images, network, folder, count):
    search = DeepMask(network, scales=SCALES, patches=200, nms_iou=0.5)
    return recall(images, propose(images, folder, search, jobs=1), (0.5,), (count,)).overall[0, 0]


def test_training_lowers_the_loss_and_finds_objects_of_other_images(images, scenes, tmp_path):
    network, notes = tiny_network(), []
    others = open_dataset(scenes, "val")
    before = recall_at(others, network, tmp_path / "before", 4)
    settings = {"frozen_stages": 5, "iterations": 30, "batch": 2, "crops": 12, "learning_rate": 1e-3}
    train_deepmask(network, images, tmp_path / "w.safetensors", **settings, progress=lambda *said: notes.append(said))
    losses = [dict(zip(*[iter(note.split())] * 2, strict=True)) for _, note in notes]
    assert notes[-1][0] == 30
    assert float(losses[-1]["mask"]) < 0.5 * float(losses[0]["mask"])
    assert float(losses[-1]["score"]) < 0.7 * float(losses[0]["score"])
    after = recall_at(others, network, tmp_path / "after", 4)
    assert after > before + 0.3, (before, after)


@pytest.mark.parametrize("crops", [0, 4])
def test_an_interrupted_training_ends_with_the_same_weights(images, tmp_path, crops):
    settings = {"frozen_stages": 5, "iterations": 3, "batch": 1, "crops": crops, "checkpoint_every": 2}
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    train_deepmask(tiny_network(), images, whole, **settings)

    def interrupt(done, _):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_deepmask(tiny_network(), images, parts, **settings, progress=interrupt)
    assert not parts.exists()
    with pytest.raises(UserError, match="checkpoint: is the checkpoint of another training"):
        train_deepmask(tiny_network(), images, parts, **settings | {"learning_rate": 1.0})
    done = []
    train_deepmask(tiny_network(), images, parts, **settings, progress=lambda *said: done.append(said[0]))
    assert done == [3]
    expected = load_file(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_file(parts).items())
    assert [file.name for file in tmp_path.iterdir()].count("parts.safetensors.checkpoint") == 0


def test_what_is_not_frozen_learns(images, tmp_path):
    network = tiny_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    train_deepmask(network, images, tmp_path / "w.safetensors", frozen_stages=4, iterations=1, batch=1)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert any(name.startswith("body.conv5") for name in changed)
    assert not any(name.startswith("body.conv4") for name in changed)


def test_mistakes_are_named(images, tmp_path, monkeypatch):
    for field in ("iterations", "batch", "crops", "frozen_stages"):
        with pytest.raises(UserError, match=f"{field}: is -1"):
            train_deepmask(tiny_network(), images, tmp_path / "w.safetensors", **{"frozen_stages": 0, field: -1})
    settings = {"frozen_stages": 5, "iterations": 2, "batch": 1}
    nothing = {"score": torch.tensor(torch.nan)}
    monkeypatch.setattr(training, "deepmask_losses", lambda *_: nothing)
    with pytest.raises(UserError, match="learning_rate: the loss is nan"):
        train_deepmask(tiny_network(), images, tmp_path / "w.safetensors", **settings)
    assert not list(tmp_path.iterdir())


def test_a_set_without_objects_of_a_size_to_find_is_refused(tmp_path):
    root = write_coco_scenes(tmp_path / "set", count=1, size=64, side=(20, 30))
    with pytest.raises(UserError, match="no object of 54 to 609 pixels"):
        PatchSampler(open_dataset(root, "train"))
