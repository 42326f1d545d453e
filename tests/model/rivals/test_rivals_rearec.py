"""ReaRec's losses against values worked out by hand."""

import math

import pytest
import torch

from recbole_stream.model.rivals import rearec
from recbole_stream.model.rivals.rearec import (
    annealed_temperatures,
    loss_by_rows,
    ranking_state,
    reasoning_contrast,
    step_cross_entropy,
    step_diversity,
)


def log_p_of(*probabilities: list[float]) -> torch.Tensor:
    """One user's steps."""
    return torch.tensor([probabilities]).log()


def test_the_mean_of_the_states_ranks_or_the_last_one():
    states = torch.tensor([[[1.0, 2.0], [3.0, 6.0]]])
    assert ranking_state(states, "erl").tolist() == [[2, 4]]
    assert ranking_state(states, "prl").tolist() == [[3, 6]]


def test_temperatures_fall_to_the_last_step():
    assert annealed_temperatures(2, 0.5, 3.0).tolist() == [4.5, 1.5, 0.5]
    assert annealed_temperatures(0, 0.7, 3.0).tolist() == pytest.approx([0.7])


def test_cross_entropy_sums_over_the_steps():
    # the first user's steps give the target 1/2 and 1/4, the second's 1/3 and 1/3
    sure = log_p_of([0.25, 0.5, 0.25], [0.125, 0.25, 0.625])
    unsure = log_p_of([1 / 3] * 3, [1 / 3] * 3)
    expected = (math.log(2) + math.log(4) + 2 * math.log(3)) / 2
    assert step_cross_entropy(torch.cat([sure, unsure]), torch.tensor([1, 2])).item() == pytest.approx(expected)


def test_diversity_is_minus_the_divergences_of_earlier_from_later_steps():
    p, q = [0.5, 0.5], [0.25, 0.75]
    kl = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)  # KL(p || q)
    assert step_diversity(log_p_of(p, q)).item() == pytest.approx(-kl)
    # p, q, q: KL(p || q) twice, KL(q || q) = 0
    assert step_diversity(log_p_of(p, q, q)).item() == pytest.approx(-2 * kl)
    assert step_diversity(log_p_of(p, p)).item() == pytest.approx(0, abs=1e-6)


def test_contrast_by_hand():
    # one step, two users: own similarities 2 and 0, those with the other 0 and 2 log 3 / (1/2)
    clean = torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]]])
    noisy = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
    first = math.log(1 + math.exp(-2 / 0.5))  # 2 against 0, over tau = 1/2
    assert reasoning_contrast(clean, noisy, 0.5).item() == pytest.approx((first + math.log(2)) / 2)
    twice = reasoning_contrast(clean.repeat(1, 2, 1), noisy.repeat(1, 2, 1), 0.5)
    assert twice.item() == pytest.approx(first + math.log(2))


def test_a_loss_by_rows_is_that_of_all_rows_at_once(monkeypatch):
    monkeypatch.setattr(rearec, "_CELLS", 3 * 4 * 11)  # three rows at a time, one in the last part
    torch.manual_seed(0)
    vectors, states = torch.randn(11, 5, requires_grad=True), torch.randn(7, 4, 5, requires_grad=True)
    targets = torch.randint(11, (7,))

    def loss(log_p, targets):
        return step_cross_entropy(log_p, targets) + 0.3 * step_diversity(log_p)

    whole = loss((states @ vectors.T).log_softmax(-1), targets)
    parts = loss_by_rows(loss, states, vectors, targets)
    torch.testing.assert_close(parts, whole)
    for mine, theirs in zip(
        torch.autograd.grad(2 * parts, (states, vectors)),
        torch.autograd.grad(2 * whole, (states, vectors)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)
