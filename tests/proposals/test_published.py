from __future__ import annotations

import json
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from afrcnn.commands.proposals import show
from afrcnn.core.errors import UserError
from afrcnn.proposals.dataset import WithProposals
from afrcnn.proposals.published import (
    _read_deepmask_json,
    _read_selective_search_mat,
    import_published,
    read_published,
)
from afrcnn.proposals.store import Proposals


def cells(values: list) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def write_mat(path, ids: list[str], boxes: list[np.ndarray]) -> None:
    """The layout of the published files: images is N x 1, boxes is 1 x N."""
    savemat(path, {"images": cells(ids).reshape(-1, 1), "boxes": cells(boxes).reshape(1, -1)})


@pytest.mark.parametrize("dtype", [np.float64, np.uint16, np.int32])
def test_matlab_boxes_become_half_open_and_zero_based(tmp_path, dtype):
    one = np.array([[1, 1, 375, 500], [10, 20, 30, 60]], dtype)  # y1 x1 y2 x2: a whole image of 500 x 375
    write_mat(tmp_path / "ss.mat", ["000005", "2008_000002"], [one, one[1:]])
    published = _read_selective_search_mat(tmp_path / "ss.mat")
    assert list(published) == ["000005", "2008_000002"]
    assert published["000005"].boxes.dtype == np.float32
    assert published["000005"].scores is None
    np.testing.assert_array_equal(published["000005"].boxes, [[0, 0, 500, 375], [19, 9, 60, 30]])
    np.testing.assert_array_equal(published["2008_000002"].boxes, [[19, 9, 60, 30]])


def test_matlab_images_without_boxes_have_none(tmp_path):
    write_mat(tmp_path / "ss.mat", ["a", "b"], [np.zeros((0, 0)), np.zeros((0, 4))])
    assert all(p.boxes.shape == (0, 4) for p in _read_selective_search_mat(tmp_path / "ss.mat").values())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"boxes": cells([np.ones((1, 4))] * 2)}, "images"),
        ({"images": cells(["a", "b"])}, "boxes"),
        ({"images": cells(["a", "b"]), "boxes": np.ones((2, 4))}, "boxes"),
        ({"images": cells(["a", "b", "c"]), "boxes": cells([np.ones((1, 4))] * 2)}, "3 images, but boxes of 2"),
        ({"images": cells(["a", "b"]), "boxes": cells([np.ones((1, 4)), np.ones((1, 5))])}, r"boxes\{2\}"),
        ({"images": cells(["a", 5.0]), "boxes": cells([np.ones((1, 4)), np.ones((2, 4))])}, r"images\{2\}"),
    ],
)
def test_a_matlab_file_of_another_layout_is_named_with_the_variable(tmp_path, content, message):
    savemat(tmp_path / "ss.mat", content)
    with pytest.raises(UserError, match=rf"ss\.mat.*{message}"):
        _read_selective_search_mat(tmp_path / "ss.mat")


@pytest.mark.parametrize("size", [0, 10, 127, 140, 200, -100, -5])
def test_a_truncated_matlab_file_is_named(tmp_path, size):
    path = tmp_path / "ss.mat"
    write_mat(path, ["a", "b"], [np.ones((3, 4)), np.ones((2, 4))])
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"ss\.mat"):
        _read_selective_search_mat(path)


def test_a_damaged_matlab_file_is_named_even_if_it_crashes_the_parser(tmp_path):
    path = tmp_path / "ss.mat"
    write_mat(path, ["a", "b"], [np.ones((3, 4)), np.ones((2, 4))])
    whole = path.read_bytes()
    for seed in (1, 15, 38):  # of these, 15 and 38 end SciPy 1.17 with a segmentation fault
        rng = np.random.default_rng(seed)
        noisy = bytearray(whole)
        for position in rng.integers(128, len(whole), 8):
            noisy[position] = rng.integers(256)
        path.write_bytes(noisy)
        try:
            _read_selective_search_mat(path)
        except UserError as error:
            assert "ss.mat" in str(error)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no\.mat.*missing"):
        _read_selective_search_mat(tmp_path / "no.mat")
    with pytest.raises(UserError, match=r"no\.json.*missing"):
        _read_deepmask_json([tmp_path / "no.json"])


