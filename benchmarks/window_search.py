"""Time the exact window search, and weigh its memory, against evaluating the head once per window, in one run.

The plain search hides each window in copies of the features and gives them to the head; of several numbers of copies at
once the fastest is taken. Both give the same losses, which is checked. Searches alternate, so that whatever else the
machine does meets both; medians are compared. "fc6" is the ratio of the first layer alone, on which the fast search
saves; "onward s" are the seconds of what comes after it, which both need for every window; "by operations" is the ratio
of all multiplications, which is as much as can be gained. A weight is column-major where the head is frozen.

Memory is the peak of what PyTorch allocates during a search beyond what there was, as its profiler records it. Buffers
inside MKL are not seen.

    python benchmarks/window_search.py [--heads alexnet vgg16] [--objects 32] [--threads 2] [--rounds 7]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from afrcnn.adversaries.base import Head
from afrcnn.adversaries.window_search import WindowSearch
from afrcnn.detectors.backbones import FullyConnectedHead
from afrcnn.detectors.frozen_head import FrozenHead, _first_outputs, column_major

CLASSES = 20
HEADS = {  # channels, cells on a side, outputs of fc6 and fc7
    "alexnet": (256, 6, 4096),
    "vgg16": (512, 7, 4096),
    "squeezenet1_0": (512, 7, 1024),
    "TwoMLPHead": (256, 7, 1024),
}
BATCHES = (100, 200, 400, 800)
"""Masked copies that the plain search evaluates at once, of which the fastest counts."""

Search = Callable[[], object]


def build(name: str) -> FrozenHead:
    """Return a head of the size of a backbone's, with random weights."""
    channels, size, width = HEADS[name]
    inputs = channels * size * size
    head = (
        TwoMLPHead(inputs, width)
        if name == "TwoMLPHead"
        else FullyConnectedHead(nn.Linear(inputs, width), nn.Linear(width, width))
    )
    return FrozenHead(head, FastRCNNPredictor(width, CLASSES + 1))


@torch.no_grad()
def plain_losses(features: Tensor, labels: Tensor, head: Head, visible: Tensor, copies: int) -> Tensor:
    """Return what ``losses_without`` does, from masked copies of the features."""
    objects = max(1, copies // len(visible))
    losses = [
        head.losses((x[:, None] * visible[:, None]).flatten(0, 1), label.repeat_interleave(len(visible)))
        for x, label in zip(torch.split(features, objects), torch.split(labels, objects), strict=True)
    ]
    return torch.cat(losses).view(len(features), len(visible))


def seconds(searches: Mapping[str, Search], rounds: int) -> dict[str, float]:
    """Return the median of the rounds, in each of which every search takes its turn."""
    times: dict[str, list[float]] = {name: [] for name in searches}
    for round_ in range(rounds + 1):
        for name, search in searches.items():
            began = time.perf_counter()
            search()
            if round_:  # the first is warm-up
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def extra_memory(search: Search) -> float:
    """Return the peak of what a search allocates, in MB."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        search()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    held = peak = 0
    for event in sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak / 1e6


def compare(name: str, objects: int, rounds: int, frozen: bool) -> list[str]:
    """Return a row of the table."""
    channels, size, _ = HEADS[name]
    features, labels = torch.rand(objects, channels, size, size), torch.randint(1, CLASSES + 1, (objects,))
    windows = WindowSearch(size).masks
    head = build(name)
    layer = head.first_layer
    assert layer is not None

    # The plain search has the layout that layers are made with.
    plain = {str(n): partial(plain_losses, features, labels, head, ~windows, n) for n in BATCHES}
    trial = seconds(plain, max(1, rounds // 2))
    best = min(trial, key=trial.__getitem__)

    @torch.no_grad()
    def plain_first() -> None:
        for x in torch.split(features, max(1, int(best) // len(windows))):
            layer((x[:, None] * ~windows[:, None]).flatten(0, 1).flatten(1))

    @torch.no_grad()
    def fast_first() -> None:
        _first_outputs(features, layer, ~windows)

    vectors = torch.rand(len(windows) * objects, layer.out_features)

    @torch.no_grad()
    def onward() -> None:
        head._after_first_layer(vectors.clone())  # which it overwrites

    def fast() -> Tensor:
        return head.losses_without(features, labels, windows)

    with column_major(head) if frozen else nullcontext():
        torch.testing.assert_close(fast(), plain[best](), rtol=1e-4, atol=1e-5)
        searches: dict[str, Search] = {
            "fast": fast,
            "plain": plain[best],
            "fast first": fast_first,
            "plain first": plain_first,
        }
        times = seconds(searches | {"onward": onward}, rounds)
        memory = extra_memory(fast), extra_memory(plain[best])
    first, rest = layer.weight.numel(), layer.out_features**2
    return [
        name,
        "column-major" if frozen else "row-major",
        best,
        f"{times['fast']:.3f}",
        f"{times['plain']:.3f}",
        f"{times['plain'] / times['fast']:.2f}",
        f"{len(windows) * (first + rest) / (first + len(windows) * rest):.1f}",
        f"{times['onward']:.3f}",
        f"{times['plain first'] / times['fast first']:.1f}",
        f"{memory[0]:.1f}",
        f"{memory[1]:.1f}",
        f"{memory[0] / memory[1]:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", nargs="+", default=list(HEADS), choices=list(HEADS))
    parser.add_argument("--objects", type=int, default=32)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    table = Table(title=f"{arguments.objects} objects, 25 windows, float32, CPU, {arguments.threads} threads")
    columns = ["head", "fc6 stored", "copies", "fast s", "plain s", "ratio", "by operations", "onward s", "fc6"]
    for column in (*columns, "fast MB", "plain MB", "ratio"):
        table.add_column(column, justify="left" if column in {"head", "fc6 stored"} else "right")
    for name in arguments.heads:
        for frozen in (True, False):
            table.add_row(*compare(name, arguments.objects, arguments.rounds, frozen))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
