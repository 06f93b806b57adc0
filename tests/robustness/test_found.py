"""Found and missed: against a plain loop over boxes, and in the order that is stated."""

import numpy as np
import pytest
import torch

from afrcnn.data.layouts import open_dataset
from afrcnn.robustness.found import FoundObjects, _scores, by_difference, count_found, find_objects


def iou(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    inside = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return inside / (sum(areas) - inside)


@pytest.mark.parametrize("seed", range(20))
def test_an_objects_score_is_the_best_of_the_detections_that_overlap_it_most(seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 30, (2, 8, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 30, (2, 8, 2))], axis=2)
    objects, found = boxes[0, : rng.integers(0, 5)], boxes[1]
    found[:4] = boxes[0, :4] + rng.normal(0, 1, (4, 4))  # some fit well
    labels, found_labels = rng.integers(1, 3, len(objects)), rng.integers(1, 3, 8)
    scores = rng.uniform(size=8).astype(np.float32)
    expected = np.zeros(len(objects))
    for box, label, score in zip(found, found_labels, scores, strict=True):
        overlaps = [iou(box, other) if label == kind else 0 for other, kind in zip(objects, labels, strict=True)]
        if overlaps and max(overlaps) > 0.5:
            nearest = int(np.argmax(overlaps))
            expected[nearest] = max(expected[nearest], score)
    detection = {"boxes": torch.tensor(found), "labels": torch.tensor(found_labels), "scores": torch.tensor(scores)}
    assert np.allclose(_scores(detection, objects, labels), expected)


def made(index, *counts):
    """Objects of an image, of which each of some detectors finds so many of five."""
    scores = np.array([[[1.0] * count + [0.0] * (5 - count)] for count in counts])
    return FoundObjects(index, np.zeros((5, 4)), np.ones(5, np.int64), scores, 0.5)


def test_those_in_which_the_last_differs_most_from_the_first_come_first():
    objects = [made(0, 1, 1), made(1, 4, 1), made(2, 0, 3), made(3, 2, 1), made(4, 0, 5)]
    assert [image.image for image in by_difference(objects, ["e", "d", "c", "b", "a"])] == [4, 2, 1, 3, 0]
    assert [image.difference for image in objects] == [0, -3, 3, -1, 5]
    assert count_found(objects).tolist() == [[7], [11]]


def test_every_detector_sees_the_same_pixels_and_hides_more_at_higher_levels(rectangles):
    dataset, seen = open_dataset(rectangles, "test"), []

    def detect(images):
        seen.append([images[index][0] for index in range(len(images))])
        return [
            {
                "boxes": target["boxes"].as_subclass(torch.Tensor),
                "labels": target["labels"],
                "scores": torch.full((len(target["boxes"]),), 0.4 if index % 3 == 2 else 0.9),
            }
            for index, target in enumerate(images[index][1] for index in range(len(images)))
        ]

    objects, images = find_objects([detect, detect], dataset, [2, 0], levels=(0, 0.3, 0.6))
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))
    assert [image.image for image in objects] == [2, 0]
    for number, image in enumerate(objects):
        assert torch.equal(images[3 * number][0], dataset[image.image][0])
        changed = [(images[3 * number][0] != images[3 * number + level][0]).sum() for level in (1, 2)]
        assert 0 < changed[0] < changed[1]
        assert image.is_found[:, :2].all()
        assert not image.is_found[:, 2].any()  # 0.4 is below the score that finds
