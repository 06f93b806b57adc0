"""Recipes: every field there and back, and one line for every mistake."""

import dataclasses
import json
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from afrcnn.build import build_detector
from afrcnn.core.errors import UserError
from afrcnn.detectors.roi_pooling import RoIAlign, RoIPool
from afrcnn.recipe import DetectorRecipe, JointRecipe, Recipe, dump_recipe, field_names, load_recipe

CONFIGS = Path(__file__).parents[1] / "configs"

RECIPES = sorted(CONFIGS.glob("*/*.yaml"))
assert RECIPES

SGD = {
    "epochs": 3,
    "images_per_iteration": 3,
    "images_at_once": 1,
    "learning_rate": 1e-07,
    "decay_factor": 0.5,
    "warmup_iterations": 9,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "bias_learning_rate_factor": 1.0,
    "bias_weight_decay": 0.25,
    "backbone_bias_weight_decay": 0.125,
    "log_every": 1,
    "checkpoint_every": 2,
}

OTHERS = {
    "data": {
        "root": "some/where",
        "layout": "coco",
        "classes": ["apple", "null", "3"],
        "train_split": "train2017",
        "also": ["VOC2007", "VOC2012:train"],
        "test_split": "val2017",
        "val_split": "minival",
        "val_fraction": 0.25,
        "proposals": "else where",
        "proposal_method": "quality",
        "proposals_per_image": 7,
        "test_proposals": 6,
        "use_difficult": True,
        "flip": 0.0,
        "redraw": True,
        "strict": True,
        "augmentation": {
            "random_erasing": 0.5,
            "cutout": 0.25,
            "cutout_fraction": 0.5,
            "copy_paste": 0.75,
            "stages": ["detector", "joint"],
        },
        "workers": 0,
    },
    "detector": {
        "model": "mine:Detector",
        "arguments": {"depth": 3},
        "backbone": "small",
        "weights": "weights.safetensors",
        "normalisation": "caffe",
        "pooling": "roi_align",
        "frozen_stages": 0,
        "dropout": 0.25,
        "short_side": [480, 600],
        "long_side": 999,
        "rois_per_image": 64,
        "foreground_fraction": 1.0,
        "foreground_iou": 0.6,
        "background_iou": (0.0, 0.4),
        "replacement": True,
        "fill_up": False,
        "integral_loss": [0.6, 0.75],
        "ohem": ["joint"],
        "ohem_rule": "authors",
        "dropout_in_scores": True,
        "box_targets": "measured",
        "score_threshold": 0.0,
        "nms_iou": 1.0,
        "detections_per_image": 300,
    },
    "schedule": {
        "iterations": 5,
        "decay_at": [],
        **SGD,
    },
    "pretraining": {"iterations": 6, "decay_at": [7], "foreground_per_image": 8, **SGD},
    "joint": {
        "iterations": 9,
        "clean_iterations": 4,
        "clean_fraction": 0.25,
        "adversarial_first": True,
        "new_box_layer": True,
        "least_iou": 0.75,
        "perturb_background": True,
        "jitter": {"scale": 0.25, "aspect_ratio": 0.5, "degrees": 5.0},
        "decay_at": [3],
        **SGD,
    },
    "adversaries": {"astn": {"blocks": 8}, "mine:Own": {"strength": 2, "name": "x"}, "asdn": {}},
    "evaluate_every": 11,
    "patience": 2,
    "init_from": "runs/one",
    "engine": {"accelerator": "cpu", "devices": 2, "nodes": 3, "precision": "bf16-mixed"},
    "seed": 12345678901,
}
"""For each field of a recipe a value that is not its default."""


@pytest.fixture
def recipe_of(tmp_path):
    def load(text, *overrides):
        file = tmp_path / "recipe.yaml"
        file.write_text(text, encoding="utf-8")
        return load_recipe(file, overrides)

    return load


def other_recipe(section=Recipe, fields=OTHERS):
    kinds = typing.get_type_hints(section)
    sections = {name for name, kind in kinds.items() if dataclasses.is_dataclass(kind)}
    return section(
        **{name: other_recipe(kinds[name], value) if name in sections else value for name, value in fields.items()}
    )


def leaves(section, above=()):
    """The fields of a recipe by their dotted names."""
    for item in dataclasses.fields(section):
        value = getattr(section, item.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, (*above, item.name))
        else:
            yield ".".join((*above, item.name)), value


def test_every_field_comes_back_from_yaml_as_it_was(recipe_of):
    default, other = dict(leaves(Recipe())), dict(leaves(other_recipe()))
    assert default.keys() == other.keys()
    assert not [name for name in default if default[name] == other[name]]  # each is tried
    assert recipe_of(dump_recipe(Recipe())) == Recipe()
    again = recipe_of(dump_recipe(other_recipe()))
    assert again == other_recipe()
    assert isinstance(again.detector.background_iou, tuple)


