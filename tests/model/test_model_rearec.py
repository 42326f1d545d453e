"""ReaRec's losses against values worked out by hand."""

import math

import pytest
import torch

from recbole_stream.model.rivals.rearec import (
    annealed_temperatures,
    ranking_state,
    reasoning_contrast,
    step_cross_entropy,
    step_diversity,
)


def logits_of(*probabilities: list[list[float]]) -> torch.Tensor:
    """One user's steps as logits of given probabilities, up to a constant that softmax does not see."""
    return torch.tensor([probabilities]).log() + 3.0


def test_the_mean_of_the_states_ranks_or_the_last_one():
    states = torch.tensor([[[1.0, 2.0], [3.0, 6.0]]])
    assert ranking_state(states, "erl").tolist() == [[2, 4]]
    assert ranking_state(states, "prl").tolist() == [[3, 6]]


def test_temperatures_fall_to_the_last_step():
    assert annealed_temperatures(2, 0.5, 3.0).tolist() == [4.5, 1.5, 0.5]
    assert annealed_temperatures(0, 0.7, 3.0).tolist() == pytest.approx([0.7])


def test_cross_entropy_sums_over_the_steps():
    # steps give the target 1/2 and 1/8: log 2 + log 8 = 4 log 2
    logits = logits_of([0.5, 0.25, 0.25], [0.25, 0.125, 0.625])
    loss = step_cross_entropy(logits[:, :, [1, 0, 2]], torch.tensor([1]))  # the target is item 0 of the lists, now 1
    assert loss.item() == pytest.approx(math.log(2) + math.log(4))
    # a second user whose steps are sure of nothing: 2 log 3; the mean of both users
    both = torch.cat([logits[:, :, [1, 0, 2]], torch.zeros(1, 2, 3)])
    expected = (math.log(2) + math.log(4) + 2 * math.log(3)) / 2
    assert step_cross_entropy(both, torch.tensor([1, 2])).item() == pytest.approx(expected)


def test_diversity_is_minus_the_divergences_of_earlier_from_later_steps():
    p, q = [0.5, 0.5], [0.25, 0.75]
    kl = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)  # KL(p || q)
    assert step_diversity(logits_of(p, q)).item() == pytest.approx(-kl)
    # p, q, q: KL(p || q) twice, KL(q || q) = 0
    assert step_diversity(logits_of(p, q, q)).item() == pytest.approx(-2 * kl)
    assert step_diversity(logits_of(p, p)).item() == pytest.approx(0, abs=1e-6)


def test_contrast_by_hand():
    # one step, two users: own similarities 2 and 0, those with the other 0 and 2 log 3 / (1/2)
    clean = torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]]])
    noisy = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
    first = math.log(1 + math.exp(-2 / 0.5))  # 2 against 0, over tau = 1/2
    assert reasoning_contrast(clean, noisy, 0.5).item() == pytest.approx((first + math.log(2)) / 2)
    twice = reasoning_contrast(clean.repeat(1, 2, 1), noisy.repeat(1, 2, 1), 0.5)
    assert twice.item() == pytest.approx(first + math.log(2))
