"""Adversaries of a recipe: built with its fields, also one's own, and mistakes told before anything is trained."""

import sys
from dataclasses import replace
from textwrap import dedent

import pytest
import torch
from safetensors.torch import load_file

from afrcnn.adversaries import ConvolutionalASDN, FullyConnectedASDN, Occluder
from afrcnn.build import build_detector
from afrcnn.core.errors import UserError
from afrcnn.detectors.attach import roi_head_of
from afrcnn.recipe import (
    AdversaryRecipe,
    ASDNRecipe,
    ASTNRecipe,
    DropBlockRecipe,
    HardDropoutRecipe,
    JitterRecipe,
    JointRecipe,
    PretrainingRecipe,
    RandomDropoutRecipe,
)
from afrcnn.training.pretraining import build_adversary, build_jitter, freeze
from afrcnn.training.train import train

OWN = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self, head, strength=1.0, name="none"):
        super().__init__()
        assert (head.channels, head.size, head.features) == (128, 7, 256)
        self.strength, self.name = strength, name
        self.weight = nn.Parameter(torch.ones(()))
        self.constant = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, features, labels, head):
        if len(features) and self.strength <= 0:
            raise RuntimeError
        return features * 0.5, self.weight * len(features) * self.strength, {"strength": torch.tensor(self.strength)}

class Plain:
    pass

