from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from afrcnn.core.errors import UserError
from afrcnn.proposals.store import Proposals, ProposalStore, default_folder
from reference import random_proposals, write_store


@pytest.mark.parametrize("with_scores", [False, True])
def test_what_is_written_is_read_again_by_image(tmp_path, scenes, with_scores):
    rng = np.random.default_rng(0)
    written = [
        Proposals(random_proposals(rng, n), rng.random(n, np.float32) if with_scores else None) for n in (4, 0, 9, 1, 0)
    ]
    write_store(tmp_path / "store", scenes, written)
    store = ProposalStore(tmp_path / "store")
    assert (store.method, store.parameters, store.ids) == ("random", {"seed": 0}, scenes.ids)
    for index in rng.permutation(5):
        image_id = scenes.ids[index]
        boxes, scores = store.boxes(image_id), store.scores(image_id)
        assert boxes.dtype == np.float32
        assert boxes.shape == (len(written[index].boxes), 4)
        np.testing.assert_array_equal(boxes, written[index].boxes)
        if with_scores:
            np.testing.assert_array_equal(scores, written[index].scores)
        else:
            assert scores is None


def test_a_store_without_any_box_is_read(tmp_path, scenes):
    store = write_store(tmp_path / "store", scenes, [Proposals(np.empty((0, 4), np.float32))] * 5)
    assert all(store.boxes(image_id).shape == (0, 4) for image_id in scenes.ids)


def test_the_arrays_are_plain_npy_files_without_pickle(store, proposals):
    everything = np.concatenate([p.boxes for p in proposals])
    np.testing.assert_array_equal(np.load(store.folder / "boxes.npy", allow_pickle=False), everything)
    for file in store.folder.glob("*.npy"):
        assert not np.load(file, allow_pickle=False).dtype.hasobject


def test_a_box_that_the_reader_changes_does_not_change_the_store(store, proposals):
    store.boxes("scene0")[:] = 0
    np.testing.assert_array_equal(store.boxes("scene0"), proposals[0].boxes)


def test_writing_again_replaces_the_store_and_leaves_no_other_file(tmp_path, scenes, proposals):
    with_scores = [Proposals(p.boxes, np.ones(len(p.boxes), np.float32)) for p in proposals]
    write_store(tmp_path / "store", scenes, with_scores)
    before = {file.name for file in (tmp_path / "store").iterdir()}
    store = write_store(tmp_path / "store", scenes, proposals[::-1])
    np.testing.assert_array_equal(store.boxes("scene1"), proposals[3].boxes)
    assert store.scores("scene1") is None
    assert {file.name for file in (tmp_path / "store").iterdir()} == before - {"scores.npy"}


def test_a_write_that_fails_half_way_keeps_the_store_that_was_there(store, scenes, proposals):
    def images():
        yield "scene0", bytes(16), proposals[3]
        raise KeyboardInterrupt

    before = {file.name: file.read_bytes() for file in store.folder.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        ProposalStore.write(store.folder, images(), method="other", parameters={})
    assert {file.name: file.read_bytes() for file in store.folder.iterdir()} == before


def test_a_disk_that_fills_up_is_one_line_and_leaves_no_store(tmp_path, scenes):
    boxes = random_proposals(np.random.default_rng(0), 200_000)
    child = os.fork()
    if child == 0:  # in its own process: the limit on the size of files cannot be taken back
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            write_store(tmp_path / "full", scenes, [Proposals(boxes)] * 5)
        except UserError as error:
            os._exit(0 if "boxes.npy" in str(error) and not list((tmp_path / "full").iterdir()) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    "boxes",
    [
        np.array([[0, 0, 4, np.nan]], np.float32),
        np.array([[0, 0, np.inf, 5]], np.float32),
        np.array([[4, 0, 4, 5]], np.float32),
        np.array([[0, 0, 4, 5]], np.float64),
        np.zeros((3, 5), np.float32),
    ],
)
def test_invalid_boxes_are_not_written(tmp_path, scenes, boxes):
    with pytest.raises(ValueError, match="scene0"):
        write_store(tmp_path / "store", scenes, [Proposals(boxes)] * 5)
    assert not (tmp_path / "store" / "proposals.json").exists()


def test_scores_of_some_images_only_are_refused(tmp_path, scenes, proposals):
    proposals[2] = Proposals(proposals[2].boxes, np.ones(1, np.float32))
    with pytest.raises(ValueError, match="scene2"):
        write_store(tmp_path / "store", scenes, proposals)


def test_an_image_without_an_entry_is_named_with_the_store_and_the_command(store):
    with pytest.raises(UserError, match=r"store.*'nowhere'.*afrcnn proposals DATASET"):
        store.boxes("nowhere")


def test_a_folder_without_proposals_is_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no proposals.*afrcnn proposals"):
        ProposalStore(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "no json", '{"format": 1}', '{"format": 2, "method": "x"}'])
