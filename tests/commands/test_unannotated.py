"""Test sets whose annotations are not published: every command does what it can without, and refuses the rest."""

import json
import shutil

import pytest
from PIL import Image

from afrcnn.commands.evaluate import evaluate, show
from afrcnn.commands.predict import predict
from afrcnn.commands.proposals import proposals
from afrcnn.commands.proposals import show as show_proposals
from afrcnn.commands.report import report
from afrcnn.commands.split import split
from afrcnn.commands.stress import stress
from afrcnn.commands.train import train
from afrcnn.core.errors import UserError
from afrcnn.evaluation.formats import read_coco_results, read_voc_results
from afrcnn.recipe import dump_recipe
from afrcnn.run import Run
from reference import assert_same_detections


@pytest.fixture
def unannotated(rectangles, tmp_path):
    """The rectangles, without the annotations of the test set."""
    root = tmp_path / "rectangles"
    shutil.copytree(rectangles, root)
    for file in (root / "Annotations").glob("test_*.xml"):
        file.unlink()
    return root


@pytest.fixture
def copy(run, tmp_path):
    return Run(shutil.copytree(run.folder, tmp_path / "run"))


def test_detections_are_those_of_the_annotated_set_and_there_is_no_ap(
    run, unannotated, dataset, detections, tmp_path, capsys
):
    written = Run(tmp_path / "out")
    results = evaluate(run.folder, out=written.folder, overrides=["--data.root", str(unannotated)])
    assert results is None
    show(results, run=run.folder, out=written.folder)
    shown = capsys.readouterr().out.splitlines()[-2:]
    assert shown[0].startswith("AP:         none, since the images are not annotated; `afrcnn submit`")
    assert shown[1] == f"detections: {written.detections}"
    assert not written.results_file.exists()
    assert_same_detections(read_coco_results(written.detections_file("test"), dataset.ids, [1, 2]), detections, 1e-2)
    texts = read_voc_results(written.detections / "voc", dataset.ids, dataset.classes, "test")
    assert [len(image["boxes"]) for image in texts] == [len(image["boxes"]) for image in detections]


def test_what_needs_annotations_is_refused_before_anything_is_detected(run, recipe, unannotated, tmp_path):
    fields, refusal = ["--data.root", str(unannotated)], "rectangles: the split has no annotations"
    out = tmp_path / "out"
    with pytest.raises(UserError, match=refusal):
        evaluate(run.folder, subsets=True, out=out, overrides=fields)
    with pytest.raises(UserError, match=refusal):
        stress(run.folder, out=out, overrides=fields)
    with pytest.raises(UserError, match=refusal):
        split(unannotated, "test")
    (tmp_path / "file.json").write_text("[]")
    with pytest.raises(UserError, match=refusal):
        evaluate(detections=tmp_path / "file.json", out=out, overrides=[*fields, "--data.classes=[blue,red]"])
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    shutil.rmtree(unannotated / "proposals")  # which nobody needs to make before the refusal
    with pytest.raises(UserError, match=refusal):
        train(tmp_path / "recipe.yaml", run=out, overrides=[*fields, "--data.train_split=test"])
    assert not out.exists()


def test_some_annotations_missing_are_a_mistake_everywhere(run, unannotated, rectangles, tmp_path):
    shutil.copy(rectangles / "Annotations/test_1.xml", unannotated / "Annotations")
    with pytest.raises(UserError, match=r"test_0\.xml: the annotation is missing"):
        evaluate(run.folder, out=tmp_path / "out", overrides=["--data.root", str(unannotated)])
    with pytest.raises(UserError, match=r"test_0\.xml: the annotation is missing"):
        proposals(unannotated, split=["test"], jobs=1)


def test_proposals_are_made_without_a_recall(unannotated, tmp_path, capsys):
    shutil.rmtree(unannotated / "Annotations")
    made = proposals(unannotated, split=["test"], out=tmp_path / "stores", jobs=1)
    store, recall = made["test"]
    assert recall is None
    assert list(store.ids) == ["test_0", "test_1", "test_2"]
    show_proposals(made)
    assert "recall of test: none, since its images are not annotated\n" in capsys.readouterr().out


def test_predict_takes_its_images(run, unannotated, tmp_path):
    images = [unannotated / f"JPEGImages/test_{number}.jpg" for number in range(3)]
    assert len(predict(run.folder, images, tmp_path / "pictures")) == 3


def test_a_report_says_why_there_is_no_ap(copy, unannotated, tmp_path):
    fields = ["--data.root", str(unannotated)]
    evaluate(copy.folder, overrides=fields)
    other = shutil.copytree(copy.folder, tmp_path / "other")
    page = report([copy.folder, other], tmp_path / "page.html", overrides=fields).read_text()
    assert page.count("the split has no annotations (3 images, test_0 the first)") >= 2  # AP, and false positives


def test_images_of_coco_alone_are_detected_in_under_the_ids_of_its_categories(run, rectangles, tmp_path):
    root = tmp_path / "coco"
    shutil.copytree(rectangles / "JPEGImages", root / "test2017")
    images = [
        {"id": 40 + n, "file_name": f"test_{n}.jpg", "height": size[1], "width": size[0]}
        for n in range(3)
        for size in [Image.open(root / f"test2017/test_{n}.jpg").size]
    ]
    content = {"images": images, "categories": [{"id": 9, "name": "red"}, {"id": 4, "name": "blue"}]}
    (root / "annotations").mkdir()
    (root / "annotations/image_info_test-dev2017.json").write_text(json.dumps(content))
    assert proposals(root, jobs=1)["test-dev2017"][1] is None
    fields = ["--data.root", str(root)]
    assert evaluate(run.folder, split="test-dev2017", out=tmp_path / "out", overrides=fields) is None
    records = json.loads((tmp_path / "out/detections/test-dev2017.json").read_text())
    assert {record["image_id"] for record in records} == {40, 41, 42}
    assert {record["category_id"] for record in records} == {4, 9}
