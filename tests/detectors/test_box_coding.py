"""Box coding against torchvision's coder and the definition."""

import math

import torch
from torchvision.models.detection._utils import BoxCoder as Reference

from afrcnn.detectors.box_coding import BoxCoder, offsets


def boxes_of_any_size(count, smallest=0.01, largest=300.0):
    corner = torch.rand(count, 2) * 500 - 50
    size = smallest + torch.rand(count, 2) ** 3 * largest
    return torch.cat([corner, corner + size], dim=1)


def test_encoding_agrees_with_torchvision():
    boxes, proposals = boxes_of_any_size(500, 1.0), boxes_of_any_size(500, 1.0)
    expected = Reference((10.0, 10.0, 5.0, 5.0)).encode_single(boxes, proposals)
    torch.testing.assert_close(BoxCoder().encode(boxes, proposals), expected, rtol=1e-4, atol=1e-4)


def test_decoding_agrees_with_torchvision_also_where_the_growth_is_bounded():
    proposals = boxes_of_any_size(500)
    deltas = torch.randn(500, 4) * torch.tensor([5.0, 5.0, 30.0, 30.0])
    assert (deltas[:, 2] * 0.2 > math.log(62.5)).any()
    expected = Reference((10.0, 10.0, 5.0, 5.0)).decode_single(deltas, proposals)
    torch.testing.assert_close(BoxCoder().decode(deltas, proposals), expected, rtol=1e-4, atol=1e-3)


def test_offsets_follow_their_definition():
    proposal, box = (10.0, 20.0, 50.0, 100.0), (20.0, 10.0, 40.0, 50.0)
    found = offsets(torch.tensor([box]), torch.tensor([proposal]))
    expected = [(30 - 30) / 40, (30 - 60) / 80, math.log(20 / 40), math.log(40 / 80)]
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_decoding_undoes_encoding_with_any_mean_and_deviation():
    coder = BoxCoder(mean=(0.1, -0.2, 0.3, -0.4), std=(0.5, 0.2, 1.5, 0.7))
    boxes, proposals = boxes_of_any_size(200, 10.0), boxes_of_any_size(200, 10.0)
    torch.testing.assert_close(coder.decode(coder.encode(boxes, proposals), proposals), boxes, rtol=1e-3, atol=1e-2)


def test_no_offset_however_large_overflows_in_size():
    proposals = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    boxes = BoxCoder().decode(torch.tensor([[0.0, 0.0, 1e9, 1e9]]), proposals)
    torch.testing.assert_close(boxes, torch.tensor([[-492.0, -492.0, 508.0, 508.0]]))


def test_measured_offsets_have_mean_zero_and_deviation_one_once_normalised():
    boxes, proposals = boxes_of_any_size(1000, 5.0), boxes_of_any_size(1000, 5.0)
    coder = BoxCoder()
    coder.measure(offsets(boxes, proposals), torch.ones(1000, dtype=torch.int64))
    encoded = coder.encode(boxes, proposals).double()
    torch.testing.assert_close(encoded.mean(0), torch.zeros(4).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(encoded.std(0, correction=0), torch.ones(4).double(), rtol=0, atol=1e-4)


def test_too_few_samples_to_measure_leave_the_fixed_numbers():
    for samples in (torch.empty(0, 4), torch.ones(1, 4)):
        coder = BoxCoder()
        coder.measure(samples, torch.ones(len(samples), dtype=torch.int64))
        assert coder.mean.tolist() == [0, 0, 0, 0]
        torch.testing.assert_close(coder.std, torch.tensor([0.1, 0.1, 0.2, 0.2]))


def test_equal_samples_do_not_divide_by_zero():
    coder = BoxCoder()
    coder.measure(torch.full((5, 4), 0.25), torch.ones(5, dtype=torch.int64))
    assert torch.isfinite(coder.encode(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([[1.0, 1, 8, 8]]))).all()


def test_the_numbers_are_part_of_the_weights():
    coder = BoxCoder()
    coder.load_state_dict(BoxCoder((1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0)).state_dict())
    assert coder.mean.tolist() == [1, 2, 3, 4]
    assert coder.std.tolist() == [5, 6, 7, 8]


def test_each_class_has_numbers_of_its_own_where_they_are_measured_by_class():
    """As a plain loop has them; a class without samples keeps the fixed ones."""
    boxes, proposals = boxes_of_any_size(300, 5.0), boxes_of_any_size(300, 5.0)
    labels = torch.randint(1, 4, (300,))
    coder = BoxCoder(by_class=4)
    coder.measure(offsets(boxes, proposals), labels)
    encoded, decoded = coder.encode(boxes, proposals, labels), torch.empty(300, 4)
    for label in (1, 2, 3):
        alone = offsets(boxes, proposals)[labels == label].double()
        expected = (alone - alone.mean(0)) / alone.std(0, correction=0)
        torch.testing.assert_close(encoded[labels == label].double(), expected, rtol=1e-4, atol=1e-4)
        one = BoxCoder(coder.mean[label].tolist(), coder.std[label].tolist())
        decoded[labels == label] = one.decode(encoded[labels == label], proposals[labels == label])
    torch.testing.assert_close(coder.decode(encoded, proposals, labels), decoded)
    assert coder.mean.shape == coder.std.shape == (5, 4)
    assert coder.mean[4].tolist() == [0, 0, 0, 0]
    torch.testing.assert_close(coder.std[4], torch.tensor([0.1, 0.1, 0.2, 0.2]))
    every = torch.randn(7, 5, 4)  # of each class in turn, as in ensembles
    for label in range(5):
        turned = coder.denormalise(every[:, label], torch.full((7,), label))
        torch.testing.assert_close(coder.denormalise(every)[:, label], turned)
        torch.testing.assert_close(coder.normalise(coder.denormalise(every)), every, rtol=1e-4, atol=1e-4)
