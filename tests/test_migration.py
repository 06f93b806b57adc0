"""Recipes as earlier versions wrote them mean what they meant."""

import pytest
import yaml

from afrcnn.recipe import Recipe, load_recipe

OLD = """
data:
  augmentation: {cutout: 0.5, cutout_share: 0.25, stages: [schedule, joint]}
detector:
  ohem: [schedule]
adversary:
  chain: [astn, mine.Own, asdn, entry_point]
  clean_fraction: 0.25
  least_iou: 0.7
  pretrained: [asdn, mine.Own]
  asdn: {network: convolutional, window: 2, top: 0.5, share: 0.3, occluder: features, fixed: true}
  astn: {blocks: 8}
  hard_dropout: {window: 3}
  own: {mine.Own: {strength: 2}}
  jitter: {scale: 0.2}
joint: {iterations: 7}
"""


@pytest.fixture
def load(tmp_path):
    def load(text, *overrides):
        (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
        return load_recipe(tmp_path / "recipe.yaml", overrides)

    return load


def test_an_old_recipe_keeps_its_meaning(load):
    recipe = load(OLD)
    assert list(recipe.adversaries.items()) == [
        ("astn", {"blocks": 8, "pretrain": False}),
        ("mine:Own", {"strength": 2, "pretrain": True}),
        (
            "asdn",
            {
                "network": "convolutional",
                "window": 2,
                "top": 0.5,
                "occluder": "features",
                "frozen": True,
                "fraction": 0.3,
                "pretrain": True,
            },
        ),
        ("entry_point", {"pretrain": False}),
    ]
    assert (recipe.joint.clean_fraction, recipe.joint.least_iou, recipe.joint.jitter.scale) == (0.25, 0.7, 0.2)
    assert recipe.joint.iterations == 7
    assert recipe.detector.ohem == ["detector"]
    augmentation = recipe.data.augmentation
    assert augmentation.stages == ["detector", "joint"]
    assert augmentation.cutout_fraction == 0.25


def test_windows_of_several_sizes_become_a_range(load):
    windows = {"mask": "window", "share": 0.6, "least_share": 0.1}
    text = yaml.safe_dump({"adversary": {"chain": ["asdn"], "asdn": windows}})
    assert load(text).adversaries == {"asdn": {"mask": "window", "fraction": [0.1, 0.6]}}
    text = yaml.safe_dump({"adversary": {"chain": ["asdn"], "asdn": windows | {"least_share": None}}})
    assert load(text).adversaries == {"asdn": {"mask": "window", "fraction": 0.6}}


def test_a_whole_old_recipe_as_run_folders_hold_it_is_read(load):
    asdn = {"network": "fully_connected", "share": 1 / 3, "least_share": None, "fixed": False, "window": None}
    old = {"chain": [], "clean_fraction": 0.5, "least_iou": 0.0, "pretrained": None, "asdn": asdn, "own": {}}
    old |= {"jitter": {"scale": 0.0, "aspect_ratio": 0.0, "degrees": 0.0}}
    assert load(yaml.safe_dump({"adversary": old})) == Recipe()
    recipe = load(yaml.safe_dump({"adversary": old | {"chain": ["asdn"]}}))
    assert recipe.adversaries == {
        "asdn": {"network": "fully_connected", "window": None, "frozen": False, "fraction": 1 / 3}
    }


@pytest.mark.parametrize("text", [OLD, "adversaries: {asdn: {top: 0.4}, astn: {}}"], ids=["old file", "file of today"])
def test_old_options_change_a_recipe_of_either_time(load, text):
    assert list(load(text, "--adversary.chain", "[asdn]").adversaries) == ["asdn"]
    for append in (["--adversary.chain+=hard_dropout"], ["--adversary.chain+", "hard_dropout"]):
        assert list(load(text, *append).adversaries) == [*load(text).adversaries, "hard_dropout"]
    recipe = load(text, "--adversary.asdn.share=0.2", "--adversary.least_iou", "0.6", "--adversary.jitter.degrees=3")
    assert recipe.adversaries["asdn"]["fraction"] == 0.2
    assert recipe.joint.least_iou == 0.6
    assert recipe.joint.jitter.degrees == 3.0
    recipe = load(text, "--data.augmentation.cutout_share=0.2", "--detector.ohem", "[schedule, joint]")
    assert recipe.data.augmentation.cutout_fraction == 0.2
    assert recipe.detector.ohem == ["detector", "joint"]


def test_a_recipe_of_today_is_left_as_it_is(load):
    text = "adversaries: {asdn: {top: 0.4}}\njoint: {clean_fraction: 0.25, iterations: 3}"
    recipe = load(text)
    assert recipe.adversaries == {"asdn": {"top": 0.4}}
    assert recipe.joint.clean_fraction == 0.25
