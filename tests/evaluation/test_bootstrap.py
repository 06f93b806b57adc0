"""The bootstrap over images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from afrcnn.evaluation.bootstrap import interval, resample, resampled_ap
from afrcnn.evaluation.matching import match
from afrcnn.evaluation.voc_ap import Metric, voc_ap

CLASSES = ("cat", "dog", "owl")


def scene(rng: np.random.Generator, images: int) -> tuple[list[dict[str, torch.Tensor]], list[dict[str, torch.Tensor]]]:
    """Draw objects and detections, with misses, doubles, equal scores, empty images and difficult objects."""
    targets, detections = [], []
    for _ in range(images):
        corner = torch.from_numpy(rng.uniform(0, 100, (rng.integers(0, 5), 2)))
        boxes = torch.cat([corner, corner + torch.from_numpy(rng.uniform(10, 40, corner.shape))], dim=1)
        labels = torch.from_numpy(rng.integers(1, 4, len(boxes)))
        targets.append({"boxes": boxes, "labels": labels, "difficult": torch.from_numpy(rng.random(len(boxes)) < 0.2)})
        copies = torch.from_numpy(rng.integers(0, len(boxes), rng.integers(0, 7))) if len(boxes) else torch.arange(0)
        found = boxes[copies] + torch.from_numpy(rng.normal(0, 4, (len(copies), 4)))
        kinds = torch.where(torch.from_numpy(rng.random(len(copies)) < 0.8), labels[copies], torch.tensor(1))
        scores = torch.from_numpy(rng.choice(np.linspace(0.1, 1, 6), len(copies)))
        detections.append({"boxes": found, "labels": kinds, "scores": scores})
    return detections, targets


@pytest.mark.parametrize("metric", ["11-point", "area"])
def test_an_ap_on_a_drawing_is_that_of_a_split_with_each_image_as_often(metric: Metric) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        # Scores of all detections differ here: between equal ones, the order depends on the images' order.
        detections, targets = scene(rng, 12)
        for detection in detections:
            detection["scores"] = torch.from_numpy(rng.random(len(detection["scores"])))
        draws = resample(12, 20, seed)
        expected = []
        for draw in draws:
            chosen = np.repeat(np.arange(12), draw)
            matches = match([detections[i] for i in chosen], [targets[i] for i in chosen], CLASSES)
            expected.append(voc_ap(matches, metric).mean_ap)
        actual = resampled_ap(match(detections, targets, CLASSES), draws, metric)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12, err_msg=f"seed {seed}")


@pytest.mark.parametrize("metric", ["11-point", "area"])
def test_each_image_drawn_once_gives_the_ordinary_ap(metric: Metric) -> None:
    for seed in range(20):
        detections, targets = scene(np.random.default_rng(seed), 9)
        matches = match(detections, targets, CLASSES)
        once = resampled_ap(matches, np.ones((1, 9), dtype=np.int64), metric)
        assert once[0] == pytest.approx(voc_ap(matches, metric).mean_ap, abs=1e-12), seed


def test_a_drawing_without_objects_has_no_ap() -> None:
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    one = {"boxes": torch.tensor([[0.0, 0, 9, 9]]), "labels": torch.tensor([1])}
    aps = resampled_ap(match([nothing, nothing], [empty, one], CLASSES), np.array([[2, 0], [1, 1]]))
    assert np.isnan(aps[0])
    assert aps[1] == 0


def test_draws_are_as_many_images_as_there_are_and_all_are_as_likely() -> None:
    draws = resample(7, 20_000, seed=1)
    assert draws.shape == (20_000, 7)
    assert (draws.sum(axis=1) == 7).all()
    np.testing.assert_allclose(draws.mean(axis=0), 1, atol=0.03)
    np.testing.assert_allclose(draws.var(axis=0), 6 / 7, atol=0.05)  # of a binomial: n p (1 - p)


def test_the_same_seed_draws_the_same() -> None:
    assert (resample(5, 10, seed=3) == resample(5, 10, seed=3)).all()
    assert (resample(5, 10, seed=3) != resample(5, 10, seed=4)).any()


def test_an_interval_holds_its_fraction_of_the_values() -> None:
    assert interval(np.arange(1001), 0.9) == pytest.approx((50, 950))
    assert interval([1.0, np.nan, 3.0]) == pytest.approx((1.05, 2.95))