def test_every_field_can_be_overridden(recipe_of):
    def text(value):
        return json.dumps(value) if isinstance(value, list | tuple | dict) else str(value)

    overrides = [f"--{name}={text(value)}" for name, value in leaves(other_recipe())]
    assert recipe_of("", *overrides) == other_recipe()


def test_adversaries_are_chosen_added_and_set_by_overrides(recipe_of):
    def adversaries(*overrides):
        return recipe_of("adversaries: {asdn: {top: 0.4}, mine:Own: {strength: 1, name: x}}", *overrides).adversaries

    own = {"strength": 1, "name": "x"}
    assert list(adversaries()) == ["asdn", "mine:Own"]
    assert adversaries("--adversaries", "[astn, asdn]") == {"astn": {}, "asdn": {"top": 0.4}}
    assert adversaries("--adversaries={astn: {blocks: 8}}") == {"astn": {"blocks": 8}}
    assert adversaries("--adversaries", "{}") == {}
    assert adversaries("--adversaries.astn", "{}") == {"asdn": {"top": 0.4}, "mine:Own": own, "astn": {}}
    assert adversaries("--adversaries.asdn.top", "0.2")["asdn"] == {"top": 0.2}
    assert adversaries("--adversaries.asdn.fraction", "[0.1, 0.6]")["asdn"] == {"top": 0.4, "fraction": [0.1, 0.6]}
    assert adversaries("--adversaries.mine:Own.strength=2")["mine:Own"] == {"strength": 2, "name": "x"}
    assert adversaries("--adversaries.a.b:C.d=2")["a.b:C"] == {"d": 2}
    for wrong in ("--adversaries=3", "--adversaries.asdn=3", "--adversaries={asdn: 3}"):
        with pytest.raises(UserError, match=r"adversaries.*does not map names to arguments"):
            adversaries(wrong)
    for wrong in ("--adversaries={", "--adversaries.asdn.top={"):
        with pytest.raises(UserError, match="is not valid YAML"):
            adversaries(wrong)


def test_an_override_changes_one_field_of_the_file_and_no_other(recipe_of):
    recipe = recipe_of("data: {root: here, flip: 0.25}\nseed: 3", "--data.root", "there")
    assert (recipe.data.root, recipe.data.flip, recipe.seed) == ("there", 0.25, 3)


@pytest.mark.parametrize("text", ["", "# nothing", "data:", "schedule:\n  # learning_rate: 0.1\nseed: 0"])
def test_a_section_of_which_nothing_is_written_has_its_defaults(text, recipe_of):
    assert recipe_of(text) == Recipe()


