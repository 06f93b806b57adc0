"""Masks in COCO's format, against pycocotools, and hostile ones."""

import json

import numpy as np
import pytest
from pycocotools import mask as reference

from afrcnn.core.errors import UserError
from afrcnn.data.layouts import open_dataset
from afrcnn.data.segmentation import ObjectMasks, decode_segmentation
from coco_scenes import write_coco_scenes


def random_mask(rng, height, width):
    coarse = rng.random((-(-height // 4), -(-width // 4))) < rng.random()
    return np.kron(coarse, np.ones((4, 4)))[:height, :width].astype(np.uint8)


def run_lengths(mask):
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    return np.diff([0, *changes]).tolist()


def test_run_lengths_are_read_as_pycocotools_reads_them():
    rng = np.random.default_rng(0)
    for height, width in [(1, 1), (7, 3), (40, 60), (333, 500)] * 5:
        mask = random_mask(rng, height, width)
        counts = reference.encode(np.asfortranarray(mask))["counts"].decode()
        assert (decode_segmentation({"size": [height, width], "counts": counts}, (height, width)) == mask).all()
        counts = run_lengths(mask)
        assert (decode_segmentation({"size": [height, width], "counts": counts}, (height, width)) == mask).all()


def test_polygons_are_drawn_as_pycocotools_draws_them():
    rng = np.random.default_rng(1)
    for _ in range(20):
        height, width = rng.integers(20, 200, 2).tolist()
        polygons = [(rng.random((n, 2)) * (width, height)).ravel().tolist() for n in (3, 5)]
        drawn = reference.decode(reference.merge(reference.frPyObjects(polygons, height, width)))
        assert (decode_segmentation(polygons, (height, width)) == drawn).all()


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        "mask",
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3, 4, 5, float("nan")]],
        [[1, 2, 3, 4, 5, "6"]],
        [{"counts": [4]}],
        {"size": [4, 5]},
        {"size": [4, 6], "counts": [24]},
        {"size": [5, 4], "counts": [20]},
        {"size": [4, 5], "counts": [10, 11]},
        {"size": [4, 5], "counts": [-1, 21]},
        {"size": [4, 5], "counts": [20.0]},
        {"size": [4, 5], "counts": "e0"},
        {"size": [4, 5], "counts": "\x00"},
        {"size": [4, 5], "counts": "oooooooooooooooooooo0"},
        {"size": [4, 5], "counts": "o"},
    ],
)
def test_a_malformed_mask_is_refused(segmentation):
    with pytest.raises(ValueError, match=r"^(has|is) "):
        decode_segmentation(segmentation, (4, 5))


def test_a_polygon_far_outside_is_clipped():
    assert decode_segmentation([[-1e30, -1e30, 1e30, -1e30, 1e30, 1e30, -1e30, 1e30]], (4, 5)).all()


def test_the_masks_of_a_dataset_are_those_of_its_objects(tmp_path):
    root = write_coco_scenes(tmp_path / "set", count=3)
    images = open_dataset(root, "train")
    masks = ObjectMasks(images)
    for index in range(len(images)):
        for row, box in enumerate(images.target(index)["boxes"].int().tolist()):
            rows, columns = np.nonzero(masks.mask(index, row))
            assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == box


def test_a_malformed_mask_is_named_and_so_is_a_dataset_without(tmp_path):
    root = write_coco_scenes(tmp_path / "set", count=1)
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"] = {"size": [9, 9], "counts": [81]}
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"instances_train\.json: annotations\[id=1\]\.segmentation: is of the size"):
        ObjectMasks(open_dataset(root, "train")).mask(0, 0)