def test_a_description_that_is_malformed_or_of_another_format_is_named(store, text):
    (store.folder / "proposals.json").write_text(text)
    with pytest.raises(UserError, match=r"proposals\.json"):
        ProposalStore(store.folder)


@pytest.mark.parametrize("name", ["boxes", "offsets", "ids", "fingerprints", "checksums"])
@pytest.mark.parametrize("size", [0, 5, 100, -1, None])
def test_a_truncated_or_missing_array_is_named(store, name, size):
    file = store.folder / f"{name}.npy"
    content = file.read_bytes()
    file.unlink()
    if size is not None:
        file.write_bytes(content[:size])
    with pytest.raises(UserError, match=f"{name}.npy"):
        ProposalStore(store.folder)


def test_a_pickled_array_is_refused_without_running_it(store, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    np.save(store.folder / "ids.npy", np.array([Trap()] * 5), allow_pickle=True)
    with pytest.raises(UserError, match=r"ids\.npy"):
        ProposalStore(store.folder)
    assert not (tmp_path / "ran").exists()


def test_a_flipped_bit_is_found_and_named_with_its_image(store):
    file = store.folder / "boxes.npy"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1  # in the last box, of scene3
    file.write_bytes(content)
    damaged = ProposalStore(store.folder)
    assert len(damaged.boxes("scene0")) == 7
    with pytest.raises(UserError, match=r"boxes\.npy: scene3"):
        damaged.boxes("scene3")


def test_arrays_of_another_store_are_refused(store, tmp_path, scenes, proposals):
    other = write_store(tmp_path / "other", scenes, proposals[3:4] * 5)
    (store.folder / "offsets.npy").write_bytes((other.folder / "offsets.npy").read_bytes())
    with pytest.raises(UserError, match=r"offsets\.npy"):
        ProposalStore(store.folder)


def test_random_reading_does_not_keep_the_file_in_memory(tmp_path):
    """64 MB are read over and over; what stays in memory is a fraction."""
    boxes = random_proposals(np.random.default_rng(0), 20_000)
    images = ((str(index), bytes(16), Proposals(boxes)) for index in range(200))
    store = ProposalStore.write(tmp_path / "store", images, method="same", parameters={})

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    store.boxes("0")
    before = resident()
    for image_id in np.random.default_rng(1).permutation(store.ids):
        store.boxes(str(image_id))
    assert resident() - before < 16


def test_the_default_folder_is_beside_the_dataset():
    assert default_folder("/data/VOC2007", "test", "deepmask") == Path("/data/VOC2007/proposals/test-deepmask")


def test_the_description_says_how_the_proposals_were_made(store):
    description = json.loads((store.folder / "proposals.json").read_text())
    assert description["format"] == 1
    assert description["method"] == "random"
    assert description["afrcnn"]
    assert (description["images"], description["proposals"], description["scores"]) == (5, 38, False)
