"""Run folders: the same run goes on, anything else is left alone."""

from dataclasses import replace

import pytest

from afrcnn.build import load_detector, open_split
from afrcnn.core.errors import UserError
from afrcnn.recipe import DataRecipe, Recipe, load_recipe
from afrcnn.run import Run


def test_the_recipe_is_written_with_every_field_and_read_again(tmp_path):
    recipe = Recipe(data=DataRecipe(root="somewhere", classes=["a"]), seed=4)
    run = Run(tmp_path / "new" / "run")
    run.begin(recipe)
    assert run.recipe == load_recipe(tmp_path / "new" / "run" / "recipe.yaml") == recipe
    assert Run(run.folder, ["--seed=5"]).recipe == replace(recipe, seed=5)
    run.begin(recipe)  # the same run, begun again


def test_a_run_with_another_recipe_is_refused_by_folder_and_field(tmp_path):
    run = Run(tmp_path)
    run.begin(Recipe(seed=1))
    with pytest.raises(UserError, match="seed: 1") as caught:
        run.begin(Recipe(seed=2))
    assert str(tmp_path) in str(caught.value)
    assert run.recipe.seed == 1


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is no run folder"):
        Run(tmp_path).begin(Recipe())
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    run = Run(tmp_path)
    for name in (".recipe.yaml.abc.part", ".checkpoint.pt.x1.part", ".weights.safetensors.q.part"):
        (tmp_path / name).write_text("half")
    run.begin(Recipe())  # a kill while the recipe was written does not spoil the folder
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.yaml"]
    (tmp_path / ".notes.part").write_text("mine")
    run.begin(Recipe())
    assert (tmp_path / ".notes.part").exists()


def test_no_run_and_an_unfinished_one_are_named(tmp_path):
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match="is no run"):
        _ = run.recipe
    run.begin(Recipe(data=DataRecipe(classes=["a"])))
    with pytest.raises(UserError, match="has no trained weights"):
        load_detector(run)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"root": ""}, "data.root"),
        ({"train_split": "nope"}, "nope"),
        ({"proposal_method": "quality"}, "trainval-quality"),
        ({"proposals": "elsewhere"}, "elsewhere/trainval-fast"),
        ({"classes": ["red"]}, "blue"),
    ],
)
def test_data_that_is_missing_or_wrong_is_named(fields, named, rectangles):
    data = DataRecipe(**{"root": str(rectangles), **fields})
    with pytest.raises(UserError, match=named):
        open_split(Recipe(data=data), data.train_split)


def test_proposals_lie_beside_the_dataset_or_where_the_recipe_says(rectangles):
    for proposals in (None, str(rectangles / "proposals")):
        data = DataRecipe(root=str(rectangles), proposals=proposals, proposals_per_image=5)
        dataset = open_split(Recipe(data=data), "test")
        assert dataset.classes == ("blue", "red") and len(dataset) == 3
        assert dataset.target(0)["proposals"].shape == (5, 4)
