"""From a recipe to modules: adversaries with their arguments, one's own, what is trusted, and mistakes told early."""

import sys
from dataclasses import replace
from textwrap import dedent

import pytest
import torch
from safetensors.torch import load_file

from afrcnn.adversaries.asdn import ConvolutionalASDN, FullyConnectedASDN
from afrcnn.build import OURS, arm, build_adversary, build_detector, load_adversary, load_class, verify
from afrcnn.core.errors import UserError
from afrcnn.detectors.backbones import BACKBONES
from afrcnn.recipe import DetectorRecipe, JitterRecipe, JointRecipe, PretrainingRecipe, Recipe
from afrcnn.run import Run
from afrcnn.training.train import train_stages

OWN = """
import torch
from torch import nn
from afrcnn.adversaries.base import Adversary, AdversaryOutput

class Own(Adversary):
    def __init__(self, spec, strength=1.0, name="none"):
        super().__init__()
        assert (spec.channels, spec.size, spec.features) == (128, 7, 256)
        self.strength, self.name = strength, name
        self.weight = nn.Parameter(torch.ones(()))
        self.constant = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, features, labels, head, context=None):
        loss = self.weight * len(features) * self.strength
        return AdversaryOutput(features * 0.5, loss, {"strength": torch.tensor(self.strength)})

class Plain(nn.Module):
    pass

number = 3
"""


@pytest.fixture(scope="session")
def spec(recipe):
    return build_detector(recipe.detector, 2).box_head_spec


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


def chain_of(adversaries, spec, trust=()):
    return dict(build_adversary(Recipe(adversaries=adversaries), spec, trust).items())


def test_each_adversary_has_the_arguments_of_the_recipe_in_its_order(spec):
    chain = chain_of(
        {
            "random_dropout": {"fraction": 0.5},
            "asdn": {"window": 2, "stride": 2, "negatives": 0.4, "top": 20 / 49, "fraction": 15 / 49, "threshold": 0.2},
            "hard_dropout": {"window": 4, "stride": 2},
            "astn": {"blocks": 8, "degrees": 20.0, "scale": 0.25, "translation": 0.125},
            "dropblock": {"fraction": 0.25, "block": 5},
        },
        spec,
    )
    assert list(chain) == ["random_dropout", "asdn", "hard_dropout", "astn", "dropblock"]
    asdn, astn, hard = chain["asdn"], chain["astn"], chain["hard_dropout"]
    assert isinstance(asdn.network, FullyConnectedASDN)
    assert (asdn.negatives, asdn.threshold) == (0.4, 0.2)
    assert asdn.search.masks.shape == (16, 7, 7)  # starts 0, 2, 4 and 5 a side
    assert asdn.search.masks[0].sum() == 4
    assert (asdn.sampling.top, asdn.sampling.fraction) == (20 / 49, 15 / 49)
    assert (astn.blocks, astn.degrees, astn.scale, astn.translation) == (8, 20.0, 0.25, 0.125)
    assert astn.localisation.transformation.out_features == 8 * 4
    assert (chain["dropblock"].fraction, chain["dropblock"].block) == (0.25, 5)
    assert (chain["random_dropout"].sampling.top, chain["random_dropout"].sampling.fraction) == (1, 0.5)
    assert asdn.occluder == chain["random_dropout"].occluder == "zeros"
    assert hard.search.masks.shape == (9, 7, 7)  # starts 0, 2 and 3 a side
    assert hard.search.masks[0].sum() == 16
    release = chain_of({"asdn": {"network": "convolutional"}}, spec)["asdn"]
    assert isinstance(release.network, ConvolutionalASDN)
    assert chain_of({}, spec) == {}


@pytest.mark.parametrize("name", ["asdn", "random_dropout"])
def test_windows_and_occluders_have_the_arguments_of_the_recipe(spec, name):
    fields = {"mask": "window", "fraction": [0.2, 0.5], "occluder": "features"}
    adversary = chain_of({name: fields}, spec)[name]
    assert (adversary.sampling.low, adversary.sampling.high) == (0.2, 0.5)
    assert adversary.occluder == "features"
    assert adversary.sampling.top == {"asdn": 0.5, "random_dropout": 1}[name]
    adversary = chain_of({name: fields | {"fraction": 0.5}}, spec)[name]
    assert (adversary.sampling.low, adversary.sampling.high) == (0.5, 0.5)
    with pytest.raises(UserError, match=rf"adversaries\.{name}: .*a range of fractions is for windows"):
        chain_of({name: {"fraction": [0.1, 0.2]}}, spec)


