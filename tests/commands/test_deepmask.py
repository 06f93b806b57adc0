"""From images with masks to proposals on the command line, and a proposer of one's own."""

import sys

import numpy as np
import pytest

from afrcnn.cli import main
from afrcnn.commands.deepmask import deepmask
from afrcnn.commands.proposals import proposals
from afrcnn.core.errors import UserError
from afrcnn.data.layouts import open_dataset
from afrcnn.proposals.deepmask import DeepMask, load_deepmask
from afrcnn.proposals.store import ProposalStore
from coco_scenes import write_coco_scenes
from deepmask_network import save_network, tiny_network


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_coco_scenes(tmp_path_factory.mktemp("scenes") / "set", count=1, splits=("train", "val"))


def test_a_network_is_trained_and_proposes(scenes, tmp_path, capsys):
    weights, stores = tmp_path / "w.safetensors", tmp_path / "stores"
    words = ["deepmask", str(scenes), "--backbone", "small", "--iterations", "1", "--batch", "1", "--out", str(weights)]
    assert main([*words, "--accelerator", "cpu"]) == 0
    assert f"next:    afrcnn proposals {scenes} --method deepmask --weights {weights}" in capsys.readouterr().out
    words = ["proposals", str(scenes), "--split", "val", "--method", "deepmask", "--jobs", "1", "--out", str(stores)]
    assert main([*words, "--weights", str(weights)]) == 0
    assert "IoU >= 0.5" in capsys.readouterr().out
    store = ProposalStore(stores / "val-deepmask")
    search = DeepMask(load_deepmask(weights))
    assert (store.method, store.parameters) == ("deepmask", search.parameters)
    image, _ = open_dataset(scenes, "val")[0]
    assert (store.boxes("1") == search(image.permute(1, 2, 0).numpy())).all()

    assert main([*words, "--weights", str(save_network(tmp_path / "other.safetensors", tiny_network()))]) == 2
    assert "val-deepmask: holds proposals of deepmask" in capsys.readouterr().err


OWN = """
import numpy as np

class Whole:
    method, parameters = "whole", {"sides": (1, 2)}

    def __init__(self, file=None):
        if file is not None:
            self.parameters = {"weights": str(file)}

    def __call__(self, image):
        height, width = image.shape[:2]
        return np.array([[0, 0, width, height]], dtype=np.float32)

class Outside(Whole):
    def __call__(self, image):
        return super().__call__(image) + 1

class Nameless:
    def __call__(self, image):
        return None

class Elsewhere(Whole):
    method = "../elsewhere"
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_proposers.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_proposers", None)


def test_a_class_of_one_s_own_proposes(scenes, tmp_path, own):
    for _ in range(2):  # the second time there is nothing to do, although JSON knows no tuples
        made = proposals(scenes, split=["val"], method="own_proposers:Whole", out=tmp_path, jobs=1)
    store, recall = made["val"]
    assert store.folder == tmp_path / "val-whole"
    assert np.array_equal(store.boxes("1"), [[0, 0, 256, 224]])
    assert recall.proposals == 1
    made = proposals(
        scenes, split=["val"], method="own_proposers:Whole", weights="mine.bin", out=tmp_path / "other", jobs=1
    )
    assert made["val"][0].parameters == {"weights": "mine.bin"}


def test_a_class_that_is_not_a_proposer_is_refused(scenes, tmp_path, own):
    def propose(name):
        proposals(scenes, split=["val"], method=f"own_proposers:{name}", out=tmp_path, jobs=1)

    for name in ("Nameless", "Elsewhere"):
        with pytest.raises(UserError, match=f"--method: own_proposers:{name} is not a Proposer"):
            propose(name)
    with pytest.raises(UserError, match="cannot be imported"):
        propose("Missing")
    with pytest.raises(ValueError, match="lies outside the image of 256 x 224 pixels"):
        propose("Outside")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "deepmask"], "deepmask: needs weights; give the file that `afrcnn deepmask DATASET` wrote"),
        (["--method", "deepmusk"], "--method: there is no method named deepmusk; did you mean deepmask?"),
        (["--weights", "w.safetensors"], "--weights: selective_search has none"),
        (["--method", "deepmask", "--mode", "fast"], "--mode: deepmask has none"),
        (["--method", "deepmask", "--weights", "none.safetensors"], "none.safetensors: cannot be read"),
    ],
)
def test_mistakes_of_proposals_are_told_in_a_line(scenes, words, message, capsys):
    assert main(["proposals", str(scenes), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_mistakes_of_training_are_told(scenes, tmp_path):
    with pytest.raises(UserError, match=r"w\.pth: is not the name of a \.safetensors file"):
        deepmask(scenes, out="w.pth")
    with pytest.raises(UserError, match="smoll: is not a backbone; did you mean small"):
        deepmask(scenes, backbone="smoll")
    with pytest.raises(UserError, match="weights: small has none"):
        deepmask(scenes, backbone="small", weights="w.safetensors")
    voc = tmp_path / "voc"
    from afrcnn.commands.shapes import shapes

    shapes(voc, trainval=2, test=1, size=64)
    with pytest.raises(UserError, match="voc: has boxes alone, and masks are needed; give a dataset in COCO layout"):
        deepmask(voc, split="trainval", backbone="small")
