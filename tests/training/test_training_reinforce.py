import math

import pytest
import torch
from helpers import catalogue, make_samples, next_log_probs, random_histories, sequence_log_prob, streamrec

from recbole_stream.decoding.rank import item_log_probs
from recbole_stream.decoding.rollout import sample_rollouts
from recbole_stream.decoding.trie import Trie
from recbole_stream.training.checkpoint import Progress
from recbole_stream.training.grpo import group_advantages
from recbole_stream.training.loop import StageContext, autocast, train_stage
from recbole_stream.training.reinforce import REWARDS, Reinforce, ReinforceOptions
from recbole_stream.training.rewards import similarity_reward
from recbole_stream.training.schedule import Schedule

SIZES = (6, 4, 5)
CODES = catalogue(40, SIZES)
SAMPLES = make_samples(random_histories(40, (5, 1, 3, 4)), torch.tensor([3, 40, 17, 3]))
BATCH = SAMPLES.batch(torch.tensor([1, 3, 0]))
STEPS, GROUP, K = 2, 4, 10
# K other items for each item
SIMILAR = torch.stack([torch.arange(1, K + 1) + item for item in range(41)]).remainder(40) + 1
OPTIONS = {
    "group": GROUP, "updates": 1, "clip": 0.2, "kl_weight": 0.1, "importance_sampling": "sequence", "normalise": "sum",
    "weights": dict.fromkeys(REWARDS, 1.0), "positions": "all",
}  # fmt: skip


def only(*names):
    return {name: float(name in names) for name in REWARDS}


def make(dropout=0.0, seed=0, **changes):
    model = streamrec(CODES, SIZES, dropout=dropout, seed=seed)
    model.steps.fill_(STEPS)
    return model, Reinforce(model, Trie(CODES), SIMILAR, ReinforceOptions(**OPTIONS | changes))


