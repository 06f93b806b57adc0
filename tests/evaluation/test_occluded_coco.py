"""Separated and Occluded COCO: what masks tell, and the published lists' format."""

import json
import os
import pickle
import resource

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as reference
from scipy import ndimage
from scipy.spatial import ConvexHull

from afrcnn.core.errors import UserError
from afrcnn.data.layouts import open_dataset
from afrcnn.data.segmentation import read_run_lengths
from afrcnn.evaluation.occluded_coco import (
    _clip,
    _count_parts,
    _decode,
    _occluded_by_hull,
    derive_subsets,
    read_list,
)

SIDE = 40


def pixels(*boxes):
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for x1, y1, x2, y2 in boxes:
        mask[y1:y2, x1:x2] = 1
    return mask


def encoded(mask):
    return reference.encode(np.asfortranarray(mask))


def polygons(*boxes):
    return [[x1, y1, x2, y1, x2, y2, x1, y2] for x1, y1, x2, y2 in boxes]


def write(root, images):
    """A dataset in COCO layout: for each image the segmentations of its objects, of the class thing."""
    (root / "annotations").mkdir(parents=True)
    (root / "val").mkdir()
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "thing"}, {"id": 4, "name": "other"}]}
    for number, segmentations in enumerate(images):
        Image.fromarray(np.zeros((SIDE, SIDE, 3), dtype=np.uint8)).save(root / "val" / f"{number:012}.jpg")
        content["images"].append({"id": number, "file_name": f"{number:012}.jpg", "height": SIDE, "width": SIDE})
        for segmentation in segmentations:
            crowd = isinstance(segmentation, dict) and isinstance(segmentation["counts"], list)
            rle = segmentation if isinstance(segmentation, dict) else None
            if rle is None:
                rle = reference.merge(reference.frPyObjects(segmentation, SIDE, SIDE))
            elif crowd:
                rle = reference.frPyObjects(segmentation, SIDE, SIDE)
            content["annotations"].append(
                {
                    "id": 100 - len(content["annotations"]),
                    "image_id": number,
                    "category_id": 1,
                    "bbox": reference.toBbox(rle).tolist(),
                    "segmentation": segmentation,
                    "iscrowd": int(crowd),
                }
            )
    (root / "annotations" / "instances_val.json").write_text(json.dumps(content))
    return open_dataset(root, "val")


def derived(dataset):
    return {name: [flags.tolist() for flags in members] for name, members in derive_subsets(dataset).items()}


def test_an_object_cut_in_two_is_separated_one_with_a_dent_is_occluded(tmp_path):
    cut = [polygons((2, 10, 12, 20), (18, 10, 30, 20)), polygons((12, 2, 18, 38))]
    dented = [polygons((0, 0, 30, 8), (0, 8, 10, 22), (0, 22, 30, 30)), polygons((10, 8, 38, 22))]
    apart = [polygons((0, 0, 10, 10)), polygons((20, 20, 30, 30))]
    assert derived(write(tmp_path, [cut, dented, [], apart])) == {
        "separated": [[True, False], [False, False], [], [False, False]],
        "occluded in one piece": [[False, False], [True, False], [], [False, False]],
    }


def test_crumbs_are_no_parts_and_corners_connect():
    large = pixels((0, 0, 10, 10))
    assert _count_parts(large) == 1
    assert _count_parts(large | pixels((20, 20, 21, 21))) == 1  # 1 of 101 pixels
    assert _count_parts(large | pixels((20, 20, 22, 21))) == 2
    assert _count_parts(large | pixels((10, 10, 20, 20))) == 1
    assert _count_parts(large | pixels((11, 11, 20, 20))) == 2
    assert _count_parts(pixels()) == 0


def test_parts_of_random_masks_are_those_of_another_library():
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = (rng.random((SIDE, SIDE)) < rng.uniform(0.02, 0.4)).astype(np.uint8)
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        sizes = [(labels == label).sum() for label in range(1, count + 1)]
        assert _count_parts(mask) == sum(size >= 0.01 * mask.sum() for size in sizes)


def inside_hull(mask):
    """Pixels whose centres lie in the convex hull of a mask's pixel centres."""
    equations = ConvexHull(np.argwhere(mask)).equations
    grid = np.indices(mask.shape).reshape(2, -1)
    return (equations[:, :2] @ grid + equations[:, 2:] <= 1e-9).all(axis=0).reshape(mask.shape)


