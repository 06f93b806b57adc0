"""Every row of the paper's tables, end to end on a generated dataset, and the plan of it."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from afrcnn import cli
from afrcnn.commands import reproduce as module
from afrcnn.commands.reproduce import reproduce, show
from afrcnn.core.errors import UserError
from afrcnn.data.minival import make_minival
from afrcnn.data.voc_xml import VOCObject, write_annotation
from afrcnn.evaluation.results import Results
from afrcnn.reporting.comparison import METRICS
from afrcnn.reporting.paper import paper_rows
from afrcnn.reporting.reproduction import TABLES, RowRun, TableRow, coco_lines, markdown, shown_row
from afrcnn.run import Run

VOC = list(next(row for row in paper_rows() if row.ap).ap)
SMALL = [
    *("--detector.backbone", "small", "--detector.weights", "null", "--detector.rois_per_image", "8"),
    *("--detector.short_side", "[64]", "--detector.long_side", "64", "--engine.accelerator", "cpu"),
    *("--data.workers", "0", "--data.proposal_method", "fast", "--data.proposals_per_image", "50"),
]
ROWS = [(name, row) for name, rows in TABLES.items() for row in rows]


def draw(rng, file, names):
    """Write an image of 64 x 64 with a rectangle for each name; their boxes."""
    pixels, boxes = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8), []
    for place, name in enumerate(names):
        x, y = 2 + 32 * (place % 2), 2 + 32 * (place // 2)
        w, h = rng.integers(18, 28, 2).tolist()
        pixels[y : y + h, x : x + w] = np.random.default_rng(VOC.index(name)).integers(80, 255, 3)
        boxes.append((float(x), float(y), float(x + w), float(y + h)))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, quality=95)
    return boxes


def write_voc(root, splits, rng):
    for split in splits:
        ids = [f"{split}_{number}" for number in range(5)]
        for number, image_id in enumerate(ids):
            names = VOC[4 * number : 4 * number + 4]
            boxes = draw(rng, root / "JPEGImages" / f"{image_id}.jpg", names)
            objects = [VOCObject(name, box) for name, box in zip(names, boxes, strict=True)]
            file = root / "Annotations" / f"{image_id}.xml"
            write_annotation(file, filename=f"{image_id}.jpg", height=64, width=64, objects=objects)
        file = root / "ImageSets" / "Main" / f"{split}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{image_id}\n" for image_id in ids))


def write_coco(root, splits, rng):
    for first, split in zip((10, 20), splits, strict=True):
        content = {"images": [], "annotations": [], "categories": [{"id": i, "name": n} for i, n in enumerate(VOC, 1)]}
        for number in range(5):
            names, name = VOC[4 * number : 4 * number + 4], f"COCO_{split}_{first + number:012}.jpg"
            content["images"].append({"id": first + number, "file_name": name, "height": 64, "width": 64})
            for label, (x1, y1, x2, y2) in zip(names, draw(rng, root / split / name, names), strict=True):
                common = {"id": 100 * first + len(content["annotations"]), "image_id": first + number, "iscrowd": 0}
                box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
                content["annotations"].append(common | box | {"category_id": VOC.index(label) + 1})
        file = root / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Five images of four classes each in every split that a recipe of the paper names, in VOC's and COCO's layout."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for year in ("2007", "2012"):
        write_voc(folder / "VOCdevkit" / f"VOC{year}", ("train", "val", "trainval", "test"), rng)
    write_coco(folder / "coco", ("train2014", "val2014"), rng)
    make_minival(folder / "coco", folder / "coco" / "annotations" / "instances_val2014.json")
    return folder


@pytest.fixture
def commands(monkeypatch):
    """Commands in this process instead of one of their own, and a list of them."""
    given = []

    def run(*words):
        given.append([str(word) for word in words])
        assert cli.main(given[-1]) == 0

    monkeypatch.setattr(module, "_run", run)
    return given


def test_all_rows_of_all_tables_run_once_and_have_numbers_beside_the_paper_s(data, commands, tmp_path, capsys):
    made = reproduce("all", tmp_path, data=data, fraction=1e-5, overrides=SMALL)
    assert list(made.tables) == list(TABLES)
    trained = [words[1] for words in commands if words[0] == "train"]
    assert len(trained) == len({run for _, row in ROWS for run in row.runs}) == 23
    for name, rows in made.tables.items():
        assert [row for row, _ in rows] == TABLES[name]
        for row, results in rows:
            assert results is not None, row
            assert 0 <= results.mean_ap["11-point"] <= 1
        written = (tmp_path / f"{name}.md").read_text()
        assert "its numbers mean nothing" in written
        assert written.count("| paper |") == written.count("| difference |") == len(rows) * len(METRICS)
    for _, row in ROWS:
        for run in row.runs:
            recipe = Run(tmp_path / run.folder).recipe
            assert recipe.seed == run.seed
            assert recipe.schedule.iterations in {1, 4}  # 1e-5 of 10K to 80K, and of 320K
    capsys.readouterr()
    show(made, out=tmp_path)
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines() if str(tmp_path) not in line) <= 80
    assert "mean nothing" in printed
    # Again, everything is there.
    commands.clear()
    again = reproduce("all", tmp_path, data=data, fraction=1e-5, overrides=SMALL)
    assert not commands
    means = [[results.mean_ap for _, results in rows] for rows in made.tables.values()]
    assert [[results.mean_ap for _, results in rows] for rows in again.tables.values()] == means


def test_a_run_that_was_cut_off_goes_on_and_the_others_are_skipped(data, commands, tmp_path):
    folder = tmp_path / "voc12" / "vgg16_full-seed0"
    reproduce("table3", tmp_path, data=data, fraction=1e-5, overrides=SMALL)
    before = (folder / "weights.safetensors").read_bytes()
    for file in folder.glob("detections/*.json"):
        file.unlink()
    (folder / "weights.safetensors").unlink()
    commands.clear()
    reproduce("table3", tmp_path, data=data, fraction=1e-5, overrides=SMALL)
    assert [words[0] for words in commands] == ["train", "evaluate"]
    assert all("vgg16_full" in " ".join(words) for words in commands)
    assert (folder / "weights.safetensors").read_bytes() == before


def test_a_dry_run_makes_nothing_and_knows_hours_where_a_log_does(data, commands, tmp_path, capsys):
    out = tmp_path / "out"
    show(reproduce("table1", out, data=data, dry_run=True, overrides=SMALL), out=out, dry_run=True)
    assert not commands
    assert not out.exists()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    (row,) = (line for line in lines if "voc07/vgg16_full-seed0" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")][1:3] == ["90,000", "-"]
    log = out / "voc07" / "vgg16_asdn-seed0" / "log.csv"
    log.parent.mkdir(parents=True)
    rates = {"detector": 10.0, "pretraining": 5.0, "joint": 2.0}
    lines = ["iteration,stage,iterations_per_second", *(f"1,{stage},{rate}" for stage, rate in rates.items())]
    log.write_text("\n".join(lines))
    show(reproduce("table1", out, data=data, dry_run=True, overrides=SMALL), out=out, dry_run=True)
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "voc07/vgg16_full-seed0" in line)
    hours = (10_000 / 10 + 10_000 / 5 + 70_000 / 2) / 3600
    assert [cell.strip() for cell in row.strip("│").split("│")][2] == f"{hours:.2f}"


def test_a_failed_command_stops_with_what_to_do(data, tmp_path, monkeypatch):
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: module.subprocess.CompletedProcess([], 3))
    with pytest.raises(UserError, match=r"afrcnn .* ended with 3; see its message above"):
        reproduce("table3", tmp_path, data=data, fraction=1e-5, overrides=SMALL)


@pytest.mark.parametrize(("wrong", "field"), [({"fraction": 0.0}, "fraction"), ({"configs": "nowhere"}, "configs")])
def test_wrong_arguments_are_refused_by_name(wrong, field, tmp_path):
    with pytest.raises(UserError, match=field):
        reproduce("table1", tmp_path, **wrong)


@pytest.mark.parametrize(("name", "row"), ROWS, ids=lambda value: getattr(value, "name", value))
def test_each_row_has_a_number_of_the_paper(name, row):
    assert 0.2 < row.paper.mean_ap < 0.8
    assert row.paper.where.startswith({"table1": "Table 1", "table3": "Table 3"}.get(name, ("Table", "section")))


def test_differences_are_to_the_paper_s_row_in_points():
    results = results_of(0.7)
    row = TableRow("Ours (full)", "VGG16", "VOC2007 test", (RowRun("voc07/vgg16_full"),))  # 71.4 in Table 1
    assert shown_row(row, results) == (
        "Ours (full)",
        "VGG16",
        "70.0 70.0 70.0",
        "71.4",
        " ".join(["\N{MINUS SIGN}1.4"] * 3),
    )
    assert shown_row(row, None)[2:] == ("- - -", "71.4", "- - -")
    lines = list(markdown("table1", [(row, results)], ""))
    ours = next(line for line in lines if "| ours |" in line).split(" | ")
    paper = next(line for line in lines if "| paper |" in line).split(" | ")
    heads = next(line for line in lines if line.startswith("| method")).split(" | ")
    bottle = heads.index("bottle")
    assert (ours[bottle], paper[bottle]) == ("70.0", "44.7")


@pytest.mark.parametrize("method", ["FRCN*", "Ours (full)"])
def test_on_coco_ap_and_ap50_stand_beside_section_5_3_s(method):
    row = next(row for row in TABLES["coco"] if row.method == method)
    paper = {"FRCN*": "25.7 and 42.7", "Ours (full)": "27.1 and 46.2"}[method]
    results = replace(results_of(0.5), coco={"AP": 0.25, "AP50": 0.5, "AP75": 0.2})
    assert list(coco_lines([(row, results)])) == [f"{method}: AP 25.0 and AP50 50.0; the paper {paper}"]
    assert list(coco_lines([(row, None)])) == [f"{method}: AP - and AP50 -; the paper {paper}"]
    assert f"- {method}: AP 25.0 and AP50 50.0; the paper {paper}" in markdown("coco", [(row, results)], "")
    assert not list(coco_lines([(TABLES["table1"][0], results)]))


def test_devices_and_nodes_are_those_of_training_and_of_evaluation(data, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(module, "_run", lambda *words: given.append([str(word) for word in words]))
    for fields, devices in (([], "2"), (["--engine.devices", "4"], "4")):
        given.clear()
        overrides = [*SMALL, *fields]
        reproduce("ensembles", tmp_path, data=data, fraction=1e-5, devices=2, nodes=3, overrides=overrides)
        assert {words[0] for words in given} >= {"train", "evaluate"}
        for words in given:
            if words[0] in ("train", "evaluate"):
                *_, named = (value for word, value in pairwise(words) if word == "--engine.devices")
                assert (named, words[words.index("--engine.nodes") + 1]) == (devices, "3")
        assert sum("--ensemble" in words for words in given) == len(TABLES["ensembles"])


def results_of(ap):
    by_class = dict.fromkeys(VOC, ap)
    coco = dict.fromkeys(("AP", "AP50", "AP75"), ap)
    metrics = dict.fromkeys(METRICS, ap)
    return Results(1, 1, 0.5, dict.fromkeys(VOC, 1), metrics, dict.fromkeys(METRICS, by_class), coco)