def test_every_adversary_knows_the_fields_that_are_for_all(spec):
    fields = {"learning_rate_factor": 0.5, "frozen": True, "pretrain": True}
    for name in OURS:
        adversary = chain_of({name: fields}, spec)[name]
        assert (adversary.learning_rate_factor, adversary.frozen, adversary.pretrainable) == (0.5, True, True)
        plain = chain_of({name: {}}, spec)[name]
        assert (plain.learning_rate_factor, plain.frozen, plain.pretrainable) == (1.0, False, name == "asdn")


def test_the_recipe_s_backbones_are_those_that_can_be_built():
    (annotation,) = (field.type for field in DetectorRecipe.__dataclass_fields__.values() if field.name == "backbone")
    assert eval(annotation, {"Literal": __import__("typing").Literal}).__args__ == tuple(BACKBONES)


def test_jitter_and_mining_take_part_in_their_stages_alone(recipe):
    detector = build_detector(recipe.detector, 2)
    arms = replace(
        recipe,
        detector=replace(recipe.detector, ohem=["detector"]),
        joint=JointRecipe(jitter=JitterRecipe(0.1, 0.2, 3.0), least_iou=0.7, perturb_background=True),
    )
    arm(arms, detector, "joint", None)
    jitter = detector.roi_heads.jitter
    assert (jitter.scale, jitter.aspect_ratio, jitter.degrees) == (0.1, 0.2, 3.0)
    assert detector.roi_heads.miner is None
    assert detector.roi_heads.least_iou == 0.7
    assert detector.roi_heads.perturb_background
    arm(arms, detector, "detector", None)
    assert detector.roi_heads.jitter is None
    assert detector.roi_heads.miner.rois_per_image == recipe.detector.rois_per_image


def installed(folder):
    """Put a package into a folder that names an adversary in its metadata, as pip would."""
    (folder / "packaged_adversary.py").write_text(OWN)
    info = folder / "packaged_adversary-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: packaged-adversary\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[afrcnn.adversaries]\nhalving = packaged_adversary:Own\n")


