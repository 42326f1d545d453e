"""ETEGRec's training: turns of the tokenizer among those of the generator; see ``model.rivals.etegrec``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recbole_stream.data.samples import Batch
from recbole_stream.model.rivals.etegrec import (
    ETEGRecModel,
    preference_alignment,
    sequence_alignment,
    token_log_probs,
)
from recbole_stream.training.loop import Objective
from recbole_stream.training.losses import token_cross_entropy

__all__ = ["AlignOptions", "Alternate"]


@dataclass(frozen=True)
class AlignOptions:
    """Numbers of the training.

    Attributes:
        cycle: epochs from one turn of the tokenizer to the next; each turn is the first of them.
        turns: of the tokenizer; after the last one the generator alone is trained.
        rate: the tokenizer's learning rate in units of the generator's.
        sequence_weight: mu, of the sequence-item alignment.
        preference_weight: lambda, of the preference-semantic alignment.
        temperature: of the latter.
    """

    cycle: int = 2
    turns: int = 5
    rate: float = 0.05
    sequence_weight: float = 1e-3
    preference_weight: float = 1e-3
    temperature: float = 0.07


class Alternate(Objective):
    """Either the tokenizer learns (L_SQ and both alignments) or the generator (cross-entropy and both alignments).

    The items get their new IDs when the generator's next turn begins.

    Args:
        model: trained in place.
        options: numbers.
        label_smoothing: see :func:`token_cross_entropy`.
        seed: of what makes IDs unique.
    """

    name = "ETEGRec"

    def __init__(self, model: ETEGRecModel, options: AlignOptions, label_smoothing: float, seed: int) -> None:
        self.model, self.options = model, options
        self.label_smoothing, self.seed = label_smoothing, seed
        self.tokenizing = False

    def groups(self, parameters: list[nn.Parameter], learning_rate: float) -> list[dict[str, Any]]:
        generator = self.model.generator()
        tokenizer = list(self.model.tokenizer.parameters())
        return [{"params": generator}, {"params": tokenizer, "lr": self.options.rate * learning_rate}]

    def prepare(self, epoch: int) -> dict[str, float]:
        """Begin a turn; the generator's after one of the tokenizer, and the very first, give the items new IDs."""
        changed = self.model.assign(self.seed) if epoch == 0 or self.tokenizing else 0
        turn, place = divmod(epoch, self.options.cycle)
        # the first cycle begins with the generator: a tokenizer learns nothing from one that knows nothing
        self._take_turns(place == 0 and 0 < turn <= self.options.turns)
        return {"tokenizing": float(self.tokenizing), "new_ids": float(changed)}

    def _take_turns(self, tokenizing: bool) -> None:
        self.tokenizing = tokenizing
        self.model.requires_grad_(not tokenizing)
        self.model.tokenizer.requires_grad_(tokenizing)

    def losses(self, batch: Batch) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        model, options = self.model, self.options
        reading = model.read(batch.histories, batch.targets)
        with torch.autocast(batch.targets.device.type, enabled=False):
            inputs = model.inputs[batch.targets]
            quantised, _, _, _, straight = model.tokenizer.losses(inputs)
            latents, reconstructions = model.tokenizer.encoder(inputs), model.tokenizer.decoder(straight)
            codebooks = model.tokenizer.codebooks
            history, target = token_log_probs(reading.latents, codebooks), token_log_probs(latents, codebooks)
            sequence = sequence_alignment(history, target)
            preference = preference_alignment(reading.preferences, reconstructions, batch.targets, options.temperature)
        aligned = options.sequence_weight * sequence + options.preference_weight * preference
        labels = model.tokens.table[batch.targets]
        generated = token_cross_entropy(reading.logits, labels, self.label_smoothing)
        own = quantised if self.tokenizing else generated
        scalars = {"sequence": sequence, "preference": preference, "quantised": quantised, "generated": generated}
        yield own + aligned, scalars

    def state_dict(self) -> dict[str, Any]:
        return {"tokenizing": self.tokenizing}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._take_turns(state["tokenizing"])
