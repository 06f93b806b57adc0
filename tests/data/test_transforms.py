"""Hiding objects in images: what is seen, labelled and proposed afterwards, pixel by pixel."""

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2

from afrcnn.data import transforms
from afrcnn.data.transforms import _LARGEST_OCCLUSION, _MEAN_COLOUR, _SMALLEST_IOU, CopyPaste, CutOut, RandomErasing

SIZE = (120, 160)
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def boxes_of(values, size=SIZE):
    boxes = torch.as_tensor(values, dtype=torch.float32).reshape(-1, 4)
    return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size)


def sample(boxes, labels=None, image_id="a", pixels=None, proposals=(), size=SIZE, **more):
    pixels = torch.zeros(3, *size, dtype=torch.uint8) if pixels is None else pixels
    labels = torch.arange(1, len(boxes) + 1) if labels is None else torch.as_tensor(labels)
    boxes, proposals = boxes_of(boxes, size), boxes_of(proposals, size)
    return tv_tensors.Image(pixels), {
        "boxes": boxes,
        "labels": labels,
        "image_id": image_id,
        "proposals": proposals,
        **more,
    }


def noise(size=SIZE):
    return torch.randint(0, 256, (3, *size), dtype=torch.uint8)


def random_boxes(count, size=SIZE, least=20, whole=True):
    height, width = size
    sides = least + torch.rand(count, 2) * torch.tensor([width / 2, height / 2])
    corner = torch.rand(count, 2) * (torch.tensor([width, height]) - sides)
    boxes = torch.cat([corner, corner + sides], dim=1)
    return boxes.round() if whole else boxes


def test_erasing_is_torchvisions_of_the_normalised_image():
    normalise = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    rounding = 0.5 / 255 / min(STD)
    for case in range(10):
        image, target = sample([[10, 10, 50, 50]], pixels=noise())
        torch.manual_seed(case)
        expected = v2.RandomErasing()(normalise(image))
        torch.manual_seed(case)
        erased, after = RandomErasing()(image, target)
        assert erased.dtype == torch.uint8, case
        assert after is target, case
        difference = (normalise(erased).as_subclass(torch.Tensor) - expected).abs().max()
        assert difference <= rounding + 1e-6, case


def test_about_as_many_images_are_erased_as_asked_for():
    image, target = sample([], pixels=noise())
    changed = sum(not torch.equal(RandomErasing(0.25)(image, target)[0], image) for _ in range(400))
    assert 65 < changed < 135


@pytest.mark.parametrize("fraction", [0.0, 0.1, 1 / 3, 0.6, 1.0])
@pytest.mark.parametrize("whole", [True, False])
def test_cut_out_hides_the_asked_fraction_of_each_box_under_one_rectangle_of_the_mean_colour_inside_it(fraction, whole):
    for _ in range(50):
        box = random_boxes(1, whole=whole)
        image, target = sample(box, pixels=torch.full((3, *SIZE), 255, dtype=torch.uint8))
        hidden, after = CutOut(fraction)(image, target)
        assert after is target
        assert isinstance(hidden, tv_tensors.Image)
        changed = (hidden != 255).any(dim=0)
        x1, y1, x2, y2 = box[0].tolist()
        row = int(changed.any(dim=0).sum())
        assert changed.sum() == pytest.approx(fraction * (x2 - x1) * (y2 - y1), abs=max(row / 2, 1) + 1e-3)
        changed = changed.numpy()
        assert (hidden.permute(1, 2, 0)[torch.from_numpy(changed)] == torch.tensor(_MEAN_COLOUR)).all()
        if changed.any():
            rows, columns = np.nonzero(changed)
            top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
            assert changed[top:bottom, left:right].all()
            assert left >= np.floor(x1)
            assert top >= np.floor(y1)
            assert right <= np.ceil(x2)
            assert bottom <= np.ceil(y2)
            assert (right - left) / (x2 - x1) == pytest.approx((bottom - top) / (y2 - y1), abs=0.1)


def test_cut_out_lies_anywhere_in_the_box():
    image, target = sample([[30, 40, 50, 60]], pixels=noise())
    hidden = [(CutOut(0.25)(image, target)[0] != image).any(dim=0)[40:60, 30:50] for _ in range(2000)]
    seen = torch.stack(hidden).float().mean(dim=0)
    # The rectangle is 10 of 20 pixels wide and high, at 11 places each way: a corner is hidden in one of 121.
    corners = seen[[0, 0, 19, 19], [0, 19, 0, 19]]
    assert corners.min() > 0
    assert corners.max() < 0.03
    assert seen[9:11, 9:11].min() > 0.75


