"""The sequence of training samples: a pure function of seed and position."""

import random
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2

from afrcnn.core.errors import UserError
from afrcnn.data.overlap import intersection_over_foreground
from afrcnn.data.transforms import CopyPaste, CutOut, RandomErasing
from afrcnn.training.samples import (
    _CROWD_COVER,
    BatchSampler,
    SampleSequence,
    TrainableSamples,
    _order,
    collate,
    trainable,
)


def boxes_of(values, size=(40, 60)):
    boxes = torch.tensor(values, dtype=torch.float32).reshape(-1, 4)
    return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size)


class Numbers:
    """A ``DetectionDataset`` whose image i is a picture of gradients that begins with i."""

    root, classes = Path(), ("thing",)

    def __init__(self, count):
        self.ids = [f"image {index}" for index in range(count)]

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        columns = torch.arange(60, dtype=torch.uint8).expand(3, 40, 60).clone()
        columns[0] = index
        return tv_tensors.Image(columns), self.target(index)

    def target(self, index):
        return {
            "boxes": boxes_of([[index, 1, index + 5, 8]]),
            "labels": torch.tensor([1]),
            "image_id": self.ids[index],
            "proposals": boxes_of([[2, 3, 30, 20], [index, 0, 60, 40]]),
        }


def same(one, other):
    (image, target), (image2, target2) = one, other
    return (
        torch.equal(image, image2)
        and target.keys() == target2.keys()
        and all(torch.equal(target[name], target2[name]) for name in ("boxes", "labels", "proposals"))
        and target["image_id"] == target2["image_id"]
    )


NOISE = v2.GaussianNoise(sigma=0.1)


def noisy(image, target):
    return v2.functional.to_dtype(NOISE(v2.functional.to_dtype(image, torch.float32, scale=True))), target


@pytest.mark.parametrize(
    "transform",
    [noisy, RandomErasing(), CutOut(), CopyPaste(TrainableSamples(Numbers(7)))],
    ids=["noise", "erasing", "cut-out", "copy-paste"],
)
def test_a_sample_is_a_function_of_seed_and_position(transform):
    sequence, again = (SampleSequence(Numbers(7), seed=3, transform=transform) for _ in range(2))
    samples = [sequence[position] for position in range(20)]
    torch.manual_seed(1)  # neither other randomness nor the order of asking matters
    for position in reversed(range(20)):
        torch.rand(position)
        assert same(again[position], samples[position])
    other = SampleSequence(Numbers(7), seed=4, transform=transform)
    assert not all(same(other[position], samples[position]) for position in range(20))


