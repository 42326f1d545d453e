import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_stream.training.rewards import (
    exact_match_reward,
    format_reward,
    likelihood_reward,
    ranking_reward,
    similarity_reward,
)

SEEDS = st.integers(0, 2**31)


def test_format_costs_one_where_the_tokens_are_no_item():
    assert format_reward(torch.tensor([[True, False], [False, True]])).tolist() == [[0, -1], [-1, 0]]


def test_exact_match_counts_leading_tokens_only():
    target = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    sampled = torch.tensor(
        [
            [[1, 2, 3, 4], [1, 2, 9, 4], [9, 2, 3, 4]],  # all; two, the last after a miss; none
            [[5, 6, 7, 9], [5, 9, 9, 9], [1, 2, 3, 4]],  # three; one; another sample's target
        ]
    )
    assert exact_match_reward(sampled, target).tolist() == [[4, 2, 0], [3, 1, 0]]


class TestSimilarityReward:
    @staticmethod
    def fan(batch):
        """Targets at rising angles 0 .. 90 degrees: a state at 0 degrees is closest to target 0."""
        angle = torch.linspace(0, math.pi / 2, batch)
        return torch.stack([angle.cos(), angle.sin()], -1)

    @pytest.mark.parametrize("batch", [100, 200, 300])
    def test_thresholds(self, batch):
        # the target at place k is beaten by k others, so g = (batch - k) / batch
        targets = self.fan(batch)
        states = torch.tensor([1.0, 0.0]).expand(batch, 1, 2)
        reward = similarity_reward(states, targets)[:, 0]
        for place in range(batch):
            better = 100 * (batch - place)  # g in hundredths, times batch, in whole numbers
            if better >= 99 * batch:
                expected = 0.5
            elif better >= 95 * batch:
                expected = 0.1
            elif better >= 50 * batch:
                expected = 0.05
            else:
                expected = -0.1
            assert reward[place].item() == pytest.approx(expected), place

    def test_each_rollout_is_judged_against_its_own_target(self):
        targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        states = torch.tensor([[[9.0, 1.0], [1.0, 9.0]], [[9.0, 1.0], [1.0, 9.0]]])
        # B = 2: g = 1 where the own target is the closer, else 1/2
        got = similarity_reward(states, targets).flatten().tolist()
        assert got == pytest.approx([0.5, 0.05, 0.05, 0.5])

    def test_length_does_not_count(self):
        targets = torch.tensor([[1.0, 0.0], [50.0, 50.0]])
        states = torch.tensor([[[1.0, 0.1]], [[1.0, 0.1]]])
        # the dot product with (50, 50) is larger, the cosine is not
        assert similarity_reward(states, targets).flatten().tolist() == pytest.approx([0.5, 0.05])

    @pytest.mark.parametrize("batch", [5, 37])
    def test_samples_with_the_same_target_do_not_beat_each_other(self, batch):
        # the product's columns may be rounded differently although the targets are equal
        target = torch.randn(1, 32, generator=torch.Generator().manual_seed(1))
        states = torch.randn(batch, 3, 32, generator=torch.Generator().manual_seed(2))
        assert (similarity_reward(states, target.repeat(batch, 1)) == 0.5).all()

    def test_autocast_does_not_make_ties(self):
        # cosines .9998 and .9999: the same number in bfloat16
        targets = torch.tensor([[1.0, 0.02], [1.0, 0.014]])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            reward = similarity_reward(torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]]), targets)
        assert reward.flatten().tolist() == pytest.approx([0.05, 0.5])

    @pytest.mark.parametrize("processes", [2, 4, 8])
    def test_each_process_has_for_its_part_what_one_has_for_the_whole_batch(self, processes):
        generator = torch.Generator().manual_seed(0)
        targets = torch.randn(128, 16, generator=generator)
        states = 0.5 * targets[:, None] + torch.randn(128, 4, 16, generator=generator)
        whole = similarity_reward(states, targets)
        assert {round(value, 2) for value in whole.unique().tolist()} == {0.5, 0.1, 0.05, -0.1}
        for number in range(processes):
            part = slice(number, None, processes)
            assert torch.equal(similarity_reward(states[part], targets, part), whole[part])

    @given(SEEDS)
    @settings(max_examples=30, deadline=None)
    def test_takes_one_of_the_four_values_and_follows_the_rollouts(self, seed):
        generator = torch.Generator().manual_seed(seed)
        states = torch.randn(12, 5, 6, generator=generator)
        targets = torch.randn(12, 6, generator=generator)
        order = torch.randperm(5, generator=generator)
        reward = similarity_reward(states, targets)
        assert torch.isin(reward, torch.tensor([0.5, 0.1, 0.05, -0.1])).all()
        assert torch.equal(similarity_reward(states[:, order], targets), reward[:, order])


