"""A comparison of methods as Markdown, and as tables of numbers for other programs."""

from __future__ import annotations

from collections.abc import Iterator

from afrcnn.experiment.comparison import Comparison
from afrcnn.experiment.differences import LEAST_IMAGES
from afrcnn.experiment.measurement import LEVELS

_NAMES = {"clean": "as they are", "mPC": "mean hidden"} | {f"{level:g}": f"{level:.0%} hidden" for level in LEVELS}
"""What APs are of, in words; subsets have their own."""


def compared_markdown(comparison: Comparison) -> str:
    """Return a comparison as a Markdown document: what was found, and two tables."""
    images = comparison.images["clean"]
    columns = {name: _NAMES.get(name, name) for name in comparison.images}
    objects = {name: f"{count} images" for name, count in comparison.images.items()}
    lines = [
        f"# Methods on {comparison.dataset}",
        "",
        comparison.finding(),
        "",
        "Mean AP (11-point) in %, mean over seeds; hidden: that fraction of every object's box, by pieces of other",
        "images, at the same places for all methods. Best: the highest mean over the levels.",
        "",
        f"| method | seeds | {' | '.join(columns.values())} |",
        "|---|" + "---:|" * (len(columns) + 1),
    ]
    for method in comparison.methods:
        cells = [_cell(method.name), str(len(method.scores)), *(f"{method.mean(name):.1f}" for name in columns)]
        lines.append(f"| {' | '.join(cells)} |")
    if comparison.methods[1:]:
        lines += [
            "",
            f"Differences to {comparison.baseline.name} on the same images and seeds, with 95% intervals (bootstrap",
            "over both); * leaves out zero, all else cannot be told from noise. Of numbers that do not differ, one in",
            "twenty is marked by chance.",
            "",
            f"| method | {' | '.join(columns.values())} |",
            f"| | {' | '.join(objects.values())} |",
        ]
        lines.insert(len(lines) - 1, "|---|" + "---:|" * len(columns))
        for method in comparison.methods[1:]:
            cells = [f"{known}{' *' * known.is_told}" for known in method.differences.values()]
            lines.append(f"| {_cell(method.name)} | {' | '.join(cells)} |")
    if images < LEAST_IMAGES:
        lines += ["", f"{images} test images are too few: below {LEAST_IMAGES}, nothing is told from noise."]
    if comparison.seeds == 1:
        lines += ["", "With one seed the intervals do not say how far a difference varies between trainings."]
    return "\n".join(lines) + "\n"


def compared_differences(comparison: Comparison) -> Iterator[tuple[str | float | int, ...]]:
    """Yield a heading, and by method and what the AP is of: images, seeds, AP, its difference, interval and mark."""
    yield "method", "of", "images", "seeds", "mAP", "difference", "low", "high", "told from noise"
    for method in comparison.methods:
        for name, images in comparison.images.items():
            known = method.differences.get(name)
            cells = (known.mean, *known.interval) if known else ()
            numbers = [f"{value:.2f}" for value in (method.mean(name), *cells)]
            mark = [str(known.is_told).lower()] if known else []
            yield (method.name, name, images, len(method.scores), *numbers, *mark, *[""] * (4 * (known is None)))


def compared_runs(comparison: Comparison) -> Iterator[tuple[str | int, ...]]:
    """Yield a heading, and by run its mean APs in percent on all images."""
    yield "method", "seed", *comparison.images
    for method in comparison.methods:
        for seed, scores in method.scores.items():
            yield (method.name, seed, *(f"{scores[name][0]:.2f}" for name in comparison.images))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
