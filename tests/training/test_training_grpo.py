import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recbole_stream.errors import InputError
from recbole_stream.training.grpo import combine_rewards, group_advantages, grpo_loss, kl_estimate

# eighths: distinct values stay distinct in float32
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 9))  # B, G
REWARDS = arrays(np.int64, SHAPES, elements=st.integers(-800, 800)).map(lambda a: torch.from_numpy(a).float() / 8)
SEEDS = st.integers(0, 2**31)


def log_of(numbers):
    return torch.tensor(numbers).log()


class TestGroupAdvantages:
    def test_two_groups(self):
        # (1, 1, 4): mean 2, spread sqrt((1 + 1 + 4) / 3) = sqrt 2; (0, 5, 10): mean 5, sqrt(50 / 3)
        got = group_advantages(torch.tensor([[1.0, 1, 4], [0, 5, 10]]), eps=1e-8)
        r2, s = math.sqrt(2), 5 / math.sqrt(50 / 3)
        assert got[0].tolist() == pytest.approx([-1 / r2, -1 / r2, 2 / r2])
        assert got[1].tolist() == pytest.approx([-s, 0, s])

    def test_eps_dampens_a_spread_of_its_size(self):
        # spread .25, eps .25: half of the unit
        assert group_advantages(torch.tensor([[0.0, 0.5]]), eps=0.25).tolist() == [[-0.5, 0.5]]

    def test_equal_rewards_give_exactly_zero(self):
        # the float32 mean of seven times .1 is not .1
        assert (group_advantages(torch.full((1, 7), 0.1), eps=1e-12) == 0).all()

    @given(REWARDS)
    @settings(deadline=None)
    def test_zero_mean_and_unit_or_zero_spread(self, rewards):
        got = group_advantages(rewards, eps=1e-8).double()
        assert got.mean(-1).abs().max() < 1e-5
        spread = got.std(-1, correction=0)
        zero = (rewards == rewards[:, :1]).all(-1)
        assert (spread[zero] == 0).all()
        assert ((spread[~zero] - 1).abs() < 1e-4).all()

    @given(REWARDS, SEEDS)
    @settings(deadline=None)
    def test_follows_the_order_of_the_group(self, rewards, seed):
        order = torch.randperm(rewards.shape[1], generator=torch.Generator().manual_seed(seed))
        got = group_advantages(rewards[:, order])
        assert torch.allclose(got, group_advantages(rewards)[:, order], atol=1e-5)


class TestCombineRewards:
    def test_the_two_orders_differ(self):
        rewards = {"a": torch.tensor([[0.0, 2.0]]), "b": torch.tensor([[30.0, 10.0]])}
        weights = {"a": 1.0, "b": 0.1}
        # sum: (0 + 3, 2 + 1) are equal; each: (-1, 1) + .1 (1, -1) = (-.9, .9), over its spread .9
        assert combine_rewards(rewards, weights, "sum").tolist() == [[0, 0]]
        got = combine_rewards(rewards, weights, "each", eps=1e-8)
        assert got.tolist() == [pytest.approx([-1, 1])]

    def test_each_keeps_the_difference_between_groups(self):
        # group 0: both rewards agree, (-2, 2); group 1: b is constant, (-1, 1)
        # spread over the batch sqrt((4 + 4 + 1 + 1) / 4) = sqrt 2.5
        rewards = {"a": torch.tensor([[0.0, 2], [0, 2]]), "b": torch.tensor([[0.0, 6], [5, 5]])}
        weights = {"a": 1.0, "b": 1.0}
        s = math.sqrt(2.5)
        got = combine_rewards(rewards, weights, "each", eps=1e-8)
        assert got.flatten().tolist() == pytest.approx([-2 / s, 2 / s, -1 / s, 1 / s])
        # sum: (0, 8) and (5, 7), each over its own spread
        got = combine_rewards(rewards, weights, "sum", eps=1e-8)
        assert got.flatten().tolist() == pytest.approx([-1, 1, -1, 1])

    @pytest.mark.parametrize("normalise", ["sum", "each"])
    def test_constant_rewards_give_no_advantage(self, normalise):
        rewards = {"a": torch.full((2, 3), 0.1), "b": torch.full((2, 3), -7.0)}
        assert (combine_rewards(rewards, {"a": 1.0, "b": 2.0}, normalise) == 0).all()

    def test_an_unknown_order_names_the_two(self):
        with pytest.raises(InputError, match="'sum' or 'each'"):
            combine_rewards({"a": torch.zeros(1, 2)}, {"a": 1.0}, "both")


