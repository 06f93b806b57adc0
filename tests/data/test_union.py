"""Several datasets as one to train on."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from afrcnn.core.errors import UserError
from afrcnn.data.layouts import open_dataset
from afrcnn.data.union import JoinedImages
from afrcnn.recipe import DataRecipe, Recipe
from afrcnn.run import Run, resolve, training_splits
from afrcnn.training.images import open_training_images
from afrcnn.training.train import train_stages


@pytest.fixture
def second(rectangles: Path, tmp_path: Path) -> Path:
    """Another dataset, whose images have the same ids."""
    return Path(shutil.copytree(rectangles, tmp_path / "second"))


def test_images_follow_each_other_under_ids_of_their_dataset(rectangles: Path, second: Path) -> None:
    datasets = [open_dataset(rectangles, "trainval"), open_dataset(second, "test"), open_dataset(second, "trainval")]
    joined = JoinedImages(datasets)
    assert len(joined) == 15 == len(set(joined.ids))
    assert joined.ids[:1] + joined.ids[6:7] + joined.ids[9:10] == ["trainval_0", "1/test_0", "2/trainval_0"]
    plain = [(dataset, row) for dataset in datasets for row in range(len(dataset))]
    for index, (dataset, row) in enumerate(plain):
        image, target = joined[index]
        assert torch.equal(image, dataset[row][0])
        assert target["boxes"].tolist() == joined.target(index)["boxes"].tolist() == dataset[row][1]["boxes"].tolist()
        assert target["image_id"] == joined.target(index)["image_id"] == joined.ids[index]
        assert joined.image_path(index) == dataset.image_path(row)
        assert joined.image_size(index) == dataset.image_size(row)
    assert joined.target(-1)["image_id"] == "2/trainval_5"
    assert (joined.classes, joined.annotated, joined.root) == (("blue", "red"), True, rectangles)
    assert pickle.loads(pickle.dumps(joined)).target(7)["image_id"] == "1/test_1"
    with pytest.raises(IndexError):
        joined[15]


def test_a_recipe_trains_on_all_with_the_proposals_beside_each(rectangles: Path, second: Path) -> None:
    shutil.move(second / "proposals" / "test-fast", second / "proposals" / "test-fast-moved")
    data = DataRecipe(root=str(rectangles), proposals=str(rectangles / "proposals"), also=[str(second)])
    dataset = open_training_images(Recipe(data=data))
    assert len(dataset) == 12
    assert all(len(dataset.target(index)["proposals"]) == 16 for index in range(12))
    data.also = [f"{second}:test"]
    with pytest.raises(UserError, match="second/proposals/test-fast"):
        open_training_images(Recipe(data=data))


def test_folders_become_absolute_and_splits_explicit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    resolved = resolve(Recipe(data=DataRecipe(root="a", train_split="all", also=["b", "c:test", "d:e/f"])))
    assert resolved.data.also == [f"{tmp_path}/b:all", f"{tmp_path}/c:test", f"{tmp_path}/d:e/f:all"]
    assert resolve(resolved) == resolved
    for name in ("a", "b", "c", "d:e/f"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir("/")
    names = [("a", "all"), ("b", "all"), ("c", "test"), ("d:e/f", "all")]
    assert training_splits(resolved) == [(tmp_path / name, split) for name, split in names]


def test_what_does_not_fit_is_named(rectangles: Path, second: Path) -> None:
    def refused(match: str, *also: str) -> None:
        with pytest.raises(UserError, match=match):
            open_training_images(Recipe(data=DataRecipe(root=str(rectangles), also=list(also))))

    refused(r"nowhere: data\.also: there is no such folder; write FOLDER or FOLDER:SPLIT", "nowhere")
    refused(r"trainval_0\.jpg: data\.also: would be trained on twice", str(rectangles))
    for file in (second / "Annotations").iterdir():
        file.write_text(file.read_text().replace(">red<", ">green<"))
    refused(r"second: data\.also: has the classes blue, green, not blue, red as ", str(second))
    for file in (second / "Annotations").glob("test_*"):
        file.unlink()
    refused(r"second: the split has no annotations \(3 images, test_0 the first\)", f"{second}:test")


def test_training_reads_all_of_them_and_the_run_says_so(recipe: Recipe, second: Path, tmp_path: Path) -> None:
    (second / "ImageSets/Main/trainval.txt").write_text("trainval_3\n")
    data = replace(recipe.data, also=[str(second)], proposal_method="fast")
    short = replace(recipe, data=data, schedule=replace(recipe.schedule, iterations=4))
    image = second / "JPEGImages/trainval_3.jpg"
    content = image.read_bytes()
    image.write_bytes(b"")
    with pytest.raises(UserError, match=r"second/JPEGImages/trainval_3\.jpg"):
        train_stages(short, tmp_path / "run")
    image.write_bytes(content)
    train_stages(short, tmp_path / "run")
    assert Run(tmp_path / "run").recipe.data.also == [f"{second}:trainval"]
    shutil.copy(Path(recipe.data.root) / "JPEGImages/trainval_3.jpg", second / "JPEGImages")
    assert train_stages(short, tmp_path / "run").weights_file.is_file()
