"""Items 5 and 7: GRPO steps per second, and what collecting reasoning traces costs."""

from __future__ import annotations

import copy
import statistics
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from recbole_stream.data.samples import Batch
from recbole_stream.decoding.rollout import sample_rollouts
from recbole_stream.decoding.trie import Trie
from recbole_stream.model.allocator import keep_freed_memory
from recbole_stream.model.backbone import BackboneConfig
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.tokenizer.neighbours import nearest_by_ids
from recbole_stream.training.finetune import Finetune, FinetuneOptions
from recbole_stream.training.grpo import combine_rewards, grpo_loss
from recbole_stream.training.reinforce import Reinforce, ReinforceOptions
from recbole_stream.training.rewards import likelihood_reward, ranking_reward
from speed.data import Corpus, load
from speed.harness import alternate, report
from speed.models import DEFAULT, PAPER, TINY, make_streamrec, optimise, precision
from speed.rival import decoder_inputs, give_weights, history_ids, make_t5

__all__ = ["FULL", "TINY_SIZES", "RivalGRPO", "Sizes", "collection", "rollouts", "score_difference"]


@dataclass(frozen=True)
class Sizes:
    """Rollouts: ``histories`` a step, ``steps`` of ours timed together. Collection: ``samples`` an epoch."""

    config: BackboneConfig = PAPER
    default: BackboneConfig = DEFAULT
    codebook_size: int = 256
    histories: int = 4
    group: int = 16
    similar: int = 50
    reasoning_steps: int = 4
    steps: int = 3
    rounds: int = 3
    samples: int = 8192
    batch: int = 256
    max_users: int | None = None


FULL = Sizes()
TINY_SIZES = Sizes(TINY, TINY, 8, 2, 3, 5, 2, 1, 1, 32, 8, 60)

# the likelihood, and the ranking reward (Eq. 27), which costs more than all the others
_WEIGHTS = {"format": 0.0, "exact_match": 0.0, "similarity": 0.0, "likelihood": 1.0, "ranking": 1.0}
_CLIP, _KL_WEIGHT = 0.2, 0.01


class RivalGRPO:
    """GRPO with three T5 models (policy, π_SFT, reference), as one would write it with transformers.

    Sampling is ``generate(do_sample=True)``; every log-probability is a forward pass over the histories, repeated
    for each sequence.

    Args:
        share_encoder: run the encoder once a pass and repeat its states, which takes knowing T5's internals.
    """

    def __init__(
        self, model: STREAMRecModel, config: BackboneConfig, similar: Tensor, sizes: Sizes, share_encoder: bool
    ) -> None:
        self.tokens, self.similar, self.sizes, self.share_encoder = model.tokens, similar, sizes, share_encoder
        self.policy = make_t5(config, model.tokens.vocabulary).eval()
        self.reference = make_t5(config, model.tokens.vocabulary).eval().requires_grad_(False)
        give_weights(model, self.policy)
        give_weights(model.reference, self.reference)
        self.sft = copy.deepcopy(self.policy).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=1e-5)

    def log_probs(self, t5: T5ForConditionalGeneration, histories: Tensor, sequences: Tensor) -> Tensor:
        """log p of each token of N sequences a history: [B, N, T] -> [B, N, T]."""
        ids, mask = history_ids(self.tokens, histories)
        flat, times = sequences.flatten(0, 1), sequences.shape[1]
        if self.share_encoder:
            states = t5.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            encoded = {"encoder_outputs": BaseModelOutput(states.repeat_interleave(times, 0))}
        else:
            encoded = {"input_ids": ids.repeat_interleave(times, 0)}
        logits = t5(
            **encoded,
            attention_mask=mask.repeat_interleave(times, 0),
            decoder_input_ids=decoder_inputs(flat),
        ).logits
        log_probs = logits.log_softmax(-1).gather(-1, flat[..., None] + 1)
        return log_probs[..., 0].unflatten(0, sequences.shape[:2])

    @torch.no_grad()
    def candidate_scores(self, batch: Batch, thinking: Tensor) -> Tensor:
        """log P(item | own thinking, history) of the target and its similar items: [B, G, l] -> [B, G, 1 + K]."""
        items = torch.cat([batch.targets[:, None], self.similar[batch.targets]], 1)
        steps, scores = thinking.shape[-1], []
        for row in range(len(items)):  # all histories at once would take tens of GB
            written = self.tokens.table[items[row]]  # [1 + K, m]
            both = torch.cat(
                [
                    thinking[row, :, None].expand(-1, len(written), -1),
                    written[None].expand(thinking.shape[1], -1, -1),
                ],
                -1,
            )
            log_probs = self.log_probs(self.policy, batch.histories[row : row + 1], both.flatten(0, 1)[None])[0]
            scores.append(log_probs[:, steps:].sum(-1).unflatten(0, (thinking.shape[1], -1)))
        return torch.stack(scores)

    def step(self, batch: Batch) -> None:
        """One update."""
        sizes, levels = self.sizes, self.tokens.levels
        ids, mask = history_ids(self.tokens, batch.histories)
        written = self.policy.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            num_return_sequences=sizes.group,
            max_new_tokens=sizes.reasoning_steps + levels,
            min_new_tokens=sizes.reasoning_steps + levels,
        )
        sequences = (written[:, 1:] - 1).unflatten(0, (-1, sizes.group))
        thinking = sequences[..., : sizes.reasoning_steps]
        with torch.no_grad():
            frozen = self.log_probs(self.sft, batch.histories, sequences)
            direct = self.log_probs(self.reference, batch.histories, self.tokens.table[batch.targets][:, None])
            scores = self.candidate_scores(batch, thinking)
        rewards = {
            "likelihood": likelihood_reward(scores[..., 0], direct[:, 0].sum(-1)),
            "ranking": ranking_reward(scores[..., 0], scores[..., 1:]),
        }
        advantages = combine_rewards(rewards, _WEIGHTS)
        log_probs = self.log_probs(self.policy, batch.histories, sequences)
        mask = torch.zeros_like(sequences, dtype=torch.bool)
        mask[..., : sizes.reasoning_steps] = True
        loss, _ = grpo_loss(log_probs, log_probs.detach(), frozen, advantages, _CLIP, _KL_WEIGHT, mask=mask)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self.optimizer.step()