def copy_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def unchanged(module, before):
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class TestFirstUpdate:
    @pytest.mark.parametrize("importance_sampling", ["sequence", "token"])
    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_ratio_is_1_and_the_policy_still_pi_sft(self, importance_sampling, precision):
        model, objective = make(dropout=0.3, importance_sampling=importance_sampling)
        model.train()  # as the loop leaves it
        with autocast("cpu", precision):
            ((_, scalars),) = objective.losses(BATCH)
        assert (scalars["ratio"].item(), scalars["clip_share"].item(), scalars["kl"].item()) == (1, 0, 0)

    def test_later_updates_leave_the_ratio_of_1(self):
        model, objective = make(updates=3, weights=only("likelihood"))
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.05)
        torch.manual_seed(0)
        ratios, kls, spreads = [], [], []
        for loss, scalars in objective.losses(BATCH):
            ratios.append(scalars["ratio"].item())
            kls.append(scalars["kl"].item())
            spreads.append(scalars["spread_likelihood"].item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert len(ratios) == 3
        assert ratios[0] == 1 and ratios[1] != 1 and ratios[2] != ratios[1]
        assert kls[0] == 0 and kls[1] > 0
        assert spreads[0] == spreads[1] == spreads[2]  # rewards are those of the rollouts, not of the new policy

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_every_weight_of_the_policy_learns(self, precision):
        model, objective = make(weights=only("likelihood"))
        with autocast("cpu", precision):
            loss, _ = next(objective.losses(BATCH))
        loss.backward()
        for name, parameter in model.named_parameters():
            part = name.split(".")[0]
            if part in ("tokens", "encoder", "decoder"):
                assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
            else:
                assert parameter.grad is None, name

    @pytest.mark.parametrize("positions, trained", [("all", STEPS + 3), ("thinking", STEPS)])
    def test_gradient_is_that_of_policy_gradient(self, positions, trained):
        model, objective = make(kl_weight=0.0, weights=only("likelihood"), positions=positions)
        torch.manual_seed(3)
        next(objective.losses(BATCH))[0].backward()
        ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

        # the same rollouts again, each scored from scratch
        torch.manual_seed(3)
        rollouts = sampled(objective)
        model.zero_grad()
        log_probs, rewards = [], []
        for history, target, group in zip(BATCH.histories, BATCH.targets, rollouts):
            fixed = sequence_log_prob(model.reference, history, [], model.tokens.table[target])
            for output in group.tolist():
                log_probs.append(sequence_log_prob(model, history, [], output[:trained]))
                given = sequence_log_prob(model, history, output[:STEPS], model.tokens.table[target])
                rewards.append((given - fixed).detach())
        advantages = group_advantages(torch.stack(rewards).view(3, GROUP))
        (-(advantages.flatten() * torch.stack(log_probs)).mean()).backward()
        for name, gradient in ours.items():
            plain = dict(model.named_parameters())[name].grad
            assert torch.allclose(gradient, plain, atol=1e-4, rtol=1e-3), name
        assert ours["decoder.start"].abs().max() > 1e-3


def sampled(objective):
    """The rollouts that the objective draws for BATCH from the random state as it is."""
    with torch.no_grad():
        return sample_rollouts(objective.model.begin(BATCH.histories), GROUP, STEPS, 3)[0]


def by_hand(model):
    """Rollouts [3, 4, 5] whose items are the target, near and far from it, and no item; their thoughts."""
    table = model.tokens.table
    rollouts = torch.randint(0, 15, (3, GROUP, STEPS + 3), generator=torch.Generator().manual_seed(1))
    for row, target in enumerate(BATCH.targets):
        rollouts[row, :, STEPS:] = table[target]
        rollouts[row, 1, -1] = 0  # two tokens right, then one of the first level: no item
        rollouts[row, 2, STEPS] = (table[target, 0] + 1) % 6  # nothing right, whatever follows
        rollouts[row, 3, STEPS:] = table[target % 40 + 1]  # another item
    everyone = torch.zeros(3, GROUP, dtype=torch.long)
    thought = model.begin(BATCH.histories).shared().select(everyone).read(rollouts[..., :STEPS])
    return rollouts, thought


class TestRewards:
    @torch.no_grad()
    def rewards(self, **changes):
        model, objective = make(**changes)
        rollouts, thought = by_hand(model)
        log_probs, hidden = objective.log_probs(model, BATCH.histories, rollouts)
        return model, rollouts, log_probs, hidden, objective.rewards(BATCH, rollouts, thought, hidden)

    @torch.no_grad()
    def test_log_probs_and_states_are_those_of_one_token_after_another(self):
        model, rollouts, log_probs, hidden, _ = self.rewards()
        assert log_probs.shape == (3, GROUP, 5) and hidden.shape == (3, GROUP, 5, 16)
        for row in range(3):
            for group in range(GROUP):
                output = rollouts[row, group].tolist()
                for place in range(5):
                    plain = next_log_probs(model, BATCH.histories[row], output[:place])
                    assert log_probs[row, group, place].item() == pytest.approx(plain[output[place]].item(), abs=1e-4)
                    # the hidden state at a place predicts its token
                    predicted = model.tokens.logits(hidden[row, group, place]).log_softmax(-1)
                    assert torch.allclose(predicted, plain, atol=1e-4)

    def test_format_and_exact_match_by_hand(self):
        model, rollouts, _, _, rewards = self.rewards()
        existing = {tuple(row) for row in model.tokens.table[1:].tolist()}
        for row, target in enumerate(BATCH.targets):
            written = [tuple(output[STEPS:]) for output in rollouts[row].tolist()]
            answer = model.tokens.table[target].tolist()
            assert rewards["format"][row].tolist() == [0.0 if tokens in existing else -1.0 for tokens in written]
            assert rewards["format"][row, [0, 1, 3]].tolist() == [0, -1, 0]
            assert rewards["exact_match"][row, :3].tolist() == [3, 2, 0]
            leading = 0
            while leading < 3 and written[3][leading] == answer[leading]:
                leading += 1
            assert rewards["exact_match"][row, 3].item() == leading

    @torch.no_grad()
    def test_likelihood_and_ranking_from_scratch(self):
        model, rollouts, _, _, rewards = self.rewards()
        table, earned = model.tokens.table, set()
        for row, (history, target) in enumerate(zip(BATCH.histories, BATCH.targets)):
            fixed = sequence_log_prob(model.reference, history, [], table[target])
            for group in range(GROUP):
                reasoning = rollouts[row, group, :STEPS].tolist()
                own = sequence_log_prob(model, history, reasoning, table[target])
                gain = (own - fixed).item()  # Eq. 26
                assert rewards["likelihood"][row, group].item() == pytest.approx(gain, abs=1e-4)
                others = [sequence_log_prob(model, history, reasoning, table[item]) for item in SIMILAR[target]]
                rank = 1 + sum(bool(other >= own) for other in others)
                # Eq. 27 with K = 10: rank 1; no rank is below 1 or between 1 and 2; 5 and worse; the rest
                expected = 0.2 if rank == 1 else -0.1 if rank >= 5 else 0.0
                assert rewards["ranking"][row, group].item() == pytest.approx(expected)
                earned.add(expected)
        assert len(earned) > 1

    @torch.no_grad()
    def test_similarity_takes_the_mean_state_of_the_reasoning(self):
        model, objective = make(weights=only("similarity"))
        batch = make_samples(random_histories(40, [4] * 120), torch.arange(120) % 40 + 1).batch(torch.arange(120))
        rollouts = torch.randint(0, 15, (120, GROUP, STEPS + 3), generator=torch.Generator().manual_seed(1))
        _, hidden = objective.log_probs(model, batch.histories, rollouts)
        got = objective.rewards(batch, rollouts, None, hidden)["similarity"]
        # d_0 .. d_l: the states after the start token and after each reasoning token
        thinking = model.tokens.embedding(rollouts[..., :STEPS])
        mean = model.decoder(thinking, model.memory(batch.histories)).mean(2)
        expected = similarity_reward(mean, model.tokens.representation(batch.targets))
        assert torch.equal(got, expected)
        assert expected.unique().tolist() == pytest.approx([-0.1, 0.05, 0.1, 0.5])

    def test_a_weight_of_0_leaves_a_reward_out(self):
        for name in REWARDS:
            assert set(self.rewards(weights=only(name))[-1]) == {name}

    def test_statistics_by_hand(self):
        model, objective = make()
        rollouts = torch.zeros(2, 3, STEPS + 3, dtype=torch.long)  # (0, 0, 0, 0, 0): the item tokens are no item
        rollouts[0, 0, STEPS:] = model.tokens.table[7]
        rollouts[1, 2, 0] = 1
        rewards = {"format": torch.tensor([[0.0, -1, -1], [-1, -1, -1]])}
        advantages = torch.tensor([[1.0, -0.5, -0.5], [0, 0, 0]])
        scalars = {name: value.item() for name, value in objective.statistics(rollouts, rewards, advantages).items()}
        # spread of the first group: sqrt((4/9 + 1/9 + 1/9) / 3) = sqrt(2) / 3; two of three differ in each group
        # the reasoning is (0, 0) but for one (1, 0) of six: ln 6 - 5/6 ln 5 at the first step
        assert {
            name: scalars.pop(name) for name in ("distinct_1", "entropy_1", "distinct_2", "entropy_2")
        } == pytest.approx(
            {"distinct_1": 2, "entropy_1": math.log(6) - 5 / 6 * math.log(5), "distinct_2": 1, "entropy_2": 0}
        )
        assert scalars.pop("distinct_traces") == 2
        assert scalars == pytest.approx({
            "reward_format": -5 / 6, "spread_format": 2**0.5 / 6, "zero_spread": 1 / 2,
            "valid_rollouts": 1 / 6, "distinct_rollouts": 4 / 6,
        })  # fmt: skip


class TestStage:
    """A small world: 9 items, one reasoning token, the target follows from the last item."""

    codes = catalogue(9, (3, 3))
    samples = make_samples(torch.arange(1, 10)[:, None].repeat(4, 2), (torch.arange(36) + 4) % 9 + 1)

    def make(self, seed=0, **changes):
        model = streamrec(self.codes, (3, 3), dropout=0.1, seed=seed)
        model.steps.fill_(1)
        options = ReinforceOptions(**OPTIONS | {"group": 8, "weights": only("exact_match"), "kl_weight": 0.0} | changes)
        return model, Reinforce(model, Trie(self.codes), torch.zeros(10, 1, dtype=torch.long), options)

    def run(self, model, objective, epochs, resume_file=None, updates=1):
        def evaluate():
            scores = item_log_probs(model.eval(), self.samples.histories, self.samples.targets[:, None])
            return {"likelihood": scores.mean().item()}

        schedule = Schedule(
            epochs=epochs, learning_rate=0.01, batch_size=12, patience=epochs, updates_per_batch=updates
        )
        progress = resume_file and Progress(resume_file)
        context = StageContext(evaluate, "likelihood", progress=progress, show_progress=False)
        return train_stage(model, objective, schedule, self.samples, context, evaluate_first=True)

    def test_learns_what_is_rewarded(self):
        model, objective = self.make()
        reference, sft, before = copy_of(model.reference), copy_of(objective.sft), copy_of(model)
        torch.manual_seed(0)
        result = self.run(model, objective, 12)
        # a policy that knows nothing earns 1/6 + 1/36 = .19 from 6 tokens; the first token alone is worth 1
        assert result.curves[0]["reward_exact_match"] < 0.4
        assert result.curves[-1]["reward_exact_match"] > 0.7
        assert unchanged(model.reference, reference) and unchanged(objective.sft, sft)
        assert not unchanged(model, before)
        assert result.curves[0]["ratio"] == 1 and result.curves[-1]["clip_share"] == 0

    def test_the_kl_term_holds_the_policy_back(self):
        last = {}
        for weight in (0.0, 3.0):
            model, objective = self.make(kl_weight=weight)
            torch.manual_seed(0)
            last[weight] = self.run(model, objective, 8).curves[-1]["kl"]
        assert last[3.0] < 0.2 * last[0.0]

    def test_ends_as_if_it_had_not_been_killed(self, tmp_path):
        model, objective = self.make(updates=2, kl_weight=0.1)
        torch.manual_seed(0)
        whole = self.run(model, objective, 4, updates=2)

        killed, objective = self.make(updates=2, kl_weight=0.1)
        losses, left = objective.losses, iter(range(7))

        def until_killed(batch):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return losses(batch)

        objective.losses = until_killed
        torch.manual_seed(0)
        with pytest.raises(KeyboardInterrupt):  # 3 batches an epoch: in epoch 2
            self.run(killed, objective, 4, tmp_path / "state.pth", updates=2)

        torch.manual_seed(77)
        again, objective = self.make(updates=2, kl_weight=0.1)  # pi_SFT is the model as it enters the stage
        result = self.run(again, objective, 4, tmp_path / "state.pth", updates=2)
        assert (result.valid, result.curves) == (whole.valid, whole.curves)
        assert unchanged(again, model.state_dict())