def test_matlab_7_3_is_named_as_such(tmp_path):
    (tmp_path / "ss.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    with pytest.raises(UserError, match=r"7\.3.*-v7"):
        _read_selective_search_mat(tmp_path / "ss.mat")


def test_deepmask_files_are_merged_by_image_best_first(tmp_path):
    rng = np.random.default_rng(4)
    entries = [
        {
            "image_id": int(rng.integers(3)),
            "category_id": 1,
            "bbox": [float(v) for v in rng.uniform(1, 50, 4)],
            "score": float(rng.choice([0.25, 0.5, rng.random()])),
            "segmentation": {"size": [50, 50], "counts": "abc\\u0041[]{}"},
        }
        for _ in range(300)
    ]
    (tmp_path / "1.json").write_text(json.dumps(entries[:200], indent=1))
    (tmp_path / "2.json").write_text("  \n" + json.dumps(entries[200:]))
    published = _read_deepmask_json([tmp_path / "1.json", str(tmp_path / "2.json")])
    assert sorted(published) == ["0", "1", "2"]
    for image_id, proposals in published.items():
        own = sorted((e for e in entries if str(e["image_id"]) == image_id), key=lambda e: -e["score"])
        expected = [[e["bbox"][0], e["bbox"][1], e["bbox"][0] + e["bbox"][2], e["bbox"][1] + e["bbox"][3]] for e in own]
        assert proposals.boxes.dtype == proposals.scores.dtype == np.float32
        np.testing.assert_allclose(proposals.boxes, expected, rtol=1e-6)
        np.testing.assert_allclose(proposals.scores, [e["score"] for e in own], rtol=1e-6)


def test_the_memory_for_deepmask_is_that_of_the_boxes_not_of_the_file(tmp_path):
    entry = {"image_id": 7, "bbox": [1, 2, 3, 4], "score": 0.5, "segmentation": {"counts": "x" * 5000}}
    count = 2000
    (tmp_path / "big.json").write_text(json.dumps([entry] * count))  # 10 MB
    tracemalloc.start()
    published = _read_deepmask_json([tmp_path / "big.json"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(published["7"].boxes) == count
    assert peak < 2e6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"image_id": 1, "bbox": [1,2,3,4], "score": 1}, {"image_id": 2', "malformed JSON after 1 proposals"),
        ('[{"image_id": 1, "bbox": [1,2,3,4}]', "malformed JSON after 0 proposals"),
        ('[{"image_id": 1, "bbox": [1,2,3,NaN], "score": 1}]', "malformed JSON after 0 proposals"),
        ("", "not a JSON list"),
        ('{"image_id": 1}', "not a JSON list"),
        ("\x00\x01\x02", "not a JSON list"),
        ('[{"image_id": 1, "bbox": [1,2,3,4]}]', r"\[0\]: is not a proposal"),
        ('[{"image_id": 1, "bbox": [1,2,3,4], "score": 1}, 5]', r"\[1\]: is not a proposal"),
        ('[{"image_id": 1, "bbox": [1,2,3], "score": 1}]', r"\[0\]: is not a proposal"),
        ('[{"image_id": 1, "bbox": null, "score": 1}]', r"\[0\]: is not a proposal"),
        ('[{"image_id": 1, "bbox": [1,2,3,"a"], "score": 1}]', r"\[0\]: is not a proposal"),
    ],
)
def test_malformed_json_is_named_with_the_file_and_the_proposal(tmp_path, text, message):
    (tmp_path / "good.json").write_text('[{"image_id": 1, "bbox": [1,2,3,4], "score": 1}]')
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(UserError, match=rf"bad\.json.*{message}"):
        _read_deepmask_json([tmp_path / "good.json", tmp_path / "bad.json"])


def some(count: int, scores: bool = True) -> Proposals:
    rng = np.random.default_rng(count)
    corner = rng.uniform(0, 20, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 20, (count, 2))], axis=1).astype(np.float32)
    return Proposals(boxes, np.sort(rng.random(count, np.float32))[::-1].copy() if scores else None)


