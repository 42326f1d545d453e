"""Training of Latte: TIGER's cross-entropy after a start token that is drawn for each sample."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from recbole_stream.data.samples import Batch
from recbole_stream.model.rivals.latte import LatteModel
from recbole_stream.training.loop import Objective
from recbole_stream.training.losses import token_cross_entropy

__all__ = ["Latent"]


class Latent(Objective):
    """Cross-entropy over the target's m tokens, from a random one of S starts.

    Args:
        model: trained in place.
        label_smoothing: see :func:`token_cross_entropy`.
    """

    name = "Latte"

    def __init__(self, model: LatteModel, label_smoothing: float) -> None:
        self.model, self.label_smoothing = model, label_smoothing

    def losses(self, batch: Batch) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        number = self.model.latents.num_embeddings
        drawn = (batch.uniform() * number).long().clamp(max=number - 1)
        logits = self.model.latent_logits(batch.histories, batch.targets, drawn)
        yield token_cross_entropy(logits, self.model.tokens.table[batch.targets], self.label_smoothing), {}
