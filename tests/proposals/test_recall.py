from __future__ import annotations

import numpy as np
import pytest
import torch

from afrcnn.proposals.recall import recall
from afrcnn.proposals.store import Proposals, ProposalStore

IOUS, COUNTS = (0.3, 0.5, 0.7, 1.0), (1, 3, 10, 1000)


def overlap(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def loop(scenes, proposals, classes: set[int]) -> np.ndarray:
    """The fraction of objects of some classes that is found, by its definition."""
    table = np.zeros((len(IOUS), len(COUNTS)))
    objects = 0
    for index in range(len(scenes)):
        target = scenes.target(index)
        for number, box in enumerate(target["boxes"].tolist()):
            skipped = any(flag in target and target[flag][number] for flag in ("difficult", "iscrowd"))
            if int(target["labels"][number]) not in classes or skipped:
                continue
            objects += 1
            for i, iou in enumerate(IOUS):
                for c, count in enumerate(COUNTS):
                    table[i, c] += any(overlap(box, p) >= iou for p in proposals[index].boxes[:count].tolist())
    return table / objects if objects else table * np.nan


def store_of(tmp_path, scenes, proposals) -> ProposalStore:
    images = [(image_id, bytes(16), proposals[index]) for index, image_id in enumerate(scenes.ids)]
    return ProposalStore.write(tmp_path / "store", images, method="m", parameters={})


@pytest.mark.parametrize("flag", [None, "difficult", "iscrowd"])
def test_recall_is_that_of_a_plain_loop(scenes, tmp_path, flag):
    rng = np.random.default_rng(0)
    proposals = []
    for index, count in enumerate((40, 0, 2, 30, 7)):
        boxes = scenes.target(index)["boxes"].numpy()
        if flag:
            scenes.target(index)[flag] = torch.tensor([False, bool(index % 2)])
        noisy = boxes[rng.integers(2, size=count)] + rng.integers(-4, 5, (count, 4))  # whole pixels: exact ties
        proposals.append(Proposals(np.maximum(noisy, [0, 0, 35, 35]).astype(np.float32)))
    results = recall(scenes, store_of(tmp_path, scenes, proposals), IOUS, COUNTS)
    np.testing.assert_allclose(results.overall, loop(scenes, proposals, {1, 2}), atol=1e-12)
    np.testing.assert_allclose(results.by_class[0], loop(scenes, proposals, {1}), atol=1e-12)
    np.testing.assert_allclose(results.by_class[1], loop(scenes, proposals, {2}), atol=1e-12)
    assert results.classes == scenes.classes
    assert results.objects.tolist() == [5, 3 if flag else 5]
    assert results.proposals == 79 / 5


def test_an_iou_that_is_just_reached_counts(scenes, tmp_path):
    for index in range(5):
        scenes.target(index)["boxes"][:] = torch.tensor([0.0, 0, 20, 20])
    half = Proposals(np.array([[0, 0, 20, 10]], np.float32))
    results = recall(scenes, store_of(tmp_path, scenes, [half] * 5), (0.5, 0.5000001), (1,))
    assert results.overall.tolist() == [[1.0], [0.0]]


def test_a_class_without_objects_has_no_recall(scenes, tmp_path):
    for index in range(5):
        scenes.target(index)["labels"][:] = 1
    results = recall(scenes, store_of(tmp_path, scenes, [Proposals(np.empty((0, 4), np.float32))] * 5))
    assert np.isnan(results.by_class[1]).all()
    assert (results.by_class[0] == 0).all()
    assert (results.overall == 0).all()


def test_selective_search_finds_the_cards_of_real_images(shared, tmp_path):
    """Unoccluded cards: a recall below nine in ten means swapped channels or axes."""
    from afrcnn.data.layouts import open_dataset
    from afrcnn.proposals.selective_search import SelectiveSearch

    folder = shared / "data" / "cards"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    dataset = open_dataset(folder, "test")
    best = []
    for index in range(0, 12, 4):
        image, target = dataset[index]
        boxes = SelectiveSearch()(image.permute(1, 2, 0).numpy())
        best += [max(overlap(box, p) for p in boxes.tolist()) for box in target["boxes"].tolist()]
    assert len(best) >= 3
    assert np.mean(np.array(best) >= 0.5) >= 0.9
