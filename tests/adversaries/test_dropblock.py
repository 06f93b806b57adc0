"""DropBlock: torchvision's, through the contract of an adversary."""

import pytest
import torch
from torchvision.ops import DropBlock2d

from afrcnn.adversaries import DropBlock, Seam


def nothing(features):
    return features.new_zeros(len(features), 4)


@pytest.mark.parametrize(("share", "block", "size"), [(1 / 3, 3, 7), (0.1, 5, 14), (0.5, 1, 6)])
def test_it_is_torchvision_s(share, block, size, tiny):
    features, labels = tiny.objects(size=size)
    torch.manual_seed(3)
    expected = DropBlock2d(share, block)(features)
    torch.manual_seed(3)
    assert torch.equal(DropBlock(share, block)(features, labels, nothing).features, expected)
    assert not torch.equal(expected, features)


def test_what_is_zero_is_made_of_whole_blocks_and_the_rest_is_scaled_to_the_same_mean(tiny):
    features = torch.ones(4, 8, 7, 7)
    dropped = DropBlock()(features, torch.ones(4, dtype=torch.int64), nothing).features
    zero = dropped == 0
    assert 0 < zero.float().mean() < 1 / 3 + 0.05
    in_blocks = torch.zeros_like(zero)
    for row in range(5):
        for column in range(5):
            block = (slice(None), slice(None), slice(row, row + 3), slice(column, column + 3))
            whole = zero[block].flatten(2).all(dim=2)[..., None, None]
            in_blocks[block] |= whole
    assert torch.equal(in_blocks, zero)
    kept = dropped[~zero]
    assert torch.allclose(kept, kept[0].expand_as(kept)) and dropped.mean() == pytest.approx(1, abs=1e-4)
    assert (zero[:, 0] != zero[:, 1]).any()  # channels lose blocks of their own


@pytest.mark.parametrize("share", [0.1, 1 / 3])
def test_the_share_of_zeros_is_a_little_less_than_asked_for_as_blocks_meet(share):
    features = torch.ones(300, 64, 7, 7)
    zero = (
        (DropBlock(share)(features, torch.ones(300, dtype=torch.int64), nothing).features == 0).float().mean(dim=(0, 1))
    )
    seeds = share * 49 / (9 * 25)
    # A cell is zero unless none of the blocks that hold it, 1 in the corners to 9 in the middle, was drawn.
    blocks = torch.tensor([[min(r + 1, 3, 7 - r) * min(c + 1, 3, 7 - c) for c in range(7)] for r in range(7)])
    expected = 1 - (1 - seeds) ** blocks
    torch.testing.assert_close(zero, expected, rtol=0, atol=0.02)
    assert 0.7 * share < zero.mean() < share


def test_it_has_nothing_to_learn_and_the_detector_s_gradient_goes_through_what_is_left(tiny):
    features, labels = tiny.objects()
    features.requires_grad_()
    adversary = DropBlock()
    hardened = adversary(features, labels, tiny.detector().detached)
    assert not list(adversary.parameters()) and hardened.loss == 0 and not hardened.loss.requires_grad
    hardened.features.sum().backward()
    assert torch.equal(features.grad == 0, hardened.features == 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_keeps_type_and_shape_and_takes_no_objects(dtype, tiny):
    for count in (0, 5):
        features, labels = tiny.objects(count)
        hardened = DropBlock()(features.to(dtype), labels, nothing)
        assert hardened.features.dtype == dtype and hardened.features.shape == features.shape
        assert hardened.metrics.keys() == ({"score_drop"} if count else set())


def test_through_the_seam_it_meets_the_foreground_of_adversarial_images_alone(tiny):
    features, _ = tiny.objects(12)
    features += 0.1
    labels = [torch.tensor([1, 2, 3, 0, 0, 0]), torch.tensor([2, 1, 0, 0, 0, 0])]
    hardened, loss = Seam(DropBlock())(
        features, labels, tiny.detector().detached, [torch.ones(len(each)) for each in labels]
    )
    changed = (hardened != features).flatten(1).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [6, 7] and loss == 0


@pytest.mark.parametrize("block", [2, 4])
def test_an_even_block_is_refused(block):
    with pytest.raises(ValueError, match=f"block of {block} cells"):
        DropBlock(block=block)
