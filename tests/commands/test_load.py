"""`afrcnn.load`: the same detections from whatever an image comes as."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import afrcnn
from afrcnn.core.errors import UserError
from afrcnn.data.image import read_image


@pytest.fixture
def image(rectangles):
    return rectangles / "JPEGImages" / "test_0.jpg"


@pytest.fixture
def detector(run):
    return afrcnn.load(run.folder, score=0.01)


def same(one, other):
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(one.scores, other.scores)
    assert np.array_equal(one.image, other.image)


def test_it_detects_what_the_command_predict_does(detector, run, image, tmp_path):
    (written,) = afrcnn.predict(run.folder, [image], tmp_path, score=0.01)
    seen = detector.predict(image)
    assert len(seen) > 0
    assert seen.names == [item.name for item in written.objects]
    assert torch.allclose(seen.boxes, torch.tensor([item.box for item in written.objects]), atol=1e-3)
    assert torch.allclose(seen.scores, torch.tensor([item.score for item in written.objects]), atol=1e-5)


def test_a_path_a_picture_and_pixels_of_every_kind_are_the_same_image(detector, image):
    seen = detector.predict(image)
    tensor = read_image(image).as_subclass(torch.Tensor)
    array = tensor.permute(1, 2, 0).numpy()
    for kind in (str(image), Image.open(image), array, array[:, ::-1][:, ::-1], array / 255, tensor, tensor / 255.0):
        same(detector.predict(kind), seen)


def test_an_address_is_fetched(detector, image, server):
    server.files["photo.jpg"] = image.read_bytes()
    same(detector.predict(f"{server.url}/photo.jpg"), detector.predict(image))
    with pytest.raises(UserError, match=r"nothing\.jpg: cannot be fetched.*404"):
        detector.predict(f"{server.url}/nothing.jpg")


def test_a_list_and_a_folder_give_a_list_in_order(detector, image, tmp_path):
    for name in ("b.jpg", "a.jpg"):
        (tmp_path / name).write_bytes(image.with_name("test_1.jpg" if name == "a.jpg" else "test_0.jpg").read_bytes())
    (tmp_path / "notes.txt").write_text("no image")
    listed = detector.predict([tmp_path / "a.jpg", tmp_path / "b.jpg"])
    for one, other in zip(detector.predict(tmp_path), listed, strict=True):
        same(one, other)
    same(listed[1], detector.predict(image))
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.jpg").rename(tmp_path / "deep" / "b.jpg")
    array = read_image(image).permute(1, 2, 0).numpy()
    for mixed in ([tmp_path, array], [f"{tmp_path}/*.jpg", str(tmp_path / "deep"), Image.open(image)]):
        for one, other in zip(detector.predict(mixed), [*listed, listed[1]], strict=True):
            same(one, other)
    assert len(detector.predict(f"{tmp_path}/*.jpg")) == 1


def test_a_picture_turned_by_exif_is_seen_upright(detector, image, tmp_path):
    picture = Image.open(image).crop((0, 0, 64, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    seen = detector.predict(tmp_path / "turned.png")
    assert seen.image.shape == (64, 40, 3)
    same(detector.predict(Image.open(tmp_path / "turned.png")), seen)


def test_the_plot_has_the_size_of_the_image_and_shows_every_box(detector, image):
    seen = detector.predict(image)
    plot = seen.plot()
    assert plot.size == (64, 64)
    assert (np.asarray(plot) != seen.image).any()
    assert np.array_equal(seen.image, read_image(image).permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.full((8, 8, 3), 300, np.int32),
        np.full((8, 8, 3), 255.0),
        np.full((8, 8, 3), np.nan),
    ],
)
def test_other_pixels_are_refused_with_what_to_give(detector, pixels):
    with pytest.raises(UserError, match=r"image: .*; (give|scale)"):
        detector.predict(pixels)


def test_supervision_gets_class_ids_from_zero(detector, image, monkeypatch):
    seen = detector.predict(image)
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=lambda **fields: fields))
    fields = seen.to_supervision()
    assert np.array_equal(fields["xyxy"], seen.boxes.numpy())
    assert fields["class_id"].min() >= 0
    assert fields["data"]["class_name"].tolist() == seen.names
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match="pip install supervision"):
        seen.to_supervision()
