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
import numpy.typing as npt
from matplotlib.figure import Figure
from scipy.stats import t

from afrcnn.build import open_images
from afrcnn.data.target import DetectionDataset
from afrcnn.evaluation.bootstrap import interval, resample, resampled_ap
from afrcnn.evaluation.formats import read_coco_results
from afrcnn.evaluation.matching import match
from afrcnn.evaluation.results import read_results
from afrcnn.run import Run
from experiment import LEVELS, METHODS, RUNS, SETS, TRIALS, detections_file, is_done

DRAWINGS = 1000
METRIC = "11-point"
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

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """One run: its APs in percent.

    Attributes:
        clean: on the images as they are.
        occluded: the mean over the levels of the stress test.
        levels: at each.
        overlapped: on objects that others overlap.
        unoccluded: on the rest.
        area: the other metric, clean.
        coco: COCO's AP, clean.
        clean_drawn: on each drawing of the images.
        occluded_drawn: the mean over the levels, on each drawing.
    """

    clean: float
    occluded: float
    levels: tuple[float, ...]
    overlapped: float
    unoccluded: float
    area: float
    coco: float
    clean_drawn: Floats
    occluded_drawn: Floats


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
        if not is_done(folder) or method not in METHODS | TRIALS:
            continue
        run = Run(folder)
        recipe = run.recipe
        split = recipe.data.test_split
        dataset = datasets.setdefault(split, open_images(recipe, split))
        clean = drawn(detections_file(run, 0), dataset, seed=list(SETS).index(name))
        occluded = [detections_file(run, level) for level in LEVELS]
        levels = np.stack([drawn(file, dataset, seed=list(SETS).index(name)) for file in occluded])
        results = read_results(run.results_file)
        assert abs(100 * results.mean_ap[METRIC] - clean[0]) < 1e-6, f"{folder}: detections and results differ"
        runs[method][int(seed)] = Measured(
            clean=clean[0],
            occluded=levels[:, 0].mean(),
            levels=tuple(levels[:, 0]),
            overlapped=100 * results.subsets["overlapped"].mean_ap[METRIC],
            unoccluded=100 * results.subsets["unoccluded"].mean_ap[METRIC],
            area=100 * results.mean_ap["area"],
            coco=100 * results.coco["AP"],
            clean_drawn=clean[1:],
            occluded_drawn=levels[:, 1:].mean(axis=0),
        )
    return {method: runs[method] for method in METHODS | TRIALS if runs[method]}


def drawn(file: Path, dataset: DetectionDataset, seed: int) -> Floats:
    """Return the mean AP in percent of a file of detections on all images, and then on each drawing of them."""
    detections = read_coco_results(file, dataset.ids, dataset.category_ids)
    targets = [dataset.target(index) for index in range(len(dataset))]
    draws = np.concatenate([np.ones((1, len(targets)), dtype=np.int64), resample(len(targets), DRAWINGS, seed)])
    return 100 * resampled_ap(match(detections, targets, dataset.classes), draws, METRIC)


def gain(
    runs: Mapping[str, Mapping[str, Mapping[int, Measured]]],
    name: str,
    method: str,
    what: str,
    reference: str = "baseline",
) -> tuple[list[float], Floats] | None:
    """Return a method's differences to another, seed by seed, and their mean on drawings of seeds and images."""
    methods = runs[name]
    if method == reference or not {method, reference} <= methods.keys():
        return None
    seeds = sorted(methods[method].keys() & methods[reference].keys())
    if not seeds:
        return None
    pairs = [(methods[method][seed], methods[reference][seed]) for seed in seeds]
    differences = [getattr(one, what) - getattr(base, what) for one, base in pairs]
    drawn = np.stack([getattr(one, f"{what}_drawn") - getattr(base, f"{what}_drawn") for one, base in pairs])
    chosen = np.random.default_rng((1, list(SETS).index(name))).integers(len(seeds), size=drawn.shape)
    return differences, np.take_along_axis(drawn, chosen, axis=0).mean(axis=0)


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
                spread([one.clean for one in measured]),
                difference(gain(runs, name, method, "clean")),
                f"{statistics.mean(one.overlapped for one in measured):.1f}",
                f"{statistics.mean(one.unoccluded for one in measured):.1f}",
                *(f"{statistics.mean(one.levels[k] for one in measured):.1f}" for k in range(len(LEVELS))),
                spread([one.occluded for one in measured]),
                difference(gain(runs, name, method, "occluded")),
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
        for names, what in ((THREE, "clean"), (THREE, "occluded"), (("open_cards",), "clean")):
            gains = [gain(runs, name, method, what, reference) for name in names]
            known = [one for one in gains if one is not None]
            if len(known) < len(names):
                cells.append("")
                continue
            mean = statistics.mean(statistics.mean(differences) for differences, _ in known)
            low, high = interval(np.mean([drawn for _, drawn in known], axis=0))
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


def difference(gained: tuple[list[float], Floats] | None) -> str:
    if gained is None:
        return ""
    differences, drawn = gained
    low, high = interval(drawn)
    return f"{statistics.mean(differences):+.1f} ({low:+.1f} to {high:+.1f})"


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
                    numbers = [one.clean, *one.levels, one.overlapped, one.unoccluded, one.area, one.coco]
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
                curves = np.array([(one.clean, *one.levels) for one in methods[method].values()])
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
