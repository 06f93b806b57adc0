"""Detection in images that belong to no dataset."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from afrcnn.build import build_detector, load_detector
from afrcnn.cli import main
from afrcnn.commands.new_images import _propose, detect_image
from afrcnn.commands.predict import predict
from afrcnn.core.errors import UserError
from afrcnn.data.image import read_image
from afrcnn.data.scene import draw_scene
from afrcnn.data.video import Video, write_video
from afrcnn.proposals.selective_search import SelectiveSearch
from afrcnn.recipe import DataRecipe, DetectorRecipe, Recipe
from afrcnn.run import Run
from afrcnn.training.checkpoint import save_weights
from server import Server
from tiny import write_scene

CLASSES = ["cat", "dog", "späte Häsin"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose detector is as it begins: it finds things, if not the right ones."""
    recipe = Recipe(
        data=DataRecipe(classes=CLASSES, workers=0, proposals_per_image=50),
        detector=DetectorRecipe(backbone="small", short_side=[96], long_side=160, score_threshold=0.2),
    )
    run = Run(tmp_path_factory.mktemp("run") / "run")
    run.begin(recipe)
    torch.manual_seed(0)
    save_weights(run.weights_file, build_detector(recipe.detector, len(CLASSES)), {})
    return run.folder


def test_pictures_and_json_agree_with_what_is_returned(run: Path, tmp_path: Path) -> None:
    images = [write_scene(tmp_path / f"in/{n}.png", n) for n in range(2)]
    predictions = predict(run, images, tmp_path / "out", score=0.26)
    written = json.loads((tmp_path / "out/predictions.json").read_text(encoding="utf-8"))
    assert [entry["image"] for entry in written] == [str(image) for image in images]
    assert any(prediction.objects for prediction in predictions)
    for entry, prediction in zip(written, predictions, strict=True):
        assert Image.open(entry["picture"]).size == (entry["width"], entry["height"]) == (96, 80)
        assert len(entry["objects"]) == len(prediction.objects)
        for item in entry["objects"]:
            assert item["name"] in CLASSES
            assert 0.26 <= item["score"] <= 1
            x1, y1, x2, y2 = item["box"]
            assert 0 <= x1 <= x2 <= 96
            assert 0 <= y1 <= y2 <= 80
        scores = [item["score"] for item in entry["objects"]]
        assert scores == sorted(scores, reverse=True)


def test_one_array_gives_the_detections_of_its_file(run: Path, tmp_path: Path) -> None:
    image = write_scene(tmp_path / "in/a.png")
    (prediction,) = predict(run, [image], tmp_path / "out", score=0.2)
    array = read_image(image).permute(1, 2, 0).numpy()
    found = detect_image(load_detector(Run(run)), array, limit=50)
    assert [item.name for item in prediction.objects] == [CLASSES[label - 1] for label in found["labels"]]
    assert [item.score for item in prediction.objects] == pytest.approx(found["scores"].tolist())
    np.testing.assert_allclose([item.box for item in prediction.objects], found["boxes"], atol=1e-3)


def test_a_score_below_the_threshold_of_the_recipe_shows_more(run: Path, tmp_path: Path) -> None:
    image = write_scene(tmp_path / "in/a.png")
    counts = [len(predict(run, [image], tmp_path / "out", score=score)[0].objects) for score in (0.05, 0.25, 1.0)]
    assert counts[0] > counts[1] > counts[2] == 0


def test_images_of_the_same_name_get_pictures_of_their_own(run: Path, tmp_path: Path) -> None:
    names = ("a/1.png", "b/1.png", "b/1.bmp", "a/1-2.png", "b/1-2.png")
    images = [write_scene(tmp_path / name, n) for n, name in enumerate(names)]
    predictions = predict(run, images, tmp_path / "out")
    assert len({prediction.picture for prediction in predictions}) == len(names)
    assert len(list((tmp_path / "out").glob("*.jpg"))) == len(names)


def test_folders_stand_for_their_images_and_an_image_named_twice_is_taken_once(run: Path, tmp_path: Path) -> None:
    images = [write_scene(tmp_path / f"in/{name}", 0) for name in ("b.png", "a.JPG", "c.jpeg")]
    (tmp_path / "in/notes.txt").write_text("no image")
    predictions = predict(run, [tmp_path / "in", images[0]], tmp_path / "out")
    assert [Path(prediction.image).name for prediction in predictions] == ["a.JPG", "b.png", "c.jpeg"]


