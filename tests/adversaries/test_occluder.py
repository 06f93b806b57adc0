"""What hides an object: zeros, or other RoIs' features."""

import torch

from afrcnn.adversaries.base import Context
from afrcnn.adversaries.dropout import RandomDropout
from afrcnn.adversaries.occluder import hide


def constant(values, channels=3, size=4):
    """Features that are one number each."""
    return torch.tensor(values)[:, None, None, None].expand(-1, channels, size, size).contiguous()


def test_hidden_cells_are_zero_in_all_channels_and_the_others_keep_their_bits(tiny):
    features, labels = tiny.objects(20)
    features, mask = features + 0.1, torch.rand(20, 6, 6) < 0.5
    assert torch.equal(hide(features, labels, mask, "zeros"), features * ~mask[:, None])
    assert torch.equal(hide(features, labels, mask, "zeros", Context(features, 0 * labels)), features * ~mask[:, None])


def test_hidden_cells_show_one_other_roi_of_another_label():
    features, labels = constant([0.0, 1, 2, 3, 4, 5]), torch.tensor([1, 1, 2, 2, 3, 3])
    context = Context(constant([10.0, 11, 12, 13, 14, 15, 16, 17]), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))
    shown = [set() for _ in range(6)]
    for _ in range(300):
        mask = torch.rand(6, 4, 4) < 0.5
        mask[:, 0, 0], mask[:, 3, 3] = True, False
        hidden = hide(features, labels, mask, "features", context)
        for index in range(6):
            assert (hidden[index][:, ~mask[index]] == index).all()
            (value,) = hidden[index][:, mask[index]].unique().tolist()
            shown[index].add(int(value) - 10)
    for label, occluders in zip(labels, shown, strict=True):
        assert occluders == set((context.labels != label).nonzero().flatten().tolist())


def test_without_context_objects_of_other_classes_are_the_occluders():
    features, mask = constant([1.0, 2, 3]), torch.ones(3, 4, 4, dtype=torch.bool)
    hidden = hide(features, torch.tensor([1, 1, 2]), mask, "features")
    assert torch.equal(hidden[:2], features[[2, 2]])
    assert hidden[2].unique().tolist() in ([1], [2])


def test_where_no_roi_has_another_label_hidden_cells_are_zero():
    features, labels, mask = torch.ones(2, 1, 2, 2), torch.tensor([1, 1]), torch.ones(2, 2, 2, dtype=torch.bool)
    context = Context(torch.full((1, 1, 2, 2), 5.0), torch.tensor([0]))
    assert (hide(features, labels, mask, "features", context) == 5).all()
    assert (hide(features, labels, mask, "features") == 0).all()
    empty = Context(features[:0], labels[:0])
    assert (hide(features, labels, mask, "features", empty) == 0).all()


def test_no_gradient_reaches_what_hides_or_what_is_hidden():
    features = torch.randn(4, 2, 3, 3, requires_grad=True)
    labels, mask = torch.tensor([1, 2, 1, 2]), torch.rand(4, 3, 3) < 0.5
    hide(features, labels, mask, "features").sum().backward()
    assert torch.equal(features.grad, (~mask)[:, None].expand_as(features).float())


def test_nothing_is_hidden_where_there_is_nothing():
    empty, labels, mask = torch.zeros(0, 2, 3, 3), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3, 3).bool()
    assert hide(empty, labels, mask, "features").shape == empty.shape
    assert hide(empty, labels, mask, "features", Context(empty, labels)).shape == empty.shape


def test_in_sixteen_bits_occluders_have_the_objects_type():
    features, mask = constant([1.0, 2, 3]).bfloat16(), torch.ones(3, 4, 4, dtype=torch.bool)
    context = Context(constant([7.0]), torch.tensor([0]))
    hidden = hide(features, torch.tensor([1, 1, 2]), mask, "features", context)
    assert hidden.dtype == torch.bfloat16
    assert (hidden == 7).all()


def test_the_adversaries_of_a_chain_make_occluders_of_all_rois_of_the_update(tiny):
    features, labels = constant([8.0, 9], 8, 6), torch.tensor([1, 2])
    context = Context(constant([8.0, 9, 7], 8, 6), torch.tensor([1, 2, 0]))
    options = {"mask": "window", "fraction": (0.1, 0.6), "occluder": "features"}
    for adversary in (RandomDropout(**options), tiny.adversary("asdn occluding")):
        chain = tiny.chain("dropblock")
        chain.add_module("occluding", adversary)
        chain.get_submodule("0_dropblock").fraction = 0.0
        shown = [set(), set()]
        for _ in range(50):
            for values, hidden in zip(
                shown, chain(features, labels, tiny.detector().head, context).features, strict=True
            ):
                values.update(hidden.unique().tolist())
        assert shown == [{7, 8, 9}, {7, 8, 9}]
