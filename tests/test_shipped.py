"""Recipes by name: what ships, and several on one command line."""

from pathlib import Path

import pytest
import yaml

from afrcnn.core.errors import UserError
from afrcnn.recipe import load_recipe
from afrcnn.shipped import FOLDER, recipe_file, shipped_recipes


def test_every_recipe_ships_under_its_path_with_a_line_of_its_own():
    files = {path.relative_to(FOLDER).as_posix().removesuffix(".yaml") for path in FOLDER.rglob("*.yaml")}
    shipped = shipped_recipes()
    assert set(shipped) == files
    assert all(line and line[0].isupper() for line in shipped.values())
    for name in ("voc07/vgg16_full", "squeezenet", "occluding_cutout"):
        assert recipe_file(name) == FOLDER / f"{name}.yaml"


def test_a_recipe_by_name_is_that_of_its_file():
    assert load_recipe("voc07/vgg16_full") == load_recipe(FOLDER / "voc07" / "vgg16_full.yaml")


def test_of_several_recipes_the_last_wins_field_by_field(tmp_path: Path):
    contents = [
        {"seed": 1, "detector": {"backbone": "small", "nms_iou": 0.4}, "adversaries": {"asdn": {"top": 0.3}}},
        {"detector": {"nms_iou": 0.5}, "adversaries": {"asdn": {"fraction": 0.2}, "astn": {}}},
        {"seed": 3, "joint": {"iterations": 7}},
    ]
    files = [tmp_path / f"{number}.yaml" for number in range(3)]
    for file, content in zip(files, contents, strict=True):
        file.write_text(yaml.safe_dump(content))
    recipe = load_recipe(files, ["--joint.iterations=8"])
    assert (recipe.seed, recipe.detector.backbone, recipe.detector.nms_iou) == (3, "small", 0.5)
    assert recipe.adversaries == {"asdn": {"top": 0.3, "fraction": 0.2}, "astn": {}}
    assert recipe.joint.iterations == 8
    assert load_recipe(files[::-1]).detector.nms_iou == 0.4


def test_methods_are_the_same_on_every_network():
    for network in ("squeezenet", "resnet18", "resnet50"):
        alone, joined = load_recipe(network), load_recipe([network, "occluding_cutout"])
        assert joined.detector == alone.detector
        assert set(joined.adversaries) == {"asdn", "astn"}
        assert joined.data.augmentation.cutout > 0 == alone.data.augmentation.cutout


@pytest.mark.parametrize("word", ["voc07/vgg61_full", "squeezenet.", "../paper"])
def test_a_word_that_is_neither_a_file_nor_a_name_is_refused_with_the_way_out(word: str):
    with pytest.raises(UserError, match=r"neither a file nor the name of a recipe.*(did you mean|afrcnn recipes)"):
        load_recipe(word)
