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
from afrcnn.core.image_warnings import refusing
from afrcnn.proposals.propose import propose
from afrcnn.proposals.selective_search import SelectiveSearch
from afrcnn.proposals.store import ProposalStore

Calls = list[int]


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_store_holds_what_each_image_gives(scenes, tmp_path, jobs):
    calls: Calls = []
    store = propose(scenes, tmp_path / "store", SelectiveSearch(), jobs=jobs, progress=calls.append)
    assert store.ids == scenes.ids
    assert store.method == "selective_search-fast"
    assert calls == [0, 1, 2, 3, 4, 5]
    for index, image_id in enumerate(scenes.ids):
        expected = SelectiveSearch()(scenes[index][0].permute(1, 2, 0).numpy())
        np.testing.assert_array_equal(store.boxes(image_id), expected)
    assert not (tmp_path / "store" / "finished.journal").exists()


def test_a_finished_store_is_computed_again_only_for_images_that_changed_or_are_new(scenes, tmp_path):
    first = propose(scenes, tmp_path / "store", SelectiveSearch(), jobs=1)
    before = [first.boxes(image_id) for image_id in scenes.ids]
    scenes.image_path(1).write_bytes(scenes.image_path(0).read_bytes())  # known by its content
    changed = np.ascontiguousarray(scenes[2][0].permute(1, 2, 0).numpy()[:, ::-1])
    cv2.imwrite(str(scenes.image_path(2)), changed[:, :, ::-1])
    calls: Calls = []
    store = propose(scenes, tmp_path / "store", SelectiveSearch(), jobs=1, progress=calls.append)
    assert calls == [4, 5]
    np.testing.assert_array_equal(store.boxes("scene1"), before[0])
    np.testing.assert_array_equal(store.boxes("scene2"), SelectiveSearch()(changed))
    np.testing.assert_array_equal(store.boxes("scene4"), before[4])


def test_two_ids_with_the_same_image_are_searched_once(scenes, tmp_path):
    scenes.image_path(3).write_bytes(scenes.image_path(0).read_bytes())
    calls: Calls = []
    store = propose(scenes, tmp_path / "store", SelectiveSearch(), jobs=1, progress=calls.append)
    assert calls == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(store.boxes("scene0"), store.boxes("scene3"))


KILLED = """
    import sys, time
    from pathlib import Path
    sys.path[:0] = {tests!r}
    from conftest import Scenes
    from afrcnn.proposals.propose import propose
    from afrcnn.proposals.selective_search import SelectiveSearch

    def slowly(done):
        print(done, flush=True)
        if done == 2:
            time.sleep(60)

    scenes = Scenes(Path({root!r}), 5)
    propose(scenes, {store!r}, SelectiveSearch(), jobs=1, progress=slowly)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_after_a_kill_finished_images_are_not_searched_again(scenes, tmp_path, how):
    store = tmp_path / "store"
    folders = [str(folder) for folder in Path(__file__).parents[:2]]
    program = textwrap.dedent(KILLED).format(tests=folders, root=str(scenes.root), store=str(store))
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
    resumed = propose(scenes, store, SelectiveSearch(), jobs=1, progress=calls.append)
    assert calls == [2, 3, 4, 5]
    afresh = propose(scenes, tmp_path / "afresh", SelectiveSearch(), jobs=1)
    for file in ("boxes", "offsets", "ids", "fingerprints", "checksums"):
        assert (resumed.folder / f"{file}.npy").read_bytes() == (afresh.folder / f"{file}.npy").read_bytes()


def test_a_truncated_image_is_refused_where_it_is_asked_for_and_the_finished_ones_are_kept(scenes, tmp_path):
    whole = scenes.image_path(3).read_bytes()
    scenes.image_path(3).write_bytes(whole[: len(whole) // 2])
    with refusing(strict=True), pytest.raises(UserError, match=r"scene3\.png"):
        propose(scenes, tmp_path / "store", SelectiveSearch(), jobs=1)
    scenes.image_path(3).write_bytes(whole)
    calls: Calls = []
    propose(scenes, tmp_path / "store", SelectiveSearch(), jobs=1, progress=calls.append)
    assert calls[0] == 3


def test_a_truncated_image_is_named_from_a_worker_process_too(scenes, tmp_path):
    scenes.image_path(1).write_bytes(scenes.image_path(1).read_bytes()[:100])
    with refusing(strict=True), pytest.raises(UserError, match=r"scene1\.png.*") as caught:
        propose(scenes, tmp_path / "store", SelectiveSearch(), jobs=2)
    assert caught.value.file == scenes.image_path(1)


def test_a_missing_image_is_named_before_anything_is_searched(scenes, tmp_path):
    scenes.image_path(4).unlink()
    calls: Calls = []
    with pytest.raises(UserError, match=r"scene4\.png"):
        propose(scenes, tmp_path / "store", SelectiveSearch(), jobs=1, progress=calls.append)
    assert calls == []


def test_a_folder_with_proposals_of_another_method_is_left_alone(scenes, tmp_path):
    store = propose(scenes, tmp_path / "store", SelectiveSearch(), jobs=1)
    before = {file: file.read_bytes() for file in store.folder.glob("*.npy")}
    with pytest.raises(UserError, match="choose another folder"):
        propose(scenes, tmp_path / "store", SelectiveSearch("quality"), jobs=1)
    assert {file: file.read_bytes() for file in store.folder.glob("*.npy")} == before
    propose(scenes, tmp_path / "store", SelectiveSearch(), jobs=1)


def test_a_split_without_images_is_named(scenes, tmp_path):
    scenes.ids = []
    with pytest.raises(UserError, match="no images"):
        propose(scenes, tmp_path / "store", SelectiveSearch())


@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_cluster_whose_package_is_missing_says_what_to_install(scenes, tmp_path, monkeypatch, backend, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"{package} is not installed.*afrcnn\[cluster\]"):
        propose(scenes, tmp_path / "store", SelectiveSearch(), backend=backend)


@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_cluster_finds_the_same_boxes(scenes, tmp_path, backend, package):
    pytest.importorskip(package, reason="the extra 'cluster' is not installed")
    calls: Calls = []
    store = propose(scenes, tmp_path / "a", SelectiveSearch(), jobs=2, backend=backend, progress=calls.append)
    alone = propose(scenes, tmp_path / "b", SelectiveSearch(), jobs=1)
    assert calls[-1] == 5
    for image_id in scenes.ids:
        np.testing.assert_array_equal(store.boxes(image_id), alone.boxes(image_id))


class Corner:
    """A proposer of a stranger: one box in the corner."""

    method, parameters = "corner", {"side": 9}

    def __call__(self, image: np.ndarray) -> np.ndarray:
        assert image.dtype == np.uint8
        return np.array([[0, 0, 9, 9]], np.float32)


def test_any_proposer_fills_a_store_that_tells_its_method_and_parameters(scenes, tmp_path):
    store = propose(scenes, tmp_path / "store", Corner(), jobs=1)
    assert (store.method, store.parameters) == ("corner", {"side": 9})
    for image_id in scenes.ids:
        assert store.boxes(image_id).tolist() == [[0, 0, 9, 9]]
    with pytest.raises(UserError, match="holds proposals of corner"):
        propose(scenes, tmp_path / "store", SelectiveSearch(), jobs=1)
