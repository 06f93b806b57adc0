from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from afrcnn.core.errors import UserError
from afrcnn.proposals.selective_search import compute, selective_search
from afrcnn.proposals.store import ProposalStore

Calls = list[tuple[int, int]]


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 40, (60, 80, 3), dtype=np.uint8)
    for x, y, w, h in ((5, 5, 30, 20), (40, 10, 30, 40), (10, 35, 20, 20), (12, 37, 5, 5)):
        pixels[y : y + h, x : x + w] = rng.integers(60, 256, 3)
    return pixels


def opencv(image: np.ndarray, mode: str) -> set[tuple[int, ...]]:
    """The boxes with the scales of the paper, and its least size of a segment."""
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    search.switchToSelectiveSearchFast() if mode == "fast" else search.switchToSelectiveSearchQuality()
    search.clearGraphSegmentations()
    for k in {"fast": (50, 100), "quality": (50, 100, 150, 300)}[mode]:
        segmentation = cv2.ximgproc.segmentation.createGraphSegmentation()
        segmentation.setK(k)
        segmentation.setMinSize(k)
        segmentation.setSigma(0.8)
        search.addGraphSegmentation(segmentation)
    return {(x, y, x + w, y + h) for x, y, w, h in search.process().tolist() if min(w, h) >= 8}


@pytest.mark.parametrize("mode", ["fast", "quality"])
def test_the_boxes_are_those_of_opencv_with_the_paper_s_scales_each_once_inside_and_not_too_small(image, mode):
    boxes = selective_search(image, mode)
    assert boxes.dtype == np.float32 and boxes.shape[1] == 4
    as_set = set(map(tuple, boxes.astype(int).tolist()))
    assert len(as_set) == len(boxes) and as_set == opencv(image, mode)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (80, 60)).all()


def test_the_smallest_side_is_the_caller_s_choice(image):
    all_boxes = selective_search(image, min_side=1)
    sides = (all_boxes[:, 2:] - all_boxes[:, :2]).min(axis=1)
    assert (sides < 20).any()
    large = selective_search(image, min_side=20)
    assert set(map(tuple, large)) == set(map(tuple, all_boxes[sides >= 20]))


def test_an_object_that_stands_out_is_found(image):
    boxes = selective_search(image)
    for box in ((5, 5, 35, 25), (40, 10, 70, 50)):
        assert np.abs(boxes - box).max(axis=1).min() <= 1


def test_the_colour_channels_are_not_swapped():
    """Green on red of the same grey is found in HSV; the set of boxes of the swapped image is another."""
    rng = np.random.default_rng(1)
    image = rng.integers(0, 255, (50, 50, 3), dtype=np.uint8)
    assert set(map(tuple, selective_search(image).astype(int).tolist())) == opencv(image, "fast")
    assert opencv(image, "fast") != opencv(np.ascontiguousarray(image[:, :, ::-1]), "fast")


def test_large_boxes_tend_to_come_first_as_in_the_paper():
    rng = np.random.default_rng(2)
    image = cv2.resize(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8), (96, 96), interpolation=cv2.INTER_NEAREST)
    boxes = selective_search(image)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    half = len(boxes) // 2
    assert half > 20
    assert np.median(areas[:half]) > np.median(areas[half:])


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (7, 7)])
def test_an_image_too_small_for_any_box_has_none(size):
    assert selective_search(np.zeros((*size, 3), np.uint8)).shape == (0, 4)


def test_a_flat_image_is_one_box():
    np.testing.assert_array_equal(selective_search(np.full((20, 30, 3), 7, np.uint8)), [[0, 0, 30, 20]])


