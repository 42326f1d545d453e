"""Stage 2: staggered collection of residual reasoning and fine-tuning on it (Eq. 12-19)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from logging import getLogger
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from recbole_stream.data.samples import Batch, Samples
from recbole_stream.decoding.beam import score_items
from recbole_stream.model.backbone import Cache
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
        rounds: number of collections; the labels of the last one are used until the stage ends.
        dpo_weight, quant_weight, state_weight: λ, μ and δ of Eq. 19.
        dpo_beta, quant_beta: β of Eq. 18 and Eq. 15.
        state_similarity, state_temperature: of the contrast in Eq. 14, see :func:`state_contrast`.
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
    state_similarity: str
    state_temperature: float
    straight_through: bool
    label_smoothing: float


def trace_statistics(traces: Tensor, vocabulary: int) -> dict[str, Tensor]:
    """How varied collected or generated reasoning is; few distinct tokens mean that the reasoning has collapsed.

    Args:
        traces: tokens [N, l].
        vocabulary: V.

    Returns:
        for each step, the number of distinct tokens and their entropy in nats, and the number of distinct
        whole traces.
    """
    scalars: dict[str, Tensor] = {}
    for step, tokens in enumerate(traces.T, 1):
        # bincount and unique would make the host wait for a GPU, to learn the sizes of what they return
        counts = tokens.new_zeros(vocabulary).scatter_add_(0, tokens, torch.ones_like(tokens))
        share = counts.float() / len(tokens)
        scalars[f"distinct_{step}"] = (share > 0).sum()
        scalars[f"entropy_{step}"] = torch.special.entr(share).sum()
    scalars["distinct_traces"] = _distinct_rows(traces, vocabulary)
    return scalars


def _distinct_rows(rows: Tensor, vocabulary: int) -> Tensor:
    """How many different rows there are among tokens [N, l], l >= 1; a scalar on their device."""
    numbers = torch.zeros_like(rows[:, 0])
    for tokens in rows.T:
        # numbers of the distinct beginnings, from 0: keys of whole rows would not fit 64 bits
        keys, order = (numbers * vocabulary + tokens).sort()
        ordered = F.pad((keys[1:] != keys[:-1]).long().cumsum(0), (1, 0))
        numbers = torch.empty_like(ordered).scatter_(0, order, ordered)
    return numbers.amax() + 1


@dataclass
class _Reading:
    """What one teacher-forced pass over B samples gives; C is 2 with DPO (target, similar item), else 1.

    Attributes:
        traces: collected reasoning tokens [B, l].
        target: t, the target's representation [B, H].
        thinking: embeddings of the reasoning tokens, o_1 .. o_l [B, l, H].
        states: s_0 .. s_l [B, l + 1, H].
        residuals: r_1 .. r_l [B, l, H].
        hidden: d_0 .. d_l [B, l + 1, H]; d_j predicts token j + 1 of the sequence.
        items: ids [B, C], the target first.
        labels: their tokens [B, C, m].
        after: hidden states that predict these tokens [B, C, m, H].
    """

    traces: Tensor
    target: Tensor
    thinking: Tensor
    states: Tensor
    residuals: Tensor
    hidden: Tensor
    items: Tensor
    labels: Tensor
    after: Tensor


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
        options, reading = self.options, self._read(batch)
        logits, labels, sft = self._sft(reading)
        loss, scalars = sft, {"sft": sft}  # Eq. 19, term by term
        if options.dpo_weight:
            dpo = self._dpo(reading, batch)
            loss, scalars["dpo"] = loss + options.dpo_weight * dpo, dpo
        if options.quant_weight:
            quant = quantisation_loss(reading.residuals, reading.thinking, options.quant_beta)
            loss, scalars["quant"] = loss + options.quant_weight * quant, quant
        if options.state_weight:
            state = self._state(reading, batch)
            loss, scalars["state"] = loss + options.state_weight * state, state
        yield loss, scalars | self._accuracies(logits, labels)

    def _read(self, batch: Batch) -> _Reading:
        """One teacher-forced pass over the collected reasoning and over the items after it."""
        model, tokens, options = self.model, self.model.tokens, self.options
        traces = self.traces[batch.rows]
        target = tokens.representation(batch.targets)
        memory = model.memory(batch.histories)

        def read(inputs: Tensor) -> tuple[Tensor, Cache]:
            """The start token and then ``inputs`` [B, l, H]: hidden states d_0 .. d_l and the past."""
            start = model.decoder.begin(tokens, memory)
            hidden, cache = model.decoder.stack(inputs[:, None], memory, start.cache)
            return torch.cat([start.hidden, hidden], 2)[:, 0], cache

        # the reasoning is read once, whatever number of items comes after it
        thinking = tokens.embedding(traces)
        hidden, cache = read(thinking)
        states = model.reasoning.states(hidden)
        residuals = model.reasoning.residuals(target, states[:, :-1])
        if options.straight_through:
            # forward: the chosen token's embedding; backward: the residual's gradient
            hidden, cache = read(residuals + (thinking - residuals).detach())
            states = model.reasoning.states(hidden)

        # the target and, for Eq. 16-18, one similar item, both after the same reasoning
        items = batch.targets[:, None]
        if options.dpo_weight:
            pick = (batch.uniform(1) * self.similar.shape[1]).long()
            items = torch.cat([items, self.similar[batch.targets].gather(1, pick)], 1)
        labels = tokens.table[items]
        after, _ = model.decoder.stack(tokens.embedding(labels[..., :-1]), memory, cache.as_shared())
        after = torch.cat([hidden[:, None, -1:].expand(-1, items.shape[1], -1, -1), after], 2)
        return _Reading(traces, target, thinking, states, residuals, hidden, items, labels, after)

    def _sft(self, reading: _Reading) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [B, l + m, V] and labels [B, l + m] of every token of Y, and their cross-entropy."""
        # every position that predicts a token of Y
        sequence = torch.cat([reading.hidden[:, :-1], reading.after[:, 0]], 1)
        logits = self.model.tokens.logits(sequence)
        labels = torch.cat([reading.traces, reading.labels[:, 0]], 1)  # Y of Eq. 13
        return logits, labels, token_cross_entropy(logits, labels, self.options.label_smoothing)

    def _dpo(self, reading: _Reading, batch: Batch) -> Tensor:
        """Eq. 16-18: the target is preferred to the similar item."""
        log_probs = torch.log_softmax(self.model.tokens.logits(reading.after).float(), -1)
        policy = log_probs.gather(-1, reading.labels[..., None])[..., 0].sum(-1)  # [B, 2]
        with torch.no_grad():
            reference = score_items(self.model.reference.begin(batch.histories), reading.items)
        (chosen, rejected), (old_chosen, old_rejected) = policy.unbind(1), reference.unbind(1)
        return dpo_loss(chosen, rejected, old_chosen, old_rejected, self.options.dpo_beta)

    def _state(self, reading: _Reading, batch: Batch) -> Tensor:
        """Eq. 14; the targets of the batch's samples in other processes are negatives too."""
        targets, ids = every_row(reading.target, batch), every_row(batch.targets, batch)
        options = self.options
        return state_contrast(
            reading.states[:, 1:], targets, ids, options.state_temperature, batch.part, options.state_similarity
        )

    @torch.no_grad()
    def _accuracies(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Share of samples whose label is the likeliest token: at each reasoning step, and over the item's tokens."""
        correct = (logits.argmax(-1) == labels).float().mean(0)  # [l + m]
        steps = self.options.steps
        accuracies = {f"accuracy_{step + 1}": correct[step] for step in range(steps)}
        return accuracies | {"accuracy_item": correct[steps:].mean()}

    def state_dict(self) -> dict[str, Any]:
        return {"traces": self.traces}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        traces = state["traces"]  # on the CPU where they were read from a file
        self.traces = None if traces is None else traces.clone().to(self.similar.device)
