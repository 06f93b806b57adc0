from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afrcnn.core.errors import UserError
from afrcnn.data.figures import FIGURES
from afrcnn.data.layouts import open_dataset
from afrcnn.data.scene import draw_scene
from afrcnn.data.shapes import generate


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def small(folder: Path, **changed: Any) -> None:
    generate(folder, **({"trainval": 5, "test": 2, "size": 64, "seed": 3} | changed))


def test_the_same_seed_gives_the_same_bytes_whatever_the_jobs(tmp_path: Path) -> None:
    small(tmp_path / "one", jobs=1)
    small(tmp_path / "two", jobs=2)
    small(tmp_path / "other", seed=4)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    one, other = contents(tmp_path / "one"), contents(tmp_path / "other")
    assert all(one[name] != other[name] for name in one if name.endswith(".jpg"))


def test_the_number_of_images_does_not_change_an_image(tmp_path: Path) -> None:
    small(tmp_path / "few", trainval=3, test=1)
    small(tmp_path / "many", trainval=6, test=2)
    few, many = contents(tmp_path / "few"), contents(tmp_path / "many")
    assert all(few[name] == many[name] for name in few if name.startswith(("JPEGImages", "Annotations")))


def test_the_voc_reader_finds_the_scenes_as_they_were_drawn(tmp_path: Path) -> None:
    small(tmp_path, trainval=12, test=3, size=96, occlusion=0.6, deformation=0.8)
    seen = []
    for number, (split, count) in enumerate((("trainval", 12), ("test", 3))):
        dataset = open_dataset(tmp_path, split, classes=list(FIGURES))
        assert len(dataset) == count
        for i in range(count):
            drawn = draw_scene(np.random.default_rng((3, number, i)), 96, occlusion=0.6, deformation=0.8)
            image, target = dataset[i]
            assert np.abs(image.numpy().transpose(1, 2, 0) - drawn.image.astype(float)).mean() < 8, "JPEG loses little"
            assert [list(FIGURES)[label - 1] for label in target["labels"]] == [o.name for o in drawn.objects]
            assert target["boxes"].tolist() == [[*map(float, o.box)] for o in drawn.objects]
            occlusion = np.array([o.occlusion for o in drawn.objects])
            np.testing.assert_allclose(target["occlusion"], occlusion, rtol=1e-6)
            np.testing.assert_allclose(target["bend"], [o.bend for o in drawn.objects], rtol=1e-6)
            np.testing.assert_array_equal(target["occluded"], occlusion > 0.05)
            np.testing.assert_array_equal(target["difficult"], occlusion > 0.5)
            np.testing.assert_array_equal(target["truncated"], [o.truncated for o in drawn.objects])
            seen.extend(occlusion)
    assert max(seen) > 0.5, "both kinds were read"
    assert min(seen) <= 0.05, "both kinds were read"


def test_only_the_figures_and_sides_that_are_asked_for_are_drawn(tmp_path: Path) -> None:
    small(tmp_path / "some", trainval=12, classes=["person", "bird"], sides=(120, 150), occlusion=0, size=128)
    dataset = open_dataset(tmp_path / "some", "trainval")
    assert list(dataset.classes) == ["bird", "person"]
    boxes = np.concatenate([dataset.target(i)["boxes"] for i in range(12)])
    longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert len(longer) > 12
    assert longer.min() > 58, "128 pixels are half of 256"
    assert longer.max() < 77


def test_a_set_of_an_earlier_version_is_known_again(tmp_path: Path) -> None:
    small(tmp_path)
    assert "sides" not in (tmp_path / "shapes.json").read_text()
    with pytest.raises(UserError, match=r"shapes\.json: sides: "):
        small(tmp_path, sides=(80, 150))


@pytest.mark.parametrize("trainval", [2, 11])
def test_train_and_val_divide_trainval(tmp_path: Path, trainval: int) -> None:
    small(tmp_path, trainval=trainval)
    lists = tmp_path / "ImageSets" / "Main"
    train, val, both, test = ((lists / f"{s}.txt").read_text().split() for s in ("train", "val", "trainval", "test"))
    assert train
    assert val
    assert sorted(train + val) == sorted(both)
    assert len(both) == trainval
    assert not set(both) & set(test)


def test_generating_again_changes_nothing(tmp_path: Path) -> None:
    small(tmp_path)
    before = contents(tmp_path)
    (tmp_path / "Annotations" / "test_000000.xml").write_text("damaged")
    small(tmp_path)
    assert contents(tmp_path) == before


def test_a_generation_that_was_killed_leaves_no_split_and_can_be_repeated(tmp_path: Path) -> None:
    def kill(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(tmp_path / "killed", progress=kill)
    assert not (tmp_path / "killed" / "ImageSets").exists()
    small(tmp_path / "killed")
    small(tmp_path / "whole")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("name", ["image.jpg", "shapes.json", "ImageSets/Main/test.txt"])
def test_nothing_is_written_over_a_strangers_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('{"shapes": 1}')
    before = contents(tmp_path)
    with pytest.raises(UserError, match="holds no generated set"):
        small(tmp_path)
    assert contents(tmp_path) == before


def test_a_set_of_other_parameters_is_not_written_over(tmp_path: Path) -> None:
    small(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"shapes\.json: seed: .* has 3, not 4"):
        small(tmp_path, seed=4)
    assert contents(tmp_path) == before


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="not a folder"):
        small(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "field, value",
    [
        ("trainval", 1),
        ("test", 0),
        ("size", 8),
        ("size", (256, 20)),
        ("occlusion", 1.5),
        ("occlusion", float("nan")),
        ("deformation", -0.1),
        ("seed", -1),
        ("classes", ["bird", "brid"]),
        ("sides", (8, 100)),
        ("sides", (100, 80)),
    ],
)
def test_an_argument_out_of_range_is_named_before_anything_is_written(tmp_path: Path, field: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"^{field}: "):
        small(tmp_path / "set", **{field: value})
    assert not (tmp_path / "set").exists()