class TestKLEstimate:
    def test_values(self):
        # d = ln 2: 2 - ln 2 - 1; d = -ln 2: 1/2 + ln 2 - 1; d = 0: 0
        got = kl_estimate(log_of([0.25, 0.5, 0.5]), log_of([0.5, 0.25, 0.5]))
        assert got.tolist() == pytest.approx([1 - math.log(2), math.log(2) - 0.5, 0])

    def test_its_mean_under_the_policy_is_the_divergence(self):
        policy, reference = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
        exact = (policy * (policy / reference).log()).sum()
        mean = (policy * kl_estimate(policy.log(), reference.log())).sum()
        assert mean.item() == pytest.approx(exact.item())

    def test_small_differences_keep_their_digits(self):
        # d = 1e-5: d^2 / 2 = 5e-11, below the rounding of exp(d) = 1.00001 (6e-8)
        got = kl_estimate(torch.tensor([0.0]), torch.tensor([1e-5]))
        assert got.item() == pytest.approx(5e-11, rel=0.01)

    @given(arrays(np.float32, (2, 20), elements=st.floats(-40, 0, width=32)))
    @settings(deadline=None)
    def test_is_never_negative(self, pairs):
        policy, reference = torch.from_numpy(pairs)
        assert (kl_estimate(policy, reference) >= 0).all()


