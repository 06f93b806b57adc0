"""The tables and curves of the experiment, from the detections that `experiment.py` left.

    python benchmarks/experiment_tables.py

Writes every run's numbers to benchmarks/experiment.csv, the curves to docs/results.svg, and the tables into
docs/results.md, between its marks. Of what is not finished it takes what there is.
"""

from __future__ import annotations

import csv
import os
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import t

from afrcnn.build import open_images
from afrcnn.data.target import DetectionDataset
from afrcnn.evaluation.bootstrap import interval
from afrcnn.evaluation.results import read_results
from afrcnn.evaluation.subsets import all_subsets
from afrcnn.evaluation.voc_ap import Metric
from afrcnn.experiment.differences import Difference, Scores, difference, draw_images, score_run
from afrcnn.experiment.measurement import LEVELS, is_done
from afrcnn.run import Run
from experiment import METHODS, RUNS, SETS, TRIALS

METRIC: Metric = "11-point"
SUBSETS = ("overlapped", "unoccluded")
LEVEL_NAMES = [f"{level:g}" for level in LEVELS]
THREE = ("fruit", "cards", "bccd")
TESTED = ("fruit", "cards", "bccd", "open_cards")
VALIDATED = ("fruit_validation", "cards_validation", "bccd_validation")

NAMES = {
    "baseline": "baseline",
    "random_dropout": "random dropout",
    "hard_dropout": "hard dropout",
    "fixed_asdn": "fixed ASDN",
    "asdn": "ASDN",
    "astn": "ASTN",
    "paper_full": "ASDN + ASTN, as in the paper",
    "jitter": "jitter of proposals",
    "full": "**full: occluding ASDN + ASTN**",
    "occluding_asdn": "occluding ASDN",
    "occluding_random": "occluding windows at random",
    "random_erasing": "random erasing",
    "cutout": "cut-out of objects",
    "copy_paste": "copy-paste of objects",
    "dropblock": "DropBlock",
    "ohem": "OHEM",
    "with_cutout": "full and cut-out together",
    "all_foreground": "full, every foreground RoI perturbed",
    "short_clean_end": "the same, clean end of 45 updates",
    "short_clean_end_all_background": "the same, background of any IoU below 0.5",
    "baseline_all_background": "baseline, background of any IoU below 0.5",
    "zero_windows": "full, zeros in the windows",
    "feature_cells": "full, scattered cells",
    "smaller_windows": "full, windows up to 40%",
    "mostly_clean": "full, one of four images adversarial",
    "mined": "full, and OHEM",
    "no_clean_end": "full, no clean end",
}

PARTS = {
    "windows that show features, and a clean end: windows at random - random dropout": (
        "occluding_random",
        "random_dropout",
    ),
    "a learned place: occluding ASDN - windows at random": ("occluding_asdn", "occluding_random"),
    "ASTN: full - occluding ASDN": ("full", "occluding_asdn"),
    "full - cut-out of objects": ("full", "cutout"),
    "full and cut-out together - cut-out": ("with_cutout", "cutout"),
}
"""What is compared besides the methods with the baseline: the one and the other, by the row's name."""


@dataclass(frozen=True)
class Measured:
    """One run: its APs in percent.

    Attributes:
        scores: clean, at each level, their mean, and of overlapped and unoccluded objects; on drawings, too.
        images: how many images the set has to test on.
        area: the other metric, clean.
        coco: COCO's AP, clean.
    """

    scores: Scores
    images: int
    area: float
    coco: float

    def __getitem__(self, what: str) -> float:
        return float(self.scores[what][0])


def main() -> None:
    runs: dict[str, dict[str, dict[int, Measured]]] = {name: load(name) for name in SETS}
    write_csv(Path("benchmarks/experiment.csv"), runs)
    draw(Path("docs/results.svg"), runs)
    document = Path("docs/results.md")
    text = document.read_text()
    for name, written in (
        ("tables", "\n\n".join([summary(runs), tables(runs, TESTED)])),
        ("trials", tables(runs, VALIDATED)),
    ):
        begin, end = f"<!-- {name}: written by benchmarks/experiment_tables.py -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{written}\n\n{end}{rest.split(end)[1]}"
    document.write_text(text)


def load(name: str) -> dict[str, dict[int, Measured]]:
    """Return the runs of a set by method and seed."""
    runs: dict[str, dict[int, Measured]] = defaultdict(dict)
    datasets: dict[str, DetectionDataset] = {}
    for folder in sorted((RUNS / "experiment" / name).glob("*-seed*")):
        method, _, seed = folder.name.rpartition("-seed")
        run = Run(folder)
        if not is_done(run) or method not in METHODS | TRIALS:
            continue
        recipe = run.recipe
        split = recipe.data.test_split
        dataset = datasets.setdefault(split, open_images(recipe, split))
        subsets = {subset: members for subset, members in all_subsets(dataset).items() if subset in SUBSETS}
        scores = score_run(run, dataset, draw_images(len(dataset), list(SETS).index(name)), subsets, METRIC)
        results = read_results(run.results_file)
        clean = 100 * results.mean_ap[METRIC]
        assert abs(clean - scores["clean"][0]) < 1e-6, f"{folder}: detections and results differ"
        area, coco = 100 * results.mean_ap["area"], 100 * results.coco["AP"]
        runs[method][int(seed)] = Measured(scores, len(dataset), area, coco)
    return {method: runs[method] for method in METHODS | TRIALS if runs[method]}


