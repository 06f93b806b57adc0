"""The stress test from images to curves."""

import numpy as np
import pytest
import torch

from afrcnn.core.errors import UserError
from afrcnn.data.layouts import open_dataset
from afrcnn.evaluation.matching import overlaps
from afrcnn.proposals.dataset import WithProposals
from afrcnn.proposals.store import ProposalStore, default_folder
from afrcnn.robustness.benchmark import StressedImages, _true_class_scores, stress_test
from afrcnn.robustness.occluders import Pieces
from afrcnn.robustness.occlusion import lay_occluders
from afrcnn.robustness.stresses import Bending, Change, Occlusion

STRESSES = [
    Occlusion("grey"),
    Occlusion("noise"),
    Occlusion("photo"),
    Occlusion("grey", "worst", levels=(0.3,)),
    Bending("rotation"),
    Bending("elastic"),
]


@pytest.fixture(scope="module")
def dataset(rectangles):
    return open_dataset(rectangles, "test")


class Recorder:
    """A detector that finds nothing, and remembers what it saw."""

    def __init__(self):
        self.images = []

    def __call__(self, images):
        self.images += images
        nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
        return [nothing for _ in images]


def seen(dataset, stresses, **arguments):
    recorder = Recorder()
    stress_test(recorder, dataset, stresses, **arguments)
    return recorder.images


@pytest.mark.parametrize("stress", STRESSES, ids=lambda stress: stress.name)
def test_a_detector_that_is_given_the_ground_truth_keeps_ap_1_at_every_level(dataset, stress):
    def truth(images):
        (image,) = images
        # The images differ in their noise and rectangles; the nearest image is the one that was changed.
        nearest = min(range(3), key=lambda index: float((originals[index] - image).abs().mean()))
        target = dataset.target(nearest)
        return [{"boxes": target["boxes"], "labels": target["labels"], "scores": torch.ones(len(target["labels"]))}]

    originals = [dataset[index][0].float() / 255 for index in range(3)]
    (curve,) = stress_test(truth, dataset, [stress], workers=0).curves
    assert [each.level for each in curve.levels] == sorted({0.0, *stress.levels})
    for each in curve.levels:
        assert each.results.mean_ap == {"11-point": 1.0, "area": 1.0, "COCO": pytest.approx(1.0)}
        assert each.mean_recall == 1.0
    assert curve.mpc() == curve.relative_performance() == 1.0


def test_objects_are_occluded_by_the_asked_fraction_in_the_very_pixels(dataset):
    stress = Occlusion("grey")
    images = seen(dataset, [stress], workers=0)
    levels = len(stress.levels)
    for index in range(3):
        ((x1, y1, x2, y2),) = dataset.target(index)["boxes"].int().tolist()
        clean = images[index * levels]
        assert torch.equal((255 * clean).round().byte(), dataset[index][0].as_subclass(torch.Tensor))
        for level, image in zip(stress.levels, images[index * levels :], strict=False):
            grey = ((255 * image).round() == 128).all(dim=0)
            assert grey[y1:y2, x1:x2].float().mean() == pytest.approx(level, abs=0.01)
            assert torch.equal(image[:, ~grey], clean[:, ~grey])
            assert int(grey.sum()) == int(grey[y1:y2, x1:x2].sum())


@pytest.mark.parametrize("stress", STRESSES, ids=lambda stress: stress.name)
def test_the_same_seed_gives_the_same_pixels_in_any_process_and_another_seed_others(dataset, stress):
    here, workers, other = (
        seen(dataset, [stress], workers=workers, seed=seed) for workers, seed in ((0, 3), (2, 3), (0, 4))
    )
    assert all(torch.equal(one, same) for one, same in zip(here, workers, strict=True))
    if getattr(stress, "placement", "random") == "random":
        assert not all(torch.equal(one, same) for one, same in zip(here, other, strict=True))


def test_pixels_do_not_depend_on_what_else_is_tested(dataset):
    alone = seen(dataset, [Occlusion("noise", levels=(0.3,))], workers=0)
    among = seen(dataset, [Bending(), Occlusion("noise", levels=(0.1, 0.3, 0.5))], workers=0)
    steps = 1 + 4 + 3
    for index in range(3):
        assert torch.equal(alone[2 * index + 1], among[steps * index + 6])


def test_places_do_not_depend_on_the_occluder(dataset):
    grey, noise = (seen(dataset, [Occlusion(kind, levels=(0.4,))], workers=0) for kind in ("grey", "noise"))
    clean = seen(dataset, [Occlusion("grey", levels=(0.4,))], workers=0)[::2]
    for index in range(3):
        hidden = (grey[2 * index + 1] != clean[index]).any(dim=0)
        assert torch.equal(hidden, (noise[2 * index + 1] != clean[index]).any(dim=0))


@pytest.mark.parametrize("stress", STRESSES, ids=lambda stress: stress.name)
def test_targets_and_proposals_stay_those_of_the_clean_images(rectangles, dataset, stress):
    proposed = WithProposals(dataset, ProposalStore(default_folder(rectangles, "test", "fast")))
    level = max(stress.levels)
    images = StressedImages(proposed, Pieces(dataset), [Change(1, stress, level)], 0)
    image, target = images[0]
    clean, expected = proposed[1]
    assert (image.shape, image.dtype) == (clean.shape, torch.uint8)
    assert not torch.equal(image, clean)
    for name in ("boxes", "labels", "proposals"):
        assert torch.equal(target[name], expected[name])


