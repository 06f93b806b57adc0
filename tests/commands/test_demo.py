"""`afrcnn demo`: what the page says of an object is what the detector does with it."""

import sys

import numpy as np
import pytest
import torch

import afrcnn
from afrcnn.commands.demo import _behind_bar, _Playground
from afrcnn.core.errors import UserError
from afrcnn.data.image import read_image
from afrcnn.reporting.interactive import TriedObject, _scores_table, build_page


@pytest.fixture
def image(rectangles):
    return read_image(rectangles / "JPEGImages" / "test_0.jpg").permute(1, 2, 0).numpy()


@pytest.fixture
def playground(run):
    return _Playground(run.folder)


def test_a_score_is_the_softmax_of_the_detector_for_the_very_box(playground, image):
    item = TriedObject((4.0, 6.0, 40.0, 50.0), 1)
    looked = playground.look(image, image, item)
    image = torch.from_numpy(image.transpose(2, 0, 1).copy())
    with torch.no_grad():
        features = playground.module.features([image])
        scores, _ = playground.module.roi_heads.score(features, [torch.tensor([item.box])])
    assert list(looked.scores) == ["as it is"]
    assert looked.scores["as it is"] == pytest.approx(float(scores[0, 1]), abs=1e-6)


def test_what_is_painted_and_the_bar_are_seen_together(playground, image):
    item = TriedObject((4.0, 6.0, 40.0, 50.0), 1)
    painted = image.copy()
    painted[10:30, 10:30] = 0
    both = playground.look(image, painted, item, side="top", hidden=0.5).scores
    alone = playground.look(_behind_bar(painted, item.box, "top", 0.5), painted, item).scores
    assert both["behind what you put before it"] == pytest.approx(alone["as it is"], abs=1e-6)


def test_objects_are_those_that_load_finds_best_first(playground, run, image):
    found = playground.find(image)
    seen = afrcnn.load(run.folder, score=0.1).predict(image)
    assert [item.label for item in found.values()] == seen.labels[:20].tolist()
    assert all(name.startswith(f"{number}. ") for number, name in enumerate(found, start=1))


def test_adversaries_that_learn_nothing_are_followed_and_a_seed_repeats_them(run, image):
    playground = _Playground(run.folder, overrides=["--adversaries=[random_dropout]"])
    item = TriedObject((4.0, 6.0, 40.0, 50.0), 1)
    first, again = (playground.look(image, image, item, seed=3) for _ in range(2))
    assert list(first.scores) == ["as it is", "after RANDOM_DROPOUT"]
    assert (first.scores, first.trace) == (again.scores, again.trace)
    assert first.trace.steps[0].mask != playground.look(image, image, item, seed=4).trace.steps[0].mask


def test_a_bar_hides_the_fraction_of_the_box_from_its_side():
    image, box = np.full((60, 80, 3), 7, np.uint8), (10, 20, 50, 40)
    for side, rows, columns in (
        ("left", slice(20, 40), slice(10, 20)),
        ("right", slice(20, 40), slice(40, 50)),
        ("top", slice(20, 25), slice(10, 50)),
        ("bottom", slice(35, 40), slice(10, 50)),
    ):
        hidden = (_behind_bar(image, box, side, 0.25) != 7).all(axis=2)
        expected = np.zeros((60, 80), bool)
        expected[rows, columns] = True
        assert np.array_equal(hidden, expected), side
        assert np.array_equal(_behind_bar(image, box, side, 0.0), image)


def test_names_in_the_table_are_text_not_markup():
    table = _scores_table({"after <script>": 0.5})
    assert "<script>" not in table and "after &lt;script&gt;" in table


def test_without_gradio_the_message_says_what_to_install(playground, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"gradio: is not installed.*afrcnn\[demo\]"):
        build_page(playground)


def test_the_page_serves_itself_and_asks_no_other_machine(playground):
    pytest.importorskip("gradio")
    page = build_page(playground)
    labels = {component["props"].get("label") for component in page.config["components"]}
    assert {"Object", "Image: paint over an object to hide it", "and hides, in % of the box"} <= labels
    assert not page.analytics_enabled
