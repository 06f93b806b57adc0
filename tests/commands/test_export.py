"""`afrcnn export`: the same detections without PyTorch, whatever the detector was trained with."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from afrcnn.build import build_adversary, build_detector, load_detector
from afrcnn.cli import main
from afrcnn.commands.export import export
from afrcnn.core.errors import UserError
from afrcnn.detectors.exported import export_program
from afrcnn.recipe import DataRecipe, DetectorRecipe, Recipe
from afrcnn.run import Run
from afrcnn.training.checkpoint import save_weights
from reference import random_proposals

CLASSES = ["blue", "red", "green"]
RECIPE = Recipe(
    data=DataRecipe(root="nowhere", classes=CLASSES),
    detector=DetectorRecipe(
        backbone="small", pooling="roi_align", short_side=[64], long_side=96, detections_per_image=20
    ),
)


def write_run(folder, recipe):
    """A run of a detector whose detections are many, the same for every recipe."""
    torch.manual_seed(0)
    detector = build_detector(recipe.detector, len(CLASSES))
    nn.init.normal_(detector.roi_heads.predictor.cls_score.weight, std=0.3)
    nn.init.normal_(detector.roi_heads.predictor.bbox_pred.weight, std=0.1)
    run = Run(folder)
    run.begin(recipe)
    save_weights(run.weights_file, detector, {})
    if recipe.adversaries:
        save_weights(run.adversary_file, build_adversary(recipe, detector.box_head_spec, ()), {})
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "plain", RECIPE)


@pytest.fixture(scope="module")
def exported(run):
    """The files of the export, and the script's module."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    return export(run.folder)


def inputs(count):
    """Images of several shapes and their proposals, of several numbers."""
    rng = np.random.default_rng(0)
    for number in range(count):
        height, width = rng.integers(40, 200, 2)
        noise = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        image = np.array(Image.fromarray(noise).resize((int(width), int(height)), Image.Resampling.BICUBIC))
        yield image, random_proposals(rng, 1 if number == 0 else int(rng.integers(5, 60)), min(height, width))


def assert_same(detection, expected):
    """Check boxes, labels and scores to 1e-5; boxes relative to a side of 100 pixels."""
    boxes, labels, scores = detection
    assert labels.tolist() == expected["labels"].tolist()
    np.testing.assert_allclose(scores, expected["scores"].numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(boxes / 100, expected["boxes"].numpy() / 100, rtol=0, atol=1e-5)


def test_ten_images_have_the_same_detections_in_onnxruntime(run, exported):
    from afrcnn.detectors.standalone import detect_objects, load_session

    session, settings = load_session(str(exported[0]))
    detector, total = load_detector(run), 0
    for image, proposals in inputs(10):
        with torch.inference_mode():
            (expected,) = detector([torch.from_numpy(image).permute(2, 0, 1)], [torch.from_numpy(proposals)])
        assert_same(detect_objects(session, settings, image, proposals), expected)
        total += len(expected["labels"])
    assert total > 50
    assert [len(column) for column in detect_objects(session, settings, image, [])] == [0, 0, 0]


def test_the_metadata_say_all_that_is_needed_beside_the_graph(exported):
    import onnxruntime

    metadata = onnxruntime.InferenceSession(str(exported[0])).get_modelmeta().custom_metadata_map
    settings = {name: json.loads(value) for name, value in metadata.items()}
    assert settings["classes"] == CLASSES
    assert (settings["short_side"], settings["long_side"], settings["multiple_of"]) == (64, 96, 32)
    assert settings["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert (settings["detections_per_image"], settings["nms_iou"]) == (20, 0.3)


def test_a_detector_trained_with_adversaries_exports_the_graph_of_a_plain_one(run, tmp_path):
    full = write_run(tmp_path / "full", replace(RECIPE, adversaries={"asdn": {}, "astn": {}}))
    one, other = (export_program(load_detector(exported)) for exported in (run, full))
    assert str(one.graph) == str(other.graph)
    assert one.state_dict.keys() == other.state_dict.keys()
    for name, value in one.state_dict.items():
        assert torch.equal(value, other.state_dict[name])


def test_nothing_of_the_machine_is_in_the_file(exported):
    content = exported[0].read_bytes()
    assert b".py" not in content
    assert str(exported[0].parent.parent).encode() not in content


def test_the_script_runs_alone_from_the_command_line(exported, tmp_path):
    image, proposals = next(iter(inputs(3)))
    Image.fromarray(image).save(tmp_path / "image.png")
    np.save(tmp_path / "proposals.npy", proposals)
    hidden = "import sys; sys.modules.update(dict.fromkeys(['torch', 'afrcnn', 'torchvision'])); import runpy; "
    hidden += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    words = [str(exported[1]), str(exported[0]), str(tmp_path / "image.png"), str(tmp_path / "proposals.npy")]
    done = subprocess.run([sys.executable, "-c", hidden, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} <= set(CLASSES)
    assert all(len(line.split()) == 6 for line in done.stdout.splitlines())


@pytest.mark.parametrize("pooling", ["roi_pool", "roi_pool_v2"])
def test_max_pooling_is_exported_too(pooling, tmp_path):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    from afrcnn.detectors.standalone import detect_objects, load_session

    run = write_run(tmp_path / "run", replace(RECIPE, detector=replace(RECIPE.detector, pooling=pooling)))
    session, settings = load_session(str(export(run.folder)[0]))
    detector = load_detector(run)
    for image, proposals in inputs(3):
        with torch.inference_mode():
            (expected,) = detector([torch.from_numpy(image).permute(2, 0, 1)], [torch.from_numpy(proposals)])
        assert_same(detect_objects(session, settings, image, proposals), expected)


def test_pt2_gives_the_same_scores_for_any_size_and_number(run, tmp_path, capsys):
    assert main(["export", str(run.folder), "--format", "pt2", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"exported: {tmp_path / 'model.pt2'}\n"
    extra = {"classes.json": "", "nms_iou.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    assert json.loads(extra["classes.json"]) == CLASSES
    detector = load_detector(run)
    for image, proposals in inputs(3):
        boxes = torch.from_numpy(proposals)
        with torch.inference_mode():
            features = detector.features([torch.from_numpy(image).permute(2, 0, 1)])
            expected, _ = detector.roi_heads.score(features, [boxes])
            batch, _ = detector.transform([torch.from_numpy(image).permute(2, 0, 1).float() / 255])
            scores, _ = program(batch.tensors, boxes, features.scales[0])
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)


def test_what_cannot_be_exported_is_refused_in_one_line_and_nothing_is_written(run, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"detector\.model: a detector of another class is not exported"):
        export(run.folder, out=tmp_path / "out", overrides=["--detector.model", "mine:Detector"])
    with pytest.raises(UserError, match="no trained weights"):
        (tmp_path / "recipe.yaml").write_bytes(run.recipe_file.read_bytes())
        export(tmp_path, out=tmp_path / "out")
    monkeypatch.setattr("afrcnn.commands.export.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"ONNX is not installed.*afrcnn\[export\]"):
        export(run.folder, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