def test_cut_out_hides_every_object_and_leaves_the_rest_and_the_given_image():
    boxes = [[0, 0, 40, 30], [100, 80, 160, 120], [60, 5, 61, 6]]
    pixels = noise()
    image, target = sample(boxes, pixels=pixels.clone())
    hidden, _ = CutOut(1.0)(image, target)
    inside = torch.zeros(SIZE, dtype=torch.bool)
    for x1, y1, x2, y2 in boxes:
        inside[y1:y2, x1:x2] = True
    assert (hidden.permute(1, 2, 0)[inside] == torch.tensor(_MEAN_COLOUR)).all()
    assert torch.equal(hidden[:, ~inside], pixels[:, ~inside])
    assert torch.equal(image, pixels)


class Tiles:
    """Samples with an object of a colour and a label of its own on each tile of a grid."""

    def __init__(self, count=1, size=(100, 150), tiles=(5, 5)):
        self.count, (height, width) = count, size
        rows, columns = tiles
        pixels, boxes = torch.zeros(3, height, width, dtype=torch.uint8), []
        for number in range(rows * columns):
            y, x = divmod(number, columns)
            box = [x * width // columns, y * height // rows, (x + 1) * width // columns, (y + 1) * height // rows]
            pixels[:, box[1] : box[3], box[0] : box[2]] = number + 1
            boxes.append(box)
        around = [[x1 + dx, y1, x2 + dx, y2] for x1, y1, x2, y2 in boxes for dx in (-9, -3, 0, 4)]
        around = torch.tensor(around).clamp(min=0, max=width)
        self.pixels, self.boxes, self.size, self.around = pixels, boxes, size, around
        self.asked = []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.asked.append(index)
        return sample(self.boxes, image_id=f"tiles {index}", pixels=self.pixels, proposals=self.around, size=self.size)


def paste(seed, *given, tiles=(5, 5), **options):
    torch.manual_seed(seed)
    return CopyPaste(Tiles(tiles=tiles), **options)(*given)


def test_every_object_gets_another_as_large_on_its_outline_that_hides_a_quarter_to_half_of_one_like_it():
    box = [50, 45, 95, 75]  # of the tiles' shape, 30 to 20, far from the edges
    given = sample([box], labels=[99], pixels=torch.full((3, *SIZE), 200, dtype=torch.uint8))
    for case in range(40):
        pasted, target = paste(case, *given)
        assert target["labels"][0] == 99, case
        assert target["boxes"][0].tolist() == box, case
        (label,), (other,) = target["labels"][1:].tolist(), target["boxes"][1:].tolist()
        x1, y1, x2, y2 = map(int, other)
        assert (x2 - x1, y2 - y1) == (45, 30), case
        assert (pasted[:, y1:y2, x1:x2] == label).all(), case  # the tile's colour is its label
        changed = (pasted != 200).any(dim=0)
        assert changed.sum() == 45 * 30, case
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        on_side = min(abs(x - 50), abs(x - 95)) <= 1 and 44 <= y <= 76
        on_top = min(abs(y - 45), abs(y - 75)) <= 1 and 49 <= x <= 96
        assert on_side or on_top, case
        assert 0.25 - 0.05 <= changed[45:75, 50:95].float().mean() <= 0.5 + 0.05, case


def test_all_edges_are_used_and_three_eighths_are_hidden_in_the_mean():
    given = sample([[50, 45, 95, 75]], labels=[99], pixels=torch.full((3, *SIZE), 200, dtype=torch.uint8))
    hidden, centres = [], []
    for case in range(400):
        pasted, target = paste(case, *given)
        hidden.append((pasted[0, 45:75, 50:95] != 200).float().mean().item())
        centres.append(((target["boxes"][1, :2] + target["boxes"][1, 2:]) / 2).tolist())
    assert np.mean(hidden) == pytest.approx(3 / 8, abs=0.015)
    x, y = np.array(centres).T
    assert all(edge.mean() > 0.15 for edge in (abs(x - 50) <= 1, abs(x - 95) <= 1, abs(y - 45) <= 1, abs(y - 75) <= 1))


def test_no_object_hides_more_than_half_of_the_one_that_it_is_pasted_for_whatever_the_shapes():
    for case in range(40):
        torch.manual_seed(case)
        box = random_boxes(1, least=10)
        pasted, target = paste(case, *sample(box, labels=[99], pixels=torch.full((3, *SIZE), 200, dtype=torch.uint8)))
        x1, y1, x2, y2 = map(int, box[0].tolist())
        shorter = min(x2 - x1, y2 - y1)
        assert (pasted[0, y1:y2, x1:x2] != 200).float().mean() <= 0.5 + 2 / shorter, case
        (x3, y3, x4, y4) = target["boxes"][1].tolist()
        assert 0 <= x3 < x4 <= SIZE[1], case
        assert 0 <= y3 < y4 <= SIZE[0], case


def test_a_cut_out_of_the_same_size_is_pasted_pixel_by_pixel_also_over_the_image_s_edge():
    source = noise()
    other = sample([[30, 20, 70, 60]], labels=[5], image_id="other", pixels=source)
    for case, box in enumerate([[0, 0, 40, 40], [120, 80, 160, 120], [60, 40, 100, 80]] * 5):
        torch.manual_seed(case)
        pixels = noise()
        pasted, target = CopyPaste([other], mirrored=0.0)(*sample([box], labels=[4], pixels=pixels.clone()))
        x1, y1, x2, y2 = map(int, target["boxes"][1].tolist())
        left = x1 if x1 > 0 else x2 - 40  # an object that stands out of the image is 40 pixels wide all the same
        top = y1 if y1 > 0 else y2 - 40
        part = source[:, 20 + y1 - top : 20 + y2 - top, 30 + x1 - left : 30 + x2 - left]
        assert torch.equal(pasted[:, y1:y2, x1:x2], part)
        outside = torch.ones(SIZE, dtype=torch.bool)
        outside[y1:y2, x1:x2] = False
        assert torch.equal(pasted[:, outside], pixels[:, outside])


def test_the_other_image_is_mirrored_where_asked_for():
    source = noise()
    other = sample([[30, 20, 70, 60]], image_id="other", pixels=source)
    given = sample([[60, 40, 100, 80]], pixels=noise())
    pasted, target = CopyPaste([other], mirrored=1.0)(*given)
    x1, y1, x2, y2 = map(int, target["boxes"][1].tolist())
    assert torch.equal(pasted[:, y1:y2, x1:x2], source[:, 20:60, 30:70].flip(-1))


def test_an_object_that_pasted_ones_hide_too_much_of_loses_its_label_and_no_other_does(monkeypatch):
    image = torch.full((3, *SIZE), 200, dtype=torch.uint8)
    for case in range(30):
        torch.manual_seed(case)
        boxes = torch.cat([random_boxes(4), torch.tensor([[70.0, 50, 80, 58], [75, 55, 90, 70]])])
        given = sample(boxes, labels=torch.arange(101, 107), pixels=image)
        with monkeypatch.context() as patch:
            patch.setattr(transforms, "_LARGEST_OCCLUSION", 1.0)
            seed, labels = case, [0] * 12
            while len(set(labels)) < 12:  # objects that are drawn twice cannot be told apart
                seed += 1000
                pasted, everything = paste(seed, *given, tiles=(10, 10))
                labels = everything["labels"].tolist()
        again, target = paste(seed, *given, tiles=(10, 10))
        assert torch.equal(again, pasted), case

        assert labels[:6] == list(range(101, 107)), case
        assert len(labels) == 12, case
        expected = []
        for label, box in zip(labels, everything["boxes"].tolist(), strict=True):
            x1, y1, x2, y2 = map(int, box)
            colour = 200 if label > 100 else label
            seen = sum(int(pasted[0, y, x]) == colour for y in range(y1, y2) for x in range(x1, x2))
            if 1 - seen / ((x2 - x1) * (y2 - y1)) <= _LARGEST_OCCLUSION:
                expected.append((label, box))
        assert list(zip(target["labels"].tolist(), target["boxes"].tolist(), strict=True)) == expected, case


def test_an_object_that_is_hidden_wholly_is_not_labelled(monkeypatch):
    # The second lies in all of what can be pasted for the first, at its middle: their outlines are far apart.
    monkeypatch.setattr(transforms, "_beside", lambda box, cut_out: torch.tensor([10, 10, 60, 60]))
    _, target = paste(0, *sample([[0, 0, 100, 100], [20, 20, 30, 30]], labels=[98, 99]))
    assert target["labels"][0] == 98
    assert 99 not in target["labels"]
    assert len(target["labels"]) == 2  # of two pasted at one place, the first is hidden


def test_proposals_of_what_was_pasted_come_with_it_and_overlap_it_as_before():
    tiles = Tiles()
    for case in range(20):
        proposals = random_boxes(7)
        given = sample([[60, 45, 95, 75]], labels=[99], pixels=noise(), proposals=proposals)
        _, target = paste(case, *given, mirrored=0.0)
        assert torch.equal(target["proposals"][:7], proposals), case
        pasted, box, label = target["proposals"][7:], target["boxes"][1:], int(target["labels"][1])
        tile = torch.tensor([tiles.boxes[label - 1]]).float()
        overlap = box_iou(tiles.around.float(), tile)[:, 0]
        expected = overlap[overlap >= _SMALLEST_IOU]
        assert len(pasted) == len(expected) >= 4, case
        # Far from the edges nothing is clipped, and stretching both sides keeps the IoU.
        assert torch.allclose(box_iou(pasted, box)[:, 0], expected, rtol=1e-4, atol=1e-4), case


def test_proposals_that_stand_out_of_the_image_are_clipped():
    boxes = [[0, 0, 45, 30], [115, 90, 160, 120]]
    for case in range(20):
        _, target = paste(case, *sample(boxes, labels=[98, 99]))
        x1, y1, x2, y2 = target["proposals"].unbind(1)
        assert len(x1), case
        for low, high, length in ((x1, x2, SIZE[1]), (y1, y2, SIZE[0])):
            assert (high - low >= 1).all(), case
            assert low.min() >= 0, case
            assert high.max() <= length, case


def test_boxes_stay_boxes_and_what_is_no_longer_true_of_the_objects_leaves_the_target():
    image, target = sample([[50, 45, 95, 75]], occlusion=torch.tensor([0.0]), difficult=torch.tensor([False]))
    before = {name: value.clone() if hasattr(value, "clone") else value for name, value in target.items()}
    pasted, after = paste(0, image, target)
    assert after.keys() == {"boxes", "labels", "image_id", "proposals"}
    assert after["image_id"] == "a"
    assert isinstance(pasted, tv_tensors.Image)
    assert pasted.dtype == torch.uint8
    for name in ("boxes", "proposals"):
        assert isinstance(after[name], tv_tensors.BoundingBoxes)
        assert after[name].canvas_size == SIZE
        assert after[name].dtype == torch.float32
    assert after["labels"].dtype == torch.int64
    assert not image.any()
    assert all(torch.equal(target[name], before[name]) for name in ("boxes", "labels", "occlusion"))


def test_without_objects_nothing_is_pasted():
    given = sample([], pixels=noise(), proposals=random_boxes(3))
    pasted, target = paste(0, *given)
    assert pasted is given[0]
    assert target is given[1]
    given = sample([[50, 45, 95, 75]], pixels=noise())
    pasted, target = CopyPaste([sample([], image_id="empty")])(*given)
    assert pasted is given[0]
    assert target is given[1]


def test_the_other_image_is_another_as_long_as_there_is_one_and_each_has_its_turn():
    samples = Tiles(count=4)
    copy_paste = CopyPaste(samples)
    used = []
    for _ in range(200):
        samples.asked.clear()
        copy_paste(*sample([[50, 45, 95, 75]], image_id="tiles 2"))
        used.append(samples.asked[-1])
    assert set(used) == {0, 1, 3}
    CopyPaste(Tiles(count=1))(*sample([[50, 45, 95, 75]], image_id="tiles 0"))


def test_tiny_objects_and_tiny_cut_outs_are_pasted_inside_the_image():
    tiny = [[0, 0, 1, 1], [159.5, 119.5, 160, 120], [159, 0, 160, 120], [0, 119.25, 160, 120], [3.2, 4.7, 3.9, 5.1]]
    other = sample(tiny, image_id="other", pixels=noise(), proposals=tiny)
    for case in range(30):
        torch.manual_seed(case)
        pasted, target = CopyPaste([other])(*sample(tiny, pixels=noise(), proposals=tiny))
        x1, y1, x2, y2 = target["boxes"].unbind(1)
        assert pasted.shape == (3, *SIZE), case
        for low, high, length in ((x1, x2, 160), (y1, y2, 120)):
            assert low.min() >= 0, case
            assert high.max() <= length, case
            assert (low < high).all(), case


@pytest.mark.parametrize("build", [CutOut, RandomErasing, lambda: CopyPaste(Tiles())])
def test_the_state_of_the_generator_alone_decides(build):
    given = sample(random_boxes(3), pixels=noise())
    transform, results = build(), []
    for seed in (1, 1, 2, 3, 4, 5):
        torch.manual_seed(seed)
        results.append(transform(*given)[0])
    assert torch.equal(results[0], results[1])
    assert any(not torch.equal(results[0], other) for other in results[2:])
