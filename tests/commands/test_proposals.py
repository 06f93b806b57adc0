"""The command that makes or imports proposals."""

import json

import pytest

from afrcnn.commands.proposals import proposals, show
from afrcnn.commands.shapes import shapes
from afrcnn.core.errors import UserError
from afrcnn.data.layouts import open_dataset
from afrcnn.proposals.store import ProposalStore


@pytest.fixture
def folder(tmp_path):
    shapes(tmp_path / "set", trainval=2, test=1, size=64)
    return tmp_path / "set"


def test_all_images_are_searched_once_and_the_recall_is_shown(folder, capsys):
    show(proposals(folder, jobs=1))
    shown = capsys.readouterr().out
    assert {store.name for store in (folder / "proposals").iterdir()} == {"trainval-fast", "test-fast"}
    assert "IoU >= 0.5" in shown
    assert f"proposals of test: {folder}/proposals/test-fast" in shown
    assert ProposalStore(folder / "proposals" / "trainval-fast").method == "selective_search-fast"


def test_published_proposals_are_stored_under_the_name_of_their_method(folder, tmp_path):
    [image_id] = open_dataset(folder, "test").ids
    file = tmp_path / "published.json"
    file.write_text(json.dumps([{"image_id": image_id, "bbox": [4, 6, 30, 20], "score": 0.5}]))
    proposals(folder, split=["test"], published=[file], out=tmp_path / "stores")
    assert ProposalStore(tmp_path / "stores" / "test-deepmask").boxes(image_id).tolist() == [[4, 6, 34, 26]]
    file.write_text("[]")
    with pytest.raises(UserError, match=r"published\.json: holds no proposals"):
        proposals(folder, split=["test"], published=[file])


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        proposals(tmp_path / "nowhere")
