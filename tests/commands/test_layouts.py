"""From proposals to an evaluation on datasets in the layouts that people have, by the defaults of a recipe."""

from dataclasses import replace

import pytest

from afrcnn.cli import main
from afrcnn.core.errors import UserError
from afrcnn.recipe import dump_recipe
from scenes import coco_standard, cvat, fiftyone, labelimg, roboflow_coco, roboflow_yolo, write_image

LAYOUTS = {labelimg: "trainval", cvat: "trainval", fiftyone: "trainval", roboflow_coco: "train", roboflow_yolo: "train"}


@pytest.fixture
def words(recipe, tmp_path):
    """The command line of a training of two updates on the folder ``data``."""
    data = replace(recipe.data, root=str(tmp_path / "data"))
    (tmp_path / "recipe.yaml").write_text(dump_recipe(replace(recipe, data=data)))
    return ["train", str(tmp_path / "recipe.yaml"), "--run", str(tmp_path / "run"), "--schedule.iterations", "2"]


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_a_training_needs_no_word_about_layout_splits_or_classes(tmp_path, words, capsys, write):
    write(tmp_path / "data")
    assert main(["proposals", str(tmp_path / "data"), "--jobs", "1"]) == 0
    assert main(words) == 0
    assert f"data:    {LAYOUTS[write]} (" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert main(["check", str(tmp_path / "data")]) == 0
    assert f"proposals {LAYOUTS[write]}-fast: cover " in capsys.readouterr().out


def test_a_missing_split_is_named_by_its_field_with_those_that_there_are(tmp_path, words, capsys):
    coco_standard(tmp_path / "data")
    assert main([*words, "--data.train_split", "minitrain"]) == 2
    error = capsys.readouterr().err
    assert "data.train_split: the split is missing; choose one of train, valid, as --data.train_split train" in error


def test_a_damaged_image_is_refused_before_search_and_training_where_that_is_asked_for(tmp_path, words, capsys):
    labelimg(tmp_path / "data")
    assert main(["proposals", str(tmp_path / "data"), "--jobs", "1"]) == 0
    for path in (tmp_path / "data/images").iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    for command in (["proposals", str(tmp_path / "data"), "--strict"], [*words, "--data.strict", "true"]):
        capsys.readouterr()
        assert main(command) == 2
        assert "JPEG files that end too early; the first: " in capsys.readouterr().err
    assert not (tmp_path / "run/log.csv").exists()


def test_an_image_in_a_format_of_any_name_is_found(tmp_path):
    from afrcnn.data.layouts import open_dataset

    labelimg(tmp_path)
    for suffix in (".webp", ".bmp", ".TIF", ".PNG"):
        (tmp_path / "images/a.jpg").unlink(missing_ok=True)
        write_image(tmp_path / f"images/a{suffix}")
        assert (tmp_path / f"images/a{suffix}").name in {
            path.name for path in map(open_dataset(tmp_path, "all").image_path, range(4))
        }
        (tmp_path / f"images/a{suffix}").unlink()
    with pytest.raises(UserError, match="the image of this annotation is missing"):
        open_dataset(tmp_path, "all")