def test_who_is_occluded_agrees_with_hulls_of_another_library():
    """Where no fraction is within 3% of the limit or of its counterpart: rasters of hulls differ at their rims."""
    rng = np.random.default_rng(1)
    decided = hidden = 0
    for _ in range(60):
        masks = np.zeros((3, SIDE, SIDE), dtype=np.uint8)
        for mask in masks:
            x, y = rng.integers(0, 18, 2)
            w, h = rng.integers(8, 20, 2)
            mask[y : y + h, x : x + w] = 1
        masks[0] &= ~masks[1] & ~masks[2] & 1  # object 0 is behind, 1 before 2
        masks[2] &= ~masks[1] & 1
        if masks.reshape(3, -1).sum(axis=1).min() < 30:
            continue
        hulls = [inside_hull(mask) for mask in masks]
        flags = _occluded_by_hull(masks)
        for a in range(3):
            expected, clear = False, True
            for b in {0, 1, 2} - {a}:
                touch = bool((ndimage.binary_dilation(masks[a], np.ones((3, 3))) & masks[b]).any())
                bite = (hulls[a] & (masks[a] == 0) & (masks[b] == 1)).sum() / hulls[a].sum()
                back = (hulls[b] & (masks[b] == 0) & (masks[a] == 1)).sum() / hulls[b].sum()
                expected |= touch and bite > 0.05 and bite > back
                clear &= not touch or (abs(bite - 0.05) > 0.03 and (abs(bite - back) > 0.03 or bite < 0.02))
            if clear:
                decided += 1
                hidden += expected
                assert flags[a] == expected
    assert decided > 50 and 10 < hidden < decided - 10


def test_crowds_and_objects_without_masks_are_in_neither_subset_and_hide_nobody(tmp_path):
    crowd = {"size": [SIDE, SIDE], "counts": [410, 10, 30, 10, SIDE * SIDE - 460]}
    dataset = write(tmp_path, [[crowd, polygons((0, 0, 30, 8), (0, 8, 10, 22), (0, 22, 30, 30))]])
    assert dataset.target(0)["iscrowd"].tolist() == [True, False]
    assert derived(dataset) == {"separated": [[False, False]], "occluded in one piece": [[False, False]]}
    path = dataset.annotation_file
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    path.write_text(json.dumps(content))
    assert derive_subsets(dataset) == {}


def test_a_malformed_mask_is_named(tmp_path):
    dataset = write(tmp_path, [[polygons((0, 0, 10, 10))]])
    content = json.loads(dataset.annotation_file.read_text())
    content["annotations"][0]["segmentation"] = {"size": [SIDE, SIDE], "counts": "zzzz~~"}
    dataset.annotation_file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"annotations\[id=100\]\.segmentation: is not a valid mask"):
        derive_subsets(dataset)