def test_numbers_are_plain_and_may_be_written_with_an_exponent(recipe_of):
    rate = recipe_of("schedule: {learning_rate: 1e-3}").schedule.learning_rate
    assert type(rate) is float and rate == 0.001


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (
            "schedule: {learning_rat: 1}",
            "schedule.learning_rat: is not a field of a recipe; did you mean learning_rate?",
        ),
        ("adversaries: 3", "adversaries"),
        ("adversaries: [asdn]", "adversaries"),
        ("adversaries: {asdn: 3}", "adversaries"),
        ("schedule: {learning_rat: }", "schedule.learning_rat"),
        ("schedule: {learning_rat: {}}", "schedule.learning_rat"),
        ("schedul: {}", "did you mean schedule?"),
        ("schedul: {iterations: 3}", "schedul"),
        ("1: 2", "1"),
        ("schedule: 3", "schedule"),
        ("schedule: other.yaml", "schedule"),
        ("schedule: [iterations]", "schedule"),
        ("schedule: {iterations: many}", "schedule.iterations"),
        ("schedule: {iterations: 0}", "schedule.iterations"),
        ("schedule: {iterations: 1.5}", "schedule.iterations"),
        ("schedule: {learning_rate: -1}", "schedule.learning_rate"),
        ("schedule: {learning_rate: .nan}", "schedule.learning_rate"),
        ("schedule: {momentum: 1.01}", "schedule.momentum"),
        ("schedule: {decay_at: 3}", "schedule.decay_at"),
        ("data: {layout: pascal}", "data.layout"),
        ("data: {classes: apple}", "data.classes"),
        ("data: {classes: [1]}", "data.classes"),
        ("data: {classes: []}", "data.classes"),
        ("data: {use_difficult: 3}", "data.use_difficult"),
        ("data: {flip: 2}", "data.flip"),
        ("data: {augmentation: {cutout: 1.5}}", "data.augmentation.cutout"),
        ("data: {augmentation: {stages: [pretraining]}}", "data.augmentation.stages"),
        ("detector: {ohem: [first]}", "detector.ohem"),
        ("detector: {ohem: true}", "detector.ohem"),
        ("detector: {backbone: vgg19}", "detector.backbone"),
        ("detector: {normalisation: none}", "detector.normalisation"),
        ("detector: {short_side: 600}", "detector.short_side"),
        ("detector: {short_side: []}", "detector.short_side"),
        ("detector: {background_iou: [0.1]}", "detector.background_iou"),
        ("detector: {background_iou: [0.1, 2]}", "detector.background_iou"),
        ("detector: {background_iou: [0.5, 0.1]}", "detector.background_iou"),
        ("detector: {background_iou: [0.5, 0.5]}", "detector.background_iou"),
        ("detector: {background_iou: [0.1, 0.6]}", "detector.background_iou"),
        ("detector: {foreground_iou: 0.0}", "detector.background_iou"),
        ("data: {test_proposals: 0}", "data.test_proposals"),
        ("detector: {integral_loss: 0.5}", "detector.integral_loss"),
        ("detector: {integral_loss: [0.5, 1.5]}", "detector.integral_loss"),
        ("detector: {integral_loss: [0.55, 0.6]}", "detector.integral_loss: 0.55, 0.6 do not rise from foreground_iou"),
        ("detector: {integral_loss: [0.5, 0.6, 0.6]}", "write [0.5, ...]"),
        ("detector: {integral_loss: [0.5, 0.4]}", "detector.integral_loss"),
        ("detector: {foreground_iou: 0.6, integral_loss: [0.5, 0.6]}", "foreground_iou, 0.6"),
        ("engine: {precision: 64}", "engine.precision"),
        ("seed: -1", "seed"),
        ("seed: true", "seed"),
        ("seed: 99999999999999999999", "seed"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_file_and_field(text, field, recipe_of, tmp_path):
    with pytest.raises(UserError) as caught:
        recipe_of(text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'recipe.yaml'}: ")
    assert field in message and "\n" not in message and ";" in message


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("--data.rot=x", "--data.rot: is not a field of a recipe; did you mean --data.root?"),
        ("--dat=x", "--dat: is not a field"),
        ("--seed=x", "seed"),
        ("--schedule.iterations=0", "schedule.iterations"),
        ("--data.root", "--data.root"),
        ("stray", "stray"),
        ("--detector.background_iou=[0.3,0.2]", "detector.background_iou"),
    ],
)
def test_a_mistaken_override_is_named(override, named, recipe_of):
    with pytest.raises(UserError) as caught:
        recipe_of("", override)
    assert named in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "a: b: c", "a: 1\n\tb: 2", "a: \0", "data: {root: a}\n? [1]\n: 2"])
def test_broken_yaml_is_named_with_its_file(text, recipe_of):
    with pytest.raises(UserError, match=r"recipe\.yaml: is not valid YAML"):
        recipe_of(text)


@pytest.mark.parametrize("text", ["[]", "3", "just words"])
def test_yaml_that_is_no_mapping_is_no_recipe(text, recipe_of):
    with pytest.raises(UserError, match=r"recipe\.yaml: is not a section"):
        recipe_of(text)


