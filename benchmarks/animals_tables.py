"""The tables and the figure of the comparison on VOC photographs, from the detections that `animals.py` left.

    python benchmarks/animals_tables.py

Writes every run's numbers to benchmarks/animals.csv, the figure to docs/animals.svg, and the tables into
docs/animals.md, between its marks. Of what is not finished it takes what there is.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from afrcnn.build import open_images
from afrcnn.data.target import DetectionDataset
from afrcnn.evaluation.bootstrap import resampled_ap
from afrcnn.evaluation.coco_ap import evaluate_coco
from afrcnn.evaluation.formats import Detection, read_coco_results
from afrcnn.evaluation.matching import Matches, match
from afrcnn.evaluation.subsets import all_subsets, subset_ap
from afrcnn.experiment.differences import Difference, difference, draw_images
from afrcnn.experiment.measurement import LEVELS
from afrcnn.run import Run
from animals import METHODS, ROOT, RUNS, detections_file, recipe_of

METRIC = "11-point"
BEGINS = "first"
"""The detector that all methods of a seed begin with."""

Floats = npt.NDArray[np.float64]
Measured = dict[str, Floats]
"""By what is measured, mAP in percent: on all photographs, and then on each drawing of them."""

NAMES = {
    "first": "the detector that all begin with",
    "baseline": "FRCN: trained on without an adversary",
    "jitter": "jitter of proposals",
    "random_dropout": "random dropout",
    "hard_dropout": "hard dropout",
    "fixed_asdn": "fixed ASDN",
    "asdn": "ASDN",
    "astn": "ASTN",
    "paper_full": "**ASDN + ASTN, the paper's full**",
    "occluding": "occluding windows, ASTN",
    "cutout": "cut-out of objects",
    "both": "occluding and cut-out",
    "ohem": "OHEM",
    "background_too": "the paper's full, background hidden, too",
    "copy_paste": "copy-paste of objects",
    "truncated": "cut-out from a side on, boxes of what is seen",
    "crop": "crops of photographs",
}


def main() -> None:
    table = {part: measure(part) for part in ("val", "test")}
    write_csv(Path("benchmarks/animals.csv"), table)
    document = Path("docs/animals.md")
    text = document.read_text()
    written = {
        "test": rows(table["test"], ("all", "hidden", "visible", "overlapped", "unoccluded")),
        "metrics": rows(table["test"], ("all", "area", "COCO AP50"), intervals=False),
        "stress": rows(table["test"], tuple(f"{level:.0%} occluded" for level in LEVELS)),
        "val": rows(table["val"], ("all", "hidden", "visible")),
        "measured": learned(),
    }
    for name, lines in written.items():
        begin, end = f"<!-- {name}: written by benchmarks/animals_tables.py -->", f"<!-- end of {name} -->"
        if begin in text:
            before, rest = text.split(begin)
            text = f"{before}{begin}\n\n{lines}\n\n{end}{rest.split(end)[1]}"
    document.write_text(text)
    draw(Path("docs/animals.svg"), table["test"])


def measure(part: str) -> dict[str, dict[int, Measured]]:
    """Return by method and seed what the runs' detections on val or test are worth."""
    recipe = recipe_of("first", 0)
    dataset, stressed = open_images(recipe, part), open_images(recipe, "stress")
    lists = {name: split_list(f"{part}_{name}") for name in ("hidden", "visible")}
    measured: dict[str, dict[int, Measured]] = {}
    for method in NAMES:
        for folder in sorted(RUNS.glob(f"{method}-seed*")):
            run, seed = Run(folder), int(folder.name.rpartition("-seed")[2])
            if not detections_file(run, part).is_file():
                continue
            detections = read_coco_results(detections_file(run, part), dataset.ids, dataset.category_ids)
            numbers = of_detections(detections, dataset, lists)
            for level in LEVELS if part == "test" and detections_file(run, "stress", LEVELS[-1]).is_file() else ():
                file = detections_file(run, "stress", level)
                found = read_coco_results(file, stressed.ids, stressed.category_ids)
                numbers[f"{level:.0%} occluded"] = drawn(matched(found, stressed))
            measured.setdefault(method, {})[seed] = numbers
    return measured


def split_list(name: str) -> set[str]:
    """Return the photographs of a split."""
    return set((ROOT / f"ImageSets/Main/{name}.txt").read_text().split())


