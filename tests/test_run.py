"""Run folders: the same run goes on, anything else is left alone."""

from dataclasses import replace

import pytest

from afrcnn.build import load_detector, open_split
from afrcnn.core.errors import UserError
from afrcnn.recipe import DataRecipe, Recipe, load_recipe
from afrcnn.run import Run, initial_weights, resolve
from afrcnn.training.images import open_training_images


def test_the_recipe_is_written_with_every_field_and_read_again(tmp_path):
    recipe = resolve(Recipe(data=DataRecipe(root="somewhere", classes=["a"]), seed=4))
    run = Run(tmp_path / "new" / "run")
    run.begin(recipe)
    assert run.recipe == recipe
    assert load_recipe(tmp_path / "new" / "run" / "recipe.yaml") == recipe
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
    with pytest.raises(UserError, match="is not a run folder"):
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
    with pytest.raises(UserError, match="is not a run folder"):
        _ = run.recipe
    run.begin(Recipe(data=DataRecipe(classes=["a"])))
    with pytest.raises(UserError, match="has no trained weights"):
        load_detector(Run(tmp_path / "run"))


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


@pytest.mark.parametrize(("in_training", "in_test"), [(5, 3), (3, 5), (5, None)])
def test_evaluation_takes_the_best_proposals_as_many_as_its_own_field_says(in_training, in_test, rectangles):
    recipe = Recipe(data=DataRecipe(root=str(rectangles), proposals_per_image=in_training, test_proposals=in_test))
    every = open_split(Recipe(data=DataRecipe(root=str(rectangles))), "trainval").target(1)["proposals"]
    for count, images in ((in_training, open_training_images(recipe)), (in_test or 5, open_split(recipe, "trainval"))):
        assert images.target(1)["proposals"].tolist() == every[:count].tolist()


def test_a_relative_root_works_from_any_folder_and_stays_the_same_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run("run")
    run.begin(resolve(Recipe(data=DataRecipe(root="data", proposals="proposals", classes=["a"]))))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    data = Run(tmp_path / "run").recipe.data
    assert data.root == str(tmp_path / "data")
    assert data.proposals == str(tmp_path / "proposals")
    monkeypatch.chdir(tmp_path)
    run.begin(resolve(Recipe(data=DataRecipe(root="data", proposals="proposals", classes=["a"]))))


def test_a_root_that_is_gone_is_named_with_its_field_and_the_way_out(tmp_path):
    with pytest.raises(UserError, match=r"gone: data\.root: there is no such folder; .*--data\.root FOLDER"):
        open_split(Recipe(data=DataRecipe(root=str(tmp_path / "gone"))), "test")


def test_a_training_starts_from_the_first_stage_of_a_run_also_of_one_by_an_earlier_version(tmp_path):
    with pytest.raises(UserError, match="init_from: has no trained weights yet"):
        initial_weights(str(tmp_path))
    for name in ("weights", "stage_one", "detector"):
        (tmp_path / f"{name}.safetensors").touch()
        assert initial_weights(str(tmp_path)) == tmp_path / f"{name}.safetensors"
    assert initial_weights("some.safetensors").name == "some.safetensors"
