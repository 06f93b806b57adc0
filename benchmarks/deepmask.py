"""Recall of DeepMask on images that it was not trained on, beside that of selective search's first proposals.

    python benchmarks/deepmask.py ../shared/data/tiny_coco --weights SQUEEZENET.safetensors

trains on the training images and measures on the test images. With ``--held 3``, it does so with three of ten training
images held out, on which settings are chosen: it prints what each of several settings gives there.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path

import torch
from torchvision.ops import nms

from afrcnn.commands.deepmask import deepmask
from afrcnn.core.atomic import atomic_write
from afrcnn.data.coco import COCOLayout
from afrcnn.data.layouts import open_dataset
from afrcnn.proposals.deepmask import DeepMask, DeepMaskNetwork, load_deepmask
from afrcnn.proposals.propose import propose
from afrcnn.proposals.recall import recall
from afrcnn.proposals.selective_search import SelectiveSearch
from afrcnn.proposals.store import Proposals, ProposalStore

IOUS = tuple(0.5 + 0.05 * step for step in range(10))
COUNTS = (10, 100, 1000)
THRESHOLDS, SUPPRESSION = (0.2, 0.5), (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def hold_out(root: Path, out: Path, tenths: int) -> None:
    """Write the splits ``fit`` and ``held`` of the training images, beside links to the images."""
    images = open_dataset(root, "train2017")
    held = [index for index in range(len(images)) if index * tenths % 10 < tenths]
    fit = [index for index in range(len(images)) if index not in held]
    for split, indices in {"fit": fit, "held": held}.items():
        with atomic_write(out / "annotations" / f"instances_{split}.json") as file:
            file.write(COCOLayout().split_content(images, indices))
    if not (out / "train2017").exists():
        (out / "train2017").symlink_to((root / "train2017").resolve())


def compare_settings(network: DeepMaskNetwork, images, out: Path) -> None:
    """Print the recall with each threshold of masks and each of suppression."""
    for threshold in THRESHOLDS:
        searches = [DeepMask(network, mask_threshold=threshold, nms_iou=iou) for iou in SUPPRESSION]
        boxes = defaultdict(list)
        for index in range(len(images)):
            candidates, scores = searches[0].candidates(images[index][0].permute(1, 2, 0).numpy())
            for search in searches:
                boxes[search.nms_iou].append(candidates[nms(candidates, scores, search.nms_iou)[: search.top]].numpy())
        for search in searches:
            found = map(Proposals, boxes[search.nms_iou])
            records = ((image_id, bytes(16), proposals) for image_id, proposals in zip(images.ids, found, strict=True))
            store = ProposalStore.write(out / "compared", records, method="", parameters={})
            show(f"DeepMask, masks from {threshold}, suppression at {search.nms_iou}", images, store)


def show(name: str, images, store, seconds: float | None = None) -> None:
    found = recall(images, store, IOUS, COUNTS)
    columns = zip(COUNTS, found.overall[0], found.overall.mean(axis=0), strict=True)
    numbers = "".join(f"  {count}: {at_half:.3f} {mean:.3f}" for count, at_half, mean in columns)
    took = "" if seconds is None else f", {seconds / len(images):.1f} s an image"
    print(f"{name:<50}{numbers}  ({found.proposals:.0f} proposals{took})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--backbone", default="squeezenet1_0")
    parser.add_argument("--out", type=Path, default=Path("deepmask"))
    parser.add_argument("--held", type=int, default=0, help="tenths of the training images to hold out")
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--crops", type=int, default=400)
    args = parser.parse_args()
    torch.set_num_threads(1)
    root, train, test = args.root, "train2017", "val2017"
    if args.held:
        root, train, test = args.out / "held", "fit", "held"
        hold_out(args.root, root, args.held)
    file = args.out / f"{train}-{args.iterations}-{args.crops}.safetensors"
    if not file.is_file():
        start = time.monotonic()
        deepmask(
            root,
            split=train,
            out=file,
            backbone=args.backbone,
            weights=args.weights,
            iterations=args.iterations,
            crops=args.crops,
        )
        print(f"trained in {(time.monotonic() - start) / 60:.1f} minutes", flush=True)
    images = open_dataset(root, test)
    print("recall of the first 10, 100 and 1000 proposals, each at IoU 0.5 and as a mean over 0.5 to 0.95")
    start = time.monotonic()
    store = propose(images, args.out / f"{test}-fast", SelectiveSearch(), jobs=1)
    show("selective search, fast", images, store, time.monotonic() - start)
    network = load_deepmask(file)
    if args.held:
        compare_settings(network, images, args.out)
        return
    start = time.monotonic()
    store = propose(images, args.out / f"{test}-{file.stem}", DeepMask(network), jobs=1)
    show("DeepMask", images, store, time.monotonic() - start)


if __name__ == "__main__":
    main()