def of_detections(
    detections: Sequence[Detection], dataset: DetectionDataset, lists: Mapping[str, set[str]]
) -> Measured:
    """Return mAP of detections on all photographs, on lists of them, and on subsets of their objects."""
    matches = matched(detections, dataset)
    numbers = {"all": drawn(matches), "area": drawn(matches, "area")}
    targets = [dataset.target(index) for index in range(len(dataset))]
    coco = evaluate_coco(detections, targets, dataset.classes, dataset.ids).numbers
    numbers["COCO AP50"] = np.array([100 * coco["AP50"]])
    numbers["COCO AP"] = np.array([100 * coco["AP"]])
    for name, chosen in lists.items():
        of_list = [index for index, image in enumerate(dataset.ids) if image in chosen]
        some = [detections[index] for index in of_list]
        numbers[name] = drawn(match(some, [targets[index] for index in of_list], dataset.classes))
    subsets = all_subsets(dataset)
    for name in ("overlapped", "unoccluded"):
        numbers[name] = np.array([100 * subset_ap(matches, subsets[name]).mean_ap[METRIC]])
    return numbers


def matched(detections: Sequence[Detection], dataset: DetectionDataset) -> Matches:
    """Match detections with a dataset's objects."""
    return match(detections, [dataset.target(index) for index in range(len(dataset))], dataset.classes)


def drawn(matches: Matches, metric: str = METRIC) -> Floats:
    """Return the mAP in percent on all photographs, and on each drawing of them; all files have the same drawings."""
    return 100 * resampled_ap(matches, draw_images(matches.image_count), metric)  # type: ignore[arg-type]


def rows(table: Mapping[str, Mapping[int, Measured]], columns: Sequence[str], intervals: bool = True) -> str:
    """Return a table as Markdown: means over seeds, and differences to the baseline of the same seeds."""
    names = " | ".join(f"{name} | to FRCN" if intervals else name for name in columns)
    lines = [f"| method | seeds | {names} |", "|---|" + "---:|" * (1 + len(columns) * (1 + intervals))]
    for method, seeds in table.items():
        if not all(name in one for one in seeds.values() for name in columns):
            continue
        cells = [NAMES[method], str(len(seeds))]
        for name in columns:
            cells.append(f"{mean(one[name][0] for one in seeds.values()):.1f}")
            if intervals:
                known = to_baseline(table, method, name)
                cells.append("" if known is None else (str(known) if known.drawn.size else f"{known.mean:+.1f}"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def to_baseline(table: Mapping[str, Mapping[int, Measured]], method: str, name: str) -> Difference | None:
    """Return the difference to the baseline; None of itself, of what it began with, and where no seed has both."""
    if method in ("baseline", BEGINS):
        return None
    return difference(table[method], table.get("baseline", {}), name, images=0)


def learned() -> str:
    """Return what adversaries measured while they trained, by quarters of the joint stage: the first seed's."""
    lines = [
        "| method | mean drop of the true class's score, by quarters | share of hard masks, by quarters |",
        "|---|---|---|",
    ]
    for method in METHODS:
        file = RUNS / f"{method}-seed0" / "log.csv"
        if not file.is_file():
            continue
        log = [row for row in csv.DictReader(file.open()) if row["stage"] == "joint"]
        cells = [NAMES[method]]
        for name in ("score_drop", "hard_masks"):
            column = next((key for key in (log[0] if log else {}) if key.endswith(name)), None)
            values = [float(row[column]) for row in log if column and row[column]]
            quarters = np.array_split(np.array(values), 4) if len(values) >= 4 else []
            cells.append(", ".join(f"{quarter.mean():.2f}" for quarter in quarters))
        if any(cells[1:]):
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_csv(file: Path, table: Mapping[str, Mapping[str, Mapping[int, Measured]]]) -> None:
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["part", "method", "seed", "measured", "mAP", "settings"])
        for part, methods in table.items():
            for method, seeds in methods.items():
                for seed, numbers in sorted(seeds.items()):
                    settings = json.dumps(METHODS.get(method, []))
                    for name, values in numbers.items():
                        writer.writerow([part, method, seed, name, f"{values[0]:.2f}", settings])


def draw(file: Path, table: Mapping[str, Mapping[int, Measured]]) -> None:
    """Draw each method's difference to the baseline on all photographs and on those of hidden animals."""
    methods = [method for method in table if method not in ("baseline", BEGINS)]
    if not methods or "baseline" not in table:
        return
    figure = Figure(figsize=(8, 0.34 * len(methods) + 1.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (name, title) in zip(
        axes, (("all", "all photographs"), ("hidden", "photographs of hidden animals")), strict=True
    ):
        for place, method in enumerate(methods):
            known = to_baseline(table, method, name)
            if known is None:
                continue
            low, high = known.interval
            axis.plot([low, high], [place, place], color="0.5")
            axis.plot(known.mean, place, "o", color="tab:blue" if low <= 0 <= high else "tab:red")
        axis.axvline(0, color="0.2", linewidth=0.8)
        axis.set_title(title)
        axis.set_xlabel("mAP to FRCN, points")
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right", "left"]].set_visible(False)
    axes[0].set_yticks(range(len(methods)), [NAMES[method].replace("**", "") for method in methods])
    axes[0].invert_yaxis()
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
