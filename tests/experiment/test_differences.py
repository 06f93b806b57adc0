"""Differences between methods: a paired bootstrap over images and seeds, against plain loops."""

import numpy as np
import pytest

from afrcnn.evaluation.bootstrap import resample
from afrcnn.evaluation.formats import write_coco_results
from afrcnn.evaluation.matching import match
from afrcnn.evaluation.subsets import all_subsets
from afrcnn.evaluation.voc_ap import voc_ap
from afrcnn.experiment.comparison import ComparedMethod, Comparison
from afrcnn.experiment.differences import LEAST_IMAGES, difference, draw_images, score_run
from afrcnn.experiment.measurement import LEVELS, detections_file
from afrcnn.run import Run


def scores_of(gain, images=40, seed=0, name="mPC"):
    """Scores as if every image had an AP of its own, and the mean were that of the images drawn."""
    rng = np.random.default_rng(seed)
    of_images = 50 + rng.normal(gain, 5, images)
    return {name: draw_images(images) @ of_images / images}


def test_a_run_s_scores_are_its_aps_on_all_images_and_on_the_same_drawings_for_all_runs(
    run, recipe, dataset, detections, tmp_path
):
    measured = Run(tmp_path)
    measured.begin(run.recipe)
    fewer = [
        {name: values[: len(values) // (1 + number)] for name, values in of_image.items()}
        for number, of_image in enumerate(detections)
    ]
    for level, found in zip((0.0, *LEVELS), (detections, fewer, fewer, detections), strict=True):
        write_coco_results(detections_file(measured, level), found, dataset.ids, dataset.category_ids)
    members = all_subsets(dataset)
    draws = draw_images(len(dataset), seed=5)
    scores = score_run(measured, dataset, draws, {"unoccluded": members["unoccluded"]})
    targets = [dataset.target(index) for index in range(len(dataset))]
    assert scores.keys() == {"clean", "0.2", "0.4", "0.6", "mPC", "unoccluded"}
    np.testing.assert_array_equal(draws[1:], resample(len(dataset), len(draws) - 1, 5))
    for place in (0, 1, 2, 7):
        drawn = np.repeat(np.arange(len(dataset)), draws[place])
        for name, of_level in (("clean", detections), ("0.2", fewer), ("0.4", fewer), ("0.6", detections)):
            matches = match([of_level[i] for i in drawn], [targets[i] for i in drawn], dataset.classes)
            assert scores[name][place] == pytest.approx(100 * voc_ap(matches, "11-point").mean_ap, nan_ok=True)
    np.testing.assert_allclose(scores["mPC"], (scores["0.2"] + scores["0.4"] + scores["0.6"]) / 3)


def test_the_interval_is_that_of_drawn_seeds_on_drawn_images():
    method = {seed: scores_of(3, seed=seed) for seed in (0, 1, 4)}
    baseline = {seed: scores_of(0, seed=10 + seed) for seed in (0, 1, 2, 4)}
    known = difference(method, baseline, "mPC", 40, seed=7)
    expected = [method[seed]["mPC"][0] - baseline[seed]["mPC"][0] for seed in (0, 1, 4)]
    assert known.by_seed == pytest.approx(expected)
    assert known.mean == pytest.approx(np.mean(expected))
    rng = np.random.default_rng(7)
    chosen = rng.integers(3, size=(3, len(known.drawn)))
    for drawing in (0, 1, 500):
        seeds = [(0, 1, 4)[row] for row in chosen[:, drawing]]
        pairs = [method[seed]["mPC"][1 + drawing] - baseline[seed]["mPC"][1 + drawing] for seed in seeds]
        assert known.drawn[drawing] == pytest.approx(np.mean(pairs))
    low, high = known.interval
    assert np.mean((known.drawn >= low) & (known.drawn <= high)) == pytest.approx(0.95, abs=0.01)


def test_methods_that_no_seed_has_in_common_have_no_difference():
    assert difference({0: scores_of(0)}, {1: scores_of(0)}, "mPC", 40) is None


@pytest.mark.parametrize(
    ("gain", "images", "told"), [(8, 40, True), (-8, 40, True), (0, 40, False), (8, LEAST_IMAGES - 1, False)]
)
def test_a_difference_is_told_from_noise_where_its_interval_leaves_out_zero_and_images_are_enough(gain, images, told):
    method, baseline = {0: scores_of(gain, images, seed=1)}, {0: scores_of(0, images, seed=2)}
    known = difference(method, baseline, "mPC", images)
    low, high = known.interval
    assert (low > 0 or high < 0) == (gain != 0)
    assert known.is_told == told


def compared(gains, images=40):
    scores = {name: scores_of(gain, images, 3, "mPC") | scores_of(0, images, 4, "clean") for name, gain in gains}
    counts = {"clean": images, "mPC": images}
    (base, _), *_ = gains
    methods = []
    for name, of_run in scores.items():
        pairs = ({0: of_run}, {0: scores[base]})
        differences = {} if name == base else {of: difference(*pairs, of, images) for of in counts}
        methods.append(ComparedMethod(name, {0: of_run}, differences, {}))
    return Comparison(tuple(methods), counts, "photos")


def test_the_best_method_is_that_with_the_highest_mean_with_objects_hidden_and_one_sentence_says_by_how_much():
    comparison = compared([("baseline", 0), ("cutout", 6), ("worse", -3)])
    assert comparison.best.name == "cutout"
    sentence = comparison.finding()
    assert sentence.startswith("With 20% to 60% of every object hidden, cutout has 6.0 points more mAP than baseline (")
    assert (
        "95% interval +6.0 to +6.0), and where nothing is hidden +0.0 (+0.0 to +0.0), which cannot be told" in sentence
    )
    assert sentence.endswith(", on 40 test images and 1 seed.")


def test_a_best_method_that_loses_is_said_to_lose_and_few_images_tell_nothing():
    assert "worse has 3.0 points less mAP than baseline" in compared([("baseline", 0), ("worse", -3)]).finding()
    sentence = compared([("baseline", 0), ("cutout", 6)], images=6).finding()
    assert sentence.endswith("on 6 test images and 1 seed: too few images to tell anything from noise.")


def test_a_baseline_alone_has_its_ap_told():
    assert (
        compared([("baseline", 0)]).finding().startswith("With 20% to 60% of every object hidden, baseline has a mAP")
    )
