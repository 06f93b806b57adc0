"""What occluders look like: pieces of images that show none of some classes, and noise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from afrcnn.core.errors import UserError
from afrcnn.robustness.occluders import Pieces, _Piece
from afrcnn.robustness.stresses import Change, Occlusion


class Images:
    """A dataset by the objects of its images, (box, label), and their sizes."""

    def __init__(self, objects, sizes=None):
        self.objects, self.sizes = objects, sizes or [(100, 120)] * len(objects)

    def __len__(self):
        return len(self.objects)

    def target(self, index):
        boxes, labels = ([row[place] for row in self.objects[index]] for place in (0, 1))
        boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        return {"boxes": boxes, "labels": torch.tensor(labels, dtype=torch.int64)}

    def image_path(self, index):
        return Path(str(index))

    def image_size(self, index):
        return self.sizes[index]


def choose(images, rng, *arguments):
    return Pieces(images).choose(rng, *arguments)


def shown(piece, images):
    """The labels of which a piece shows any pixel, and the largest fraction of a box that it shows."""
    x1, y1, x2, y2 = piece.box
    labels, largest = set(), 0.0
    for (a, b, c, d), label in images.objects[int(piece.file.name)]:
        pixels = sum(a <= x < c and b <= y < d for x in range(x1, x2) for y in range(y1, y2))
        if pixels:
            labels.add(int(label))
            largest = max(largest, pixels / ((c - a) * (d - b)))
    return labels, largest


def test_pieces_come_from_other_images_that_show_none_of_the_classes():
    rng = np.random.default_rng(0)
    objects = []
    for _ in range(12):
        corners = rng.integers(0, 60, (3, 2)).tolist()
        objects.append([((x, y, x + 30, y + 30), int(rng.integers(1, 5))) for x, y in corners])
    images = Images(objects)
    for _ in range(60):
        image, labels = int(rng.integers(12)), {int(rng.integers(1, 5))}
        piece = choose(images, rng, image, labels, (20, 30))
        source = int(piece.file.name)
        assert source != image
        assert not labels & {label for _, label in objects[source]}
        assert shown(piece, images)[1] <= 0.5
        x1, y1, x2, y2 = piece.box
        assert (y2 - y1, x2 - x1) == (20, 30)
        assert 0 <= x1 < x2 <= 120
        assert 0 <= y1 < y2 <= 100


def test_where_every_image_shows_the_class_pieces_are_cut_between_its_objects():
    cells = [((x, y, x + 22, y + 22), 1) for x in range(0, 120, 30) for y in range(0, 90, 30)]
    images = Images([cells, cells])
    for seed in range(10):
        piece = choose(images, np.random.default_rng(seed), 0, {1}, (40, 40))
        assert piece.file == Path("1")
        assert shown(piece, images)[0] == set()


def test_an_image_smaller_than_the_object_gives_what_it_has():
    images = Images([[], []], [(100, 120), (10, 50)])
    piece = choose(images, np.random.default_rng(0), 0, {1}, (60, 60))
    assert piece.file == Path("1")
    assert (piece.box[2] - piece.box[0], piece.box[3] - piece.box[1]) == (10, 10)


def test_no_piece_is_a_user_s_error_that_says_what_else_to_choose():
    full = [[((0, 0, 120, 100), 1)]] * 2
    for objects in (full, full[:1]):
        with pytest.raises(UserError, match="choose grey or noise"):
            choose(Images(objects), np.random.default_rng(0), 0, {1}, (20, 20))


def test_the_same_generator_chooses_the_same_piece_and_another_another():
    images = Images([[]] * 30)
    pieces = [choose(images, np.random.default_rng(seed), 0, {1}, (20, 20)) for seed in (1, 1, 2)]
    assert pieces[0] == pieces[1] != pieces[2]


def test_a_piece_is_read_as_it_lies_in_its_image_and_enlarged_to_the_size_asked_for(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    piece = _Piece(tmp_path / "image.png", (20, 30), (3, 4, 13, 12))
    assert np.array_equal(piece.read((8, 10)).permute(1, 2, 0).numpy(), pixels[4:12, 3:13])
    large = piece.read((32, 40))
    assert (large.shape, large.dtype) == ((3, 32, 40), torch.uint8)
    assert abs(float(large.float().mean()) - pixels[4:12, 3:13].mean()) < 3


def test_noise_has_every_value_alike():
    black, stress = torch.zeros(3, 250, 250, dtype=torch.uint8), Occlusion("noise", levels=(0.99,))
    target = {"boxes": torch.tensor([[25.0, 25, 225, 225]]), "labels": torch.tensor([1]), "image_id": "a"}
    image = stress.apply(black, target, Change(0, stress, 1.0), Pieces(Images([[]])), 0)
    assert int((image > 0).any(dim=0).sum()) == pytest.approx(200 * 200, rel=1e-3)
    values = image[:, 25:225, 25:225]
    counts = torch.bincount(values.flatten().int(), minlength=256)
    assert counts.min() > 350 and counts.max() < 600  # 469 expected, with a deviation of 22
