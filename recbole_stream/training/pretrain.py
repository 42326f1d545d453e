"""Stage 1 (Eq. 9-11), and the training of TIGER."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from recbole_stream.data.samples import Batch
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.model.tiger import TIGERModel
from recbole_stream.training.loop import Objective
from recbole_stream.training.losses import token_cross_entropy

__all__ = ["Direct", "Pretrain"]


class Direct(Objective):
    """Cross-entropy over the target's m tokens: TIGER.

    Args:
        model: trained in place.
        label_smoothing: see :func:`token_cross_entropy`.
    """

    name = "TIGER"

    def __init__(self, model: TIGERModel, label_smoothing: float) -> None:
        self.model, self.label_smoothing = model, label_smoothing

    def losses(self, batch: Batch) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        logits = self.model.item_logits(batch.histories, batch.targets)
        yield token_cross_entropy(logits, self.model.tokens.table[batch.targets], self.label_smoothing), {}


class Pretrain(Objective):
    """``Y = [tokens of the most similar items; tokens of the target]`` and, jointly, the direct decoder.

    Without similar items Y is the target alone, the slow decoder is the direct one, and one of them is trained.

    Args:
        model: trained in place; its ``steps`` become q.
        neighbours: the most similar other items of each item, [n_items + 1, C] ids (row 0 unused); the paper has C = 2.
        label_smoothing: see :func:`token_cross_entropy`.
    """

    name = "PT"

    def __init__(self, model: STREAMRecModel, neighbours: Tensor, label_smoothing: float) -> None:
        self.model, self.neighbours, self.label_smoothing = model, neighbours, label_smoothing
        model.share_reference()
        model.reference.decoder.requires_grad_(neighbours.shape[1] > 0)
        model.steps.fill_(neighbours.shape[1] * model.tokens.levels)

    def losses(self, batch: Batch) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        model, tokens = self.model, self.model.tokens
        similar = tokens.table[self.neighbours[batch.targets]].flatten(1)  # [B, q]
        target = tokens.table[batch.targets]  # [B, m]
        labels = torch.cat([similar, target], 1)  # Y of Eq. 9
        states, bias = model.encode(batch.histories)

        memory = model.decoder.stack.memory(states, bias)
        hidden = model.decoder(tokens.embedding(labels[:, None, :-1]), memory)[:, 0]
        slow = token_cross_entropy(tokens.logits(hidden), labels, self.label_smoothing)  # Eq. 10
        if not similar.shape[1]:
            yield slow, {}
            return

        decoder = model.reference.decoder
        hidden = decoder(tokens.embedding(target[:, None, :-1]), decoder.stack.memory(states, bias))[:, 0]
        direct = token_cross_entropy(tokens.logits(hidden), target, self.label_smoothing)
        yield slow + direct, {"slow": slow, "direct": direct}