class TestGRPOLoss:
    # B = 1, G = 2, T = 2; ratios per token of the two outputs, and their products 1.35 and .55
    old = torch.full((1, 2, 2), -2.0)
    new = old + log_of([[[1.5, 0.9], [0.5, 1.1]]])
    advantages = torch.tensor([[1.0, -1.0]])

    def test_sequence_ratio(self):
        # min(1.35, 1.2) = 1.2 and min(-.55, -.8) = -.8: loss -(1.2 - .8) / 2, both held by the clip
        loss, scalars = grpo_loss(self.new, self.old, self.new, self.advantages, 0.2, 0.1, "sequence")
        assert loss.item() == pytest.approx(-0.2)
        assert scalars["clip_share"].item() == 1
        assert scalars["ratio"].item() == pytest.approx(0.95)
        assert scalars["kl"].item() == 0

    def test_token_ratio(self):
        # output 0: (min(1.5, 1.2) + .9) / 2 = 1.05; output 1: (min(-.5, -.8) - 1.1) / 2 = -.95
        loss, scalars = grpo_loss(self.new, self.old, self.new, self.advantages, 0.2, 0.1, "token")
        assert loss.item() == pytest.approx(-0.05)
        assert scalars["clip_share"].item() == 0.5
        assert scalars["ratio"].item() == pytest.approx(1.0)

    def test_the_clip_never_holds_a_move_that_the_reward_is_against(self):
        # ratio 2 with advantage -1 stays -2, ratio 1/2 with advantage 1 stays 1/2: loss (2 - 1/2) / 2
        new = torch.tensor([[[math.log(2.0)], [math.log(0.5)]]])
        loss, scalars = grpo_loss(new, torch.zeros(1, 2, 1), new, torch.tensor([[-1.0, 1.0]]), 0.2, 0.0)
        assert loss.item() == pytest.approx(0.75)
        assert scalars["clip_share"].item() == 0

    @pytest.mark.parametrize("mode, tokens", [("sequence", 1), ("token", 2)])
    def test_kl_is_summed_over_an_output_or_averaged(self, mode, tokens):
        # d = ln 2 at one of the four tokens: 1 - ln 2 for output 0, 0 for output 1
        reference = self.old + log_of([[[2.0, 1.0], [1.0, 1.0]]])
        loss, scalars = grpo_loss(self.old, self.old, reference, torch.zeros(1, 2), 0.2, 0.1, mode)
        assert loss.item() == pytest.approx(0.1 * (1 - math.log(2)) / tokens / 2)
        assert scalars["kl"].item() == pytest.approx((1 - math.log(2)) / 4)

    @pytest.mark.parametrize("mode, length", [("sequence", 1), ("token", 3)])
    def test_at_ratio_one_the_gradient_is_that_of_policy_gradient(self, mode, length):
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(2, 4, 3, 5, generator=generator)
        tokens = torch.randint(5, (2, 4, 3, 1), generator=generator)
        advantages = group_advantages(torch.randn(2, 4, generator=generator))

        def gradient(objective):
            leaf = logits.clone().requires_grad_()
            log_probs = leaf.log_softmax(-1).gather(-1, tokens)[..., 0]
            objective(log_probs).backward()
            return leaf.grad

        plain = gradient(lambda x: -(advantages * x.sum(-1)).mean())
        ours = gradient(lambda x: grpo_loss(x, x.detach(), x.detach(), advantages, 0.2, 0.5, mode)[0])
        assert plain.abs().max() > 0.01
        assert torch.allclose(ours * length, plain, atol=1e-7)

    @pytest.mark.parametrize("mode", ["sequence", "token"])
    def test_masked_positions_do_not_count(self, mode):
        # the last position holds what an impossible token would: -inf everywhere
        pad = torch.full((1, 2, 1), float("-inf"))
        new = torch.cat([self.new, pad], -1).requires_grad_()
        old, reference = torch.cat([self.old, pad], -1), torch.cat([self.new - 0.5, pad], -1)
        mask = torch.tensor([[[True, True, False]] * 2])
        rest = (self.advantages, 0.9, 0.1, mode)
        loss, scalars = grpo_loss(new, old, reference, *rest, mask)
        short = self.new.clone().requires_grad_()
        want, want_scalars = grpo_loss(short, self.old, self.new - 0.5, *rest)
        assert loss.item() == pytest.approx(want.item())
        for name, value in want_scalars.items():
            assert scalars[name].item() == pytest.approx(value.item()), name
        loss.backward()
        want.backward()
        assert torch.allclose(new.grad[..., :2], short.grad)
        assert (new.grad[..., 2] == 0).all()

    def test_an_output_of_masked_tokens_only_gives_nothing(self):
        mask = torch.tensor([[[True, True], [False, False]]])
        # output 0 as in test_token_ratio, 1.05; output 1 has no token: loss -(1.05 + 0) / 2
        loss, scalars = grpo_loss(self.new, self.old, self.new, self.advantages, 0.2, 0.1, "token", mask)
        assert loss.item() == pytest.approx(-0.525)
        assert scalars["clip_share"].item() == 0.5

    def test_gradient_reaches_the_policy_alone(self):
        inputs = [x.clone().requires_grad_() for x in (self.new, self.old, self.old, self.advantages)]
        loss, _ = grpo_loss(*inputs, 0.9, 0.1)
        loss.backward()
        assert inputs[0].grad.abs().sum() > 0
        assert [x.grad for x in inputs[1:]] == [None] * 3

    def test_an_unknown_ratio_names_the_two(self):
        with pytest.raises(InputError, match="'sequence' or 'token'"):
            grpo_loss(self.new, self.old, self.new, self.advantages, 0.2, 0.1, "tokens")

    @given(SEEDS, st.sampled_from(["sequence", "token"]))
    @settings(deadline=None, max_examples=30)
    def test_equal_policies_have_ratio_one_and_no_kl(self, seed, mode):
        log_probs = -5 * torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(seed))
        _, scalars = grpo_loss(log_probs, log_probs, log_probs, torch.ones(3, 4), 0.2, 0.1, mode)
        assert {k: v.item() for k, v in scalars.items()} == {"kl": 0, "clip_share": 0, "ratio": 1}

    @given(SEEDS, st.sampled_from(["sequence", "token"]))
    @settings(deadline=None, max_examples=30)
    def test_the_order_of_the_group_does_not_matter(self, seed, mode):
        generator = torch.Generator().manual_seed(seed)
        new, old, reference = torch.randn(3, 2, 5, 4, generator=generator)
        advantages = torch.randn(2, 5, generator=generator)
        order = torch.randperm(5, generator=generator)
        loss, _ = grpo_loss(new, old, reference, advantages, 0.2, 0.1, mode)
        shuffled = (x[:, order] for x in (new, old, reference, advantages))
        other, _ = grpo_loss(*shuffled, 0.2, 0.1, mode)
        assert other.item() == pytest.approx(loss.item(), rel=1e-4)