def test_masks_of_real_photographs_fall_into_parts_as_another_library_counts(shared):
    dataset = open_dataset(shared / "data" / "tiny_coco", "val2017")
    members = derive_subsets(dataset)
    content = json.loads(dataset.annotation_file.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    expected = {}
    for item in content["annotations"]:
        if not item["iscrowd"]:
            rle = reference.merge(reference.frPyObjects(item["segmentation"], *sizes[item["image_id"]]))
            labels, _ = ndimage.label(reference.decode(rle), np.ones((3, 3)))
            areas = np.bincount(labels.ravel())[1:]
            expected[item["id"]] = np.count_nonzero(areas >= 0.01 * areas.sum()) > 1
    separated = {}
    for index in range(len(dataset)):
        target = dataset.target(index)
        separated |= dict(zip(target["annotation_id"].tolist(), members["separated"][index].tolist(), strict=True))
        assert not (members["separated"][index] & members["occluded in one piece"][index]).any()
    assert {id_: flag for id_, flag in separated.items() if id_ in expected} == expected
    assert 0 < sum(separated.values()) < len(expected) / 5
    assert any(flags.any() for flags in members["occluded in one piece"])


@pytest.fixture
def dataset(tmp_path):
    near = [polygons((2, 10, 12, 20)), polygons((3, 11, 13, 22)), polygons((20, 20, 30, 39))]
    return write(tmp_path / "coco", [near, [polygons((0, 0, 9, 9))]])


def entries():
    """Entries as the two lists have them: corners or sides in the box, numbers of NumPy, sometimes a ratio."""
    return [
        ["000000000000.jpg", "thing", np.int64(8), np.array([3, 11, 13, 22]), encoded(pixels((3, 11, 13, 22))), 0.8],
        ["000000000000.jpg", "thing", 9, [20.0, 20.0, 10.0, 19.0], encoded(pixels((20, 20, 30, 38))), np.float64(0.5)],
        ["000000000007.jpg", "thing", 3, [0, 0, 5, 5], encoded(pixels((0, 0, 5, 5))), "NAN"],
    ]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_published_list_names_objects_whatever_protocol_wrote_it(dataset, tmp_path, protocol):
    path = tmp_path / "occluded_coco.pkl"
    path.write_bytes(pickle.dumps(entries(), protocol=protocol))
    assert [flags.tolist() for flags in read_list(path, dataset)] == [[False, True, True], [False]]


class Mischief:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_reading_a_list_runs_nothing_that_it_names(dataset, tmp_path):
    path, harm = tmp_path / "list.pkl", tmp_path / "harm"
    good = [*entries()[0][:5], Mischief(harm)]
    path.write_bytes(pickle.dumps([good]))
    assert read_list(path, dataset)[0].tolist() == [False, True, False]
    path.write_bytes(pickle.dumps(Mischief(harm)))
    with pytest.raises(UserError, match=r"list\.pkl: is not a list"):
        read_list(path, dataset)
    assert not harm.exists()
    pickle.loads(path.read_bytes())  # the file does do harm where it is trusted
    assert harm.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a list of objects"),
        (b"not a pickle", "is not a list of objects"),
        (pickle.dumps(entries())[:-9], "is not a list of objects"),
        (pickle.dumps({"a": 1}), "is not a list of objects"),
        (pickle.dumps([3]), r"\[0\]: is not an object"),
        (pickle.dumps([entries()[0], entries()[0][:4]]), r"\[1\]: is not an object"),
        (pickle.dumps([[*entries()[0][:4], {"size": [SIDE, SIDE], "counts": b"o"}]]), r"\[0\]: is not an object"),
        (pickle.dumps([["000000000000.jpg", "other", *entries()[0][2:]]]), "no other of"),
        (pickle.dumps([["000000000001.jpg", *entries()[0][1:]]]), "no thing of"),
        (pickle.dumps(entries()[2:]), "lists no object of the split's images"),
    ],
)
def test_what_is_no_list_for_the_dataset_is_refused(dataset, tmp_path, content, message):
    path = tmp_path / "list.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_list(path, dataset)
    with pytest.raises(UserError, match="cannot be read"):
        read_list(tmp_path / "none.pkl", dataset)


@pytest.mark.parametrize("far", [1e4, 1e7, 1e308])
def test_a_corner_far_away_is_cut_off_before_it_takes_memory(far, tmp_path):
    wide = [[10.0, 5.0, far, 5.0, far, 15.0, 10.0, 15.0]]
    size = (40, 60)
    expected = np.zeros(size, np.uint8)
    expected[5:15, 10:] = 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert np.array_equal(_decode(wide, size, tmp_path, 1), expected)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_polygon_near_its_image_stays_as_it_is_and_one_elsewhere_is_nothing():
    near = np.array([-3.5, 0.25, 70.0, 2.0, 30.0, 41.0])
    assert _clip(near, (40, 60)) == near.tolist()
    assert _clip(near + 1e6, (40, 60)) == []
    for wrong in ([1.0, 2.0, 3.0], [1.0, float("nan"), 3.0, 4.0]):
        with pytest.raises(ValueError, match="is not a list of x, y"):
            _clip(np.array(wrong), (40, 60))


def test_run_lengths_of_another_image_are_refused_before_a_pixel_is_written(tmp_path):
    mask = np.zeros((40, 60), np.uint8, order="F")
    mask[3:9, 50:55] = 1
    packed = encoded(mask)
    counts = packed["counts"].decode()
    assert np.array_equal(_decode({"size": [40, 60], "counts": counts}, (40, 60), tmp_path, 1), mask)
    plain = {"size": [40, 60], "counts": read_run_lengths({"size": [40, 60], "counts": packed["counts"]}, (40, 60))}
    assert np.array_equal(_decode(plain, (40, 60), tmp_path, 1), mask)
    for spoiled in (
        {"size": [40, 10**9], "counts": counts},
        {"size": [40, 60], "counts": counts + "1"},
        {"size": [40, 60], "counts": [10**9]},
        {"size": [40, 60], "counts": [-5, 2405]},
        {"size": [40, 60], "counts": "\x00é"},
    ):
        with pytest.raises(UserError, match="is not a valid mask"):
            _decode(spoiled, (40, 60), tmp_path, 1)
