"""What occluders look like: pieces of photographs that show none of some classes, and noise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from afrcnn.core.errors import UserError
from afrcnn.robustness.image import Photograph
from afrcnn.robustness.occluders import Piece, choose_piece, noise


def photograph(name, objects, size=(100, 120)):
    boxes = np.array([box for box, _ in objects], dtype=float).reshape(-1, 4)
    labels = np.array([label for _, label in objects], dtype=np.int64)
    return Photograph(name, Path(name), size, boxes, labels, np.ones(len(labels), dtype=bool))


def shown(piece, photographs):
    """The labels of which a piece shows any pixel, and the largest share of a box that it shows."""
    x1, y1, x2, y2 = piece.box
    (source,) = [each for each in photographs if each.file == piece.file]
    labels, largest = set(), 0.0
    for (a, b, c, d), label in zip(source.boxes, source.labels, strict=True):
        pixels = sum(a <= x < c and b <= y < d for x in range(x1, x2) for y in range(y1, y2))
        if pixels:
            labels.add(int(label))
            largest = max(largest, pixels / ((c - a) * (d - b)))
    return labels, largest


def test_pieces_come_from_other_photographs_that_show_none_of_the_classes():
    rng = np.random.default_rng(0)
    photographs = []
    for number in range(12):
        corners = rng.integers(0, 60, (3, 2))
        photographs.append(photograph(f"{number}", [((x, y, x + 30, y + 30), rng.integers(1, 5)) for x, y in corners]))
    for _ in range(60):
        own, labels = int(rng.integers(12)), {int(rng.integers(1, 5))}
        piece = choose_piece(rng, photographs, own, labels, (20, 30))
        (source,) = [each for each in photographs if each.file == piece.file]
        assert source is not photographs[own]
        assert not labels & set(source.labels.tolist())
        assert shown(piece, photographs)[1] <= 0.5
        x1, y1, x2, y2 = piece.box
        assert (y2 - y1, x2 - x1) == (20, 30) and x1 >= 0 and y1 >= 0 and x2 <= 120 and y2 <= 100


def test_where_every_photograph_shows_the_class_pieces_are_cut_between_its_objects():
    cells = [((x, y, x + 22, y + 22), 1) for x in range(0, 120, 30) for y in range(0, 90, 30)]
    photographs = [photograph("own", cells), photograph("other", cells)]
    for seed in range(10):
        piece = choose_piece(np.random.default_rng(seed), photographs, 0, {1}, (40, 40))
        assert piece.file == Path("other") and shown(piece, photographs)[0] == set()


def test_a_photograph_smaller_than_the_object_gives_what_it_has():
    piece = choose_piece(
        np.random.default_rng(0), [photograph("a", []), photograph("b", [], (10, 50))], 0, {1}, (60, 60)
    )
    assert piece == Piece(Path("b"), piece.box)
    assert (piece.box[2] - piece.box[0], piece.box[3] - piece.box[1]) == (10, 10)


def test_no_piece_is_a_user_s_error_that_says_what_else_to_choose():
    full = [photograph(name, [((0, 0, 120, 100), 1)]) for name in "ab"]
    for photographs in (full, full[:1]):
        with pytest.raises(UserError, match="choose grey or noise"):
            choose_piece(np.random.default_rng(0), photographs, 0, {1}, (20, 20))


def test_the_same_chance_chooses_the_same_piece_and_another_another():
    photographs = [photograph(f"{number}", []) for number in range(30)]
    pieces = [choose_piece(np.random.default_rng(seed), photographs, 0, {1}, (20, 20)) for seed in (1, 1, 2)]
    assert pieces[0] == pieces[1] != pieces[2]


def test_a_piece_is_read_as_it_lies_in_its_photograph_and_enlarged_to_the_size_asked_for(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    piece = Piece(tmp_path / "image.png", (3, 4, 13, 12))
    assert np.array_equal(piece.read((8, 10)).permute(1, 2, 0).numpy(), pixels[4:12, 3:13])
    large = piece.read((32, 40))
    assert large.shape == (3, 32, 40) and large.dtype == torch.uint8
    assert abs(float(large.float().mean()) - pixels[4:12, 3:13].mean()) < 3


def test_noise_has_every_value_alike():
    values = noise(np.random.default_rng(0), (200, 200))
    assert values.shape == (3, 200, 200) and values.dtype == torch.uint8
    counts = torch.bincount(values.flatten().int(), minlength=256)
    assert counts.min() > 350 and counts.max() < 600  # 469 expected, with a deviation of 22
