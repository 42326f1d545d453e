"""Stage 2: staggered collection of residual reasoning and fine-tuning on it (Eq. 12-19)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from logging import getLogger
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from recbole_stream.data.samples import Batch, Samples
from recbole_stream.decoding.beam import score_items
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.training.loop import Objective, autocast
from recbole_stream.training.losses import dpo_loss, quantisation_loss, state_contrast, token_cross_entropy
from recbole_stream.training.processes import all_reduce, every_row, process_index, processes

__all__ = ["Finetune", "FinetuneOptions", "trace_statistics"]


@dataclass(frozen=True)
class FinetuneOptions:
    """Stage 2 in numbers.

    Attributes:
        steps: l, reasoning tokens a sample.
        round_epochs: epochs between two collections.
        rounds: collections; the last one's labels serve until the stage ends.
        dpo_weight, quant_weight, state_weight: λ, μ and δ of Eq. 19.
        dpo_beta, quant_beta: β of Eq. 18 and Eq. 15.
        state_temperature: of the contrast in Eq. 14.
        straight_through: let the gradient of the other losses pass through the choice of the token to the
            residual; it costs a second pass over the reasoning.
        label_smoothing: see :func:`token_cross_entropy`.
    """

    steps: int
    round_epochs: int
    rounds: int
    dpo_weight: float
    quant_weight: float
    state_weight: float
    dpo_beta: float
    quant_beta: float
    state_temperature: float
    straight_through: bool
    label_smoothing: float


def trace_statistics(traces: Tensor, vocabulary: int) -> dict[str, Tensor]:
    """What collected or written reasoning looks like; a collapse shows here first.

    Args:
        traces: tokens [N, l].
        vocabulary: V.

    Returns:
        for each step, the number of distinct tokens and their entropy in nats, and the number of distinct
        whole traces.
    """
    scalars: dict[str, Tensor] = {}
    for step, tokens in enumerate(traces.T, 1):
        share = torch.bincount(tokens, minlength=vocabulary).float() / len(tokens)
        scalars[f"distinct_{step}"] = (share > 0).sum()
        scalars[f"entropy_{step}"] = torch.special.entr(share).sum()
    scalars["distinct_traces"] = torch.tensor(len(torch.unique(traces, dim=0)))
    return scalars


class Finetune(Objective):
    """The four losses of Eq. 19 on traces that are collected anew every few epochs.

    Args:
        model: trained in place; its reference must be frozen. Its ``steps`` become l.
        samples: all training samples, on the model's device.
        similar: items most similar to each item, [n_items + 1, C] ids; one of them is y⁻.
        options: numbers.
        batch_size: samples a batch during collection.
        precision: of the collection, see :func:`autocast`.
        show_progress: progress bar of the collection.
    """

    name = "SFT"

    def __init__(
        self,
        model: STREAMRecModel,
        samples: Samples,
        similar: Tensor,
        options: FinetuneOptions,
        batch_size: int,
        precision: str,
        show_progress: bool,
    ) -> None:
        self.model, self.samples, self.similar, self.options = model, samples, similar, options
        self.batch_size, self.precision, self.show_progress = batch_size, precision, show_progress
        self.traces: Tensor | None = None  # [N, l]
        model.steps.fill_(options.steps)

    def prepare(self, epoch: int) -> dict[str, float]:
        """Collect traces with the model as it is now, at the start of each round."""
        if epoch % self.options.round_epochs or epoch // self.options.round_epochs >= self.options.rounds:
            return {}
        self.model.eval()
        self.traces = torch.zeros(len(self.samples), self.options.steps, dtype=torch.long, device=self.similar.device)
        own = torch.zeros_like(self.traces)
        batches = self.samples.ordered(4 * self.batch_size)[process_index() :: processes()]
        for batch in tqdm(batches, desc="collect", ncols=100, disable=not self.show_progress, leave=False):
            with autocast(self.traces.device, self.precision):
                self.traces[batch.rows], leaks = self.model.collect(batch.histories, batch.targets, self.options.steps)
            own[batch.rows] = leaks.long()
        all_reduce(self.traces), all_reduce(own)  # each process has zeros where others have collected
        statistics = trace_statistics(self.traces, self.model.tokens.vocabulary)
        scalars = {name: float(value) for name, value in statistics.items()}
        scalars["leak"] = float(own.float().mean())  # share of tokens that are the target's own codes
        getLogger().info("traces: " + " ".join(f"{name} {value:.4g}" for name, value in scalars.items()))
        return scalars

    def losses(self, batch: Batch) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        model, tokens, options = self.model, self.model.tokens, self.options
        traces, target = self.traces[batch.rows], tokens.table[batch.targets]
        t = tokens.representation(batch.targets)
        memory = model.memory(batch.histories)

        def read(inputs: Tensor):
            start = model.decoder.begin(tokens, memory)
            hidden, cache = model.decoder.stack(inputs[:, None], memory, start.cache)
            return torch.cat([start.hidden, hidden], 2)[:, 0], cache

        # the reasoning, read once for whatever comes after it
        thinking = tokens.embedding(traces)  # o_1 .. o_l, [B, l, H]
        hidden, cache = read(thinking)  # d_0 .. d_l
        states = model.reasoning.states(hidden)
        residuals = model.reasoning.residuals(t, states[:, :-1])
        if options.straight_through:
            # forward: the chosen token's embedding; backward: the residual's gradient
            hidden, cache = read(residuals + (thinking - residuals).detach())
            states = model.reasoning.states(hidden)

        # the target and, for Eq. 16-18, one similar item, both after the same reasoning
        items = batch.targets[:, None]
        if options.dpo_weight:
            pick = (batch.uniform(1) * self.similar.shape[1]).long()
            items = torch.cat([items, self.similar[batch.targets].gather(1, pick)], 1)
        labels = tokens.table[items]  # [B, C, m]
        after, _ = model.decoder.stack(tokens.embedding(labels[..., :-1]), memory, cache.as_shared())
        after = torch.cat([hidden[:, None, -1:].expand(-1, items.shape[1], -1, -1), after], 2)  # [B, C, m, H]

        sequence = torch.cat([hidden[:, :-1], after[:, 0]], 1)  # every position that predicts a token of Y
        logits = tokens.logits(sequence)
        y = torch.cat([traces, target], 1)  # Eq. 13
        sft = token_cross_entropy(logits, y, options.label_smoothing)
        loss, scalars = sft, {"sft": sft}
        if options.dpo_weight:
            log_probs = torch.log_softmax(tokens.logits(after).float(), -1).gather(-1, labels[..., None])
            policy = log_probs[..., 0].sum(-1)  # [B, 2]
            with torch.no_grad():
                reference = score_items(model.reference.begin(batch.histories), items)
            dpo = dpo_loss(*policy.unbind(1), *reference.unbind(1), options.dpo_beta)
            loss, scalars["dpo"] = loss + options.dpo_weight * dpo, dpo
        if options.quant_weight:
            quant = quantisation_loss(residuals, thinking, options.quant_beta)
            loss, scalars["quant"] = loss + options.quant_weight * quant, quant
        if options.state_weight:
            # batch-mates that fell to other processes are negatives too
            state = state_contrast(
                states[:, 1:],
                every_row(t, batch),
                every_row(batch.targets, batch),
                options.state_temperature,
                batch.part,
            )
            loss, scalars["state"] = loss + options.state_weight * state, state

        with torch.no_grad():
            correct = (logits.argmax(-1) == y).float().mean(0)
            for step in range(options.steps):
                scalars[f"accuracy_{step + 1}"] = correct[step]
            scalars["accuracy_item"] = correct[options.steps :].mean()
        yield loss, scalars

    def state_dict(self) -> dict[str, Any]:
        return {"traces": self.traces}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.traces = copy.copy(state["traces"])
