"""What adversaries do to the objects of images, and the figures and JSON that show it."""

import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from afrcnn.adversaries.astn import _affine, warp
from afrcnn.adversaries.base import Adversary, AdversaryOutput
from afrcnn.build import build_adversary, build_detector, load_adversary, load_detector
from afrcnn.commands.masks import masks
from afrcnn.commands.predict import predict
from afrcnn.core.errors import UserError
from afrcnn.data.image import read_image
from afrcnn.data.scene import draw_scene
from afrcnn.recipe import DataRecipe, DetectorRecipe, Recipe
from afrcnn.run import Run
from afrcnn.training.checkpoint import save_weights
from tiny import write_scene

CLASSES = ["cat", "dog", "späte Häsin"]
BOX, WIDE = (10.0, 20.5, 60.0, 70.0), (0.0, 0.0, 96.0, 12.0)


def make_run(folder: Path, chain: list[str]) -> Path:
    """A run whose networks are as they begin, but for last layers large enough that objects and cells differ."""
    recipe = Recipe(
        data=DataRecipe(classes=CLASSES, workers=0, proposals_per_image=50),
        detector=DetectorRecipe(backbone="small", short_side=[96], long_side=160, score_threshold=0.2),
        adversaries={name: {} for name in chain},
    )
    run = Run(folder)
    run.begin(recipe)
    torch.manual_seed(0)
    detector = build_detector(recipe.detector, len(CLASSES))
    nn.init.normal_(detector.roi_heads.predictor.cls_score.weight, std=0.1)
    adversary = build_adversary(recipe, detector.box_head_spec, ())
    for name in ("asdn.network.mask", "astn.localisation.transformation"):
        if name.partition(".")[0] in chain:
            nn.init.normal_(adversary.get_submodule(name).weight, std=0.2)
    save_weights(run.weights_file, detector, {})
    if adversary.state_dict():
        save_weights(run.adversary_file, adversary, {})
    return run.folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("fused") / "run", ["asdn", "astn"])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("plain") / "run", [])


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "in/photo.png")


@torch.no_grad()
def pooled(run: Path, scene: Path, *boxes):
    """The RoI features of boxes, and a plain way to a class's score."""
    detector = load_detector(Run(run))
    features = detector.pool([read_image(scene)], [torch.tensor(boxes)])

    @torch.no_grad()
    def scores(features, labels):
        logits = detector.roi_heads.predictor(detector.roi_heads.box_head(features))[0]
        return [math.exp(row[label]) / sum(math.exp(x) for x in row) for row, label in zip(logits, labels, strict=True)]

    return features, scores


def hide(features, steps):
    """Features without the cells of each object's mask, one by one."""
    features = features.clone()
    for n, step in enumerate(steps):
        for y, row in enumerate(step.mask):
            for x, hidden in enumerate(row):
                if hidden:
                    features[n, :, y, x] = 0
    return features


def turn(features, steps):
    """Features whose blocks are turned by the angles."""
    angles = torch.tensor([step.angles for step in steps]).deg2rad()
    return warp(features, _affine(angles, torch.ones_like(angles), torch.zeros(*angles.shape, 2)))


# What is told is what happened.


def test_json_agrees_with_what_is_returned_and_each_image_has_its_figure(run: Path, tmp_path: Path) -> None:
    images = [write_scene(tmp_path / f"in/{n}.png", n) for n in range(2)]
    drawn = masks(run, images, tmp_path / "out", score=0.2, limit=2)
    written = json.loads((tmp_path / "out/masks.json").read_text(encoding="utf-8"))
    assert [entry["image"] for entry in written] == [str(image) for image in images]
    found = predict(run, images, tmp_path / "predictions", score=0.2)
    for entry, image, prediction in zip(written, drawn, found, strict=True):
        assert Image.open(entry["picture"]).format == "PNG"
        assert (entry["width"], entry["height"]) == (96, 80)
        assert entry["left_out"] == len(prediction.objects) - len(image.objects) > 0
        assert [item["name"] for item in entry["objects"]] == [item.name for item in prediction.objects[:2]]
        assert [item["box"] for item in entry["objects"]] == [list(item.box) for item in prediction.objects[:2]]
        for item, each in zip(entry["objects"], image.objects, strict=True):
            assert item["score"] == each.score
            assert [step["adversary"] for step in item["steps"]] == ["asdn", "astn"]
            for given, step in zip(item["steps"], each.steps, strict=True):
                assert given == {name: getattr(step, name) for name in given}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"0.png", "1.png", "masks.json"}


