"""`afrcnn show`: strips of what runs find and miss."""

import numpy as np
import pytest
from PIL import Image

from afrcnn.cli import main
from afrcnn.commands.found import found
from afrcnn.core.errors import UserError


def test_it_writes_a_strip_for_each_image_and_says_how_many_are_found(run, tmp_path, capsys):
    assert main(["show", str(run.folder), str(run.folder), "--out", str(tmp_path), "--score", "0.1"]) == 0
    shown = capsys.readouterr().out
    assert "of 3 in 3 images" in " ".join(shown.split())
    strips = sorted(tmp_path.glob("*.png"))
    assert [strip.stem for strip in strips] == ["test_0", "test_1", "test_2"]
    for strip in strips:
        assert str(strip) in shown
        pixels = np.asarray(Image.open(strip))
        upper, lower = np.array_split(pixels[25:], 2)
        assert (pixels != 255).any()
        assert upper.shape[1] == lower.shape[1] > 4 * 320


def test_the_images_that_are_named_are_shown_in_their_order(run, tmp_path):
    made = found([run.folder], image=["test_2", "test_0"], levels=(0.0, 0.5), out=tmp_path)
    assert [strip.stem for strip in made.strips] == ["test_2", "test_0"]
    assert made.images == 2
    assert {len(row) for row in made.counts.values()} == {2}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image": ["test_9"]}, "test_9: is not in the split test; did you mean"),
        ({"score": 0.0}, "score: 0 is out of range"),
        ({"levels": (0.0, 1.0)}, "levels: "),
        ({"among": 0}, "among: 0 is out of range"),
        ({"limit": 0}, "limit: 0 is out of range"),
        ({"split": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_shown_is_refused_and_nothing_is_written(run, tmp_path, wrong, message):
    with pytest.raises(UserError, match=message):
        found([run.folder], out=tmp_path / "strips", **wrong)
    assert not (tmp_path / "strips").exists()