@pytest.mark.parametrize("scores", [True, False])
def test_published_proposals_are_stored_for_the_images_of_the_dataset(scenes, tmp_path, scores):
    published = {image_id: some(index, scores) for index, image_id in enumerate([*scenes.ids, "not in the split"])}
    store = import_published(scenes, tmp_path / "s", published, method="deepmask", source="a.json")
    assert store.ids == scenes.ids
    assert store.method == "deepmask"
    assert store.parameters["source"] == "a.json"
    for image_id in scenes.ids:
        np.testing.assert_array_equal(store.boxes(image_id), published[image_id].boxes)
        if scores:
            np.testing.assert_array_equal(store.scores(image_id), published[image_id].scores)
        else:
            assert store.scores(image_id) is None
    assert len(WithProposals(scenes, store)[4][1]["proposals"]) == 4


def test_images_that_lack_proposals_are_counted_and_may_be_allowed(scenes, tmp_path):
    published = {image_id: some(3) for image_id in scenes.ids[:3]}
    with pytest.raises(UserError, match=r"a\.json: has no proposals for 2 of 5 images, 'scene3' the first"):
        import_published(scenes, tmp_path / "s", published, method="deepmask", source="a.json")
    assert not (tmp_path / "s").exists()
    store = import_published(scenes, tmp_path / "s", published, method="deepmask", source="a.json", allow_missing=True)
    assert store.boxes("scene4").shape == (0, 4)
    assert store.scores("scene4").shape == (0,)
    assert store.parameters["missing"] == 2


def test_a_file_of_another_dataset_is_refused_even_if_missing_images_are_allowed(scenes, tmp_path):
    with pytest.raises(UserError, match="5 of 5 images"):
        import_published(scenes, tmp_path / "s", {"x": some(3)}, method="m", source="a.json", allow_missing=True)
    with pytest.raises(UserError, match="5 of 5 images"):
        import_published(scenes, tmp_path / "s", {}, method="m", source="a.json", allow_missing=True)


def test_boxes_just_over_the_border_are_clipped_and_those_without_area_left_out(scenes, tmp_path):
    height, width = scenes.image_size(2)
    published = {image_id: some(2) for image_id in scenes.ids}
    boxes = np.array([[-0.6, 3, 9, height + 0.9], [5, 5, 5, 9], [width, 0, width + 1, 9], [1, 2, 3, 4]], np.float32)
    published["scene2"] = Proposals(boxes, np.array([4, 3, 2, 1], np.float32))
    store = import_published(scenes, tmp_path / "s", published, method="m", source="a.json")
    np.testing.assert_array_equal(store.boxes("scene2"), [[0, 3, 9, height], [1, 2, 3, 4]])
    np.testing.assert_array_equal(store.scores("scene2"), [4, 1])


@pytest.mark.parametrize("box", [(-2, 0, 5, 5), (0, 0, 5, 500), (0, 0, np.nan, 5), (0, 0, np.inf, 5)])
def test_boxes_of_another_image_are_named_and_nothing_is_left(scenes, tmp_path, box):
    published = {image_id: some(2, scores=False) for image_id in scenes.ids}
    published["scene3"] = Proposals(np.array([box], np.float32))
    with pytest.raises(UserError, match=r"a\.mat: scene3: a proposal lies outside .*likely of other images"):
        import_published(scenes, tmp_path / "s", published, method="m", source="a.mat")
    assert not (tmp_path / "s").exists()


class Wide:
    """A ``DetectionDataset`` of two images of 100 x 40 pixels."""

    ids = ("a", "b")

    def __init__(self, root: Path) -> None:
        self.root = root
        for image_id in self.ids:
            self.image_path(self.ids.index(image_id)).write_text(image_id)

    def __len__(self) -> int:
        return 2

    def image_path(self, index: int) -> Path:
        return self.root / f"{self.ids[index]}.txt"

    def image_size(self, index: int) -> tuple[int, int]:
        return 40, 100