@pytest.mark.parametrize("chain", [["asdn", "astn"], ["astn", "asdn"]])
def test_heatmap_mask_angles_and_scores_are_those_of_a_walk_through_the_chain(
    chain: list[str], run: Path, scene: Path, tmp_path: Path
) -> None:
    fields = ["--adversaries", f"[{','.join(chain)}]"]
    boxes = [(BOX, "dog"), (WIDE, "späte Häsin")]
    (image,) = masks(run, [scene], tmp_path / "out", boxes=boxes, overrides=fields)
    assert [(each.box, each.name) for each in image.objects] == boxes
    features, scores = pooled(run, scene, BOX, WIDE)
    trained = load_adversary(Run(run), load_detector(Run(run)))
    assert [each.score for each in image.objects] == pytest.approx(scores(features, [2, 3]), abs=1e-5)
    for name, steps in zip(chain, zip(*(each.steps for each in image.objects), strict=True), strict=True):
        assert [step.adversary for step in steps] == [name] * 2
        if name == "asdn":
            with torch.no_grad():
                logits = trained.asdn.network(features)
            heatmaps, hidden = np.array([step.heatmap for step in steps]), np.array([step.mask for step in steps])
            np.testing.assert_allclose(heatmaps, 1 / (1 + np.exp(-logits.double().numpy())), atol=1e-5)
            assert (hidden.sum((1, 2)) == 49 // 3).all()
            for heatmap, mask in zip(heatmaps, hidden, strict=True):
                assert heatmap[mask].min() >= np.sort(heatmap.ravel())[-24]  # of the top half
            assert all(step.angles is None for step in steps)
            features = hide(features, steps)
        else:
            angles = np.array([step.angles for step in steps])
            assert angles.shape == (2, 4)
            assert 0.1 < np.abs(angles).max() <= 10.0001
            assert all(step.heatmap is None and step.mask is None for step in steps)
            features = turn(features, steps)
        assert [step.score for step in steps] == pytest.approx(scores(features, [2, 3]), abs=1e-4)


def test_hard_dropout_of_any_run_hides_the_window_that_costs_the_class_most(
    plain: Path, scene: Path, tmp_path: Path
) -> None:
    fields = ["--adversaries", "[hard_dropout]"]
    (image,) = masks(plain, [scene], tmp_path / "out", boxes=[(BOX, "cat")], overrides=fields)
    (step,) = image.objects[0].steps
    features, scores = pooled(plain, scene, BOX)
    left = {}
    for y in range(6):
        for x in range(6):
            hidden = features.clone()
            hidden[:, :, y : y + 2, x : x + 2] = 0
            left[y, x] = scores(hidden, [1])[0]
    y, x = min(left, key=left.__getitem__)
    assert {tuple(cell) for cell in np.argwhere(step.mask)} == {(y + i, x + j) for i in range(2) for j in range(2)}
    assert step.score == pytest.approx(left[y, x], abs=1e-5)


def test_random_dropout_shows_its_mask_in_its_place_in_the_chain(plain: Path, scene: Path, tmp_path: Path) -> None:
    fields = ["--adversaries", "[random_dropout,hard_dropout]"]
    (image,) = masks(plain, [scene], tmp_path / "out", boxes=[(BOX, "cat"), (BOX, "cat")], overrides=fields)
    first, second = (each.steps[0] for each in image.objects)
    assert np.sum(first.mask) == np.sum(second.mask) == 49 // 3
    assert first.mask != second.mask
    assert first.heatmap is first.angles is None
    features, scores = pooled(plain, scene, BOX, BOX)
    assert [first.score, second.score] == pytest.approx(scores(hide(features, [first, second]), [1, 1]), abs=1e-5)


def test_occluders_are_cut_from_the_image_beside_the_objects(plain: Path, scene: Path, tmp_path: Path) -> None:
    fields = ["--adversaries=[random_dropout]", "--adversaries.random_dropout.occluder=features"]
    (image,) = masks(plain, [scene], tmp_path / "out", boxes=[(BOX, "cat"), (WIDE, "cat")], overrides=fields)
    windows = [
        (x, y, x + 96 / 5, y + 16)
        for y in (0, 16, 32, 48, 64)
        for x in (0, 96 / 5, 192 / 5, 288 / 5, 384 / 5)
        if all(x >= box[2] or box[0] >= x + 96 / 5 or y >= box[3] or box[1] >= y + 16 for box in (BOX, WIDE))
    ]
    assert 2 < len(windows) < 20
    features, scores = pooled(plain, scene, BOX, WIDE, *windows)
    for number, masked in enumerate(image.objects):
        (step,) = masked.steps
        assert np.sum(step.mask) == 49 // 3
        behind = torch.where(torch.tensor(step.mask), features[2:], features[number])  # one for each window
        possible = scores(behind, [1] * len(windows))
        assert min(abs(step.score - score) for score in possible) < 1e-5
        assert max(possible) - min(possible) > 1e-3


class Dimmed(Adversary):
    """Halves the features: hides nothing."""

    def __init__(self, spec: object) -> None:
        super().__init__()

    def forward(self, features, labels, head, context=None):
        return AdversaryOutput(features / 2, features.new_zeros(()), {})


class Cornered(Dimmed):
    """Hides the lower left cell, by a product."""

    def forward(self, features, labels, head, context=None):
        keep = torch.ones(features.shape[-2:])
        keep[-1, 0] = 0
        return AdversaryOutput(features * keep, features.new_zeros(()), {})


class Overwriting(Dimmed):
    """Hides the lower left cell, in place."""

    def forward(self, features, labels, head, context=None):
        features[:, :, -1, 0] = 0
        return AdversaryOutput(features, features.new_zeros(()), {})


class Centred(Dimmed):
    """Takes the mean of each channel away: every feature counts, though their sum does not."""

    def forward(self, features, labels, head, context=None):
        return AdversaryOutput(features - features.mean((2, 3), keepdim=True), features.new_zeros(()), {})


class Detached(Dimmed):
    """Breaks the contract: no gradient leads back."""

    def forward(self, features, labels, head, context=None):
        return AdversaryOutput(features.detach() / 2, features.new_zeros(()), {})


@pytest.mark.parametrize("kind", [Dimmed, Cornered, Overwriting, Centred, Detached])
def test_of_an_adversary_of_ones_own_scores_are_shown_and_the_cells_that_it_hides(
    kind: type[nn.Module], plain: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mine", sys.modules[__name__])
    fields = ["--adversaries", f"[mine:{kind.__name__}]"]
    (image,) = masks(plain, [scene], tmp_path / "out", boxes=[(BOX, "dog")], trust=["mine"], overrides=fields)
    (step,) = image.objects[0].steps
    features, scores = pooled(plain, scene, BOX)
    expected = kind(None)(features.clone(), torch.tensor([2]), None).features
    assert step.score == pytest.approx(scores(expected, [2])[0], abs=1e-5)
    assert step.heatmap is step.angles is None
    if kind in (Cornered, Overwriting):
        assert np.argwhere(step.mask).tolist() == [[6, 0]]
    else:
        assert step.mask is None


# The same command, the same figure.


def test_masks_depend_on_the_seed_and_the_image_alone(run: Path, scene: Path, tmp_path: Path) -> None:
    other = write_scene(tmp_path / "in/a.png", 1)
    (first,) = masks(run, [scene], tmp_path / "1", score=0.2, limit=2)
    _, second = masks(run, [other, scene], tmp_path / "2", score=0.2, limit=2)
    assert first.objects == second.objects
    assert (tmp_path / "1/photo.png").read_bytes() == (tmp_path / "2/photo.png").read_bytes()
    (third,) = masks(run, [scene], tmp_path / "3", score=0.2, limit=2, overrides=["--seed", "1"])
    assert [each.box for each in first.objects] == [each.box for each in third.objects]
    for one, another in zip(first.objects, third.objects, strict=True):
        assert one.steps[0].heatmap == another.steps[0].heatmap
        assert one.steps[0].mask != another.steps[0].mask
    assert (tmp_path / "1/photo.png").read_bytes() != (tmp_path / "3/photo.png").read_bytes()


def test_an_image_without_detections_gets_a_figure_without_objects(run: Path, scene: Path, tmp_path: Path) -> None:
    (image,) = masks(run, [scene], tmp_path / "out", score=1)
    assert (image.objects, image.left_out) == ((), 0)
    assert Image.open(image.picture).format == "PNG"


def test_figures_lie_in_the_run_when_no_folder_is_named(plain: Path, scene: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(plain, tmp_path / "copy")
    fields = ["--adversaries", "[hard_dropout]"]
    (image,) = masks(copy, [scene.parent], boxes=[(BOX, "cat")], overrides=fields)
    assert image.picture == str(copy / "masks/photo.png")
    assert (copy / "masks/masks.json").is_file()


def test_boxes_are_in_pixels_of_the_image_as_it_is_seen(plain: Path, tmp_path: Path) -> None:
    upright = Image.fromarray(draw_scene(np.random.default_rng(0), size=(80, 96)).image)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    upright.save(tmp_path / "upright.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.png", exif=exif)
    fields, boxes = ["--adversaries", "[hard_dropout]"], [((90.0, 0.0, 96.0, 80.0), "cat")]
    drawn = [
        masks(plain, [tmp_path / f"{name}.png"], tmp_path / name, boxes=boxes, overrides=fields)[0].objects
        for name in ("upright", "lying")
    ]
    assert drawn[0] == drawn[1]


# What a person gets wrong.


def test_a_run_without_adversaries_is_named_with_the_way_to_some(plain: Path, scene: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no adversary.*asdn"):
        masks(plain, [scene], tmp_path / "out")
    with pytest.raises(UserError, match="has no trained asdn"):
        masks(plain, [scene], tmp_path / "out", overrides=["--adversaries", "[asdn]"])
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_of_adversaries_is_named(run: Path, scene: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    file = copy / "adversary.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"adversary\.safetensors"):
        masks(copy, [scene], tmp_path / "out")
    with pytest.raises(UserError, match=r"adversary\.safetensors.*another model"):
        masks(run, [scene], tmp_path / "out", overrides=["--adversaries.asdn.network", "convolutional"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("box", "named"),
    [
        ((BOX, "mouse"), "mouse.*cat, dog"),
        (((10.0, 20.0, 97.0, 70.0), "cat"), "10 20 97 70.*96 x 80"),
        (((-1.0, 20.0, 60.0, 70.0), "cat"), "-1 20"),
        (((10.0, 70.0, 60.0, 20.0), "cat"), "Y1 < Y2"),
        (((10.0, 20.0, 10.0, 70.0), "cat"), "X1 < X2"),
        (((math.nan, 20.0, 60.0, 70.0), "cat"), "nan"),
    ],
)
def test_a_wrong_box_is_named_and_nothing_is_written(box, named: str, run: Path, scene: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=named):
        masks(run, [scene], tmp_path / "out", boxes=[(BOX, "cat"), box])
    assert not (tmp_path / "out").exists()


def test_boxes_for_more_than_one_image_are_refused(run: Path, scene: Path, tmp_path: Path) -> None:
    write_scene(tmp_path / "in/second.png")
    with pytest.raises(UserError, match="one image"):
        masks(run, [scene.parent], tmp_path / "out", boxes=[(BOX, "cat")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"limit": 0}, "boxes"), ({"score": 1.5}, "score"), ({"overrides": ["--seed", "odd"]}, "seed")],
)
def test_a_wrong_number_is_named_and_nothing_is_written(fields, named, run: Path, scene: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=named):
        masks(run, [scene], tmp_path / "out", **fields)
    assert not (tmp_path / "out").exists()


def test_a_truncated_image_is_named_before_anything_is_written(run: Path, scene: Path, tmp_path: Path) -> None:
    broken = write_scene(tmp_path / "in/z.png")
    broken.write_bytes(broken.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"z\.png"):
        masks(run, [scene, broken], tmp_path / "out", score=1)
    with pytest.raises(UserError, match=r"z\.png"):
        masks(run, [broken], tmp_path / "out", boxes=[(BOX, "cat")])
    assert not (tmp_path / "out").exists()


def test_a_large_image_is_drawn_in_a_smaller_copy_and_its_boxes_are_those_of_the_file(plain, tmp_path, monkeypatch):
    small = draw_scene(np.random.default_rng(1), size=(60, 80)).image
    for name, pixels in (("small", small), ("large", small.repeat(3, axis=0).repeat(3, axis=1))):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")  # averaged down by 3, it is the small one again
    monkeypatch.setattr("afrcnn.commands.masks._MOST_PIXELS", 60 * 80)
    box = (6.0, 9.0, 45.0, 51.0)
    options = {"overrides": ["--adversaries", "[hard_dropout]"]}
    (one,) = masks(plain, [tmp_path / "small.png"], tmp_path / "a", boxes=[(box, "cat")], **options)
    larger = tuple(3 * side for side in box)
    (other,) = masks(plain, [tmp_path / "large.png"], tmp_path / "b", boxes=[(larger, "cat")], **options)
    assert (other.width, other.height, other.objects[0].box) == (240, 180, larger)
    assert other.objects[0].score == one.objects[0].score
    assert other.objects[0].steps == one.objects[0].steps
    assert Image.open(other.picture).size == Image.open(one.picture).size


def test_figures_never_go_where_the_images_lie(run: Path, scene: Path) -> None:
    before = scene.read_bytes()
    with pytest.raises(UserError, match="another folder"):
        masks(run, [scene], scene.parent)
    assert scene.read_bytes() == before


@pytest.mark.parametrize(("chain", "side"), [({}, 2), ({"asdn": {"window": 3, "stride": 2}}, 3)])
def test_the_search_is_shown_as_a_plain_loop_has_it_for_any_run(chain, side, plain, scene, tmp_path):
    overrides = ["--adversaries", json.dumps(chain)]
    (shown,) = masks(plain, [scene], tmp_path / "out", boxes=[(BOX, "dog")], search=True, overrides=overrides)
    (traced,) = shown.objects
    features, scores = pooled(plain, scene, BOX)
    losses = []
    for row, column, height, width in traced.windows:
        assert height == width == side
        hidden = features.clone()
        hidden[:, :, row : row + height, column : column + width] = 0
        losses.append(-math.log(scores(hidden, [2])[0]))
    assert len(set(traced.windows)) == len(traced.windows) == (36 if side == 2 else 9)
    assert traced.losses == pytest.approx(losses, rel=1e-4)
    assert traced.hardest == int(np.argmax(losses))
    assert traced.loss == pytest.approx(-math.log(scores(features, [2])[0]), rel=1e-4)
    assert (traced.name, traced.box, traced.size) == ("dog", BOX, 7)
    assert Path(shown.picture) == tmp_path / "out" / "photo-search.png"
    (written,) = json.loads((tmp_path / "out" / "search.json").read_text())
    assert written["objects"][0]["losses"] == list(traced.losses)


def test_a_search_that_does_not_fit_is_refused_by_field(plain, scene, tmp_path):
    for window in ("9", "big", "0"):
        overrides = ["--adversaries", f"{{asdn: {{window: {window}}}}}"]
        with pytest.raises(UserError, match=r"adversaries\.asdn"):
            masks(plain, [scene], tmp_path / "out", search=True, overrides=overrides)
    assert not (tmp_path / "out").exists()


def test_a_search_of_an_image_without_detections_says_so(plain, scene, tmp_path):
    (shown,) = masks(plain, [scene], tmp_path / "out", score=1.0, search=True)
    assert shown.objects == ()
    assert Path(shown.picture).is_file()