@pytest.mark.parametrize("name", ["mine_here:Own", "halving"])
def test_one_s_own_adversary_trains_from_the_current_folder_and_from_a_package(
    name, recipe, here, tmp_path, monkeypatch
):
    (tmp_path / "site").mkdir()
    installed(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    key = name.rpartition(":")[2]
    fields = {"strength": 2.0, "name": "x", "learning_rate_factor": 0.5}
    sgd = {"learning_rate": 0.01, "log_every": 1, "checkpoint_every": 1, "iterations": 2}
    staged = replace(recipe, adversaries={"asdn": {}, name: fields}, joint=JointRecipe(**sgd))
    run = train_stages(replace(staged, schedule=replace(recipe.schedule, iterations=1)), tmp_path / "run")
    trained = load_file(run.adversary_file)
    assert trained[f"{key}.weight"] < 1
    assert torch.equal(trained[f"{key}.constant"], torch.ones(2))
    assert f"{key}/strength" in run.log_file.read_text().splitlines()[0]
    assert run.recipe.adversaries == {"asdn": {}, name: fields}

    # Whoever gets this run has to know whose code it names, and to say so.
    detector = build_detector(recipe.detector, 2)
    for trust in ((), ("mine",), ("mine_here.inner", "packaged")):
        with pytest.raises(UserError, match=r"adversaries: names .*, whose code would run; .*--trust \w+"):
            load_adversary(Run(run.folder), detector, trust)
    trusted = load_adversary(Run(run.folder), detector, ["mine_here", "packaged_adversary"])
    assert torch.equal(trusted.get_submodule(key).weight, trained[f"{key}.weight"])


def test_nothing_is_imported_that_is_not_trusted(here, tmp_path, monkeypatch):
    sentinel = tmp_path / "ran"
    folder = here / "run" / "evil"
    folder.mkdir(parents=True)
    for file in (here / "evil.py", folder / "__init__.py", folder / "inner.py"):
        file.write_text(f"open({str(sentinel)!r}, 'w').close()")
    for name in ("evil:X", "run.evil:X", "run.evil.inner:X", "evil:X.y", "os:system", "run.evil.inner.X"):
        with pytest.raises(UserError):
            load_class(name, torch.nn.Module, (), "detector.model")
        with pytest.raises(UserError):
            verify(Recipe(adversaries={name: {}}), 2, ())
        with pytest.raises(UserError):
            verify(Recipe(detector=DetectorRecipe(model=name, arguments={"x": 1})), 2, ("other",))
    assert not sentinel.exists()
    assert "evil" not in sys.modules


PACKAGE = {
    "mine_broken": "import no_such_library",
    "mine_strict": """
        from afrcnn.adversaries.base import Adversary

        class Strict(Adversary):
            def __init__(self, spec, strength):
                super().__init__()
                if strength < 0:
                    raise ValueError("strength is\\nnegative")
        """,
}


@pytest.mark.parametrize(
    ("adversaries", "said"),
    [
        ({"nothing": {}}, "adversaries: there is no Adversary named nothing"),
        ({"hard_dropuot": {}}, "did you mean hard_dropout?"),
        ({"mine_here:Missing": {}}, "adversaries: mine_here:Missing cannot be imported"),
        ({"no_such_module:Own": {}}, "adversaries: no_such_module:Own cannot be imported"),
        ({"mine_broken:Own": {}}, "no_such_library"),
        ({"": {}}, "adversaries: there is no Adversary named"),
        ({":Own": {}}, "adversaries: :Own cannot be imported"),
        ({"mine_here:Plain": {}}, "adversaries: mine_here:Plain is not a class that derives from"),
        ({"mine_here:number": {}}, "adversaries: mine_here:number is not a class"),
        ({"mine_here:Own": {"power": 2}}, "adversaries.mine_here:Own.power: is not an argument of it"),
        ({"mine_here:Own": {"strenght": 2}}, "did you mean strength?"),
        ({"mine_strict:Strict": {}}, "adversaries.mine_strict:Strict: "),
        ({"mine_strict:Strict": {"strength": -1}}, "strength is negative"),
        ({"mine_here:Own": {}, "other.mine_here:Own": {}}, "adversaries: names Own twice"),
        ({"astn": {"blocks": 3}}, "adversaries.astn: 128 channels"),
        ({"asdn": {"top": 0.2}}, "adversaries.asdn: "),
        ({"asdn": {"topp": 0.2}}, "did you mean top?"),
        ({"asdn": {"mask": "round"}}, "adversaries.asdn: mask: "),
        ({"asdn": {"network": "deep"}}, "adversaries.asdn: "),
        ({"asdn": {"occluder": "walls"}}, "adversaries.asdn: occluder: "),
        ({"asdn": {"fraction": "half"}}, "adversaries.asdn: "),
        ({"asdn": {"threshold": "high"}}, "adversaries.asdn: "),
        ({"asdn": {"window": 8}}, "adversaries.asdn: a window of 8 cells"),
        ({"asdn": {"frozen": "perhaps"}}, "adversaries.asdn"),
        ({"asdn": {"learning_rate_factor": -1}}, "adversaries.asdn"),
        ({"hard_dropout": {"window": 8}}, "adversaries.hard_dropout: a window"),
        ({"dropblock": {"block": 9}}, "adversaries.dropblock: a block of 9 cells"),
        ({"dropblock": {"block": 4}}, "adversaries.dropblock: a block of 4 cells"),
        ({"asdn": {"pretrain": False}}, "pretraining.iterations: "),
        ({"random_dropout": {}, "hard_dropout": {}}, "pretraining.iterations: "),
    ],
)
def test_a_mistake_is_told_in_one_line_by_field_before_anything_is_trained(adversaries, said, recipe, here, tmp_path):
    for name, text in PACKAGE.items():
        (here / f"{name}.py").write_text(dedent(text))
    stages = {"pretraining": PretrainingRecipe(iterations=1), "joint": JointRecipe(iterations=1)}
    with pytest.raises(UserError) as caught:
        train_stages(replace(recipe, adversaries=adversaries, **stages), tmp_path / "run")
    message = str(caught.value)
    assert said in message
    assert "; " in message
    assert "\n" not in message
    assert not (tmp_path / "run").exists()