BOXES = [[61, 5, 90, 20], [3, 2, 100, 40]]
"""x1 y1 x2 y2, 1-based and inclusive."""


@pytest.mark.parametrize("columns", ["y1 x1 y2 x2", "x1 y1 x2 y2"])
def test_the_order_of_columns_in_a_mat_file_is_told_by_the_sizes_of_the_images(tmp_path, columns, capsys):
    order = [1, 0, 3, 2] if columns.startswith("y") else [0, 1, 2, 3]
    write_mat(tmp_path / "ss.mat", list(Wide.ids), [np.array(BOXES, np.float64)[:, order]] * 2)
    _, published = read_published([tmp_path / "ss.mat"])
    store = import_published(Wide(tmp_path), tmp_path / "s", published, method="m", source="ss.mat")
    np.testing.assert_array_equal(store.boxes("a"), [[60, 4, 90, 20], [2, 1, 100, 40]])
    assert store.parameters.get("columns", "y1 x1 y2 x2") == columns
    show({"test": (store, None)})
    assert ("columns of test: x1 y1 x2 y2" in capsys.readouterr().out) == columns.startswith("x")


@pytest.mark.parametrize("columns", ["x y width height", "y x height width", "x1 y1 x2 y2"])
def test_the_order_of_numbers_in_a_deepmask_file_is_told_likewise(tmp_path, columns):
    x, y, width, height = 60, 4, 30, 16
    box = {"x": [x, y, width, height], "y": [y, x, height, width], "x1": [x, y, x + width, y + height]}
    entries = [{"image_id": id_, "bbox": box[columns.split()[0]], "score": 0.5} for id_ in Wide.ids]
    (tmp_path / "a.json").write_text(json.dumps(entries))
    _, published = read_published([tmp_path / "a.json"])
    store = import_published(Wide(tmp_path), tmp_path / "s", published, method="m", source="a.json")
    assert store.boxes("b").tolist() == [[60, 4, 90, 20]]
    assert store.parameters.get("columns", "x y width height") == columns


def test_an_order_that_is_not_the_same_for_all_images_is_refused_with_the_likely_cause(tmp_path):
    boxes = np.array(BOXES, np.float64)
    write_mat(tmp_path / "ss.mat", list(Wide.ids), [boxes, boxes[:, [1, 0, 3, 2]]])
    _, published = read_published([tmp_path / "ss.mat"])
    with pytest.raises(
        UserError, match=r"ss\.mat: a: .* in 1 of 2 images where the order is y1 x1 y2 x2, 1 where it is"
    ):
        import_published(Wide(tmp_path), tmp_path / "s", published, method="m", source="ss.mat")


def test_an_order_that_may_be_one_of_two_is_not_guessed(tmp_path):
    # Read as x y width height it reaches over the border; as y x height width and as corners it does not.
    entries = [{"image_id": id_, "bbox": [10, 15, 20, 30], "score": 0.5} for id_ in Wide.ids]
    (tmp_path / "a.json").write_text(json.dumps(entries))
    _, published = read_published([tmp_path / "a.json"])
    with pytest.raises(UserError, match="it may be y x height width or x1 y1 x2 y2; write the boxes as x y width"):
        import_published(Wide(tmp_path), tmp_path / "s", published, method="m", source="a.json")


def test_a_relative_path_is_read_from_where_the_caller_is_now(tmp_path, monkeypatch):
    for name, count in (("first", 2), ("second", 3)):
        folder = tmp_path / name
        folder.mkdir()
        write_mat(folder / "boxes.mat", ["a"], [np.tile([1.0, 1.0, 9.0, 9.0], (count, 1))])
        monkeypatch.chdir(folder)
        assert len(_read_selective_search_mat("boxes.mat")["a"].boxes) == count


def test_without_scipy_a_mat_file_is_refused_with_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "boxes.mat").touch()
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(UserError, match=r"needs SciPy.*afrcnn\[matlab\]"):
        read_published([tmp_path / "boxes.mat"])
