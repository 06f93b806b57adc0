"""`afrcnn train`: recipes by name, datasets by their folder, and a first detector."""

import shutil
from pathlib import Path

import pytest

import afrcnn
from afrcnn.cli import main
from afrcnn.commands.train import _validation, schedule_for
from afrcnn.core.errors import UserError
from afrcnn.recipe import load_recipe

SMALL = [
    *("--detector.backbone=small", "--detector.weights=null", "--detector.short_side=[64]", "--detector.long_side=64"),
    *("--detector.rois_per_image=8", "--engine.accelerator=cpu", "--data.workers=0"),
    *("--schedule.iterations=3", "--joint.iterations=3", "--joint.decay_at=[]", "--joint.clean_iterations=1"),
    "--data.proposals_per_image=50",
]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset of 6 + 3 images, without proposals; and an empty folder to work in."""
    afrcnn.shapes(tmp_path / "photos", trainval=6, test=3, size=64)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def test_a_folder_alone_becomes_a_detector_its_ap_and_its_pictures(photos: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", "photos", *SMALL, "--pretraining.iterations=2"]) == 0
    run = afrcnn.Run("runs/photos/first-seed0")
    shown = capsys.readouterr().out
    assert "3 + 2 + 3 for 4 images (3 epochs), about" in shown
    assert "val:     trainval (voc): 2 images" in shown
    assert "in validation after 8 iterations, the highest so far" in shown
    assert run.best_file.is_file()
    assert "11-point" in shown
    assert run.recipe.adversaries.keys() == {"asdn", "astn"}
    assert run.recipe.data.augmentation.cutout > 0
    assert len(list(run.predictions.glob("*.jpg"))) == 3
    for file in (run.weights_file, run.results_file, run.predictions / "predictions.json"):
        assert file.is_file()
    (photos / "proposals" / "test-fast" / "proposals.json").unlink()
    assert main(["train", "photos", *SMALL, "--pretraining.iterations=2"]) == 0  # a search that was interrupted goes on
    for split in ("trainval", "test"):
        assert (photos / "proposals" / f"{split}-fast" / "proposals.json").is_file()


def test_recipes_by_name_train_together_and_name_the_run(photos: Path):
    assert main(["train", "squeezenet", "cutout", "photos", *SMALL]) == 0
    run = afrcnn.Run("runs/photos/squeezenet+cutout-seed0")
    assert run.weights_file.is_file()
    assert not run.recipe.adversaries
    assert not run.results_file.exists()


def test_a_name_that_ships_is_a_recipe_even_where_a_folder_has_it(photos: Path):
    shutil.copytree(photos, "cutout")
    assert main(["train", "cutout", "photos", *SMALL]) == 0
    assert Path(afrcnn.Run("runs/photos/cutout-seed0").recipe.data.root).name == "photos"
    assert main(["train", "squeezenet", str(Path("cutout").absolute()), *SMALL]) == 0
    assert Path(afrcnn.Run("runs/cutout/squeezenet-seed0").recipe.data.root).name == "cutout"


def test_two_folders_are_refused(photos: Path):
    shutil.copytree(photos, "others")
    with pytest.raises(UserError, match=r"others: a second dataset; name further ones with --data\.also"):
        afrcnn.train(["photos", "others"])


@pytest.mark.parametrize("images", [1, 50, 66, 67, 240, 3000, 10**6])
@pytest.mark.parametrize("parts", [["squeezenet"], ["squeezenet", "cutout"], ["resnet18", "occluding"]])
def test_updates_grow_with_the_images_within_bounds_and_stages_fit_the_method(images: int, parts: list[str]):
    recipe = load_recipe(parts, schedule_for(images, load_recipe(parts)))
    detector, joint = recipe.schedule.iterations, recipe.joint.iterations
    assert detector + joint == min(max(6 * images, 200), 20_000)
    assert (joint > 0) == (parts != ["squeezenet"])
    assert (recipe.pretraining.iterations > 0) == ("occluding" in parts)
    assert recipe.joint.clean_iterations < max(joint, 1)


def test_a_recipe_that_says_how_long_to_train_is_left_as_it_is(photos: Path, tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("schedule: {iterations: 2}\n")
    assert main(["train", "squeezenet", "mine.yaml", "photos", *SMALL[:7]]) == 0
    recipe = afrcnn.Run("runs/photos/squeezenet+mine-seed0").recipe
    assert (recipe.schedule.iterations, recipe.joint.iterations) == (2, 0)


def split_of(photos, *words):
    """What a first detector of a dataset is validated on."""
    recipe = load_recipe(["squeezenet"], ["--data.root", str(photos), *words])
    return _validation(recipe)


def lists(photos, **splits):
    for name, ids in splits.items():
        (photos / "ImageSets/Main" / f"{name}.txt").write_text("".join(f"{one}\n" for one in ids))


def test_a_first_detector_is_validated_on_what_is_neither_trained_nor_tested_on(photos: Path):
    ids = (photos / "ImageSets/Main/trainval.txt").read_text().split()
    assert split_of(photos) == ["--data.val_fraction=0.2"]
    lists(photos, val=ids[4:])
    assert split_of(photos) == ["--data.val_fraction=0.2"]  # a part of trainval, as VOC's is
    assert split_of(photos, "--data.test_split=val") == ["--data.val_fraction=0.2"]
    lists(photos, train=ids[:4])
    assert split_of(photos, "--data.train_split=train") == ["--data.val_split=val"]
    (photos / "ImageSets/Main/trainval.txt").unlink()
    assert split_of(photos) == ["--data.val_split=val"]
    (photos / "ImageSets/Main/test.txt").unlink()  # which val stands for, then
    assert split_of(photos, "--data.train_split=train") == []  # of four images, none is to spare


def test_epochs_become_iterations_when_the_images_are_counted(photos: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--schedule.epochs=2", "--schedule.images_per_iteration=4", *SMALL, "--joint.iterations=0"]
    words += ["--joint.clean_iterations=0"]
    assert main(["train", "squeezenet", "photos", *words]) == 0
    assert "3 + 0 + 0 for 6 images" in capsys.readouterr().out  # 2 x 6 / 4
    schedule = afrcnn.Run("runs/photos/squeezenet-seed0").recipe.schedule
    assert (schedule.iterations, schedule.epochs) == (3, None)
    assert main(["train", "squeezenet", "photos", *words]) == 0  # the same command goes on
    longer = ["--schedule.epochs=3", *words[1:]]
    assert main(["train", "squeezenet", "photos", *longer]) == 0
    assert afrcnn.Run("runs/photos/squeezenet-seed0").recipe.schedule.iterations == 5
