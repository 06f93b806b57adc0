"""The chain: what one adversary returns is what the next one is given."""

import torch
from torch import nn

from afrcnn.adversaries.base import Adversary, AdversaryOutput, Context
from afrcnn.adversaries.chain import Chain


class Adding(Adversary):
    """Adds a number, and notes what it was given."""

    def __init__(self, number):
        super().__init__()
        self.number = nn.Parameter(torch.tensor(float(number)))

    def forward(self, features, labels, head, context=None):
        self.given = features, labels, head, context
        return AdversaryOutput(features + self.number.detach(), self.number**2, {"number": self.number.detach()})


def test_each_adversary_is_given_what_the_one_before_returned_and_the_losses_are_added(tiny):
    features, labels = tiny.objects()
    features = (10 * features).round()  # whole numbers, whose sums are exact
    chain = Chain(first=Adding(2), second=Adding(3), third=Adding(4))
    context = Context(features, labels)
    output = chain(features, labels, head := tiny.detector().head, context)
    for (name, adversary), expected in zip(chain.items(), (features, features + 2, features + 5), strict=True):
        given = adversary.given
        assert torch.equal(given[0], expected), name
        assert given[1] is labels
        assert given[2] is head
        assert given[3] is context
    assert torch.equal(output.features, features + 9)
    assert output.loss == 4 + 9 + 16
    assert {name: value.item() for name, value in output.metrics.items()} == {
        "first/number": 2,
        "second/number": 3,
        "third/number": 4,
    }


def test_the_papers_fusion_turns_what_is_left_when_cells_are_hidden(tiny):
    features, labels = tiny.objects()
    detector, asdn, astn = tiny.detector(), tiny.adversary("asdn fc"), tiny.adversary("astn")
    torch.manual_seed(4)
    output = Chain(asdn=asdn, astn=astn)(features, labels, detector.head)
    torch.manual_seed(4)
    hidden = asdn(features, labels, detector.head)
    bent = astn(hidden.features, labels, detector.head)
    assert torch.equal(output.features, bent.features)
    torch.testing.assert_close(output.loss, hidden.loss + bent.loss)
    assert output.metrics.keys() >= {"asdn/score_drop", "asdn/hard_masks", "astn/absolute_angle"}


def test_chains_make_chains_and_name_their_parameters_by_adversary(tiny):
    inner = Chain(a=Adding(1), b=Adding(2))
    outer = Chain(inner=inner, c=Adding(3))
    assert outer(*tiny.objects(), tiny.detector().head).loss == 14
    assert set(dict(outer.named_parameters())) == {"inner.a.number", "inner.b.number", "c.number"}
    assert [name for name, _ in outer.items()] == ["inner", "c"]
    assert list(outer.values()) == [inner, outer.c]


def test_an_empty_chain_changes_nothing(tiny):
    features, labels = tiny.objects()
    output = Chain()(features, labels, tiny.detector().head)
    assert output.features is features
    assert output.loss == 0
    assert output.metrics == {}


class ChannelDropout(Adversary):
    """An adversary of a user's own: a learned rate for each class, at which channels are hidden."""

    def __init__(self, num_classes):
        super().__init__()
        self.rates = nn.Embedding(num_classes + 1, 1)

    def forward(self, features, labels, head, context=None):
        rates = self.rates(labels).sigmoid()  # n x 1
        hidden = torch.rand(features.shape[:2]) < rates.detach()
        perturbed = features.masked_fill(hidden[..., None, None], 0)
        harder = head.losses(perturbed.detach(), labels) > head.losses(features.detach(), labels)
        loss = nn.functional.binary_cross_entropy(rates[:, 0], harder.float(), reduction="sum") / max(len(labels), 1)
        return AdversaryOutput(perturbed, loss, {"rate": rates.detach().mean()})


def test_an_adversary_of_ones_own_in_twenty_lines_works_in_a_chain(tiny):
    chain = Chain(own=ChannelDropout(3), astn=tiny.adversary("astn"))
    features, labels = tiny.objects(20)
    output = chain(features.requires_grad_(), labels, tiny.detector().head)
    assert output.metrics.keys() >= {"own/rate", "astn/absolute_angle"}
    taught = torch.autograd.grad(output.loss, chain.own.rates.weight, retain_graph=True)[0]
    assert taught.any()
    assert torch.autograd.grad(output.loss, features, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(output.features.sum(), features)[0].any()
    assert torch.equal(chain.pretrain(features[:0], labels[:0], tiny.detector().head).loss, torch.tensor(0.0))
