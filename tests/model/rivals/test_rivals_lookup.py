"""The untrained score against logarithms and cosines worked out by hand."""

import math

import torch

from recbole_stream.model.lookup import Content, Transitions, log_shares
from recbole_stream.model.rivals.lookup import LookUpModel
from tests.helpers import pad


def test_log_shares_are_finite_where_nothing_followed():
    assert torch.allclose(log_shares(torch.tensor([0.999, 0.0])), torch.tensor([0.0, math.log(0.001)]))


def test_the_score_weighs_transitions_and_texts():
    # item 2 followed item 1 twice, item 3 once; the texts are (1, 0), (-1, 0), (0, 1), (0, -1) around their mean
    seen = pad([[1], [1], [1]])
    transitions = Transitions(seen, torch.tensor([1, 1, 1]), torch.tensor([2, 2, 3]), 5, 1, 1.0, 0.0, 0.5)
    text = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    model = LookUpModel(transitions, Content(text, 0.5), 0.5, 2.0)
    scores = model(torch.tensor([[1, 0]]))[0]
    expected = [
        0.5 * math.log(0.001) + 2.0,
        0.5 * math.log(2 / 3 + 0.001) - 2.0,
        0.5 * math.log(1 / 3 + 0.001),
        0.5 * math.log(0.001),
    ]
    assert torch.allclose(scores[1:], torch.tensor(expected), atol=1e-5)
    without = LookUpModel(transitions, None, 0.5, 2.0)(torch.tensor([[1, 0]]))[0]
    assert torch.allclose(without[2], torch.tensor(0.5 * math.log(2 / 3 + 0.001)))


def test_nothing_of_it_is_trained():
    transitions = Transitions(pad([[1]]), torch.tensor([1]), torch.tensor([2]), 3, 1, 1.0, 0.0, 0.5)
    assert not any(parameter.requires_grad for parameter in LookUpModel(transitions, None, 0.5, 2.0).parameters())