def test_likelihood_is_the_gain_over_the_reference():
    policy, reference = torch.tensor([[-3.0, -5.0], [-1.0, -2.0]]), torch.tensor([-4.0, -1.5])
    reward = likelihood_reward(policy, reference)
    assert reward.tolist() == [[1.0, -1.0], [0.5, -0.5]]


class TestRankingReward:
    @staticmethod
    def at_rank(rank, candidates):
        """Log-likelihoods 0, -1, -2, ... of the similar items; the target between two of them."""
        target = torch.tensor([[0.5 - (rank - 1)]])
        return ranking_reward(target, -torch.arange(candidates).float()[None, None]).item()

    @pytest.mark.parametrize(
        "rank, expected",
        [(1, 0.2), (2, 0.1), (4, 0.1), (5, 0.05), (9, 0.05)] + [(10, 0), (24, 0), (25, -0.1), (51, -0.1)],
    )
    def test_thresholds_of_fifty_items(self, rank, expected):
        # K = 50: .1 K = 5, .2 K = 10, .5 K = 25
        assert self.at_rank(rank, 50) == pytest.approx(expected)

    @pytest.mark.parametrize("rank, expected", [(1, 0.2), (2, 0.05), (3, 0), (6, 0), (7, -0.1)])
    def test_thresholds_of_thirteen_items(self, rank, expected):
        # K = 13: .1 K = 1.3, .2 K = 2.6, .5 K = 6.5
        assert self.at_rank(rank, 13) == pytest.approx(expected)

    def test_first_of_a_single_item_is_first(self):
        # K = 1: rank 1 is also >= .5, but first comes before
        assert self.at_rank(1, 1) == pytest.approx(0.2)

    def test_a_tie_counts_against_the_target(self):
        # K = 10: equal to the best of ten is rank 2, and 2 < .2 * 10 fails
        candidates = -torch.arange(10).float()[None, None]
        assert ranking_reward(torch.zeros(1, 1), candidates).item() == 0

    @given(SEEDS, st.integers(1, 60))
    @settings(max_examples=30, deadline=None)
    def test_is_bounded_and_ignores_the_order_of_the_items(self, seed, items):
        generator = torch.Generator().manual_seed(seed)
        target = torch.randn(3, 4, generator=generator)
        candidates = torch.randn(3, 4, items, generator=generator)
        reward = ranking_reward(target, candidates)
        assert torch.isin(reward, torch.tensor([0.2, 0.1, 0.05, 0.0, -0.1])).all()
        order = torch.randperm(items, generator=generator)
        assert torch.equal(ranking_reward(target, candidates[..., order]), reward)

    @given(SEEDS)
    @settings(max_examples=30, deadline=None)
    def test_a_likelier_target_never_earns_less(self, seed):
        generator = torch.Generator().manual_seed(seed)
        target = torch.randn(2, 3, generator=generator)
        candidates = torch.randn(2, 3, 50, generator=generator)
        more, less = ranking_reward(target + 0.3, candidates), ranking_reward(target, candidates)
        assert (more >= less).all()
