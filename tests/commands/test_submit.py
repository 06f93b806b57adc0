"""Archives for the evaluation servers: what is in them, read by other programs, and what is refused."""

import csv
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from afrcnn.cli import main
from afrcnn.commands.submit import submit
from afrcnn.core.errors import UserError
from afrcnn.evaluation.formats import write_coco_results, write_voc_results
from afrcnn.recipe import DataRecipe, Recipe
from afrcnn.run import Run

CLASSES = [  # typed in from the development kit's documentation, section 1, in its files' names
    *["aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"],
    *["diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"],
]
IDS = ["2008_000001", "2009_000002", "2010_000003"]


def detection(*rows):
    """Detections of an image, of rows of label, score, x1, y1, x2, y2."""
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
    return {"labels": table[:, 0].long(), "scores": table[:, 1], "boxes": table[:, 2:]}


DETECTIONS = [
    detection((8, 0.75, 0, 0, 20, 30), (8, 0.5, 4.5, 2, 9, 9)),
    detection(),
    detection((20, 1.0, 10, 11, 40, 30), (8, 1e-9, 1, 1, 1.5, 2)),
]


def begin(folder: Path, root: Path, **data: object) -> Run:
    run = Run(folder)
    run.begin(Recipe(data=DataRecipe(root=str(root), **data)))
    return run


def write_voc(run: Run, classes=CLASSES, split="test") -> None:
    write_coco_results(run.detections_file(split), DETECTIONS, IDS, range(1, len(classes) + 1))
    write_voc_results(run.detections / "voc", DETECTIONS, IDS, classes, split)


@pytest.fixture
def voc(tmp_path):
    """A run that was evaluated on VOC 2012's test set: three images, no annotations."""
    root = tmp_path / "VOCdevkit/VOC2012"
    (root / "JPEGImages").mkdir(parents=True)
    (root / "ImageSets/Main").mkdir(parents=True)
    for image_id in IDS:
        Image.new("RGB", (40, 30)).save(root / "JPEGImages" / f"{image_id}.jpg")
    (root / "ImageSets/Main/test.txt").write_text("".join(f"{image_id}\n" for image_id in IDS))
    run = begin(tmp_path / "run", root, classes=CLASSES)
    write_voc(run)
    return run


@pytest.fixture
def coco(tmp_path):
    """A run that was evaluated on COCO's test-dev: two images, no annotations."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "test2017").mkdir()
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "height": 30, "width": 40} for n in (7, 3)]
    for image in images:
        Image.new("RGB", (40, 30)).save(root / "test2017" / image["file_name"])
    content = {"images": images, "categories": [{"id": 17, "name": "cat"}, {"id": 90, "name": "toothbrush"}]}
    (root / "annotations/image_info_test-dev2017.json").write_text(json.dumps(content))
    run = begin(tmp_path / "full_seed 0", root, classes=["cat", "toothbrush"], test_split="test-dev2017")
    two = [detection((2, 0.75, 1, 2, 21, 32)), detection((1, 0.5, 0, 0, 4, 5), (1, 0.25, 0, 0, 4, 5))]
    write_coco_results(run.detections_file("test-dev2017"), two, ["7", "3"], [17, 90])
    return run


def unpack(archive: Path, folder: Path) -> list[Path]:
    """The files of an archive, in its order, unpacked by the system's tar."""
    folder.mkdir()
    subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
    listed = subprocess.run(["tar", "-tzf", archive], check=True, capture_output=True, text=True)
    return [folder / name for name in listed.stdout.split()]


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar")
@pytest.mark.parametrize("competition", ["comp3", "comp4"])
def test_voc_s_archive_has_a_file_of_each_class_in_pixels_from_1(voc, tmp_path, competition):
    made = submit(voc.folder, competition=competition)
    assert made.file == voc.folder / "results.tar.gz"
    files = unpack(made.file, tmp_path / "unpacked")
    main_folder = tmp_path / "unpacked/results/VOC2012/Main"
    assert files == [main_folder / f"{competition}_det_test_{name}.txt" for name in CLASSES]
    assert [str(file.relative_to(tmp_path / "unpacked")) for file in files] == list(made.members)
    rows = {file.stem: list(csv.reader(file.open(), delimiter=" ")) for file in files}
    assert {name.rpartition("_")[2]: len(of_class) for name, of_class in rows.items() if of_class} == {
        "cat": 3,
        "tvmonitor": 1,
    }
    assert rows[f"{competition}_det_test_cat"] == [
        ["2008_000001", "0.75", "1", "1", "20", "30"],
        ["2008_000001", "0.5", "5.5", "3", "9", "9"],
        ["2010_000003", "1e-09", "2", "2", "1.5", "2"],
    ]
    assert rows[f"{competition}_det_test_tvmonitor"] == [["2010_000003", "1", "11", "12", "40", "30"]]
    assert (made.images, made.detections) == (3, 4)


