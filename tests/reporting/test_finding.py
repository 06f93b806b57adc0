"""What a report says first, and the numbers in it."""

import re

import numpy as np
import pytest

from afrcnn.evaluation.bootstrap import interval, resample
from afrcnn.evaluation.formats import read_coco_results
from afrcnn.reporting.finding import find
from afrcnn.reporting.methods import read_methods
from afrcnn.robustness.stress_results import Curve, LevelResults, StressResults
from afrcnn.robustness.stresses import Occlusion
from reference import plain_voc_ap
from tiny import build_reported_run


def plain_interval(*of_methods):
    """Write each image out as often as it is drawn, and take the AP of that; of two methods, the difference."""
    values = []
    dataset, targets = of_methods[0][0].test_split
    flagged = [target | {"difficult": target["labels"] < 0} for target in targets]
    for draw in resample(len(targets), 1000):
        images = np.repeat(np.arange(len(targets)), draw)
        means = []
        for runs in of_methods:
            aps = []
            for run in runs:
                detections = read_coco_results(run.detections_file("test"), dataset.ids, dataset.category_ids)
                drawn = [[of[image] for image in images] for of in (detections, flagged)]
                by_class = [row["11-point"] for row in plain_voc_ap(*drawn, dataset.classes).values()]
                aps.append(np.mean([ap for ap in by_class if not np.isnan(ap)]))
            means.append(np.mean(aps))
        values.append(means[0] - sum(means[1:]))
    return interval(values)


def test_a_lone_method_has_its_ap_and_the_interval_of_its_images(runs):
    (method,) = read_methods([runs["full-seed0"]])
    low, high = plain_interval([method.runs[0]])
    ap = method.runs[0].results.mean_ap["11-point"]
    expected = f"full-seed0 reaches an AP of {100 * ap:.1f} on {method.runs[0].dataset}"
    assert find([method]).sentence.replace("full reaches", "full-seed0 reaches") == (
        f"{expected} (95% interval {100 * low:.1f} to {100 * high:.1f})."
    )


def test_of_two_methods_it_says_the_difference_of_their_means_and_its_paired_interval(runs):
    methods = read_methods(list(runs.values()))
    low, high = plain_interval(methods[1].runs, methods[0].runs)
    finding = find(methods)
    means = [np.mean([run.results.mean_ap["11-point"] for run in method.runs]) for method in methods]
    assert f"{100 * abs(means[1] - means[0]):.1f} points below frcn" in finding.sentence
    numbers = re.search(r"95% interval ([^ ]+) to ([^ ,)]+)", finding.sentence).groups()
    shown = [float(number.replace("\N{MINUS SIGN}", "-")) for number in numbers]
    assert shown == pytest.approx([100 * low, 100 * high], abs=0.051)
    assert ("may be chance" in finding.sentence) == (low <= 0 <= high)
    assert "the mean of 2 runs" in finding.sentence


def test_the_best_of_the_others_is_compared(runs):
    methods = read_methods([runs["frcn-seed0"], runs["full-seed0"], runs["full-seed1"], runs["frcn-seed1"]])
    others = [methods[1], methods[0], methods[1]]
    assert find([methods[1], *others]).best is methods[0]


def stressed(name, run, clean, hidden, unit=Occlusion.unit):
    levels = (0.0, 0.1, 0.3, 0.5, 0.7)
    aps = (clean, clean, *hidden, 0.0)

    def level(at, ap):
        results = run.results.__class__(**{**vars(run.results), "mean_ap": {"11-point": ap, "area": ap}})
        return LevelResults(at, results, {}, None)

    curve = Curve("grey", unit, tuple(map(level, levels, aps)))
    made = build_reported_run(run.folder, run.recipe, run.results, StressResults(0, (curve,)))
    return type(read_methods([run.folder])[0])(name, (made,))


def test_what_is_kept_is_the_mean_ap_where_20_to_60_percent_are_hidden_over_the_clean_one(runs):
    run = read_methods([runs["frcn-seed0"]])[0].runs[0]
    one = find([stressed("one", run, 0.8, (0.6, 0.2))])
    assert one.stress == "grey"
    assert "and keeps 50% of it with 30 to 50% of every object hidden." in one.sentence
    both = find([stressed("one", run, 0.8, (0.6, 0.2)), stressed("two", run, 0.5, (0.5, 0.4))])
    assert "with 30 to 50% of every object hidden keeps 90% of it (one: 50%)." in both.sentence


def test_a_stress_that_hides_nothing_is_not_what_is_kept(runs):
    run = read_methods([runs["frcn-seed0"]])[0].runs[0]
    bent = find([stressed("one", run, 0.8, (0.6, 0.2), unit="degrees")])
    assert (bent.stress, "keeps" in bent.sentence) == ("", False)


def test_without_results_there_is_no_finding_and_without_images_no_interval(runs, tmp_path):
    (tmp_path / "recipe.yaml").write_bytes((runs["frcn-seed0"] / "recipe.yaml").read_bytes())
    assert find(read_methods([tmp_path])).sentence == ""
    gone = find(read_methods([runs["frcn-seed0"]], overrides=["--data.root", str(tmp_path / "nowhere")]))
    assert "interval" not in gone.sentence
    assert any(note.startswith("There is no interval: ") and "no such folder" in note for note in gone.notes)
