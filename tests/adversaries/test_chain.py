"""The chain: what one adversary gives is what the next one gets."""

import torch
from torch import nn

from afrcnn.adversaries import Chain, Hardened


class Recorder(nn.Module):
    """Adds a number, and remembers what it was given."""

    def __init__(self, number):
        super().__init__()
        self.number = nn.Parameter(torch.tensor(float(number)))

    def forward(self, features, labels, head):
        self.given = features, labels, head
        return Hardened(features + self.number.detach(), self.number**2, {"number": self.number.detach()})


def test_each_adversary_gets_what_the_one_before_gave_and_the_losses_are_added(tiny):
    features, labels = tiny.objects()
    features = (10 * features).round()  # whole numbers, whose sums are exact
    chain = Chain(first=Recorder(2), second=Recorder(3), third=Recorder(4))
    hardened = chain(features, labels, head := tiny.detector().detached)
    for name, expected in (("first", features), ("second", features + 2), ("third", features + 5)):
        given = chain[name].given
        assert torch.equal(given[0], expected) and given[1] is labels and given[2] is head
    assert torch.equal(hardened.features, features + 9)
    assert hardened.loss == 4 + 9 + 16
    assert {k: v.item() for k, v in hardened.metrics.items()} == {
        "first/number": 2,
        "second/number": 3,
        "third/number": 4,
    }


def test_the_papers_fusion_turns_what_is_left_when_cells_are_hidden(tiny):
    features, labels = tiny.objects()
    detector, asdn, astn = tiny.detector(), tiny.adversary("asdn fc"), tiny.adversary("astn")
    torch.manual_seed(4)
    hardened = Chain(asdn=asdn, astn=astn)(features, labels, detector.detached)
    torch.manual_seed(4)
    hidden = asdn(features, labels, detector.detached)
    bent = astn(hidden.features, labels, detector.detached)
    assert torch.equal(hardened.features, bent.features)
    torch.testing.assert_close(hardened.loss, hidden.loss + bent.loss)
    assert hardened.metrics.keys() >= {"asdn/score_drop", "asdn/hard_masks", "astn/absolute_angle"}


def test_chains_make_chains_and_name_their_parameters_by_adversary(tiny):
    inner = Chain(a=Recorder(1), b=Recorder(2))
    outer = Chain(inner=inner, c=Recorder(3))
    features, labels = tiny.objects()
    assert outer(features, labels, tiny.detector().detached).loss == 14
    assert set(dict(outer.named_parameters())) == {"inner.a.number", "inner.b.number", "c.number"}