@pytest.mark.parametrize("shape", [(10, 10), (10, 10, 4), (0, 10, 3), (3, 10, 10, 3)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ValueError, match="H x W x 3"):
        selective_search(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        selective_search(np.zeros((10, 10, 3), np.float32))


def test_another_process_finds_the_same_boxes_in_the_same_order(image, tmp_path):
    np.save(tmp_path / "image.npy", image)
    program = f"""
        import cv2, numpy as np
        from afrcnn.proposals.selective_search import selective_search
        image = np.load({str(tmp_path / "image.npy")!r})
        cv2.setRNGSeed(7)
        selective_search(image[::-1].copy())  # moves the C library's rand on
        np.save({str(tmp_path / "boxes.npy")!r}, selective_search(image))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "boxes.npy"), selective_search(image))
    np.testing.assert_array_equal(selective_search(image), selective_search(image.copy()))


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_store_holds_what_each_image_gives(scenes, tmp_path, jobs):
    calls: Calls = []
    store = compute(scenes, tmp_path / "store", jobs=jobs, progress=lambda *call: calls.append(call))
    assert store.ids == scenes.ids and store.method == "selective_search-fast"
    assert calls == [(done, 5) for done in range(6)]
    for index, image_id in enumerate(scenes.ids):
        expected = selective_search(scenes[index][0].permute(1, 2, 0).numpy())
        np.testing.assert_array_equal(store.boxes(image_id), expected)
    assert not (tmp_path / "store" / "finished.journal").exists()


def test_a_finished_store_is_computed_again_only_for_images_that_changed_or_are_new(scenes, tmp_path):
    first = compute(scenes, tmp_path / "store", jobs=1)
    before = [first.boxes(image_id) for image_id in scenes.ids]
    scenes.image_path(1).write_bytes(scenes.image_path(0).read_bytes())  # known by its content
    changed = np.ascontiguousarray(scenes[2][0].permute(1, 2, 0).numpy()[:, ::-1])
    cv2.imwrite(str(scenes.image_path(2)), changed[:, :, ::-1])
    calls: Calls = []
    store = compute(scenes, tmp_path / "store", jobs=1, progress=lambda *call: calls.append(call))
    assert calls == [(4, 5), (5, 5)]
    np.testing.assert_array_equal(store.boxes("scene1"), before[0])
    np.testing.assert_array_equal(store.boxes("scene2"), selective_search(changed))
    np.testing.assert_array_equal(store.boxes("scene4"), before[4])


def test_two_ids_with_the_same_image_are_searched_once(scenes, tmp_path):
    scenes.image_path(3).write_bytes(scenes.image_path(0).read_bytes())
    calls: Calls = []
    store = compute(scenes, tmp_path / "store", jobs=1, progress=lambda *call: calls.append(call))
    assert calls == [(done, 5) for done in range(1, 6)]
    np.testing.assert_array_equal(store.boxes("scene0"), store.boxes("scene3"))


KILLED = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from conftest import Scenes
    from afrcnn.proposals.selective_search import compute

    def slowly(done, total):
        print(done, flush=True)
        if done == 2:
            time.sleep(60)

    scenes = Scenes(Path({root!r}), 5)
    compute(scenes, {store!r}, jobs=1, progress=slowly)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_after_a_kill_finished_images_are_not_searched_again(scenes, tmp_path, how):
    store = tmp_path / "store"
    program = textwrap.dedent(KILLED).format(tests=str(Path(__file__).parent), root=str(scenes.root), store=str(store))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        for line in child.stdout:
            if line.strip() == b"2":
                break
        time.sleep(0.2)
        child.send_signal(how)
    assert child.returncode != 0
    with pytest.raises(UserError, match="holds no proposals"):
        ProposalStore(store)
    with (store / "finished.journal").open("ab") as journal:
        journal.write(os.urandom(50))  # a record torn by the kill
    calls: Calls = []
    resumed = compute(scenes, store, jobs=1, progress=lambda *call: calls.append(call))
    assert calls == [(2, 5), (3, 5), (4, 5), (5, 5)]
    afresh = compute(scenes, tmp_path / "afresh", jobs=1)
    for file in ("boxes", "offsets", "ids", "fingerprints", "checksums"):
        assert (resumed.folder / f"{file}.npy").read_bytes() == (afresh.folder / f"{file}.npy").read_bytes()


def test_a_truncated_image_is_named_and_the_finished_ones_are_kept(scenes, tmp_path):
    whole = scenes.image_path(3).read_bytes()
    scenes.image_path(3).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"scene3\.png"):
        compute(scenes, tmp_path / "store", jobs=1)
    scenes.image_path(3).write_bytes(whole)
    calls: Calls = []
    compute(scenes, tmp_path / "store", jobs=1, progress=lambda *call: calls.append(call))
    assert calls[0] == (3, 5)


def test_a_truncated_image_is_named_from_a_worker_process_too(scenes, tmp_path):
    scenes.image_path(1).write_bytes(scenes.image_path(1).read_bytes()[:100])
    with pytest.raises(UserError, match=r"scene1\.png.*") as caught:
        compute(scenes, tmp_path / "store", jobs=2)
    assert caught.value.file == scenes.image_path(1)


def test_a_missing_image_is_named_before_anything_is_searched(scenes, tmp_path):
    scenes.image_path(4).unlink()
    calls: Calls = []
    with pytest.raises(UserError, match=r"scene4\.png"):
        compute(scenes, tmp_path / "store", jobs=1, progress=lambda *call: calls.append(call))
    assert calls == []


def test_a_folder_with_proposals_of_another_method_is_left_alone(scenes, tmp_path):
    store = compute(scenes, tmp_path / "store", jobs=1)
    before = {file: file.read_bytes() for file in store.folder.glob("*.npy")}
    with pytest.raises(UserError, match="choose another folder"):
        compute(scenes, tmp_path / "store", mode="quality", jobs=1)
    assert {file: file.read_bytes() for file in store.folder.glob("*.npy")} == before
    compute(scenes, tmp_path / "store", jobs=1)


def test_a_split_without_images_is_named(scenes, tmp_path):
    scenes.ids = []
    with pytest.raises(UserError, match="no images"):
        compute(scenes, tmp_path / "store")


@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_cluster_whose_package_is_missing_says_what_to_install(scenes, tmp_path, monkeypatch, backend, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"{package} is not installed.*afrcnn\[cluster\]"):
        compute(scenes, tmp_path / "store", backend=backend)


@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_cluster_finds_the_same_boxes(scenes, tmp_path, backend, package):
    pytest.importorskip(package, reason="the extra 'cluster' is not installed")
    calls: Calls = []
    found = compute(scenes, tmp_path / "a", jobs=2, backend=backend, progress=lambda *call: calls.append(call))
    alone = compute(scenes, tmp_path / "b", jobs=1)
    assert calls[-1] == (5, 5)
    for image_id in scenes.ids:
        np.testing.assert_array_equal(found.boxes(image_id), alone.boxes(image_id))
