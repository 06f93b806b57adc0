"""Every file that the library reads, whole, and ways of spoiling it: for the tests, and for benchmarks/mutations.py."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io
import torch
import yaml
from faster_coco_eval.core import mask as coco_mask
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

import caffemodels
from afrcnn.core.errors import UserError
from afrcnn.data.image import read_image, read_image_size
from afrcnn.data.layouts import open_dataset
from afrcnn.data.unpack import unpack
from afrcnn.data.voc import VOCObject, write_annotation
from afrcnn.detectors.caffemodel import read_caffemodel
from afrcnn.detectors.weights import load_strict, read_state_dict
from afrcnn.evaluation.formats import read_coco_results, read_voc_results, write_coco_results, write_voc_results
from afrcnn.evaluation.occluded_coco import derive_subsets, read_list
from afrcnn.evaluation.results import Results, read_results, write_record
from afrcnn.evaluation.subsets import SubsetResult
from afrcnn.proposals.journal import Journal
from afrcnn.proposals.published import read_published
from afrcnn.proposals.store import Proposals, ProposalStore
from afrcnn.recipe import Recipe, dump_recipe, load_recipe
from afrcnn.robustness.stress_results import (
    Curve,
    LevelResults,
    OccludedFraction,
    StressResults,
    read_stress,
    write_stress,
)
from afrcnn.training.checkpoint import NAMES, load_checkpoint, save_checkpoint
from afrcnn.training.log import Log
from afrcnn.visualize.tables import ap_table, stress_table, subset_table

ODD = (
    *(None, True, -1, 0, 2**31, 2**63, 2**64, 10**30, -(10**400), 1e308, -1e308, 1e7, 0.5, float("inf"), float("nan")),
    *("", "a", "\x1b[31m", "\ud800", "/", "../..", "0" * 300, "é", "2024-13-45", "!!timestamp x", "null"),
    *([], {}, [[]], [None], {"": None}, [1, 2, 3, 4], [1e308] * 4, [[0, 0, 1e7, 0, 0, 1e7]], "9" * 30),
)
"""Values that are not what a field should hold, or are and cannot be."""

CHUNKS = (
    *(b"\x00", b"\xff" * 8, b"\x1b]0;x\x07", b"9" * 5000, b"[" * 100_000, b"- " * 3000, b"&a [*a]", b"!!timestamp x"),
    *(b"2024-02-31", b"1e999", b"-", b'"', b"{", b"}", b"<!ENTITY a 'b'>", b"\xed\xa0\x80", b"\n\n", b"(" * 300),
    *(b"!!python/object:os.system x", b"18446744073709551616", b"-1", b"NaN", b"\x80\x04"),
)
"""Bytes that are put into files."""


class Reader(NamedTuple):
    """A kind of file, a whole one of which ``write`` makes in a folder, by its name there; and what reads it."""

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]
    structured: str = ""


def mutate(data: bytes, random: random.Random, structured: str = "") -> bytes:
    """Spoil a file; ``structured``, "json" or "yaml", also in what it says."""
    if structured and random.random() < 0.6:
        load, dump = {"json": (json.loads, json.dumps), "yaml": (yaml.safe_load, yaml.safe_dump)}[structured]
        content = load(data.decode())
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            content = _mutate_value(content, random)
        try:
            return dump(content).encode(errors="surrogatepass")
        except (ValueError, yaml.YAMLError):  # numbers of thousands of digits
            return data[: random.randrange(len(data) + 1)]
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        start = random.randrange(len(data) + 1)
        if random.random() < 0.5:  # most of what can go wrong is at the beginning
            start = min(start, random.randrange(200))
        match random.randrange(6):
            case 0:
                del data[start : start + random.choice((1, 2, 8, 100, 10**9))]
            case 1:
                data[start : start + 1] = bytes([random.randrange(256)])
            case 2 if start < len(data):
                data[start] ^= 1 << random.randrange(8)
            case 3:
                data[start:start] = random.choice(CHUNKS)
            case 4:
                end = start + random.randrange(1, 60)
                data[start:start] = data[start:end] * random.choice((1, 2, 50))
            case _:
                other = random.randrange(len(data) + 1)
                data[start : start + 8] = data[other : other + 8]
    return bytes(data)


def _mutate_value(value, random):
    """Return a value with something in it replaced, removed, renamed or doubled."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        changed = dict(value)
        match random.randrange(8):
            case 0:
                del changed[key]
            case 1:
                changed[random.choice(("", "a", "\x1b[2J", key * 2))] = changed.pop(key)
            case _:
                changed[key] = _mutate_value(value[key], random)
        return changed
    if isinstance(value, list) and value and random.random() < 0.9:
        index = random.randrange(len(value))
        match random.randrange(6):
            case 0:
                return value[:index] + value[index + 1 :]
            case 1:
                return value[: index + 1] + value[index:]
            case _:
                return [*value[:index], _mutate_value(value[index], random), *value[index + 1 :]]
    return random.choice(ODD)