def gain(
    runs: Mapping[str, Mapping[str, Mapping[int, Measured]]],
    name: str,
    method: str,
    what: str,
    reference: str = "baseline",
) -> Difference | None:
    """Return a method's difference to another on a set, where there are runs of both."""
    methods = runs[name]
    if method == reference or not {method, reference} <= methods.keys():
        return None
    one, base = ({seed: run.scores for seed, run in methods[key].items()} for key in (method, reference))
    images = next(iter(methods[method].values())).images
    return difference(one, base, what, images, seed=(1, list(SETS).index(name)))


def tables(runs: Mapping[str, Mapping[str, Mapping[int, Measured]]], names: Sequence[str]) -> str:
    """Return a table each set, as Markdown, where there are runs."""
    sections = []
    for name, methods in ((name, runs[name]) for name in names if runs[name]):
        lines = [
            f"### {name.replace('_', ' ')}",
            "",
            "| method | seeds | clean | to baseline | overlapped | unoccluded | "
            + " | ".join(f"{level:.0%} occluded" for level in LEVELS)
            + " | mean occluded | to baseline |",
            "|---|" + "---:|" * (len(LEVELS) + 7),
        ]
        for method, seeds in methods.items():
            measured = list(seeds.values())
            cells = [
                NAMES[method],
                str(len(measured)),
                spread([one["clean"] for one in measured]),
                str(gain(runs, name, method, "clean") or ""),
                *(f"{statistics.mean(one[what] for one in measured):.1f}" for what in (*SUBSETS, *LEVEL_NAMES)),
                spread([one["mPC"] for one in measured]),
                str(gain(runs, name, method, "mPC") or ""),
            ]
            lines.append("| " + " | ".join(cells) + " |")
        sections.append("\n".join(lines))
    return "\n\n".join(sections)


def summary(runs: Mapping[str, Mapping[str, Mapping[int, Measured]]]) -> str:
    """Return two tables of differences in the mean over the three sets, and on the split of cards.

    The first has those of each method to the baseline, the second what each element of full gives, and full to a rival.
    """
    heads = "three sets, clean | three sets, occluded | unoccluded to occluded, clean |\n|---|---:|---:|---:|"
    lines = [f"| method, to the baseline of the same seed | {heads}"]
    lines += differences(runs, {NAMES[method]: (method, "baseline") for method in METHODS})
    lines += ["", f"| element, on the seeds that both have | {heads}"]
    return "\n".join(lines + differences(runs, PARTS))


def differences(
    runs: Mapping[str, Mapping[str, Mapping[int, Measured]]], pairs: Mapping[str, tuple[str, str]]
) -> list[str]:
    """Return a row for each pair of methods, by its name, with the differences of the one to the other."""
    lines = []
    for label, (method, reference) in pairs.items():
        cells = [label]
        for names, what in ((THREE, "clean"), (THREE, "mPC"), (("open_cards",), "clean")):
            gains = [gain(runs, name, method, what, reference) for name in names]
            known = [one for one in gains if one is not None]
            if len(known) < len(names):
                cells.append("")
                continue
            mean = statistics.mean(one.mean for one in known)
            low, high = interval(np.mean([one.drawn for one in known], axis=0))
            cells.append(f"{mean:+.1f} ({low:+.1f} to {high:+.1f})")
        if any(cells[1:]):
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def spread(values: Sequence[float]) -> str:
    """Return a mean with its 95% interval by Student's t over the seeds."""
    mean = statistics.mean(values)
    if len(values) < 3:
        return f"{mean:.1f}"
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.1f} ± {half:.1f}"


def write_csv(file: Path, runs: Mapping[str, Mapping[str, Mapping[int, Measured]]]) -> None:
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        heads = [f"occluded {level:g}" for level in LEVELS]
        writer.writerow(
            ["set", "method", "seed", "clean", *heads, "overlapped", "unoccluded", "clean, area", "clean, COCO AP"]
        )
        for name, methods in runs.items():
            for method, seeds in methods.items():
                for seed, one in sorted(seeds.items()):
                    numbers = [*(one[what] for what in ("clean", *LEVEL_NAMES, *SUBSETS)), one.area, one.coco]
                    writer.writerow([name, method, seed, *(f"{number:.2f}" for number in numbers)])


def draw(file: Path, runs: Mapping[str, Mapping[str, Mapping[int, Measured]]]) -> None:
    """Draw AP by level of occlusion, a panel each set."""
    shown = {
        "baseline": ("baseline", "0.35", "-"),
        "paper_full": ("ASDN + ASTN, paper", "tab:blue", "-"),
        "full": ("full", "tab:red", "-"),
        "cutout": ("cut-out", "tab:purple", ":"),
        "with_cutout": ("full and cut-out", "tab:green", "--"),
    }
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    axes = figure.subplots(1, len(TESTED), sharey=True)
    for axis, (name, methods) in zip(axes, ((name, runs[name]) for name in TESTED), strict=True):
        for method, (label, colour, style) in shown.items():
            if method in methods:
                curves = np.array([[one[what] for what in ("clean", *LEVEL_NAMES)] for one in methods[method].values()])
                x = [0, *(100 * level for level in LEVELS)]
                axis.plot(x, curves.mean(axis=0), style, color=colour, label=label, marker="o", markersize=3)
                axis.fill_between(x, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.15, linewidth=0)
        axis.set_title(name.replace("_", " "))
        axis.set_xlabel("% of each box occluded")
        axis.set_xticks([0, 20, 40, 60])
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("mAP (11-point), %")
    axes[0].set_ylim(0, 100)
    handles, labels = max((axis.get_legend_handles_labels() for axis in axes), key=lambda legend: len(legend[1]))
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
