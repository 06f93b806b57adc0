"""Reading images: every format becomes RGB, and no broken file becomes a picture."""

from __future__ import annotations

import errno
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from afrcnn.core.errors import UnreadableImageError, UserError
from afrcnn.core.image_warnings import ImageWarning, refusing
from afrcnn.data.image import read_image, read_image_size, to_uint8


def smooth(height: int = 48, width: int = 64) -> np.ndarray:
    """A picture that JPEG keeps: height x width x 3, uint8, each channel another ramp."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 90)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp"])
def test_colours_come_in_the_order_red_green_blue(tmp_path: Path, name: str) -> None:
    cv2.imwrite(str(tmp_path / name), smooth()[..., ::-1])
    image = read_image(tmp_path / name)
    assert isinstance(image, tv_tensors.Image)
    assert image.shape == (3, 48, 64)
    assert image.dtype == torch.uint8
    assert abs(image.permute(1, 2, 0).numpy().astype(int) - smooth()).mean() < 3
    assert read_image_size(tmp_path / name) == (48, 64)


@pytest.mark.parametrize(
    ("mode", "suffix", "tolerance"),
    [("L", ".jpg", 3), ("L", ".png", 0), ("1", ".png", 0), ("LA", ".png", 0), ("CMYK", ".jpg", 4)],
)
def test_other_modes_become_three_channels(tmp_path: Path, mode: str, suffix: str, tolerance: int) -> None:
    grey = np.repeat(smooth()[..., :1], 3, axis=-1)
    if mode == "1":
        grey = (grey > 127).astype(np.uint8) * 255
    Image.fromarray(grey).convert(mode).save(tmp_path / f"a{suffix}")
    image = read_image(tmp_path / f"a{suffix}")
    assert image.shape == (3, 48, 64)
    assert abs(image.permute(1, 2, 0).numpy().astype(int) - grey).max() <= tolerance


def test_transparency_is_dropped(tmp_path: Path) -> None:
    pixels = np.concatenate([smooth(), smooth()[..., :1]], axis=-1)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png").permute(1, 2, 0), smooth())


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    indexed = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8), "P")
    indexed.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    indexed.save(tmp_path / "a.png", transparency=1)
    pixels = read_image(tmp_path / "a.png").permute(1, 2, 0).tolist()
    assert pixels == [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [40, 50, 60]]]


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_keep_their_upper_8(tmp_path: Path, channels: int) -> None:
    deep = np.linspace(0, 65535, 48 * 64).astype(np.uint16).reshape(48, 64, 1).repeat(channels, axis=-1)
    cv2.imwrite(str(tmp_path / "a.png"), deep)
    image = read_image(tmp_path / "a.png").permute(1, 2, 0).numpy()
    assert np.array_equal(image, (deep // 256).astype(np.uint8).repeat(3 // channels, axis=-1))


def test_the_orientation_in_exif_is_applied_where_it_is_asked_for(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(smooth()).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (3, 48, 64)
    assert read_image_size(tmp_path / "a.jpg") == (48, 64)
    assert read_image_size(tmp_path / "a.jpg", upright=True) == (64, 48)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("annotated", ["stored", "upright"])
def test_the_size_in_an_annotation_tells_whether_its_tool_turned_the_image(
    tmp_path: Path, orientation: int, annotated: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(smooth()).save(path, exif=exif)
    upright = read_image(path, upright=True)
    size = (48, 64) if annotated == "stored" else tuple(upright.shape[1:])
    # Where both have one size, as after half a turn, the image is upright: so most tools show it.
    stays = size == (48, 64) != upright.shape[1:]
    expected = read_image(path) if stays else upright
    assert torch.equal(read_image(path, size=size), expected)


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
def test_a_jpeg_whose_end_is_missing_is_decoded_as_opencv_does_with_a_warning(
    tmp_path: Path, kept: float, options: dict[str, bool]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    path = tmp_path / "a.jpg"
    Image.fromarray(noise).save(path, **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.warns(ImageWarning, match=r"a\.jpg: the image ends too early") as warned:
        image = read_image(path).permute(1, 2, 0).numpy()
    assert [warning.message.left_out for warning in warned] == [False]
    np.testing.assert_allclose(image.astype(int), cv2.imread(str(path))[..., ::-1], atol=2)  # another libjpeg
    with pytest.warns(ImageWarning):
        np.testing.assert_array_equal(read_image(path, content=path.read_bytes()).permute(1, 2, 0), image)
    with refusing(strict=True), pytest.raises(UserError, match="ends too early"):
        read_image(path)


def test_a_jpeg_of_which_no_more_than_a_part_of_the_header_is_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth()).save(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UnreadableImageError, match="cannot be decoded") as error:
        read_image(path)
    assert error.value.file == path
    assert error.value.fix


def test_bytes_after_the_end_of_a_jpeg_are_passed_over(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth()).save(path)
    whole = read_image(path)
    path.write_bytes(path.read_bytes() + b"more")
    assert torch.equal(read_image(path), whole)
    assert not recwarn


def test_what_the_system_refuses_is_no_damaged_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UserError, match=r"cannot be read \(Input/output error\)") as error:
        read_image(tmp_path / "a.jpg")
    assert not isinstance(error.value, UnreadableImageError)


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "gif"])
def test_a_truncated_image_of_another_format_is_named_with_its_file(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="cannot be decoded") as error:
        read_image(path)
    assert error.value.file == path


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\xff\xd8\xff\xe0", b"<html></html>", b"\x89PNG\r\n\x1a\n\0"])
@pytest.mark.parametrize("read", [read_image, read_image_size])
def test_what_is_not_an_image_is_named_with_its_file(tmp_path: Path, content: bytes, read: object) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be decoded") as error:
        read(path)
    assert error.value.file == path


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the image is missing") as error:
        read_image(tmp_path / "a.jpg")
    assert error.value.file == tmp_path / "a.jpg"


def test_an_image_is_turned_upright_only_where_that_is_asked_for(tmp_path: Path) -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)

    stored = read_image(tmp_path / "turned.png").permute(1, 2, 0).numpy()
    upright = read_image(tmp_path / "turned.png", upright=True).permute(1, 2, 0).numpy()

    np.testing.assert_array_equal(stored, pixels)
    np.testing.assert_array_equal(upright, np.rot90(pixels, -1))


def test_floating_point_from_0_to_1_is_scaled_and_other_refused(tmp_path):
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    Image.fromarray(values).save(tmp_path / "image.tif")
    assert read_image(tmp_path / "image.tif")[:, 0].tolist() == [[0, 128, 255]] * 3
    Image.fromarray(values * 3).save(tmp_path / "image.tif")
    with pytest.raises(UserError, match="floating point from 0 to 1"):
        read_image(tmp_path / "image.tif")
    assert to_uint8(values).tolist() == [[0, 128, 255]]
    for wrong in (values.astype(np.int64), values - 1, values * np.nan):
        with pytest.raises(ValueError, match="uint8 from 0 to 255"):
            to_uint8(wrong)


def test_a_line_is_refused(tmp_path):
    Image.new("RGB", (100_000, 1)).save(tmp_path / "line.png")
    with pytest.raises(UserError, match="100000 x 1 pixels, a line"):
        read_image(tmp_path / "line.png")


@pytest.mark.parametrize("name", ["image.jpg", "image.png", "image.tif"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_large_image_is_decoded_at_a_fraction_of_its_size(name, mode, tmp_path):
    if (name, mode) == ("image.png", "CMYK"):
        pytest.skip("there is no such PNG")
    Image.new("RGB", (400, 300), (200, 200, 200)).convert(mode).save(tmp_path / name)
    assert read_image(tmp_path / name, most_pixels=400 * 300).shape == (3, 300, 400)
    image = read_image(tmp_path / name, most_pixels=400 * 300 - 1)
    assert image.shape == (3, 150, 200)
    assert (image.int() - 200).abs().max() <= 4
    assert math.prod(read_image(tmp_path / name, most_pixels=1000).shape[1:]) <= 1000
