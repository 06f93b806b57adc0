from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from afrcnn.core.errors import UserError
from afrcnn.proposals.dataset import WithProposals
from afrcnn.proposals.store import Proposals
from reference import write_store


def test_targets_hold_the_first_proposals_and_transforms_move_them_with_the_image(scenes, store, proposals):
    dataset = WithProposals(scenes, store, limit=5)
    assert (dataset.root, dataset.classes, dataset.ids, len(dataset)) == (scenes.root, scenes.classes, scenes.ids, 5)
    assert (dataset.category_ids, dataset.annotation_file) == (scenes.category_ids, None)
    assert (dataset.image_path(2), dataset.image_size(2)) == (scenes.image_path(2), scenes.image_size(2))
    for index in range(5):
        image, target = dataset[index]
        boxes = target["proposals"]
        assert boxes.dtype == torch.float32
        assert boxes.canvas_size == tuple(image.shape[-2:])
        np.testing.assert_array_equal(boxes.numpy(), proposals[index].boxes[:5].reshape(-1, 4))
        torch.testing.assert_close(dataset.target(index)["proposals"], boxes)
        assert "proposals" not in scenes.target(index)
        flipped = v2.RandomHorizontalFlip(p=1)(image, target)[1]["proposals"]
        x1, y1, x2, y2 = boxes.unbind(1)
        width = image.shape[-1]
        torch.testing.assert_close(flipped.as_subclass(torch.Tensor), torch.stack([width - x2, y1, width - x1, y2], 1))


def test_loader_workers_read_the_same_proposals(scenes, store, proposals):
    loader = DataLoader(WithProposals(scenes, store), batch_size=None, num_workers=2)
    for index, (_, target) in enumerate(loader):
        np.testing.assert_array_equal(target["proposals"].numpy(), proposals[index].boxes)
    copy = pickle.loads(pickle.dumps(WithProposals(scenes, store)))
    torch.testing.assert_close(copy[3][1]["proposals"], WithProposals(scenes, store)[3][1]["proposals"])


def test_an_image_that_changed_since_is_named(scenes, store):
    dataset = WithProposals(scenes, store)
    dataset[2]
    Image.new("RGB", (60, 60)).save(scenes.image_path(3))
    dataset[2]
    with pytest.raises(UserError, match=r"scene3\.png.*changed.*afrcnn proposals"):
        dataset[3]


def test_an_image_that_is_gone_is_named(scenes, store):
    dataset = WithProposals(scenes, store)
    scenes.image_path(0).unlink()
    with pytest.raises(UserError, match=r"scene0\.png"):
        dataset[0]


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, -0.5, 5, 5), (0, 0, 1000, 5), (0, 0, 5, 1000)])
def test_a_box_outside_its_image_is_named_with_the_image(tmp_path, scenes, proposals, box):
    proposals[4] = Proposals(np.array([box], np.float32))
    dataset = WithProposals(scenes, write_store(tmp_path / "store", scenes, proposals))
    dataset[3]
    with pytest.raises(UserError, match="scene4: a proposal lies outside"):
        dataset[4]


def test_proposals_of_another_dataset_are_refused_with_the_number_of_images(scenes, store):
    scenes.ids = ["scene0", "other1", "other2", "scene3", "scene4"]
    with pytest.raises(UserError, match=r"store: holds no proposals for 2 of 5 images, 'other1'.*afrcnn proposals"):
        WithProposals(scenes, store)
