"""Fixtures that several packages' tests share."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from afrcnn.build import load_detector, open_split
from afrcnn.core.engine import build_fabric
from afrcnn.data.image import fingerprint
from afrcnn.data.voc_xml import VOCObject, write_annotation
from afrcnn.evaluation.detect import detect
from afrcnn.proposals.store import Proposals, ProposalStore, default_folder
from afrcnn.recipe import DataRecipe, DetectorRecipe, EngineRecipe, Recipe, ScheduleRecipe
from afrcnn.training.train import train_stages
from server import Server
from tiny import build_adversary, build_chain, build_detector, build_fast_rcnn, build_objects, build_spec

torch.set_num_threads(1)

# A suite that a shell starts in the background ignores Ctrl-C, and so would the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photographs and weights, beside the checkout or named by AFRCNN_SHARED."""
    folder = Path(os.environ.get("AFRCNN_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real photographs: {folder} is absent (AFRCNN_SHARED names another folder)")
    return folder


@pytest.fixture(scope="session")
def rectangles(tmp_path_factory) -> Path:
    """A dataset in VOC layout with proposals: 6 images of trainval and 3 of test, 64 x 64, one rectangle in each.

    Each image has 16 proposals: 6 around the rectangle, the others anywhere.
    """
    root = tmp_path_factory.mktemp("rectangles")
    rng = np.random.default_rng(0)
    for split, count in (("trainval", 6), ("test", 3)):
        images = []
        for index in range(count):
            image_id, name = f"{split}_{index}", ("red", "blue")[index % 2]
            pixels = rng.integers(0, 80, (64, 64, 3), dtype=np.uint8)
            x, y = rng.integers(2, 30, 2)
            w, h = rng.integers(16, 30, 2)
            pixels[y : y + h, x : x + w] = {"red": (230, 20, 20), "blue": (20, 20, 230)}[name]
            file = root / "JPEGImages" / f"{image_id}.jpg"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(file, quality=95)
            box = np.array([x, y, x + w, y + h])
            write_annotation(
                root / "Annotations" / f"{image_id}.xml",
                filename=file.name,
                height=64,
                width=64,
                objects=[VOCObject(name, tuple(map(float, box)))],
            )
            around = box + rng.integers(-2, 3, (6, 4))
            corner = rng.integers(0, 40, (10, 2))
            anywhere = np.hstack([corner, corner + rng.integers(5, 24, (10, 2))])
            boxes = np.vstack([around, anywhere]).astype(np.float32)
            images.append((image_id, fingerprint(file), Proposals(boxes)))
        ids = root / "ImageSets" / "Main" / f"{split}.txt"
        ids.parent.mkdir(parents=True, exist_ok=True)
        ids.write_text("".join(f"{image_id}\n" for image_id, *_ in images), encoding="utf-8")
        ProposalStore.write(default_folder(root, split, "fast"), images, method="fast", parameters={})
    return root


@pytest.fixture(autouse=True)
def seed():
    """The same numbers in every run, in whatever order."""
    torch.manual_seed(0)


@pytest.fixture
def tiny():
    """Builders of detectors, adversaries, features and labels."""
    return SimpleNamespace(
        detector=build_detector,
        fast_rcnn=build_fast_rcnn,
        spec=build_spec,
        adversary=build_adversary,
        chain=build_chain,
        objects=build_objects,
    )


@pytest.fixture
def server():
    """A server of files on this machine."""
    with Server() as server:
        yield server


@pytest.fixture(scope="session")
def recipe(rectangles):
    """Thirty updates, after which rectangles are found."""
    return Recipe(
        data=DataRecipe(root=str(rectangles), workers=0),
        detector=DetectorRecipe(
            backbone="small",
            pooling="roi_align",
            short_side=[64],
            long_side=64,
            rois_per_image=16,
            background_iou=(0.0, 0.5),
        ),
        schedule=ScheduleRecipe(iterations=30, learning_rate=0.01, warmup_iterations=5),
        engine=EngineRecipe(accelerator="cpu"),
    )


@pytest.fixture(scope="session")
def run(recipe, tmp_path_factory):
    """The run of the recipe; tests write elsewhere."""
    return train_stages(recipe, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def dataset(recipe):
    """The test split of the recipe, with its proposals."""
    return open_split(recipe, "test")


@pytest.fixture(scope="module")
def detections(run, dataset):
    """What the run detects in it."""
    return detect(load_detector(run), dataset, fabric=build_fabric("cpu"), workers=0)