def outcome(reader: Reader, folder: Path) -> str:
    """Read a spoiled file: "read", "refused" in one line that names what is at fault, or the traceback's last line."""
    try:
        reader.read(folder)
    except UserError as error:
        message = str(error)
        return "refused" if message.isprintable() and len(message) < 2000 else f"message: {message[:200]!r}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]!r}"
    return "read"


def _write_results(folder):
    metrics = ("11-point", "area", "COCO")
    numbers = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    values = dict.fromkeys(metrics, 0.5)
    by_class = {metric: {"cat": 0.25, "dog": float("nan")} for metric in metrics}
    subset = SubsetResult({"cat": 1, "dog": 0}, values, by_class, 0.5, 0.25)
    results = Results(3, 9, 0.5, {"cat": 2, "dog": 0}, values, by_class, dict.fromkeys(numbers, 0.1), {"all": subset})
    write_record(folder / "results.json", results)
    level = LevelResults(0.0, results, {"cat": 0.5}, OccludedFraction(0.1, 0.0, 0.2))
    curve = Curve("occluded by photo", "fraction", (level, LevelResults(0.3, results, {"cat": 0.5}, None)))
    write_stress(folder / "stress.json", StressResults(1, (curve,), "test"))


def _read_results(folder):
    results = read_results(folder / "results.json")
    if results.mean_ap.keys() == results.ap.keys():  # those of earlier versions have no COCO by class
        _print(ap_table(results))
    if results.subsets:
        _print(subset_table(results.subsets))


def _read_stress(folder):
    for curve in read_stress(folder / "stress.json").curves:
        _print(stress_table(curve))


def _print(table):
    with Path("/dev/null").open("w", encoding="utf-8", errors="backslashreplace") as nowhere:
        Console(file=nowhere).print(table)


def _write_checkpoint(folder):
    module = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {"iteration": 7, "detector": module.state_dict(), "optimizer": optimizer.state_dict(), "precision": {}}
    save_checkpoint(folder / "checkpoint.pt", state | {"randomness": [{"cpu": torch.get_rng_state()}]})


def _read_checkpoint(folder):
    from afrcnn.core.engine import build_training_fabric
    from afrcnn.training.checkpoint import restore_training

    file, module = folder / "checkpoint.pt", nn.Linear(3, 2)
    state = load_checkpoint(file, *NAMES)
    load_strict(module, state["detector"], file)
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    before = torch.get_rng_state()
    restore_training(build_training_fabric("cpu"), state, optimizer, file)
    torch.set_rng_state(before)


BOXES = np.array([[0, 0, 5, 5], [1, 1, 8, 9]], np.float32)


def _write_store(folder):
    images = [(f"image{n}", bytes(16), Proposals(BOXES, np.array([0.5, 0.25], np.float32))) for n in range(3)]
    ProposalStore.write(folder / "store", images, method="fast", parameters={"scales": [50]})


def _read_store(folder):
    store = ProposalStore(folder / "store")
    for image_id in store.ids:
        store.boxes(image_id), store.scores(image_id), store.fingerprint(image_id)


def _write_journal(folder):
    with Journal(folder / "finished.journal", {"method": "fast"}) as journal:
        for n in range(3):
            journal.append(bytes([n] * 16), BOXES)


def _read_journal(folder):
    with Journal(folder / "finished.journal", {"method": "fast"}) as journal:
        [journal[key] for key in list(journal._where)]


def _write_images(folder):
    pixels = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in ("jpg", "png", "tif", "bmp", "gif", "webp"):
        Image.fromarray(pixels).save(folder / f"image.{suffix}")


def _image_reader(suffix):
    def read(folder):
        read_image_size(folder / f"image.{suffix}")
        read_image(folder / f"image.{suffix}", upright=True)

    return Reader(f"image.{suffix}", _write_images, read)


def _write_coco(folder):
    _write_images(folder / "test")
    height, width = 20, 30
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[2:9, 3:8] = 1
    packed = coco_mask.encode(mask)
    segmentations = [
        [[3, 2, 8, 2, 8, 9, 3, 9]],
        {"size": [height, width], "counts": packed["counts"].decode()},
        {"size": [height, width], "counts": [10, 20, 570]},
    ]
    annotations = [
        {
            "id": n,
            "image_id": 1,
            "category_id": 1 + n % 2,
            "bbox": [3, 2, 5, 7],
            "area": 35,
            "iscrowd": 0,
        }
        | {"segmentation": segmentation}
        for n, segmentation in enumerate(segmentations, start=1)
    ]
    content = {
        "images": [{"id": 1, "file_name": "image.jpg", "height": height, "width": width}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": annotations,
    }
    file = folder / "annotations" / "instances_test.json"
    file.parent.mkdir()
    file.write_text(json.dumps(content))


def _read_coco(folder):
    dataset = open_dataset(folder, "test")
    for index in range(len(dataset)):
        dataset.target(index)
    derive_subsets(dataset)


def _write_voc(folder):
    _write_images(folder)
    (folder / "JPEGImages").mkdir()
    (folder / "image.jpg").rename(folder / "JPEGImages" / "image.jpg")
    objects = [VOCObject("cat", (1.0, 2.0, 9.0, 9.0)), VOCObject("dog", (3.0, 4.0, 20.0, 12.0), occluded=True)]
    (folder / "Annotations").mkdir()
    file = folder / "Annotations" / "image.xml"
    write_annotation(file, filename="image.jpg", height=20, width=30, objects=objects)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "test.txt").write_text("image\n")


