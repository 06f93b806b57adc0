"""Strips of found and missed on the page."""

import base64
from io import BytesIO

from PIL import Image

from afrcnn.reporting.methods import read_methods
from afrcnn.reporting.strips import found_and_missed


def test_a_strip_is_shown_and_more_are_folded_away(runs):
    section = found_and_missed(read_methods([runs["frcn-seed0"], runs["full-seed0"]]))
    (first,) = section.pictures[""]
    more = section.more["More images"].pictures[""]
    assert {first.caption, *(picture.caption for picture in more)} == {f"test_{index}.jpg" for index in range(3)}
    assert first.alternative.startswith(f"{first.caption}: of 1 objects, with 0, 20, 40 and 60% of each hidden")
    assert "frcn 0, 0, 0 and 0; full 0, 0, 0 and 0" in section.text
    image = Image.open(BytesIO(base64.b64decode(first.source.partition(",")[2])))
    assert image.size == (first.width, first.height)
    assert image.width > 4 * 320


def test_without_the_images_or_the_weights_there_is_none(runs, tmp_path):
    gone = read_methods([runs["frcn-seed0"]], overrides=["--data.root", str(tmp_path / "nowhere")])
    section = found_and_missed(gone)
    assert not section.shown
    assert "no such folder" in section.missing[0]
    (tmp_path / "recipe.yaml").write_bytes((runs["frcn-seed0"] / "recipe.yaml").read_bytes())
    section = found_and_missed(read_methods([tmp_path]))
    assert not section.shown
    assert section.missing == []