def test_coco_s_archive_holds_the_results_in_no_folder(coco):
    made = submit(coco.folder)
    assert made.file == coco.folder / "detections_test-dev2017_full_seed-0_results.zip"
    with zipfile.ZipFile(made.file) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["detections_test-dev2017_full_seed-0_results.json"]
        records = json.loads(archive.read(archive.namelist()[0]))
    assert records[0] == {"image_id": 7, "category_id": 90, "bbox": [1, 2, 20, 30], "score": 0.75}
    assert len(records) == made.detections == 3
    named = submit(coco.folder, name="ours", out=coco.folder / "b.zip")
    assert named.members == ("detections_test-dev2017_ours_results.json",)
    with pytest.raises(UserError, match="name: 'a/b' cannot be part of a file's name"):
        submit(coco.folder, name="a/b")


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_the_same_detections_give_the_same_bytes(layout, request, tmp_path):
    run = request.getfixturevalue(layout)
    first = submit(run.folder, out=tmp_path / "first.archive").file.read_bytes()
    for file in run.detections.rglob("*.*"):
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
    (tmp_path / "elsewhere").mkdir()
    assert submit(run.folder, out=tmp_path / "elsewhere/second").file.read_bytes() == first


def test_the_command_says_a_fact_a_line(voc, coco, capsys):
    assert main(["submit", str(voc.folder), "--competition", "comp3"]) == 0
    first, last = (f"comp3_det_test_{name}.txt" for name in ("aeroplane", "tvmonitor"))
    assert capsys.readouterr().out.splitlines() == [
        f"archive:    {voc.folder}/results.tar.gz",
        f"files:      20, results/VOC2012/Main/{first} to {last}",
        "images:     3",
        "detections: 4",
        "upload at:  http://host.robots.ox.ac.uk:8080",
    ]
    assert main(["submit", str(coco.folder), "--name", "ours"]) == 0
    assert "files:      1, detections_test-dev2017_ours_results.json\n" in capsys.readouterr().out


def test_detections_that_were_written_elsewhere_are_taken_from_there(voc, tmp_path):
    both = Run(tmp_path / "both")
    shutil.move(voc.detections, both.detections)
    with pytest.raises(UserError, match=r"test\.json: there are no detections .* run `afrcnn evaluate .*run --split t"):
        submit(voc.folder)
    assert submit(voc.folder, evaluated=both.folder).file == both.folder / "results.tar.gz"
    with pytest.raises(UserError, match=r"val\.json: there are no .*--split val --out .*both`"):
        submit(voc.folder, split="val", evaluated=both.folder)


def test_an_annotated_split_is_packed_too_and_its_year_is_the_folder_s(voc, tmp_path):
    root = tmp_path / "VOCdevkit/VOC2007"
    shutil.move(tmp_path / "VOCdevkit/VOC2012", root)
    write_voc(voc, split="val")
    (root / "ImageSets/Main/test.txt").rename(root / "ImageSets/Main/val.txt")
    (root / "Annotations").mkdir()
    for image_id in IDS:
        (root / "Annotations" / f"{image_id}.xml").write_text("<annotation/>")
    made = submit(voc.folder, split="val", overrides=["--data.root", str(root)])
    assert made.members[0] == "results/VOC2007/Main/comp4_det_val_aeroplane.txt"


