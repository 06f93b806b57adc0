"""Random splits: by class, the same on every machine, and written where the layout has its splits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from afrcnn.core.errors import UserError
from afrcnn.data.layouts import list_splits, open_dataset
from afrcnn.data.random_split import divide
from afrcnn.data.splits import split_at_random
from scenes import WITHOUT_SPLITS, labelimg, roboflow_voc, write_image, write_text, xml


def many(root: Path, count: int = 40) -> Path:
    """A tenth of the images show a rare class, every fifth nothing."""
    for n in range(count):
        name = "pear" if n % 10 == 3 else "apple"
        write_image(root / f"images/{n:03}.jpg")
        write_text(root / f"annots/{n:03}.xml", xml([] if n % 5 == 0 else [(name, (1, 1, 20 + n % 7, 30))]))
    return root


def test_a_division_is_by_class_and_does_not_depend_on_the_order(tmp_path: Path) -> None:
    dataset = open_dataset(many(tmp_path), "all")
    train, test = divide(dataset, 0.25, 0)
    assert sorted(train + test) == list(range(40))
    shown = Counter(str(dataset.target(index)["labels"].tolist()) for index in test)
    assert shown == {"[]": 2, "[1]": 7, "[2]": 1}  # of 8, 28 and 4, by Python's round
    backwards = dataset.subset(range(40)[::-1])
    assert {backwards.ids[index] for index in divide(backwards, 0.25, 0)[1]} == {dataset.ids[index] for index in test}
    assert divide(dataset, 0.25, 1)[1] != test


def test_a_division_is_the_same_on_every_machine(tmp_path: Path) -> None:
    dataset = open_dataset(many(tmp_path), "all")
    assert [dataset.ids[index] for index in divide(dataset, 0.2, 0)[1]] == GOLDEN


GOLDEN = ["003", "012", "014", "017", "021", "025", "028", "035", "037"]


def test_every_class_stays_in_both_where_there_are_two_images_of_it(tmp_path: Path) -> None:
    labelimg(tmp_path)
    train, test = (open_dataset(tmp_path, split) for split in ("trainval", "test"))
    assert all(train.object_counts().values())
    assert len(test) >= 1


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_a_fraction_out_of_range_is_refused(tmp_path: Path, fraction: float) -> None:
    labelimg(tmp_path)
    with pytest.raises(UserError, match=r"random: .* is out of range"):
        split_at_random(tmp_path, fraction=fraction)


@pytest.mark.parametrize("write", WITHOUT_SPLITS, ids=lambda write: write.__name__)
def test_the_written_splits_are_those_that_were_there_unwritten(tmp_path: Path, write) -> None:
    write(tmp_path)
    before = {split: open_dataset(tmp_path, split).files for split in ("trainval", "test")}
    written = split_at_random(tmp_path)
    assert all(new.file.is_file() for new in written)
    assert list_splits(tmp_path) == ["trainval", "test"]
    assert {split: open_dataset(tmp_path, split).files for split in ("trainval", "test")} == before
    split_at_random(tmp_path)  # the same again
    written[1].file.write_text("another's")
    with pytest.raises(UserError, match="another split has this name"):
        split_at_random(tmp_path)


def test_a_dataset_of_links_elsewhere_has_the_new_splits(tmp_path: Path) -> None:
    many(tmp_path / "own")
    splits = split_at_random(tmp_path / "own", out=tmp_path / "new")
    for new in splits:
        assert open_dataset(tmp_path / "new", new.name).ids == new.ids
    assert not (tmp_path / "own/splits").exists()


def test_of_several_splits_one_is_named(tmp_path: Path) -> None:
    roboflow_voc(tmp_path)
    with pytest.raises(UserError, match="has the splits train, valid; name the one to divide"):
        split_at_random(tmp_path)
    train, test = split_at_random(tmp_path, "train", fraction=0.4)
    assert sorted(train.ids + test.ids) == ["train/a", "train/b", "train/empty"]