def test_an_image_of_one_colour_has_no_objects(run: Path, tmp_path: Path) -> None:
    Image.new("L", (50, 40), 90).save(tmp_path / "grey.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    predictions = predict(run, [tmp_path / "grey.png", tmp_path / "dot.png"], tmp_path / "out", score=1)
    assert [prediction.objects for prediction in predictions] == [(), ()]
    assert [(prediction.width, prediction.height) for prediction in predictions] == [(50, 40), (1, 1)]


def test_a_large_image_is_searched_in_a_copy_and_its_proposals_cover_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afrcnn.commands.new_images._LARGEST_SEARCHED", 64)
    small = draw_scene(np.random.default_rng(1), size=(64, 64)).image[:40]
    large = small.repeat(3, axis=0).repeat(3, axis=1)  # averaged down by 3, it is the small one again
    np.testing.assert_allclose(_propose(large, "fast"), 3 * SelectiveSearch("fast")(small))


def test_an_image_of_ordinary_size_is_searched_as_it_is() -> None:
    image = draw_scene(np.random.default_rng(2), size=(64, 80)).image
    np.testing.assert_array_equal(_propose(image, "fast"), SelectiveSearch("fast")(image))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_truncated_image_is_named_before_anything_is_written(run: Path, tmp_path: Path, workers: str) -> None:
    images = [write_scene(tmp_path / f"in/{n}.png", n) for n in range(3)]
    images[2].write_bytes(images[2].read_bytes()[:-200])
    with pytest.raises(UserError, match=r"2\.png"):
        predict(run, images, tmp_path / "out", strict=True, overrides=["--data.workers", workers])
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_read_among_many_is_skipped_named_and_the_exit_status_is_1(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Server
) -> None:
    good = write_scene(tmp_path / "in/good.png")
    (tmp_path / "in/bad.png").write_bytes(good.read_bytes()[:-200])
    (tmp_path / "in/bad.mp4").write_bytes(b"\0\0\0\x18ftypmp42 and no more")
    words = [str(tmp_path / "in"), "missing.jpg", f"{server.url}/nothing.png"]
    assert main(["predict", str(run), *words, "--out", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr()
    named = [line for line in shown.out.splitlines() if line.startswith("skipped: ")]
    assert len(named) == 4
    for name in ("bad.png", "bad.mp4", "missing.jpg", "nothing.png: cannot be fetched (HTTP Error 404"):
        assert sum(name in line for line in named) == 1, name
    assert "4 could not be read" in shown.out
    assert "moov" not in shown.err
    (entry,) = json.loads((tmp_path / "out/predictions.json").read_text())
    assert entry["image"] == str(good)
    assert main(["predict", str(run), *words, "--out", str(tmp_path / "other"), "--strict"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "other").exists()


def test_a_folder_stands_for_what_it_holds_at_any_depth_and_a_pattern_for_what_fits(run: Path, tmp_path: Path) -> None:
    names = ("a.png", "deep/er/b.png", "runs/c.png", ".hidden/d.png", "deep/.e.png", "deep/out/old.jpg")
    for name in names:
        write_scene(tmp_path / "in" / name)

    def seen(word: str) -> list[str]:
        predictions = predict(run, [word], tmp_path / "in/deep/out")
        return [Path(prediction.image).relative_to(tmp_path / "in").as_posix() for prediction in predictions]

    assert seen(f"{tmp_path}/in") == ["a.png", "deep/er/b.png", "runs/c.png"]
    assert seen(f"{tmp_path}/in/**/*.png") == ["a.png", "deep/er/b.png", "runs/c.png"]
    assert seen(f"{tmp_path}/in/?.png") == ["a.png"]
    with pytest.raises(UserError, match="no image fits the pattern"):
        seen(f"{tmp_path}/in/*.jpg")
    write_scene(tmp_path / "in/[1].png")  # a file of that name is no pattern
    assert seen(f"{tmp_path}/in/[1].png") == ["[1].png"]


def test_an_address_is_fetched_and_named_as_it_is(run: Path, tmp_path: Path, server: Server) -> None:
    image = write_scene(tmp_path / "a.png")
    server.files["photo.png"] = image.read_bytes()
    (local,) = predict(run, [image], tmp_path / "local", score=0.2)
    (remote,) = predict(run, [f"{server.url}/moved/photo.png"], tmp_path / "remote", score=0.2)
    assert remote.image == f"{server.url}/moved/photo.png"
    assert remote.picture == str(tmp_path / "remote/photo.jpg")
    assert remote.objects == local.objects


def test_an_address_that_sends_too_much_or_too_slowly_is_left(
    run: Path, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["photo.png"] = bytes(300_000)
    with monkeypatch.context() as patch:
        patch.setattr("afrcnn.data.sources._LARGEST", 200_000)
        with pytest.raises(UserError, match=r"photo\.png: is larger"):
            predict(run, [f"{server.url}/photo.png"], tmp_path / "out")
    monkeypatch.setattr("afrcnn.data.sources._SECONDS", -1)
    with pytest.raises(UserError, match=r"photo\.png: takes more than"):
        predict(run, [f"{server.url}/photo.png"], tmp_path / "out")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_video_gives_a_video_of_every_nth_frame_and_the_detections_of_its_frames(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    scenes = [draw_scene(np.random.default_rng(seed), size=(80, 96)).image for seed in range(5)]
    write_video(tmp_path / "clip.mp4", scenes, 10)
    predictions = predict(
        run, [tmp_path / "clip.mp4"], tmp_path / "out", score=0.2, stride=2, overrides=["--data.workers", workers]
    )
    assert [prediction.frame for prediction in predictions] == [0, 2, 4]
    assert "detecting 3/3" in capsys.readouterr().err
    shown, frames = Video(tmp_path / "out/clip.mp4"), Video(tmp_path / "clip.mp4")
    assert (len(shown), shown.rate, frames.rate) == (3, 5, 10)
    for prediction, number in zip(predictions, (0, 2, 4), strict=True):
        seen = detect_image(load_detector(Run(run)), frames[number], limit=50)
        assert [item.score for item in prediction.objects] == pytest.approx(seen["scores"].tolist())
        assert (prediction.width, prediction.height) == (96, 80)
        assert np.abs(frames[number].astype(float) - scenes[number]).mean() < 12  # what the codec loses
    assert any(prediction.objects for prediction in predictions)
    assert [item["frame"] for item in json.loads((tmp_path / "out/predictions.json").read_text())] == [0, 2, 4]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["clip.mp4", "predictions.json"]


def test_a_broken_video_alone_gets_one_line(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "clip.mp4", [np.zeros((80, 96, 3), np.uint8)] * 3, 10)
    (tmp_path / "clip.mp4").write_bytes((tmp_path / "clip.mp4").read_bytes()[:300])
    capfd.readouterr()
    assert main(["predict", str(run), str(tmp_path / "clip.mp4"), "--out", str(tmp_path / "out")]) == 2
    assert capfd.readouterr().err.splitlines() == [
        f"afrcnn: error: {tmp_path}/clip.mp4: the video cannot be decoded; replace the file; it may be truncated"
    ]
    assert not (tmp_path / "out").exists()


def test_pictures_never_go_where_the_images_lie(run: Path, tmp_path: Path) -> None:
    image = write_scene(tmp_path / "in/a.jpg")
    before = image.read_bytes()
    with pytest.raises(UserError, match="another folder"):
        predict(run, [image], tmp_path / "in")
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("images", "overrides", "score", "named"),
    [
        (["missing.jpg"], [], 0.5, "missing.jpg"),
        (["."], [], 0.5, "no images"),
        (["in.png"], ["--data.proposal_method", "deepmask"], 0.5, "data.proposal_method"),
        (["in.png"], [], 1.5, "score"),
        (["in.png"], ["--data.workers", "many"], 0.5, "data.workers"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    images: list[str],
    overrides: list[str],
    score: float,
    named: str,
) -> None:
    (tmp_path / "empty").mkdir()
    write_scene(tmp_path / "in.png")
    monkeypatch.chdir(tmp_path / "empty" if images == ["."] else tmp_path)
    with pytest.raises(UserError, match=named):
        predict(run, images, tmp_path / "out", score=score, overrides=overrides)
    assert not (tmp_path / "out").exists()