def test_a_missing_file_a_folder_and_bytes_are_named(tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for file in (tmp_path / "none.yaml", tmp_path, tmp_path / "bytes.yaml"):
        with pytest.raises(UserError) as caught:
            load_recipe(file)
        assert str(caught.value).startswith(f"{file}: ")


def test_a_hostile_recipe_runs_no_code(recipe_of, tmp_path):
    with pytest.raises(UserError):
        recipe_of(f"data: !!python/object/apply:os.mkdir ['{tmp_path / 'hacked'}']")
    assert not (tmp_path / "hacked").exists()


def test_a_recipe_has_what_its_bases_say_where_it_says_nothing(recipe_of, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "first.yaml").write_text("seed: 1\ndetector: {backbone: alexnet, nms_iou: 0.4}\n")
    (tmp_path / "second.yaml").write_text(
        "base: far/first.yaml\ndetector: {backbone: small}\nadversaries: {asdn: {top: 0.4, fraction: 0.2}}\njoint:\n"
    )
    (tmp_path / "third.yaml").write_text("detector: {nms_iou: 0.2}\n")
    recipe = recipe_of("base: [second.yaml, third.yaml]\nadversaries: {asdn: {top: 0.5}, astn: {}}\nseed: 2")
    assert (recipe.seed, recipe.detector.backbone, recipe.detector.nms_iou) == (2, "small", 0.2)
    assert recipe.adversaries == {"asdn": {"top": 0.5, "fraction": 0.2}, "astn": {}}
    assert recipe.joint == JointRecipe()
    assert "base" not in dump_recipe(recipe)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("base: recipe.yaml", "is its own base"),
        ("base: around.yaml", "is its own base"),
        ("base: absent.yaml", "absent.yaml: cannot be read"),
        ("base: [broken.yaml]", "broken.yaml: is not valid YAML"),
        ("base: {a: b}", "cannot be read"),
        ("base: list.yaml", "is not a section of fields"),
    ],
)
def test_a_base_that_cannot_be_one_is_refused_by_file(text, problem, recipe_of, tmp_path):
    (tmp_path / "around.yaml").write_text("base: recipe.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(UserError, match=problem):
        recipe_of(text)


def test_no_recipe_leaves_a_trace_in_the_next(recipe_of):
    plain = recipe_of("seed: 1")
    changed = recipe_of(
        "seed: 1",
        *("--detector.short_side+", "300", "--detector.ohem+", "joint"),
        *("--adversaries.asdn.top", "0.3", "--seed=2"),
    )
    changed.detector.short_side.append(7)
    changed.detector.arguments["depth"] = 3
    changed.pretraining.decay_at.append(9)
    changed.data.augmentation.stages.clear()
    assert recipe_of("seed: 1") == plain


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_each_recipe_of_the_project_loads_and_names_its_dataset(file):
    recipe = load_recipe(file)
    assert "adversary:" not in file.read_text()  # it is written as recipes are today
    assert recipe.data.root
    assert file.stem.startswith(recipe.detector.backbone.replace("squeezenet1_0", "squeezenet"))


def test_the_detector_is_the_recipe_s():
    recipe = DetectorRecipe(
        backbone="small",
        pooling="roi_align",
        frozen_stages=2,
        dropout=0.125,
        short_side=[32, 48],
        long_side=96,
        rois_per_image=9,
        foreground_fraction=0.75,
        foreground_iou=0.6,
        background_iou=(0.2, 0.4),
        score_threshold=0.15,
        nms_iou=0.45,
        detections_per_image=11,
    )
    detector = build_detector(recipe, 5)
    roi_heads = detector.roi_heads
    assert isinstance(roi_heads.roi_pool, RoIAlign)
    assert roi_heads.roi_pool.stride == 8
    assert roi_heads.num_classes == 5
    assert roi_heads.box_head.dropout.p == 0.125
    assert [next(stage.parameters()).requires_grad for stage in detector.backbone][:3] == [False, False, True]
    assert (detector.transform.min_size, detector.transform.max_size) == ([32, 48], 96)
    sampler = roi_heads.sampler
    assert (sampler.rois_per_image, sampler.foreground_fraction, sampler.foreground_iou) == (9, 0.75, 0.6)
    assert sampler.background_iou == (0.2, 0.4)
    assert (roi_heads.score_threshold, roi_heads.nms_iou, roi_heads.detections_per_image) == (0.15, 0.45, 11)
    assert isinstance(build_detector(DetectorRecipe(backbone="small"), 5).roi_heads.roi_pool, RoIPool)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"backbone": "small", "weights": "DEFAULT"}, "detector.weights"),
        ({"backbone": "resnet18", "dropout": 0.5}, "detector.dropout"),
        ({"backbone": "squeezenet1_0", "weights": "missing.safetensors"}, "missing.safetensors"),
        ({"backbone": "caffenet", "weights": "IMAGENET1K_V1", "normalisation": "caffe"}, "detector.normalisation"),
        ({"backbone": "caffenet", "weights": "IMAGENET1K_V1"}, "give a file that `afrcnn convert-weights` wrote"),
        ({"backbone": "vgg16", "weights": "DEFAULT", "normalisation": "caffe"}, "detector.normalisation"),
    ],
)
def test_what_a_backbone_has_not_is_refused_by_field(fields, named):
    with pytest.raises(UserError, match=named):
        build_detector(DetectorRecipe(**fields), 3)


def test_trained_weights_need_no_imagenet_weights():
    recipe = DetectorRecipe(backbone="squeezenet1_0", weights="missing.safetensors")
    detector = build_detector(recipe, 3, pretrained=False)
    assert detector.roi_heads.num_classes == 3


def test_field_names_are_those_of_every_section_and_field():
    names = field_names()
    assert len(names) == len(set(names))
    assert set(names) > {name for name, _ in leaves(Recipe())}
    assert "joint.jitter" in names


def test_the_schema_needs_no_torch():
    code = "import sys, afrcnn.recipe, afrcnn.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