def test_a_sample_leaves_the_random_state_as_it_was():
    before = torch.get_rng_state()
    _ = SampleSequence(Numbers(7), transform=noisy)[5]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_image_comes_once_in_each_epoch(count):
    sequence = SampleSequence(Numbers(count), seed=0)
    for epoch in range(4):
        ids = [sequence[position][1]["image_id"] for position in range(epoch * count, (epoch + 1) * count)]
        assert sorted(ids) == sorted(sequence.samples.dataset.ids)


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(_order(seed, epoch, 50)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_augmentation_ends_before_a_position_and_other_transforms_do_not():
    def add(number):
        return lambda image, target: (tv_tensors.Image(image.as_subclass(torch.Tensor).int() + number), target)

    sequence = SampleSequence(Numbers(5), flip=0, transform=add(1000), augmentation=add(10_000), perturbed=7)
    plain = SampleSequence(Numbers(5), flip=0)
    added = [int((sequence[n][0].int() - plain[n][0].int()).unique()) for n in range(12)]
    assert added == [11_000] * 7 + [1000] * 5
    always = SampleSequence(Numbers(5), flip=0, augmentation=add(10_000))
    assert int((always[100][0].int() - plain[100][0].int()).unique()) == 10_000


def test_samples_take_turns_to_be_adversarial_until_the_clean_end():
    sequence = SampleSequence(Numbers(5), perturbed=7, clean_fraction=0.5)
    flags = [sequence[position][1]["adversarial"] for position in range(10)]
    assert flags == [False, True, False, True, False, True, False, False, False, False]
    assert not any(SampleSequence(Numbers(5))[position][1]["adversarial"] for position in range(10))


def test_samples_begin_with_an_adversarial_one_where_they_are_told_to():
    sequence = SampleSequence(Numbers(5), perturbed=7, clean_fraction=0.5, adversarial_first=True)
    flags = [sequence[position][1]["adversarial"] for position in range(10)]
    assert flags == [True, False, True, False, True, False, True, False, False, False]


def test_another_image_is_drawn_in_place_of_one_that_is_not_eligible():
    plain, numbers = SampleSequence(Numbers(7), seed=3), Numbers(7)
    barred = {numbers.ids[index] for index in (0, 2, 5)}
    sequence = SampleSequence(Numbers(7), seed=3, eligible=lambda target: target["image_id"] not in barred)
    drawn = []
    for position in range(140):
        before, after = (samples[position][1]["image_id"] for samples in (plain, sequence))
        assert after not in barred
        if before in barred:
            drawn.append(after)
        else:
            assert after == before
    assert set(drawn) == set(numbers.ids) - barred  # by chance, each
    assert len(drawn) == 60
    assert same(sequence[17], sequence[17])
    with pytest.raises(UserError, match=r"data\.redraw.*no image was found"):
        SampleSequence(Numbers(7), eligible=lambda target: False)[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_in_any_number_of_processes_is_the_same(workers):
    sequence = SampleSequence(Numbers(5), seed=1)
    loader = DataLoader(
        sequence,
        batch_sampler=BatchSampler(2, 6, 3),
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator(),
    )
    position = 6
    for images, targets in loader:
        assert len(images) == len(targets) == 3
        for image, target in zip(images, targets, strict=True):
            assert same((image, target), sequence[position])
            position += 1
    assert position == 18


def test_boxes_and_proposals_are_mirrored_with_the_image():
    plain, mirrored = (SampleSequence(Numbers(6), flip=flip)[2] for flip in (0.0, 1.0))
    assert torch.equal(mirrored[0], plain[0].flip(-1))
    for name in ("boxes", "proposals"):
        x1, y1, x2, y2 = plain[1][name].unbind(1)
        assert torch.equal(mirrored[1][name], torch.stack([60 - x2, y1, 60 - x1, y2], dim=1))


def test_about_half_of_the_samples_are_mirrored_each_by_itself():
    sequence = SampleSequence(Numbers(4), seed=2)
    flips = Counter(bool(sequence[position][0][1, 0, 0]) for position in range(400))
    assert 150 < flips[True] < 250


@pytest.mark.parametrize(("images", "world_size"), [(1, 1), (2, 3), (4, 2)])
def test_the_positions_of_all_processes_are_disjoint_and_complete(images, world_size):
    parts = [list(BatchSampler(3, 8, images, rank, world_size)) for rank in range(world_size)]
    assert all(len(part) == len(BatchSampler(3, 8, images)) == 5 for part in parts)
    for update, batches in enumerate(zip(*parts, strict=True), start=3):
        together = list(chain(*batches))
        total = images * world_size
        assert together == list(range(update * total, (update + 1) * total))


def full_target(**more):
    return {
        "boxes": boxes_of([[0, 0, 10, 10], [20, 20, 40, 40], [5, 5, 9, 9]]),
        "labels": torch.tensor([1, 2, 3]),
        "image_id": "a",
        "difficult": torch.tensor([False, True, False]),
        "proposals": boxes_of([[0, 0, 10, 10], [21, 21, 39, 39], [20, 20, 60, 40]]),
        **more,
    }


def test_difficult_objects_are_left_out_with_all_that_is_said_of_them_unless_asked_for():
    target = full_target()
    left = trainable(target)
    assert left["labels"].tolist() == [1, 3] and left["difficult"].tolist() == [False, False]
    assert left["boxes"].tolist() == [[0, 0, 10, 10], [5, 5, 9, 9]]
    assert isinstance(left["boxes"], tv_tensors.BoundingBoxes) and left["boxes"].canvas_size == (40, 60)
    assert len(left["proposals"]) == 3 and left["image_id"] == "a"
    assert trainable(target, use_difficult=True)["labels"].tolist() == [1, 2, 3]
    assert len(target["boxes"]) == 3, "the dataset's own target is changed"


def test_crowds_are_left_out_with_the_proposals_in_them():
    left = trainable(full_target(iscrowd=torch.tensor([False, True, False])), use_difficult=True)
    assert left["labels"].tolist() == [1, 3]
    # The second lies in the crowd; half of the third does.
    assert left["proposals"].tolist() == [[0, 0, 10, 10], [20, 20, 60, 40]]
    assert isinstance(left["proposals"], tv_tensors.BoundingBoxes)


def test_samples_hold_what_is_trained_on():
    class One(Numbers):
        def target(self, index):
            return full_target()

    assert len(TrainableSamples(One(4))) == 4
    image, target = TrainableSamples(One(4))[3]
    assert image[0, 0, 0] == 3 and target["labels"].tolist() == [1, 3]
    assert TrainableSamples(One(4), use_difficult=True)[3][1]["labels"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("flag", ["difficult", "iscrowd"])
def test_of_an_image_without_trainable_objects_no_object_is_left(flag):
    left = trainable(full_target(**{flag: torch.tensor([True, True, True])}))
    assert left["boxes"].shape == (0, 4) and left["labels"].shape == (0,)


def test_as_many_proposals_as_objects_stay_what_they_are():
    left = trainable(full_target())  # three of each: proposals are not taken for something said of objects
    assert torch.equal(left["proposals"], full_target()["proposals"])


def test_intersection_over_foreground_is_a_fraction_of_the_first_box():
    torch.manual_seed(0)
    corner = torch.rand(30, 2) * 10
    boxes = torch.cat([corner, corner + 0.5 + torch.rand(30, 2) * 10], dim=1)
    iof = intersection_over_foreground(boxes, boxes)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    # intersection = iou * union, union = a + b - intersection
    iou = box_iou(boxes, boxes)
    intersection = iou / (1 + iou) * (area[:, None] + area[None])
    torch.testing.assert_close(iof, intersection / area[:, None], rtol=1e-4, atol=1e-5)
    assert 0 < _CROWD_COVER < 1


def test_transforms_of_other_packages_draw_by_sample_and_leave_the_program_s_numbers_alone():
    drawn = []

    def draw(image, target):
        drawn.append((random.random(), np.random.random()))  # noqa: NPY002
        return image, target

    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    for seed in (0, 0, 1):
        samples = SampleSequence(Numbers(3), seed=seed, transform=draw)
        for position in (0, 1):
            _ = samples[position]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
    assert drawn[:2] == drawn[2:4]
    assert len(set(drawn)) == 4