def test_worst_places_are_those_of_the_grid_with_the_lowest_score(dataset):
    weights = torch.rand(64, 64, generator=torch.Generator().manual_seed(0)) ** 4
    boxes = [dataset.target(index)["boxes"] for index in range(3)]
    originals = [dataset[index][0].float() / 255 for index in range(3)]

    def score(image):
        """How much of the image is as it was, with some places counting more."""
        differences = [(image - clean).abs().sum(dim=0) for clean in originals]
        nearest = min(range(3), key=lambda index: float(differences[index].mean()))
        return nearest, float(((differences[nearest] < 1e-6) * weights).mean())

    def detector(images):
        nearest, value = score(images[0])
        label = dataset.target(nearest)["labels"]
        return [{"boxes": boxes[nearest], "labels": label, "scores": torch.tensor([value])}]

    class Last(Recorder):
        def __call__(self, images):
            super().__call__(images)
            return detector(images)

    recorder, stress = Last(), Occlusion("grey", "worst", levels=(0.3,))
    stress_test(recorder, dataset, [stress], workers=0)
    finals = recorder.images[-5::2]  # clean and hidden take turns, after all candidates
    for index, image in enumerate(finals):
        candidates = []
        for anchor in [(x, y) for x in (0, 0.5, 1) for y in (0, 0.5, 1)]:
            covered = lay_occluders(boxes[index].double().numpy(), np.array([anchor]), (64, 64), 0.3) >= 0
            hidden = originals[index].clone()
            hidden[:, covered] = 128 / 255
            candidates.append(score(hidden)[1])
        assert score(image) == (index, pytest.approx(min(candidates), abs=1e-6))
        assert max(candidates) > min(candidates)


def test_the_detections_of_a_level_are_matched_once(dataset, monkeypatch):
    calls = []
    monkeypatch.setattr("afrcnn.evaluation.matching.overlaps", lambda *sides: calls.append(1) or overlaps(*sides))
    stress_test(Recorder(), dataset, [Occlusion("grey", levels=(0.2, 0.4)), Bending(levels=(30.0,))], workers=0)
    assert len(calls) == 1 + 2 + 1


def test_the_true_class_s_score_is_that_of_the_best_detection_of_the_class_on_the_object():
    boxes = np.array([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    detection = {
        "boxes": torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 40, 29], [60, 60, 70, 70]]),
        "labels": torch.tensor([1, 1, 2, 2, 1]),
        "scores": torch.tensor([0.5, 0.4, 0.9, 0.8, 0.95]),
    }
    assert _true_class_scores(detection, boxes, np.array([1, 2])) == pytest.approx([0.5, 0.0])
    nothing = {name: value[:0] for name, value in detection.items()}
    assert _true_class_scores(nothing, boxes, np.array([1, 2])).tolist() == [0.0, 0.0]


def test_crowds_are_not_touched(dataset):
    stress, pixels, target = Occlusion("grey"), dataset[0][0].as_subclass(torch.Tensor), dataset.target(0)
    change, crowd = Change(0, stress, 0.5), target | {"iscrowd": torch.tensor([True])}
    assert torch.equal(stress.apply(pixels, crowd, change, Pieces(dataset), 0), pixels)
    assert not torch.equal(stress.apply(pixels, target, change, Pieces(dataset), 0), pixels)
    assert torch.equal(Bending().apply(pixels, crowd, Change(0, Bending(), 30), Pieces(dataset), 0), pixels)


def test_what_was_occluded_is_measured_and_told(dataset):
    results = stress_test(Recorder(), dataset, [Occlusion("photo"), Bending("rotation")], workers=0)
    occlusion, bending = results.curves
    assert occlusion.levels[0].occluded is None
    for each in occlusion.levels[1:]:
        assert each.occluded.lowest <= each.occluded.mean <= each.occluded.highest
        assert each.occluded.lowest == pytest.approx(each.level, abs=0.01)
        assert each.occluded.highest == pytest.approx(each.level, abs=0.01)
    assert all(each.occluded is None for each in bending.levels)


# Mistakes.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Occlusion("black"), "choose one of grey, noise, photo"),
        (lambda: Occlusion(placement="best"), "choose one of random, worst"),
        (lambda: Occlusion(levels=(0.2, 1.0)), "levels: 1 is out of range"),
        (lambda: Occlusion(levels=(-0.1, 0.5)), "out of range"),
        (lambda: Occlusion(levels=(float("nan"),)), "out of range"),
        (lambda: Occlusion(levels=()), "levels"),
        (lambda: Occlusion(levels=(0.0,)), "no level above 0"),
        (lambda: Occlusion(grid=0), "grid: 0 is out of range"),
        (lambda: Bending("twist"), "choose one of rotation, elastic"),
        (lambda: Bending("elastic", (0.3,)), r"from 0 to 0\.25"),
        (lambda: Bending("rotation", (181.0,)), "from 0 to 180"),
    ],
)
def test_settings_out_of_range_are_named_with_what_to_choose(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_the_largest_settings_are_accepted():
    assert Bending("rotation", (180.0,)).levels == (180.0,)
    assert Bending("elastic", (0.25,)).levels == (0.25,)


def test_a_negative_seed_is_refused(dataset):
    with pytest.raises(UserError, match="seed: -1 is out of range"):
        stress_test(Recorder(), dataset, seed=-1)
