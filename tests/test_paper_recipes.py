"""The recipes of the paper's tables, and of the authors' release, against what their sources say.

The tables here are typed in from sections 4 and 5 of the paper (arXiv:1704.03414), from the public code of the Torch
implementation that it follows (MultiPathNet), and from the prototxt files of the authors' Caffe release.
"""

from pathlib import Path

import pytest

from afrcnn.recipe import load_recipe

CONFIGS = Path(__file__).parents[1] / "configs"

PAPER = {  # what all rows have
    "schedule.learning_rate": 0.001,  # section 5.1, as all without a source
    "schedule.decay_factor": 0.1,
    "schedule.images_per_iteration": 2,
    "schedule.momentum": 0.9,  # MultiPathNet, as all below without a source
    "schedule.weight_decay": 0.0005,
    "schedule.bias_learning_rate_factor": 1.0,
    "schedule.bias_weight_decay": 0.0,
    "joint.bias_learning_rate_factor": 1.0,
    "joint.bias_weight_decay": 0.0,
    "joint.clean_fraction": 0.5,  # section 5.1
    "detector.rois_per_image": 128,  # section 5.1: 256 of two images
    "detector.foreground_fraction": 0.25,
    "detector.foreground_iou": 0.5,
    "detector.background_iou": (0.1, 0.5),
    "detector.replacement": True,
    "detector.fill_up": False,
    "data.redraw": True,
    "data.flip": 0.5,
    "data.proposals_per_image": 2000,
    "detector.pooling": "roi_pool_v2",
    "detector.box_targets": "measured",
    "detector.short_side": [600],
    "detector.long_side": 1000,
    "detector.score_threshold": 0.0,
    "detector.nms_iou": 0.3,
    "detector.detections_per_image": 100,
    "engine.precision": "32-true",
}
ALONE = {"schedule.iterations": 80_000, "schedule.decay_at": [60_000], "joint.iterations": 0, "adversaries": {}}
TWO_STAGES = {
    "schedule.iterations": 10_000,
    "schedule.decay_at": [],
    "pretraining.iterations": 0,
    "joint.iterations": 70_000,
    "joint.decay_at": [50_000],
}
THREE_STAGES = TWO_STAGES | {"pretraining.iterations": 10_000}  # section 4.2.1
ROWS = {
    "frcn": ALONE,
    "asdn": THREE_STAGES | {"adversaries": {"asdn": {}}},
    "fixed_asdn": THREE_STAGES | {"adversaries": {"asdn": {"frozen": True}}},
    "astn": TWO_STAGES | {"adversaries": {"astn": {}}},
    "full": THREE_STAGES | {"adversaries": {"asdn": {}, "astn": {}}},
    "random_dropout": TWO_STAGES | {"adversaries": {"random_dropout": {}}},
    "hard_dropout": TWO_STAGES | {"adversaries": {"hard_dropout": {}}},
    "jitter": TWO_STAGES | {"adversaries": {}},
}
TABLES = {  # of which network each table has which rows
    "voc07/alexnet": list(ROWS),  # Tables 1 and 2, section 5.2.1
    "voc07/vgg16": ["frcn", "asdn", "astn", "full", "jitter"],
    "voc07/resnet101": ["frcn", "full"],
    "voc12/vgg16": ["frcn", "full"],  # Table 3
}
SPLITS = {  # what is trained on and what is tested on
    "voc07": {"data.train_split": "trainval", "data.test_split": "test", "data.also": []},
    "voc12": {"data.train_split": "trainval", "data.test_split": "test", "data.also": []},  # section 5.3, Table 3
}
MINIVAL = {  # section 5.1
    "data.root": "coco",
    "data.layout": "coco",
    "data.train_split": "trainval35k",
    "data.test_split": "minival",
    "data.proposal_method": "deepmask",
    "data.test_proposals": None,
    "detector.integral_loss": [],
}
ON_COCO = {  # section 5.1: 320K iterations, of which 280K at the first rate
    "frcn": ALONE | {"schedule.iterations": 320_000, "schedule.decay_at": [280_000]},
    "full": THREE_STAGES
    | {"adversaries": {"asdn": {}, "astn": {}}, "joint.iterations": 310_000, "joint.decay_at": [270_000]},
}
TORCH_ON_COCO = {  # MultiPathNet's scripts/train_coco.sh, and where it is silent train.lua
    "data.proposal_method": "sharpmask",
    "data.proposals_per_image": 1000,
    "data.test_proposals": 400,
    "detector.short_side": [800],
    "detector.rois_per_image": 64,
    "detector.integral_loss": [0.5, 0.55, 0.6, 0.65, 0.7, 0.75],
    "schedule.images_per_iteration": 4,
    "schedule.weight_decay": 0.0,
    "schedule.iterations": 320_000,  # 3200 epochs of 100
    "schedule.decay_at": [280_000],
}
RELEASE = {
    "detector.pooling": "roi_pool",
    "detector.rois_per_image": 128,
    "detector.foreground_fraction": 0.25,
    "detector.background_iou": (0.0, 0.5),
    "detector.replacement": False,
    "detector.fill_up": True,
    "detector.box_targets": "by_class",
    "detector.dropout_in_scores": True,
    "detector.score_threshold": 1e-5,
    "detector.detections_per_image": 2000,
    "detector.nms_iou": 0.3,
    **{f"{stage}.bias_learning_rate_factor": 2.0 for stage in ("schedule", "pretraining", "joint")},
    **{f"{stage}.images_at_once": 1 for stage in ("schedule", "pretraining", "joint")},
    "schedule.iterations": 10_000,
    "schedule.images_per_iteration": 2,
    "schedule.bias_weight_decay": 0.0005,
    "pretraining.iterations": 25_000,
    "pretraining.images_per_iteration": 8,
    "pretraining.decay_at": [20_000],
    "pretraining.foreground_per_image": 48,
    "pretraining.bias_weight_decay": 0.0,
    "joint.iterations": 40_000,
    "joint.images_per_iteration": 2,
    "joint.decay_at": [30_000],
    "joint.adversarial_first": True,
    "joint.new_box_layer": True,
    "joint.bias_weight_decay": 0.0,
    "joint.backbone_bias_weight_decay": 0.0005,
}
OHEM = {
    "detector.ohem": ["detector"],
    "detector.ohem_rule": "authors",
    "detector.rois_per_image": 64,
    "detector.background_iou": (0.0, 0.5),
    "detector.box_targets": "by_class",
    "detector.dropout_in_scores": True,
    "schedule.iterations": 40_000,
    "schedule.decay_at": [30_000],
    "schedule.images_per_iteration": 2,
    "joint.iterations": 0,
}


