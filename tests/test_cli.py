"""The command line, from its words to its exit status."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from afrcnn import __version__
from afrcnn.cli import _COMMANDS, main
from afrcnn.recipe import Recipe

RECIPE = """
data: {workers: 0}
detector: {backbone: small, short_side: [64], long_side: 96}
schedule: {iterations: 2, checkpoint_every: 1, learning_rate: 0.001}
"""

AFRCNN = [sys.executable, "-c", "import sys; from afrcnn.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, its proposals, a recipe and a finished run, all made by the commands."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.yaml").write_text(RECIPE)
    size = ["--trainval", "4", "--test", "2", "--size", "64"]
    assert main(["shapes", str(folder / "shapes"), *size]) == 0
    assert main(["proposals", str(folder / "shapes"), "--jobs", "1"]) == 0
    assert main(["train", str(folder / "tiny.yaml"), "--data.root", f"{folder}/shapes", "--run", f"{folder}/run"]) == 0
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to break, as the working folder; the dataset is named ``shapes`` there, too."""
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    recipe = tmp_path / "work/run/recipe.yaml"
    recipe.write_text(recipe.read_text().replace(f"{made}/shapes", "shapes"))
    return tmp_path / "work"


def entries(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must fail with status 2 and, after any progress, one line; return the line."""
    capsys.readouterr()
    assert main(words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("searching ", "detecting "))]
    assert len(lines) == 1
    assert lines[0].startswith("afrcnn: error: ")
    return lines[0]


# What a person does.


def test_the_first_run_has_all_it_should(made: Path) -> None:
    names = {path.name for path in (made / "run").iterdir()}
    assert names >= {"recipe.yaml", "log.csv", "checkpoint.pt", "weights.safetensors", "tensorboard"}
    assert {path.name for path in (made / "shapes/proposals").iterdir()} == {"trainval-fast", "test-fast"}


def test_proposals_shows_recall_and_says_where_they_are(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proposals", "shapes", "--split", "test", "--out", "elsewhere", "--jobs", "1"]) == 0
    shown = capsys.readouterr().out
    assert "IoU >= 0.5" in shown
    assert "IoU >= 0.7" in shown
    assert "2000" in shown
    assert "elsewhere/test-fast" in shown
    assert main(["evaluate", "run", "--data.proposals", "elsewhere", "--out", "second"]) == 0


def test_published_proposals_are_imported_and_used(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = Path("shapes/ImageSets/Main/test.txt").read_text().split()
    cells, boxes = np.empty(len(ids), object), np.empty(len(ids), object)
    for n, image_id in enumerate(ids):
        cells[n], boxes[n] = image_id, np.array([[1, 1, 64, 64], [5, 9, 40, 30]], np.float64)
    savemat("published.mat", {"images": cells, "boxes": boxes})
    assert main(["proposals", "shapes", "--split", "test", "--import", "published.mat"]) == 0
    assert "shapes/proposals/test-selective_search" in capsys.readouterr().out
    assert main(["evaluate", "run", "--data.proposal_method", "selective_search", "--out", "second"]) == 0
    records = [{"image_id": image_id, "bbox": [4, 6, 30, 20], "score": 0.5} for image_id in ids for _ in range(2)]
    Path("deepmask.json").write_text(json.dumps(records))
    words = ["--import", "deepmask.json", "--method", "sharpmask"]
    assert main(["proposals", "shapes", "--split", "test", *words]) == 0
    assert Path("shapes/proposals/test-sharpmask/proposals.json").is_file()


def test_train_names_the_run_after_dataset_recipe_and_seed(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "tiny.yaml", "--data.root=shapes", "--seed", "3"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert Path("runs/shapes/tiny-seed3/weights.safetensors").is_file()
    assert "afrcnn evaluate runs/shapes/tiny-seed3" in shown
    assert main(words) == 0  # again: finished already


def test_evaluate_shows_the_table_and_where_the_results_are(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "run", "--svd", "16", "8", "--out", "truncated", "--split", "trainval"]) == 0
    shown = capsys.readouterr().out
    assert "11-point" in shown
    assert "truncated/results.json" in shown
    assert json.loads(Path("truncated/results.json").read_text())["images"] == 4
    assert not Path("run/results.json").exists()


def test_evaluate_measures_detections_of_a_file_and_writes_where_asked(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "run", "--out", "own"]) == 0
    table = capsys.readouterr().out.split("results:")[0]
    command = ["evaluate", "--detections", "own/detections/test.json", "--data.root", "shapes"]
    assert main(command) == 0
    assert capsys.readouterr().out == table
    assert main([*command, "--iou", "0.75", "--out", "other"]) == 0
    assert capsys.readouterr().out.endswith("results:    other/results.json\n")
    assert entries(Path("other")) == {"results.json"}
    assert json.loads(Path("other/results.json").read_text())["iou_threshold"] == 0.75


def test_evaluate_shows_subsets_where_asked_to(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "run", "--subsets", "--out", "parted"]) == 0
    assert "unoccluded" in capsys.readouterr().out
    subsets = json.loads(Path("parted/results.json").read_text())["subsets"]
    objects = {name: sum(result["objects"].values()) for name, result in subsets.items()}
    assert objects["all"] == objects["overlapped"] + objects["unoccluded"] > 0
    before = entries(work)
    assert "list.pkl" in error_of(capsys, "evaluate", "run", "--lists", "list.pkl", "--out", "other")
    assert entries(work) == before


def test_a_split_says_what_is_where_and_a_recipe_takes_it(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["shapes", "crowd", "--trainval", "30", "--test", "1", "--size", "96", "--occlusion", "0.5"])
    assert main(["split", "crowd", "trainval", "--names", "a", "b", "--out", "parted"]) == 0
    shown = capsys.readouterr().out
    assert "next: afrcnn proposals parted --split a b" in shown
    ids = [Path(f"parted/ImageSets/Main/{name}.txt").read_text().split() for name in "ab"]
    assert sorted(ids[0] + ids[1]) == Path("crowd/ImageSets/Main/trainval.txt").read_text().split()
    main(["proposals", "parted", "--split", "b"])
    fields = ["--data.root", "parted", "--split", "b", "--out", "on_b"]
    assert main(["evaluate", "run", *fields]) == 0
    results = json.loads(Path("on_b/results.json").read_text())
    assert (results["split"], results["images"]) == ("b", len(ids[1]))


def test_predict_says_what_is_in_each_image(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "run", "--score", "0.01", "shapes/JPEGImages", "--data.workers", "1"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 7
    assert shown[0].startswith("run/predictions/test_000000.jpg: ")
    assert len(json.loads(Path("run/predictions/predictions.json").read_text())) == 6


def test_stress_shows_each_curve_and_says_where_they_are(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stress", "run", "--occluder", "grey", "noise", "--bend", "elastic", "--out", "hidden"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("grey", "noise", "elastic", "hidden/stress.json", "hidden/stress.png"))
    assert entries(Path("hidden")) == {"stress.json", "stress.png"}
    curves = json.loads(Path("hidden/stress.json").read_text())["curves"]
    assert [len(curve["levels"]) for curve in curves] == [7, 7, 5]
    assert main(["stress", "run", "--placement", "worst", "--levels", "0.3"]) == 0
    (curve,) = json.loads(Path("run/stress.json").read_text())["curves"]
    assert [level["level"] for level in curve["levels"]] == [0, 0.3]


def test_report_says_where_the_page_of_several_runs_is(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("run", "other")
    recipe = Path("other/recipe.yaml")
    recipe.write_text(recipe.read_text().replace("flip: 0.5", "flip: 0.0"))
    assert main(["evaluate", "run"]) == 0
    assert main(["evaluate", "other"]) == 0
    assert main(["report", "run", "other", "--out", "pages/page.html"]) == 0
    assert "pages/page.html" in capsys.readouterr().out
    page = Path("pages/page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "flip" in page


def test_masks_says_what_is_shown_of_each_image(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain = ["--adversaries", "[hard_dropout]"]
    assert main(["masks", "run", "--score", "0.01", "--boxes", "1", "shapes/JPEGImages", *chain]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 7
    assert re.fullmatch(r"run/masks/test_000000\.png: 1 \w+; \d+ left out", shown[0])
    assert shown[-1] == "masks: run/masks/masks.json"
    assert len(json.loads(Path("run/masks/masks.json").read_text())) == 6
    box = ["--box", "3", "4.5", "40", "60", "dog"]
    assert main(["masks", "run", *box, *box, JPEG, "--out", "given", "--seed", "1", *chain]) == 0
    assert capsys.readouterr().out == "given/test_000000.png: 2 dog\nmasks: given/masks.json\n"


@pytest.mark.parametrize("command", _COMMANDS)
def test_help_explains_each_command_with_an_example_in_80_columns(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    assert re.search(rf"^  afrcnn {command}( |$)", shown, re.MULTILINE)
    assert "``" not in shown
    shown = shown.partition("\nAn experiment")[0]  # fields of a recipe may have many choices
    assert [line for line in shown.splitlines() if len(line) > 80] == []


def test_no_option_that_scripts_rely_on_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    options = {
        "download": "parts mirror",
        "convert-weights": "",
        "shapes": "trainval test size occlusion deformation classes sides seed jobs",
        "check": "layout",
        "convert": "to split layout",
        "minival": "",
        "split": "random seed names overlap layout out",
        "deepmask": "out split backbone weights frozen-stages iterations batch crops learning-rate seed accelerator",
        "proposals": "split layout out mode jobs backend import method weights allow-missing",
        "recipes": "",
        "train": "run",
        "evaluate": "ensemble split svd subsets lists out detections iou trust",
        "diagnose": "against similar top score crops split out",
        "submit": "split out competition name evaluated",
        "predict": "out score stride strict trust",
        "masks": "box boxes score search out trust",
        "show": "image split among limit levels score stress-seed out trust",
        "demo": "port trust",
        "stress": "occluder placement levels bend degrees warps split stress-seed out trust",
        "compare": "methods seeds out",
        "export": "format out",
        "report": "baseline out trust",
        "reproduce": "configs data devices dry-run fraction nodes",
    }
    assert list(options) == list(_COMMANDS)
    for command, names in options.items():
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown = capsys.readouterr().out
        missing = [name for name in names.split() if not re.search(rf"^  --{name}( .*)?$", shown, re.MULTILINE)]
        assert missing == [], command


def test_help_of_train_lists_every_field_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    recipe = dataclasses.asdict(Recipe())
    fields = [f"--{s}.{f}" for s, values in recipe.items() if isinstance(values, dict) for f in values]
    assert len(fields) > 30
    assert [field for field in ["--seed", *fields] if field not in shown] == []
    assert "Folder of the dataset, in any layout of docs/data.md" in shown


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "predict" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"afrcnn {__version__}\n"


def test_help_and_mistyped_folders_answer_without_loading_torch(tmp_path: Path) -> None:
    commands = [[], ["--help"], *([command, "--help"] for command in _COMMANDS)]
    commands += [
        [command, "nowhere"] for command in ("evaluate", "diagnose", "submit", "stress", "report", "proposals")
    ]
    commands += [["predict", "nowhere", "x.jpg"], ["masks", "nowhere", "x.jpg"], ["split", "nowhere", "test"]]
    commands += [["train", "tiny.yaml", "--data.root", "nowhere"], ["convert-weights", "nowhere", "x.safetensors"]]
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    code = """
import json, sys
from afrcnn.cli import main
for words in json.loads(sys.argv[1]):
    try:
        assert main(words) == (2 if "nowhere" in words else 0), words
    except SystemExit as stop:
        assert stop.code == 0, words
    heavy = {"torch", "cv2", "matplotlib", "lightning_fabric"} & set(sys.modules)
    assert not heavy, (words, heavy)
"""
    words = [sys.executable, "-c", code, json.dumps(commands)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    refused = sum("nowhere" in words for words in commands)
    assert done.stderr.count("nowhere") == len(done.stderr.splitlines()) == refused


# What a person gets wrong.


def truncate(file: str) -> None:
    Path(file).write_bytes(Path(file).read_bytes()[:400])


def replace(file: str, old: str, new: str) -> None:
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))


XML, JPEG = "shapes/Annotations/test_000000.xml", "shapes/JPEGImages/test_000000.jpg"
HARD = ["--adversaries", "[hard_dropout]"]
TRAIN = ["train", "tiny.yaml", "--data.root", "shapes", "--run", "new"]
MISTAKES: dict[str, tuple[Callable[[], object], list[str], list[str]]] = {
    # what is wrong: (how it came to be, the command, what the line must name)
    "no such dataset": (lambda: None, ["proposals", "nowhere"], ["nowhere"]),
    "no dataset": (lambda: Path("void").mkdir(), ["proposals", "void"], ["void", "ImageSets"]),
    "no such split": (lambda: None, ["proposals", "shapes", "--split", "tets"], ["tets"]),
    "empty split": (
        lambda: Path("shapes/ImageSets/Main/none.txt").touch(),
        ["proposals", "shapes", "--split", "none"],
        ["none.txt"],
    ),
    "missing image": (
        lambda: Path(JPEG).unlink(),
        ["proposals", "shapes", "--split", "test", "--out", "new"],
        [JPEG],
    ),
    "truncated image": (
        lambda: truncate(JPEG),
        ["proposals", "shapes", "--split", "test", "--out", "new", "--jobs", "1", "--strict"],
        [JPEG],
    ),
    "malformed XML": (lambda: truncate(XML), ["evaluate", "run", "--out", "new"], [XML]),
    "unknown class": (
        lambda: replace(XML, "<object><name>" if "<object><name>" in Path(XML).read_text() else "<name>", "<name>x"),
        ["evaluate", "run", "--out", "new"],
        [XML, "class"],
    ),
    "box outside": (
        lambda: replace(XML, "<xmax>", "<xmax>9"),
        ["evaluate", "run", "--out", "new"],
        [XML, "object[1]/bndbox"],
    ),
    "changed image": (
        lambda: Image.new("RGB", (64, 64)).save(JPEG),
        ["evaluate", "run", "--out", "new"],
        [JPEG, "changed"],
    ),
    "changed image, read by a worker": (
        lambda: Image.new("RGB", (64, 64)).save(JPEG),
        ["evaluate", "run", "--out", "new", "--data.workers", "2"],
        [JPEG, "changed"],
    ),
    "proposals missing": (
        lambda: shutil.rmtree("shapes/proposals"),
        ["evaluate", "run", "--out", "new"],
        ["proposals/test-fast", "afrcnn proposals"],
    ),
    "proposals for other images": (
        lambda: (
            shutil.rmtree("shapes/proposals/test-fast"),
            shutil.copytree("shapes/proposals/trainval-fast", "shapes/proposals/test-fast"),
        ),
        ["evaluate", "run", "--out", "new"],
        ["proposals/test-fast", "test_000000"],
    ),
    "published file of other images": (
        lambda: Path("deepmask.json").write_text('[{"image_id": 1, "bbox": [0, 0, 9, 9], "score": 1}]'),
        ["proposals", "shapes", "--import", "deepmask.json", "--out", "new"],
        ["deepmask.json"],
    ),
    "malformed published file": (
        lambda: Path("deepmask.json").write_text('[{"image_id": 1, "bbox": [0, 0,'),
        ["proposals", "shapes", "--import", "deepmask.json", "--out", "new"],
        ["deepmask.json"],
    ),
    "missing published file": (
        lambda: None,
        ["proposals", "shapes", "--import", "absent.mat", "--out", "new"],
        ["absent.mat"],
    ),
    "recipe missing": (lambda: None, ["train", "absent.yaml", "--run", "new"], ["absent.yaml"]),
    "recipe without dataset": (lambda: None, ["train", "tiny.yaml", "--run", "new"], ["data.root"]),
    "unknown field in the recipe": (
        lambda: replace("tiny.yaml", "short_side", "shortside"),
        TRAIN,
        ["tiny.yaml", "shortside"],
    ),
    "unknown field": (lambda: None, [*TRAIN, "--data.rooot", "x"], ["--data.rooot", "did you mean --data.root?"]),
    "field of a wrong type": (lambda: None, [*TRAIN, "--schedule.iterations", "many"], ["schedule.iterations"]),
    "field without a value": (lambda: None, [*TRAIN, "--data.flip"], ["data.flip"]),
    "unknown option": (lambda: None, [*TRAIN, "--wibble", "3"], ["--wibble", "afrcnn train --help"]),
    "misspelt option": (lambda: None, ["evaluate", "run", "--subset"], ["--subset", "did you mean --subsets?"]),
    "another recipe's run": (
        lambda: None,
        ["train", "tiny.yaml", "--data.root", "shapes", "--run", "run", "--seed", "1"],
        ["run", "--run"],
    ),
    "no run": (lambda: None, ["evaluate", "shapes", "--out", "new"], ["shapes", "afrcnn train"]),
    "unfinished run": (
        lambda: Path("run/weights.safetensors").unlink(),
        ["evaluate", "run", "--out", "new"],
        ["run", "finish"],
    ),
    "weights of another model": (
        lambda: replace("run/recipe.yaml", "backbone: small", "backbone: squeezenet1_0"),
        ["evaluate", "run", "--out", "new"],
        ["weights.safetensors"],
    ),
    "damaged weights": (
        lambda: truncate("run/weights.safetensors"),
        ["evaluate", "run", "--out", "new"],
        ["weights.safetensors"],
    ),
    "damaged checkpoint": (
        lambda: (truncate("run/checkpoint.pt"), Path("run/weights.safetensors").unlink()),
        ["train", "tiny.yaml", "--data.root", "shapes", "--run", "run"],
        ["run"],
    ),
    "ranks too large": (lambda: None, ["evaluate", "run", "--svd", "99999", "9", "--out", "new"], ["rank"]),
    "rank missing": (lambda: None, ["evaluate", "run", "--svd", "9"], ["--svd"]),
    "image to detect in missing": (lambda: None, ["predict", "run", "absent.jpg", "--out", "new"], ["absent.jpg"]),
    "image to detect in is text": (
        lambda: None,
        ["predict", "run", "tiny.yaml", "--out", "new", "--data.workers", "1"],
        ["tiny.yaml"],
    ),
    "masks of a run without adversaries": (
        lambda: None,
        ["masks", "run", JPEG, "--out", "new"],
        ["run", "adversaries"],
    ),
    "masks of a box of an unknown class": (
        lambda: None,
        ["masks", "run", JPEG, "--box", "1", "2", "30", "40", "digo", "--out", "new", *HARD],
        ["digo", "digger"],
    ),
    "masks of a box outside": (
        lambda: None,
        ["masks", "run", JPEG, "--box", "-1", "2", "30", "40", "dog", "--out", "new", *HARD],
        [JPEG, "-1 2 30 40", "64 x 64"],
    ),
    "masks of no box": (
        lambda: None,
        ["masks", "run", JPEG, "--box", "1", "2", "3", "dog", "4", "--out", "new", *HARD],
        ["--box", "1 2 3 dog 4"],
    ),
    "diagnosis of what was not evaluated": (
        lambda: None,
        ["diagnose", "run", "--out", "new"],
        ["run", "afrcnn evaluate run --split test"],
    ),
    "score no number": (lambda: None, ["predict", "run", JPEG, "--score", "high"], ["--score"]),
    "folder of pictures is a file": (
        lambda: None,
        ["predict", "run", JPEG, "--out", "tiny.yaml"],
        ["tiny.yaml"],
    ),
    "folder of results below a file": (
        lambda: None,
        ["evaluate", "run", "--out", "tiny.yaml/new"],
        ["tiny.yaml"],
    ),
    "folder of a dataset in use": (lambda: None, ["shapes", "run"], ["run"]),
    "dataset without images": (lambda: None, ["shapes", "new", "--test", "0"], ["test"]),
    "unknown command": (lambda: None, ["trian"], ["trian", "did you mean train?"]),
    "no image": (lambda: None, ["predict", "run"], ["IMAGE"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_in_one_line_with_status_2_and_leaves_nothing_behind(
    mistake: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words, named = MISTAKES[mistake]
    make()
    before = entries(work)
    line = error_of(capsys, *words)
    assert [name for name in named if name not in line] == [], line
    # Searched images are kept for the next try, in a journal; nothing else is written.
    assert {path for path in entries(work) - before if "." in Path(path).name and "journal" not in path} == set()


def test_the_process_ends_with_the_status_and_one_line() -> None:
    done = subprocess.run([*AFRCNN, "stress"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "afrcnn: error: the following arguments are required: RUN; see `afrcnn stress --help`"
    ]


def test_a_reader_that_goes_away_gets_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [*AFRCNN, "--help"], stdout=write, stderr=subprocess.PIPE, text=True, check=False, env=environment
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_ends_a_training_with_one_line_and_keeps_its_checkpoint(work: Path) -> None:
    words = ["train", "tiny.yaml", "--data.root", "shapes", "--run", "long", "--data.workers", "1"]
    words += ["--schedule.iterations", "100000"]
    with subprocess.Popen(
        [*AFRCNN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while process.poll() is None and not Path("long/checkpoint.pt").exists():
            time.sleep(0.05)
        assert process.poll() is None, process.communicate()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
        _, errors = process.communicate()
    lines = [line for line in errors.splitlines() if not line.startswith("training ")]
    assert process.returncode == 130
    assert [line.partition(";")[0] for line in lines if line] == [
        "afrcnn: stopping after this iteration",
        "afrcnn: interrupted",
    ]
    assert Path("long/checkpoint.pt").is_file()


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (">&-", "standard output is closed"),
        (">/dev/full", "output cannot be written (No space left on device)"),
    ],
)
def test_a_closed_or_full_standard_output_is_told(output: str, told: str) -> None:
    command = ["sh", "-c", f'"$@" {output}', "sh", *AFRCNN, "--version"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and told in done.stderr


def test_names_that_steer_a_terminal_or_are_not_utf_8_are_shown_and_written(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = os.fsdecode(b"\x1b[31m\xff.jpg")
    (work / "odd").mkdir()
    shutil.copy(work / "shapes/JPEGImages/test_000000.jpg", work / "odd" / name)
    assert main(["predict", "run", f"odd/{name}"]) == 0
    shown = capsys.readouterr()
    assert "\x1b[31m" not in shown.out + shown.err
    assert "\\x1b[31m\\udcff.jpg: " in shown.out
    [prediction] = json.loads((work / "run/predictions/predictions.json").read_text())
    assert prediction["image"] == f"odd/{name}"
    assert Path(prediction["picture"]).is_file()


def test_an_image_of_100_megapixels_is_detected_in_with_boxes_in_its_pixels(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = Image.open(work / "shapes/JPEGImages/test_000000.jpg").resize((640, 480))
    pixels.save(work / "image.png")
    words = ["predict", "run", "image.png", "--score", "0"]
    assert main(words) == 0
    whole = json.loads((work / "run/predictions/predictions.json").read_text())[0]
    monkeypatch.setattr("afrcnn.commands.new_images._MOST_PIXELS", 640 * 480 // 4)  # stands for 25 of 100 megapixels
    assert main(words) == 0
    halved = json.loads((work / "run/predictions/predictions.json").read_text())[0]
    assert (halved["width"], halved["height"]) == (whole["width"], whole["height"]) == (640, 480)
    assert Image.open(work / "run/predictions/image.jpg").size == (320, 240)
    corners = np.array([item["box"] for item in halved["objects"]])
    assert corners.max() > 400 and (corners <= [640, 480, 640, 480]).all()
