"""Stage 3: GRPO on sampled reasoning and items (Eq. 20-27)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_stream.data.samples import Batch
from recbole_stream.decoding.beam import score_items, score_shared_items
from recbole_stream.decoding.rollout import sample_rollouts
from recbole_stream.decoding.trie import Trie
from recbole_stream.model.prefix import Prefix
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.training.finetune import trace_statistics
from recbole_stream.training.grpo import combine_rewards, grpo_loss
from recbole_stream.training.loop import Objective
from recbole_stream.training.processes import every_row
from recbole_stream.training.rewards import (
    exact_match_reward,
    format_reward,
    likelihood_reward,
    ranking_reward,
    similarity_reward,
)

__all__ = ["REWARDS", "Reinforce", "ReinforceOptions"]

REWARDS = ("format", "exact_match", "similarity", "likelihood", "ranking")


@dataclass(frozen=True)
class ReinforceOptions:
    """Stage 3 in numbers.

    Attributes:
        group: G, rollouts a history.
        updates: optimiser steps a batch of rollouts; with one, the ratio of Eq. 20 is 1.
        clip: ε of Eq. 20.
        kl_weight: β of Eq. 20.
        importance_sampling: one ratio an output (``sequence``) or one a token (``token``).
        normalise: rewards are summed and then normalised (``sum``) or the other way round (``each``).
        weights: of each reward, by name; a reward of weight 0 is not computed.
        positions: tokens whose log-probability is trained: ``all`` or only those of the reasoning (``thinking``).
    """

    group: int
    updates: int
    clip: float
    kl_weight: float
    importance_sampling: str
    normalise: str
    weights: dict[str, float]
    positions: str


class Reinforce(Objective):
    """Sample, reward, compare within the group, update.

    Dropout is off while sampling and while scoring, so that the ratio starts at 1.

    Args:
        model: trained in place; as it enters it is π_SFT, and its reference is π_ref of Eq. 26.
        trie: of the catalogue.
        similar: the K items most similar to each item, [n_items + 1, K] ids.
        options: numbers.
    """

    name = "RL"

    def __init__(self, model: STREAMRecModel, trie: Trie, similar: Tensor, options: ReinforceOptions) -> None:
        self.model, self.trie, self.similar, self.options = model, trie, similar, options
        self.steps = int(model.steps)  # read once: a step that asked a GPU for it would wait for it
        self.sft = copy.deepcopy(model).eval().requires_grad_(False)

    def log_probs(self, model: STREAMRecModel, histories: Tensor, rollouts: Tensor) -> tuple[Tensor, Tensor]:
        """log π of each sampled token [B, G, T] and the hidden states that predict them [B, G, T, H]."""
        inputs = model.tokens.embedding(rollouts[..., :-1])
        hidden = model.decoder(inputs, model.memory(histories))
        log_probs = torch.log_softmax(model.tokens.logits(hidden).float(), -1)
        return log_probs.gather(-1, rollouts[..., None])[..., 0], hidden

    @torch.no_grad()
    def rewards(self, batch: Batch, rollouts: Tensor, thought: Prefix, hidden: Tensor) -> dict[str, Tensor]:
        """The rewards of positive weight, each [B, G].

        Args:
            rollouts: tokens [B, G, l + m].
            thought: the prefix that has read each rollout's reasoning.
            hidden: d_0 .. [B, G, l + m, H].
        """
        model, weights, steps = self.model, self.options.weights, self.steps
        tokens, target = model.tokens, model.tokens.table[batch.targets]
        written = rollouts[..., steps:]
        rewards: dict[str, Tensor] = {}
        if weights["format"]:
            rewards["format"] = format_reward(self.trie.find(tokens.codes(written)) > 0)
        if weights["exact_match"]:
            rewards["exact_match"] = exact_match_reward(written, target)
        if weights["similarity"]:
            mean_state = hidden[:, :, : steps + 1].mean(2)
            # batch-mates that fell to other processes are compared with, too
            targets = every_row(tokens.representation(batch.targets), batch)
            rewards["similarity"] = similarity_reward(mean_state, targets, batch.part)
        if weights["likelihood"] or weights["ranking"]:
            scores = self.candidate_scores(batch, thought)
            if weights["likelihood"]:
                reference = score_items(model.reference.begin(batch.histories), batch.targets[:, None])[:, 0]
                rewards["likelihood"] = likelihood_reward(scores[..., 0], reference)
            if weights["ranking"]:
                rewards["ranking"] = ranking_reward(scores[..., 0], scores[..., 1:])
        return rewards

    def advantages(self, batch: Batch, rewards: dict[str, Tensor]) -> Tensor:
        """One advantage a rollout, [B, G]; a spread over the batch is that over all processes' parts of it."""
        whole = every_row(torch.stack([*rewards.values()], 1), batch).unbind(1)
        return combine_rewards(dict(zip(rewards, whole)), self.options.weights, self.options.normalise)[batch.part]

    def candidate_scores(self, batch: Batch, thought: Prefix) -> Tensor:
        """log P(item | own thinking, history) of the target and, where they are ranked, its K similar items.

        Args:
            thought: the prefix that has read each rollout's reasoning, G sequences a history.

        Returns:
            [B, G, 1 + K] or [B, G, 1].
        """
        items = batch.targets[:, None]
        if self.options.weights["ranking"]:
            items = torch.cat([items, self.similar[batch.targets]], 1)
        return score_shared_items(thought, items)

    def losses(self, batch: Batch) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        model, options, steps, levels = self.model, self.options, self.steps, self.model.tokens.levels
        model.eval()
        with torch.no_grad():
            rollouts, thought = sample_rollouts(
                model.begin(batch.histories), options.group, steps, levels, batch.uniform(options.group, steps + levels)
            )
            frozen, _ = self.log_probs(self.sft, batch.histories, rollouts)
        # autocast of older releases (2.6 is one) would go on with the weights that it has cast here, without a graph
        torch.clear_autocast_cache()
        mask = torch.ones_like(rollouts, dtype=torch.bool)
        if options.positions == "thinking":
            mask[..., steps:] = False
        old, rewards, advantages = None, {}, None
        for _ in range(options.updates):
            log_probs, hidden = self.log_probs(model, batch.histories, rollouts)
            if old is None:
                old = log_probs.detach()
                rewards = self.rewards(batch, rollouts, thought, hidden.detach())
                advantages = self.advantages(batch, rewards)
            loss, scalars = grpo_loss(
                log_probs, old, frozen, advantages, options.clip, options.kl_weight, options.importance_sampling, mask
            )
            yield loss, scalars | self.statistics(rollouts, rewards, advantages)

    def statistics(self, rollouts: Tensor, rewards: dict[str, Tensor], advantages: Tensor) -> dict[str, Tensor]:
        """Means of the rewards and their spreads within the groups, and how varied and valid the rollouts are."""
        scalars: dict[str, Tensor] = {}
        for name, reward in rewards.items():
            scalars[f"reward_{name}"] = reward.mean()
            scalars[f"spread_{name}"] = reward.std(1, unbiased=False).mean()
        scalars["zero_spread"] = (advantages == 0).all(1).float().mean()
        steps = self.steps
        scalars |= trace_statistics(rollouts[..., :steps].flatten(0, 1), self.model.tokens.vocabulary)
        written = rollouts[..., steps:]
        scalars["valid_rollouts"] = (self.trie.find(self.model.tokens.codes(written)) > 0).float().mean()
        # a rollout is distinct when no earlier one of its group equals it
        same = (rollouts[:, :, None] == rollouts[:, None]).all(-1).tril(-1).any(-1)
        scalars["distinct_rollouts"] = 1 - same.float().mean()
        return scalars