def values_of(file, names):
    recipe, values = load_recipe(CONFIGS / f"{file}.yaml"), {}
    for name in names:
        value = recipe
        for part in name.split("."):
            value = getattr(value, part)
        values[name] = value
    return values


@pytest.mark.parametrize(("network", "row"), [(network, row) for network, rows in TABLES.items() for row in rows])
def test_each_row_of_the_tables_has_the_values_of_the_paper_and_of_its_baseline(network, row):
    expected = PAPER | ROWS[row] | {"detector.backbone": network.split("/")[1]}
    assert values_of(f"{network}_{row}", expected) == expected


@pytest.mark.parametrize("row", ON_COCO)
def test_the_rows_on_coco_have_the_paper_s_values(row):
    expected = PAPER | MINIVAL | ON_COCO[row] | {"detector.backbone": "vgg16"}
    values = values_of(f"coco/vgg16_{row}", expected)
    assert values == expected
    assert values["detector.rois_per_image"] * values["schedule.images_per_iteration"] == 256
    iterations = values["schedule.iterations"] + values["joint.iterations"]
    decay = values.get("joint.decay_at") or values["schedule.decay_at"]
    before = values["schedule.iterations"] if values["joint.iterations"] else 0
    assert (iterations, before + decay[0]) == (320_000, 280_000)


def test_the_torch_implementation_s_own_run_on_coco_has_the_values_of_its_script():
    expected = PAPER | MINIVAL | ALONE | TORCH_ON_COCO | {"detector.backbone": "vgg16"}
    assert values_of("coco/vgg16_torch", expected) == expected


@pytest.mark.parametrize("file", sorted(str(file) for name in SPLITS for file in CONFIGS.glob(f"{name}/*.yaml")))
def test_voc_s_recipes_train_on_trainval_and_test_on_test(file):
    file = Path(file).relative_to(CONFIGS).with_suffix("")
    expected = SPLITS[file.parent.name] | {"data.root": f"VOCdevkit/VOC20{file.parent.name[3:]}"}
    assert values_of(file, expected) == expected


def test_the_release_has_the_values_of_its_prototxt_files():
    assert values_of("voc07/vgg16_asdn_release", RELEASE) == RELEASE


@pytest.mark.parametrize("file", ["voc07/alexnet_ohem", "voc07/vgg16_ohem", "voc12/vgg16_ohem"])
def test_ohem_has_the_values_of_its_authors_code(file):
    assert values_of(file, OHEM) == OHEM