def rollouts(
    sizes: Sizes, data_path: str | None, dataset: str, cache_dir: str | None, file: str | None
) -> dict[str, object]:
    """Steps of Stage 3 per second: T5 and its loop against ours, same sizes, m tokens an item in both.

    ``ratio`` is against the plain loop, ``ratio_shared_encoder`` against one that runs the encoder once a pass.
    """
    corpus, model, similar = _setting(sizes, data_path, dataset, sizes.config, "tokens")
    mode = precision()
    batches = corpus.train.shuffled(sizes.histories, 0)[: sizes.steps]
    rival = RivalGRPO(model, sizes.config, similar, sizes, share_encoder=False)
    kinder = RivalGRPO(model, sizes.config, similar, sizes, share_encoder=True)
    difference = score_difference(model, rival, corpus.train.batch(batches[0]), sizes)
    options = ReinforceOptions(sizes.group, 1, _CLIP, _KL_WEIGHT, "sequence", "sum", _WEIGHTS, "thinking")
    objective = Reinforce(model, Trie(corpus.codes), similar, options)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)
    times = alternate(
        {
            "t5": lambda: rival.step(corpus.train.batch(batches[0])),
            "t5_shared_encoder": lambda: kinder.step(corpus.train.batch(batches[0])),
            "ours": lambda: optimise(model, objective, optimizer, corpus, batches, mode),
        },
        sizes.rounds,
    )
    steps = {"t5": 1, "t5_shared_encoder": 1, "ours": len(batches)}
    rate = {side: count / statistics.median(times[side]) for side, count in steps.items()}
    figures = {f"steps_per_second_{side}": value for side, value in rate.items()}
    figures |= {
        "ratio_shared_encoder": rate["ours"] / rate["t5_shared_encoder"],
        "largest_score_difference": difference,
        "precision": mode,
        "data": corpus.name,
    }
    return report("rollouts", rate["ours"] / rate["t5"], figures, times, asdict(sizes), file)


def score_difference(model: STREAMRecModel, rival: RivalGRPO, batch: Batch, sizes: Sizes) -> float:
    """The largest difference between the candidates' scores on both sides after the same rollouts, in float32, in nats."""
    options = ReinforceOptions(sizes.group, 1, _CLIP, _KL_WEIGHT, "sequence", "sum", _WEIGHTS, "thinking")
    model.eval()
    with torch.no_grad():
        sampled, thought = sample_rollouts(
            model.begin(batch.histories), options.group, sizes.reasoning_steps, model.tokens.levels
        )
        objective = Reinforce(model, Trie(model.tokens.codes(model.tokens.table[1:])), rival.similar, options)
        ours = objective.candidate_scores(batch, thought)
        theirs = rival.candidate_scores(batch, sampled[..., : sizes.reasoning_steps])
    return float((ours - theirs).abs().max())


def collection(
    sizes: Sizes, data_path: str | None, dataset: str, cache_dir: str | None, file: str | None
) -> dict[str, object]:
    """Collecting the traces of Stage 2 against one epoch of training on them; ``ratio`` is a cost: low is good."""
    corpus, model, similar = _setting(sizes, data_path, dataset, sizes.default, "item")
    mode, samples = precision(), corpus.train
    rows = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[: sizes.samples]
    samples = type(samples)(samples.histories[rows], samples.lengths[rows], samples.targets[rows])
    corpus.train = samples
    # Stage 2 as properties/model/STREAMRec.yaml sets it
    options = FinetuneOptions(sizes.reasoning_steps, 4, 1, 0.0, 0.1, 0.1, 0.1, 0.25, "cosine", 0.1, False, 0.0)
    objective = Finetune(model, samples, similar, options, sizes.batch, mode, False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)

    def epoch() -> None:
        model.train()
        optimise(model, objective, optimizer, corpus, samples.shuffled(sizes.batch, 0), mode)

    times = alternate({"collection": lambda: objective.prepare(0), "epoch": epoch}, sizes.rounds)
    median = {side: statistics.median(values) for side, values in times.items()}
    figures = {f"samples_per_second_{side}": len(samples) / value for side, value in median.items()}
    figures |= {"precision": mode, "data": corpus.name}
    return report("collection", median["collection"] / median["epoch"], figures, times, asdict(sizes), file)


def _setting(
    sizes: Sizes, data_path: str | None, dataset: str, config: BackboneConfig, history_input: str
) -> tuple[Corpus, STREAMRecModel, Tensor]:
    keep_freed_memory()  # as train_stage does; T5 profits as well
    corpus = load(data_path, dataset, sizes.codebook_size, sizes.max_users)
    model = make_streamrec(corpus.codes, corpus.codebook_size, config, history_input)
    model.steps.fill_(sizes.reasoning_steps)
    similar = nearest_by_ids(corpus.codes.numpy(), sizes.similar) + 1
    return corpus, model, torch.cat([torch.zeros(1, sizes.similar, dtype=torch.long), torch.from_numpy(similar)])
