"""The paper's comparison on photographs of VOC 2012: does it help where objects are really hidden?

    python benchmarks/animals.py                        # every method on test, seeds 0, 1, 2: what is not done yet
    python benchmarks/animals.py --part val --methods baseline paper_full crop --seeds 0      # to choose settings by
    python benchmarks/animals_tables.py                 # writes the tables of docs/animals.md

Detectors learn from four fifths of trainval; settings are chosen on the last fifth, ``val``, and ``test`` is for the
numbers that are reported. All methods of a seed begin with the same detector, and train it further by the same
schedule. A run that is done is not repeated, one that was interrupted goes on, and several of these commands may work
at once. What is left of a run, in runs/animals/METHOD-seedN, is what the tables need.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import torch
from torch import Tensor, nn
from torchvision import tv_tensors

from afrcnn.build import load_detector, open_split
from afrcnn.core.engine import build_fabric
from afrcnn.core.lock import claimed as claim
from afrcnn.data.target import Target
from afrcnn.evaluation.detect import detect
from afrcnn.evaluation.formats import Detection, write_coco_results
from afrcnn.experiment.measurement import LEVELS
from afrcnn.recipe import Recipe, load_recipe
from afrcnn.robustness.benchmark import StressedImages, measure
from afrcnn.robustness.stresses import Occlusion
from afrcnn.run import Run
from afrcnn.training.train import train_stages
from validation_split import divide, link_proposals

SOURCE = Path("../shared/data/animals")
PROPOSALS = Path("proposals/animals")
ROOT = Path("validation/animals")
RUNS = Path("runs/animals")

DETECTOR = [
    "--data.train_split=train",
    "--data.proposals_per_image=1000",
    "--data.test_proposals=500",
    "--data.workers=0",
    "--detector.weights=../shared/weights/squeezenet1_0-imagenet.safetensors",
    "--detector.short_side=[320]",
    "--detector.long_side=500",
    "--detector.rois_per_image=32",
    "--detector.frozen_stages=4",  # all that lies at a stride of 4 or less, as of the paper's VGG16
    "--schedule.iterations=1200",
    "--schedule.images_per_iteration=4",
    "--schedule.learning_rate=0.002",
    "--schedule.decay_at=[900]",
    "--schedule.warmup_iterations=50",
    "--engine.precision=bf16-mixed",
]
JOINT = [
    "--joint.iterations=300",
    "--joint.images_per_iteration=4",
    "--joint.learning_rate=0.001",
    "--joint.decay_at=[225]",
]
PRETRAINED = [
    "--pretraining.iterations=60",
    "--pretraining.images_per_iteration=4",
    "--pretraining.learning_rate=0.002",
]
PAPER_FULL = ["--adversaries=[asdn,astn]", *PRETRAINED]
WINDOWS = ["--{0}.mask=window", "--{0}.fraction=[0.1,0.6]", "--{0}.occluder=features"]
CLEAN_END = "--joint.clean_iterations=150"
OCCLUDING = [
    "--adversaries=[asdn,astn]",
    CLEAN_END,
    *PRETRAINED,
    *(field.format("adversaries.asdn") for field in WINDOWS),
    "--adversaries.asdn.top=0.25",
    "--joint.least_iou=0.7",
]
CUTOUT = "--data.augmentation.cutout=0.5"

METHODS = {
    "baseline": [],
    # The paper's, with its settings (section 4; section 5.2.1 for what it compares with).
    "jitter": ["--joint.jitter.scale=0.2", "--joint.jitter.aspect_ratio=0.2", "--joint.jitter.degrees=10"],
    "random_dropout": ["--adversaries=[random_dropout]"],
    "hard_dropout": ["--adversaries=[hard_dropout]"],
    "fixed_asdn": ["--adversaries=[asdn]", "--adversaries.asdn.frozen=true", *PRETRAINED],
    "asdn": ["--adversaries=[asdn]", *PRETRAINED],
    "astn": ["--adversaries=[astn]"],
    "paper_full": PAPER_FULL,
    # Beyond it: the settings of docs/results.md.
    "occluding": OCCLUDING,
    "cutout": [CLEAN_END, CUTOUT],
    "both": [*OCCLUDING, CUTOUT],
    "ohem": ["--detector.ohem=[joint]"],
    # Tried here, with nothing but what the name says besides the baseline or the paper's full.
    "background_too": [*PAPER_FULL, "--joint.perturb_background=true"],
    "copy_paste": [CLEAN_END, "--data.augmentation.copy_paste=0.5"],
    "truncated": [],
    "crop": [],
}


class Crop(nn.Module):
    """Cuts a window out of the photograph: objects at its border are truncated, as VOC's annotators box them.

    Objects of which less than ``least`` remains go. Boxes and proposals are clipped to the window.

    Args:
        p: the probability that a photograph is cropped.
        smallest: the smallest side of a window as a fraction of the photograph's.
        least: the smallest fraction of an object's box that must lie in the window.
    """

    def __init__(self, p: float = 0.5, smallest: float = 0.5, least: float = 0.3) -> None:
        super().__init__()
        self.p, self.smallest, self.least = p, smallest, least

    def forward(self, image: tv_tensors.Image, target: Target) -> tuple[tv_tensors.Image, Target]:
        """Return a window of the photograph (3 x H x W), and the target of what it shows."""
        if torch.rand(()) >= self.p or not len(target["boxes"]):
            return image, target
        height, width = image.shape[-2:]
        for _ in range(20):
            sides = self.smallest + (1 - self.smallest) * torch.rand(2)
            h, w = round(float(sides[0]) * height), round(float(sides[1]) * width)
            top, left = int(torch.randint(height - h + 1, ())), int(torch.randint(width - w + 1, ()))
            window = torch.tensor([left, top, left + w, top + h], dtype=torch.float32)
            boxes, fraction = clipped(target["boxes"].as_subclass(Tensor), window)
            kept = fraction >= self.least
            if kept.any():
                break
        else:
            return image, target
        proposals, _ = clipped(target["proposals"].as_subclass(Tensor), window)
        proposals = proposals[(proposals[:, 2:] - proposals[:, :2] >= 8).all(dim=1)]
        pixels = image.as_subclass(Tensor)[:, top : top + h, left : left + w].contiguous()
        shift = window[:2].repeat(2)
        return tv_tensors.wrap(pixels, like=image), {
            "boxes": like(boxes[kept] - shift, (h, w)),
            "labels": target["labels"][kept],
            "image_id": target["image_id"],
            "proposals": like(proposals - shift, (h, w)),
        }


class Truncated(nn.Module):
    """Hides up to half of every object from one of its sides on, under the mean colour; its box ends there, too.

    VOC's boxes bound what is seen of an object. Cut-out leaves them as they were, whatever it hides.

    Args:
        p: the probability that a photograph is changed.
        largest: the largest fraction of a box that is hidden.
    """

    def __init__(self, p: float = 0.5, largest: float = 0.5) -> None:
        super().__init__()
        self.p, self.largest = p, largest

    def forward(self, image: tv_tensors.Image, target: Target) -> tuple[tv_tensors.Image, Target]:
        """Return the photograph (3 x H x W), and the target with the boxes of what is seen and proposals of them."""
        if torch.rand(()) >= self.p or not len(target["boxes"]):
            return image, target
        pixels = image.as_subclass(Tensor).clone()
        boxes = target["boxes"].as_subclass(Tensor).clone()
        proposals = target["proposals"].as_subclass(Tensor)
        extended = [proposals]
        for number, side in enumerate(torch.randint(4, (len(boxes),)).tolist()):
            axis, box = side % 2, boxes[number]
            cut = float(torch.rand(())) * self.largest * float(box[axis + 2] - box[axis])
            hidden, seen = box.clone(), box.clone()
            if side < 2:
                hidden[axis + 2] = seen[axis] = box[axis] + cut
            else:
                hidden[axis] = seen[axis + 2] = box[axis + 2] - cut
            x1, y1, x2, y2 = (int(value) for value in hidden.round())
            pixels[:, y1:y2, x1:x2] = torch.tensor([124, 116, 104], dtype=pixels.dtype)[:, None, None]
            around, fraction = clipped(proposals, seen)
            extended.append(around[fraction >= 0.5])
            boxes[number] = seen
        moved = torch.cat(extended)
        moved = moved[(moved[:, 2:] - moved[:, :2] >= 8).all(dim=1)]
        size = (image.shape[-2], image.shape[-1])
        return tv_tensors.wrap(pixels, like=image), {
            **target,
            "boxes": like(boxes, size),
            "proposals": like(moved, size),
        }


def clipped(boxes: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """Return boxes (n x 4, XYXY) clipped to a window (4), and the fraction (n) of each that lies in it."""
    low, high = torch.maximum(boxes[:, :2], window[:2]), torch.minimum(boxes[:, 2:], window[2:])
    inside = torch.cat([low, torch.maximum(low, high)], dim=1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).clamp(min=1e-6)
    return inside, (inside[:, 2:] - inside[:, :2]).prod(dim=1) / area


def like(boxes: Tensor, size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    """Return boxes as those of an image of a size."""
    return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size)  # type: ignore[call-arg]


TRANSFORMS: dict[str, nn.Module] = {"truncated": Truncated(), "crop": Crop()}
"""By method, what changes photographs and is no part of the package."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--part", nargs="+", default=["test"], choices=["val", "test", "stress"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prepare()
    for seed in arguments.seeds:
        for method in arguments.methods:
            folder = RUNS / f"{method}-seed{seed}"
            with claim(folder) as claimed:
                if claimed:
                    run = fit(method, seed, folder)
                    for part in arguments.part:
                        examine(run, part)


def prepare() -> None:
    """Divide trainval, and link the proposals of what comes of it."""
    if not (ROOT / "ImageSets/Main/val_visible.txt").is_file():
        divide(SOURCE, ROOT)
        names = ROOT / "ImageSets/Main"
        for name in ("test", "test_hidden", "test_visible"):
            (names / f"{name}.txt").write_text((SOURCE / f"ImageSets/Main/{name}.txt").read_text())
        test = (names / "test.txt").read_text().split()
        (names / "stress.txt").write_text("".join(f"{image}\n" for image in test[::4]))
        points = {name: visible_points(name) for name in (names / "val.txt").read_text().split()}
        for name, belongs in (("hidden", lambda p: max(p) <= 8), ("visible", lambda p: min(p) >= 12)):
            chosen = [image for image, seen in points.items() if seen and belongs(seen)]
            (names / f"val_{name}.txt").write_text("".join(f"{image}\n" for image in chosen))
    link_proposals(PROPOSALS / "trainval-fast", ROOT / "proposals", ["train", "val"])
    link_proposals(PROPOSALS / "test-fast", ROOT / "proposals", ["test", "stress"])


def visible_points(image: str) -> list[int]:
    """Return of each animal of a photograph how many of its points people could see, where it was noted."""
    root = ElementTree.parse(SOURCE / f"Annotations/{image}.xml").getroot()
    return [int(element.text or 0) for element in root.iter("keypoints_visible")]


def recipe_of(method: str, seed: int) -> Recipe:
    """Return the recipe of a run; the detector that it begins with is trained first, unless that is done."""
    data = [f"--data.root={ROOT}", f"--data.proposals={ROOT / 'proposals'}", f"--seed={seed}", *DETECTOR]
    if method == "first":
        return load_recipe("configs/squeezenet.yaml", data)
    first = RUNS / f"first-seed{seed}"
    if not Run(first).weights_file.is_file():
        with claim(first, wait=True):
            train_stages(recipe_of("first", seed), first)
    return load_recipe("configs/squeezenet.yaml", [*data, f"--init_from={first}", *JOINT, *METHODS[method]])


def fit(method: str, seed: int, folder: Path) -> Run:
    """Train a run, or go on with it, unless it is done."""
    recipe = recipe_of(method, seed)
    if not Run(folder).weights_file.is_file():
        train_stages(recipe, folder, transform=TRANSFORMS.get(method))
        Run(folder).checkpoint_file.unlink(missing_ok=True)
    return Run(folder)


def detections_file(run: Run, part: str, level: float = 0.0) -> Path:
    """Return the file of a run's detections on val or test, or on the stressed photographs of test."""
    return run.detections_file(f"{part}-occluded-{level:g}" if level else part)


def examine(run: Run, part: str) -> None:
    """Write the detections on val, on test, or at every level of occlusion, unless they are there."""
    levels = LEVELS if part == "stress" else (0.0,)
    if detections_file(run, part, levels[-1]).is_file():
        return
    dataset = open_split(run.recipe, part)
    detector = load_detector(run)
    detector.roi_heads.box_head.to(torch.bfloat16)  # as autocast has it, which would cast fc6 again for each image
    fabric = build_fabric("cpu", precision=run.recipe.engine.precision)
    if part != "stress":
        found = detect(detector, dataset, fabric=fabric, workers=0)
        write_coco_results(detections_file(run, part), found, dataset.ids, dataset.category_ids)
        return
    detections: list[Detection] = []

    def find(images: StressedImages) -> Sequence[Detection]:
        detections.extend(detect(detector, images, fabric=fabric, workers=0))
        return detections

    measure(find, dataset, [Occlusion("photo", levels=LEVELS)], seed=0)
    for number, level in enumerate(LEVELS, start=1):  # the first are the photographs as they are
        some = detections[number :: len(LEVELS) + 1]
        write_coco_results(detections_file(run, part, level), some, dataset.ids, dataset.category_ids)


if __name__ == "__main__":
    main()
