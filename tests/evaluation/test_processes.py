"""Detection and evaluation by several processes: what one process gives, and an error of one is an error of all."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from afrcnn.build import load_detector, open_split
from afrcnn.commands.evaluate import evaluate
from afrcnn.commands.stress import stress
from afrcnn.core.engine import build_fabric
from afrcnn.evaluation.detect import detect

PROCESSES = 4
"""More than the 3 images of the test split, and no divisor of the 6 of the other one."""

SCRIPT = f"""
import sys
from pathlib import Path
import torch
from afrcnn.build import load_detector, open_split
from afrcnn.core.engine import build_fabric, in_every_process, in_first_process
from afrcnn.core.errors import UserError
from afrcnn.evaluation.detect import detect
from afrcnn.run import Run

torch.set_num_threads(1)
run, folder = Run(sys.argv[1]), Path(sys.argv[2])
fabric = build_fabric("cpu", {PROCESSES})
fabric.launch()
report = {{"ranks": in_every_process(fabric, lambda: fabric.global_rank)}}
detector = load_detector(run)
for split in ("test", "trainval"):
    report[split] = detect(detector, open_split(run.recipe, split), fabric=fabric, workers=1)


class Broken:
    def __init__(self, dataset, bad, error):
        self.dataset, self.bad, self.error = dataset, bad, error

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        if index == self.bad:
            raise self.error
        return self.dataset[index]


def error_of(work):
    try:
        work()
    except Exception as error:
        return type(error).__name__, str(error), getattr(error, "fix", None)


images = open_split(run.recipe, "trainval")
mistake = UserError("is missing", file="5.jpg", fix="restore it")
report["user"] = error_of(lambda: detect(detector, Broken(images, 5, mistake), fabric=fabric, workers=0))
report["other"] = error_of(lambda: detect(detector, Broken(images, 0, KeyError("k")), fabric=fabric, workers=0))
report["again"] = detect(detector, open_split(run.recipe, "test"), fabric=fabric, workers=0)

in_first_process(fabric, lambda: (folder / "written").write_text(str(fabric.global_rank)))
report["written"] = (folder / "written").read_text()
report["full"] = error_of(lambda: in_first_process(fabric, lambda: (folder / "none" / "file").write_text("")))
torch.save(report, folder / f"{{fabric.global_rank}}.pt")
"""


def in_processes(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, words)], env=environment, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture(scope="module")
def reports(run, tmp_path_factory):
    """What each of four processes sees."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "script.py").write_text(SCRIPT)
    done = in_processes(folder / "script.py", run.folder, folder)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.mark.parametrize("split", ["test", "trainval", "again"])
def test_every_process_has_the_detections_of_all_images_with_the_bits_of_one_process(split, reports, run):
    images = open_split(run.recipe, "trainval" if split == "trainval" else "test")
    expected = detect(load_detector(run), images, fabric=build_fabric("cpu"), workers=0)
    assert sum(len(image["scores"]) for image in expected) > len(expected)
    for report in reports:
        assert report["ranks"] == list(range(PROCESSES))
        assert len(report[split]) == len(expected)
        for image, other in zip(report[split], expected, strict=True):
            assert image.keys() == other.keys()
            assert all(torch.equal(image[name], other[name]) for name in other)


def test_an_error_in_one_process_is_one_in_all_and_names_what_is_wrong(reports):
    for rank, report in enumerate(reports):
        assert report["user"] == ("UserError", "5.jpg: is missing; restore it", "restore it")
        kind, message, _ = report["other"]
        # The process whose image it is, of six the first, has its own exception; the others hear of it.
        assert (kind, message) == (
            ("KeyError", "'k'") if rank == 0 else ("RuntimeError", "process 0 failed: KeyError('k')")
        )


def test_the_first_process_writes_and_the_others_wait_for_it(reports):
    for rank, report in enumerate(reports):
        assert report["written"] == "0"
        assert report["full"][0] == ("FileNotFoundError" if rank == 0 else "RuntimeError")


def everything(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_commands_write_in_two_processes_what_they_write_in_one_and_speak_once(run, tmp_path):
    evaluate(run.folder, subsets=True, out=tmp_path / "one")
    words = ["-m", "afrcnn.cli", "evaluate", run.folder, "--subsets", "--out", tmp_path / "two"]
    done = in_processes(*words, "--engine.devices", "2")
    assert done.returncode == 0, done.stderr
    assert everything(tmp_path / "two") == everything(tmp_path / "one")
    assert len(everything(tmp_path / "two")) == 4
    assert done.stdout.count("results:") == done.stdout.count("detections:") == 1

    settings = ["--placement", "worst", "--occluder", "grey", "--levels", "0.3"]
    stress(run.folder, placement="worst", occluder=["grey"], levels=[0.3], out=tmp_path / "three")
    words = ["-m", "afrcnn.cli", "stress", run.folder, *settings, "--out", tmp_path / "four"]
    done = in_processes(*words, "--engine.devices=2")
    assert done.returncode == 0, done.stderr
    assert everything(tmp_path / "four") == everything(tmp_path / "three")
    assert done.stdout.count("curves:") == 1


def test_a_mistake_ends_all_processes_with_status_2_and_nothing_is_written(run, rectangles, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    for folder in rectangles.iterdir():
        (root / folder.name).symlink_to(folder)
    (root / "JPEGImages").unlink()
    (root / "JPEGImages").mkdir()
    for image in (rectangles / "JPEGImages").iterdir():
        shutil.copy(image, root / "JPEGImages")
    # The last image, which the second process has.
    (root / "JPEGImages" / "test_2.jpg").write_bytes(b"no image")
    words = ["-m", "afrcnn.cli", "evaluate", run.folder, "--data.root", root, "--out", tmp_path / "out"]
    done = in_processes(*words, "--engine.devices", "2")
    assert done.returncode == 2, done.stderr
    assert "test_2.jpg" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