LINES = {  # a line of comp4_det_test_cat.txt, and what the message must say
    "2008_000001 0.5 1 1 2": "is not `image_id confidence xmin ymin xmax ymax`",
    "2008_000001 0.5 1 1 2 2 2": "is not `image_id",
    "2008_000001  0.5 1 1 2 2": "is not `image_id",
    "2008_000001 high 1 1 2 2": "is not `image_id",
    "": "is not `image_id",
    "2008_000009 0.5 1 1 2 2": "the image '2008_000009' is not in the split",
    "2008_000001 0.5 1 1 inf 2": "a number is not finite",
    "2008_000001 nan 1 1 2 2": r"the confidence nan is not in \[0, 1\]",
    "2008_000001 1.5 1 1 2 2": r"the confidence 1\.5 is not in \[0, 1\]",
    "2008_000001 -0.5 1 1 2 2": "the confidence -0.5",
    "2008_000001 0.5 0 1 2 2": "0 1 2 2 is not a box of pixels from 1",
    "2008_000001 0.5 9 1 2 2": "9 1 2 2 is not a box",
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_that_breaks_the_rules_is_named_and_the_earlier_archive_stays(voc, line):
    archive = submit(voc.folder).file
    before = archive.read_bytes(), sorted(voc.folder.iterdir())
    with (voc.detections / "voc/comp4_det_test_cat.txt").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UserError, match=rf"comp4_det_test_cat\.txt: line 4: .*{LINES[line]}.*; .*`afrcnn evaluate`"):
        submit(voc.folder)
    assert (archive.read_bytes(), sorted(voc.folder.iterdir())) == before


GOOD = {"image_id": 7, "category_id": 17, "bbox": [1, 2, 3, 4], "score": 0.5}
RECORDS = {
    "not a record": ([7], "is not a record of image_id"),
    "no score": ({name: GOOD[name] for name in ("image_id", "category_id", "bbox")}, "is not a record of"),
    "another image": (GOOD | {"image_id": 8}, "the image 8 is not in the split"),
    "an image by name": (GOOD | {"image_id": "7"}, "the image '7' is not in the split"),
    "another category": (GOOD | {"category_id": 1}, "the category 1 is not in the dataset"),
    "a box of three": (GOOD | {"bbox": [1, 2, 3]}, "is not a box"),
    "a negative width": (GOOD | {"bbox": [1, 2, -3, 4]}, "is not a box"),
    "an infinite box": (GOOD | {"bbox": [1, 2, float("inf"), 4]}, "is not a box"),
    "a score above 1": (GOOD | {"score": 1.25}, r"the score 1\.25 is not in \[0, 1\]"),
    "no number": (GOOD | {"score": float("nan")}, "the score nan is not in"),
}


@pytest.mark.parametrize("mistake", RECORDS)
def test_a_record_that_breaks_the_rules_is_named_and_nothing_is_written(coco, mistake):
    record, problem = RECORDS[mistake]
    coco.detections_file("test-dev2017").write_text(json.dumps([GOOD, record]))
    before = sorted(coco.folder.iterdir())
    with pytest.raises(UserError, match=rf"test-dev2017\.json: \[1\]: .*{problem}"):
        submit(coco.folder)
    assert sorted(coco.folder.iterdir()) == before


@pytest.mark.parametrize(("text", "problem"), [("{}", "is not a list of detections"), ("[1", "is not valid JSON")])
def test_a_damaged_file_of_results_is_named(coco, text, problem):
    coco.detections_file("test-dev2017").write_text(text)
    with pytest.raises(UserError, match=rf"test-dev2017\.json: {problem}"):
        submit(coco.folder)


def test_a_missing_file_of_a_class_other_classes_and_an_empty_split_are_named(voc, tmp_path):
    (voc.detections / "voc/comp4_det_test_dog.txt").unlink()
    with pytest.raises(UserError, match=r"comp4_det_test_dog\.txt: cannot be read"):
        submit(voc.folder)
    with pytest.raises(UserError, match=r"data\.classes: the server takes VOC's 20 classes; 'sofa' differs"):
        submit(voc.folder, overrides=[f"--data.classes=[{','.join(set(CLASSES) - {'sofa'})}]"])
    assert not (voc.folder / "results.tar.gz").exists()
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Main/test.txt").write_text("\n")
    with pytest.raises(UserError, match=r"test\.txt: the split is empty"):
        submit(voc.folder)