number = 3
"""


@pytest.fixture(scope="session")
def head(recipe):
    return roi_head_of(build_detector(recipe.detector, 2))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a module of adversaries; what is imported from it is forgotten after the test."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "mine_here.py").write_text(OWN)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield folder
    for name in ("mine_here", "mine_broken", "mine_strict", "packaged_adversary"):
        sys.modules.pop(name, None)


def test_each_adversary_has_the_fields_of_the_recipe(head):
    recipe = AdversaryRecipe(
        chain=["random_dropout", "asdn", "hard_dropout", "astn", "dropblock"],
        asdn=ASDNRecipe(window=2, stride=3, negatives=0.4, top=20 / 49, share=15 / 49, threshold=0.2),
        astn=ASTNRecipe(blocks=8, degrees=20.0, scale=0.25, translation=0.125),
        random_dropout=RandomDropoutRecipe(share=0.5),
        hard_dropout=HardDropoutRecipe(window=4, stride=2),
        dropblock=DropBlockRecipe(share=0.25, block=5),
    )
    chain = build_adversary(recipe, head)
    assert list(chain) == recipe.chain
    asdn, astn, hard = chain["asdn"], chain["astn"], chain["hard_dropout"]
    assert isinstance(asdn.network, FullyConnectedASDN)
    assert (asdn.window, asdn.stride, asdn.negatives, asdn.threshold) == (2, 3, 0.4, 0.2)
    assert (asdn.sampling.top, asdn.sampling.share) == (20 / 49, 15 / 49)
    assert (astn.blocks, astn.degrees, astn.scale, astn.translation) == (8, 20.0, 0.25, 0.125)
    assert astn.localisation.transformation.out_features == 8 * 4
    assert (chain["dropblock"].share, chain["dropblock"].block) == (0.25, 5)
    assert (chain["random_dropout"].sampling.top, chain["random_dropout"].sampling.share) == (1, 0.5)
    assert asdn.occluder is None and chain["random_dropout"].occluder is None
    assert (hard.window, hard.stride) == (4, 2)
    release = AdversaryRecipe(chain=["asdn"], asdn=ASDNRecipe(network="convolutional"))
    assert isinstance(build_adversary(release, head)["asdn"].network, ConvolutionalASDN)
    assert len(build_adversary(AdversaryRecipe(), head)) == 0


@pytest.mark.parametrize("name", ["asdn", "random_dropout"])
def test_windows_and_occluders_have_the_fields_of_the_recipe(head, name):
    fields = {"mask": "window", "share": 0.5, "least_share": 0.2, "occluder": "features"}
    kinds = {"asdn": ASDNRecipe, "random_dropout": RandomDropoutRecipe}
    one = build_adversary(AdversaryRecipe(chain=[name], **{name: kinds[name](**fields)}), head)[name]
    assert one.sampling.shares == (0.2, 0.5) and isinstance(one.occluder, Occluder)
    assert one.sampling.top == {"asdn": 0.5, "random_dropout": 1}[name]
    fields["least_share"] = None
    one = build_adversary(AdversaryRecipe(chain=[name], **{name: kinds[name](**fields)}), head)[name]
    assert one.sampling.shares == (0.5, 0.5)
    with pytest.raises(UserError, match="adversary." + name + ".*least_share"):
        build_adversary(AdversaryRecipe(chain=[name], **{name: kinds[name](least_share=0.1)}), head)


def test_jitter_has_the_fields_of_the_recipe():
    assert build_jitter(AdversaryRecipe()) is None
    jitter = build_jitter(AdversaryRecipe(clean_fraction=0.25, jitter=JitterRecipe(0.1, 0.2, 3.0)))
    assert (jitter.scale, jitter.aspect_ratio, jitter.degrees) == (0.1, 0.2, 3.0)
    assert jitter.adversarial.clean_fraction == 0.25


def test_only_a_fixed_asdn_is_frozen_and_what_one_s_own_froze_stays_so(head, here):
    recipe = AdversaryRecipe(chain=["asdn", "astn", "mine_here.Own"], asdn=ASDNRecipe(fixed=True))
    chain = build_adversary(recipe, head)
    freeze(recipe, chain)
    trained = {name for name, value in chain.named_parameters() if value.requires_grad}
    assert trained == {name for name, _ in chain.named_parameters() if name.startswith("astn.")} | {"Own.weight"}
    other = build_adversary(AdversaryRecipe(chain=["asdn"]), head)
    freeze(AdversaryRecipe(chain=["asdn"]), other)
    assert all(value.requires_grad for value in other.parameters())


def installed(folder):
    """Put a package into a folder that names an adversary in its metadata, as pip would."""
    (folder / "packaged_adversary.py").write_text(OWN)
    info = folder / "packaged_adversary-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: packaged-adversary\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[afrcnn.adversaries]\nhalving = packaged_adversary:Own\n")


@pytest.mark.parametrize("name", ["mine_here.Own", "halving"])
def test_one_s_own_adversary_trains_from_the_current_folder_and_from_a_package(
    name, recipe, here, tmp_path, monkeypatch
):
    (tmp_path / "site").mkdir()
    installed(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    key = name.rpartition(".")[2]
    adversary = AdversaryRecipe(chain=["asdn", name], own={name: {"strength": 2.0, "name": "x"}})
    sgd = {"learning_rate": 0.01, "log_every": 1, "checkpoint_every": 1, "iterations": 2}
    staged = replace(recipe, adversary=adversary, joint=JointRecipe(**sgd))
    run = train(replace(staged, schedule=replace(recipe.schedule, iterations=1)), tmp_path / "run")
    trained = load_file(run.adversary_file)
    assert trained[f"{key}.weight"] < 1 and torch.equal(trained[f"{key}.constant"], torch.ones(2))
    assert f"{key}/strength" in run.log_file.read_text().splitlines()[0]
    assert run.recipe.adversary == adversary


PACKAGE = {
    "mine_broken": "import no_such_library",
    "mine_strict": """
        from torch import nn

        class Strict(nn.Module):
            def __init__(self, head, strength):
                super().__init__()
                if strength < 0:
                    raise ValueError("strength is\\nnegative")
        """,
}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"chain": ["nothing"]}, "adversary.chain: there is no adversary nothing"),
        ({"chain": ["mine_here.Missing"]}, "adversary.chain: there is no adversary mine_here.Missing"),
        ({"chain": ["no_such_module.Own"]}, "adversary.chain: there is no adversary no_such_module.Own"),
        ({"chain": ["mine_broken.Own"]}, "no_such_library"),
        ({"chain": [""]}, "adversary.chain: there is no adversary"),
        ({"chain": [".Own"]}, "adversary.chain: there is no adversary .Own"),
        ({"chain": ["mine_here.Plain"]}, "adversary.chain: mine_here.Plain is no class of nn.Module"),
        ({"chain": ["mine_here.number"]}, "adversary.chain: mine_here.number is no class of nn.Module"),
        ({"chain": ["mine_here.Own"], "own": {"mine_here.Own": {"power": 2}}}, "adversary.own: "),
        ({"chain": ["mine_strict.Strict"]}, "adversary.own: "),
        ({"chain": ["mine_strict.Strict"], "own": {"mine_strict.Strict": {"strength": -1}}}, "strength is negative"),
        ({"chain": ["asdn"], "own": {"mine_here.Own": {}}}, "adversary.own: mine_here.Own is not in adversary.chain"),
        ({"chain": ["asdn", "astn", "asdn"]}, "adversary.chain: names asdn twice"),
        ({"chain": ["mine_here.Own", "mine_here.Own"]}, "adversary.chain: names Own twice"),
        ({"chain": ["astn"], "astn": ASTNRecipe(blocks=3)}, "adversary.astn: 128 channels"),
        ({"chain": ["asdn"], "asdn": ASDNRecipe(top=0.2)}, "adversary.asdn: "),
        ({"chain": ["asdn"], "asdn": ASDNRecipe(window=8)}, "adversary.asdn: a window of 8 cells"),
        ({"chain": ["hard_dropout"], "hard_dropout": HardDropoutRecipe(window=8)}, "adversary.hard_dropout: a window"),
        ({"chain": ["dropblock"], "dropblock": DropBlockRecipe(block=9)}, "adversary.dropblock: a block of 9 cells"),
        ({"chain": ["dropblock"], "dropblock": DropBlockRecipe(block=4)}, "adversary.dropblock: a block of 4 cells"),
        ({"chain": ["asdn"], "pretrained": ["astn"]}, "adversary.pretrained: astn is not in adversary.chain"),
        ({"chain": ["asdn"], "pretrained": []}, "pretraining.iterations: "),
        ({"chain": ["random_dropout", "hard_dropout"]}, "pretraining.iterations: "),
    ],
)
def test_a_mistake_is_told_in_one_line_by_field_before_anything_is_trained(fields, said, recipe, here, tmp_path):
    for name, text in PACKAGE.items():
        (here / f"{name}.py").write_text(dedent(text))
    staged = replace(
        recipe,
        adversary=AdversaryRecipe(**fields),
        pretraining=PretrainingRecipe(iterations=1),
        joint=JointRecipe(iterations=1),
    )
    with pytest.raises(UserError) as caught:
        train(staged, tmp_path / "run")
    message = str(caught.value)
    assert said in message and "adversary" in message and "; " in message and "\n" not in message
    assert not (tmp_path / "run").exists()