def _read_voc(folder):
    dataset = open_dataset(folder, "test", "voc")
    for index in range(len(dataset)):
        dataset[index]


DETECTIONS = [{"boxes": torch.from_numpy(BOXES), "labels": torch.tensor([1, 2]), "scores": torch.tensor([0.9, 0.1])}]


def _write_published(folder):
    entries = [{"image_id": 1, "bbox": [4, 6, 30, 20], "score": 0.5}, {"image_id": 2, "bbox": [1, 2, 3, 4], "score": 1}]
    (folder / "deepmask.json").write_text(json.dumps(entries))
    images, boxes = np.empty(2, object), np.empty(2, object)
    images[:], boxes[:] = ["a", "b"], [BOXES + 1, BOXES + 2]
    scipy.io.savemat(folder / "boxes.mat", {"images": images, "boxes": boxes})


def _write_weights(folder):
    tensors = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    save_file(tensors, folder / "weights.safetensors")
    torch.save(tensors, folder / "weights.pth")
    array = np.ones((2, 3), np.float32)
    (folder / "net.caffemodel").write_bytes(caffemodels.layer("conv1", [caffemodels.blob(array)]))


def _weights_reader(name):
    def read(folder):
        load_strict(nn.Linear(3, 2), read_state_dict(folder / name), folder / name)

    return Reader(name, _write_weights, read)


def _write_list(folder):
    import pickle

    _write_coco(folder)
    mask = json.loads((folder / "annotations" / "instances_test.json").read_text())["annotations"][1]["segmentation"]
    entry = ("image.jpg", "cat", 1, [1, 1, 8, 7], mask)
    (folder / "occluded_coco.pkl").write_bytes(pickle.dumps([entry]))


def _write_archives(folder):
    _write_images(folder / "content")
    shutil.make_archive(str(folder / "a"), "zip", folder / "content")
    shutil.make_archive(str(folder / "a"), "tar", folder / "content")


def _archive_reader(kind):
    def read(folder):
        (folder / "out").mkdir()
        unpack(folder / f"a.{kind}", folder / "out")

    return Reader(f"a.{kind}", _write_archives, read)


def _write_log(folder):
    rows = [f"{n},detector,{n / 7:.6g}" for n in range(1, 9)]
    (folder / "log.csv").write_text("\n".join(["iteration,stage,loss", *rows]) + "\n")


READERS = (
    Reader("recipe.yaml", lambda folder: (folder / "recipe.yaml").write_text(dump_recipe(Recipe())),
           lambda folder: load_recipe(folder / "recipe.yaml", ["--seed", "1"]), "yaml"),
    Reader("results.json", _write_results, _read_results, "json"),
    Reader("stress.json", _write_results, _read_stress, "json"),
    Reader("checkpoint.pt", _write_checkpoint, _read_checkpoint),
    *(Reader(f"store/{name}.npy", _write_store, _read_store)
      for name in ("ids", "fingerprints", "offsets", "checksums", "boxes", "scores")),
    Reader("store/proposals.json", _write_store, _read_store, "json"),
    Reader("finished.journal", _write_journal, _read_journal),
    *(_image_reader(suffix) for suffix in ("jpg", "png", "tif", "bmp", "gif", "webp")),
    Reader("annotations/instances_test.json", _write_coco, _read_coco, "json"),
    Reader("Annotations/image.xml", _write_voc, _read_voc),
    Reader("ImageSets/Main/test.txt", _write_voc, _read_voc),
    Reader("coco.json", lambda folder: write_coco_results(folder / "coco.json", DETECTIONS, ["1"], [3, 7]),
           lambda folder: read_coco_results(folder / "coco.json", ["1"], [3, 7]), "json"),
    Reader("comp4_det_test_cat.txt",
           lambda folder: write_voc_results(folder, DETECTIONS, ["1"], ["cat", "dog"], "test"),
           lambda folder: read_voc_results(folder, ["1"], ["cat", "dog"], "test")),
    Reader("deepmask.json", _write_published, lambda folder: read_published([folder / "deepmask.json"]), "json"),
    _weights_reader("weights.safetensors"),
    _weights_reader("weights.pth"),
    Reader("net.caffemodel", _write_weights, lambda folder: read_caffemodel(folder / "net.caffemodel")),
    Reader("occluded_coco.pkl", _write_list,
           lambda folder: read_list(folder / "occluded_coco.pkl", open_dataset(folder, "test", "coco"))),
    *map(_archive_reader, ("zip", "tar")),
    Reader("log.csv", _write_log, lambda folder: Log(folder / "log.csv", folder / "tensorboard", 4).close()),
    # In a process of its own, which takes a second to start the first time.
    Reader("boxes.mat", _write_published, lambda folder: read_published([folder / "boxes.mat"])),
)  # fmt: skip
"""All of them."""
