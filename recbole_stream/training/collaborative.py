"""Collaborative vectors of the items: what the training users say of them, without their texts.

LETTER and ETEGRec take them from a SASRec that was trained before. Here they are the item embeddings of the project's
matching tower without tokens and texts, trained on the training split alone: no validation user chooses its epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recbole_stream.cache import cached_arrays, content_hash
from recbole_stream.data.samples import Batch, Samples
from recbole_stream.model.backbone import BackboneConfig
from recbole_stream.model.matching import Matcher
from recbole_stream.training.fit_views import matching_loss
from recbole_stream.training.loop import Objective, StageContext, train_stage
from recbole_stream.training.schedule import Schedule

__all__ = ["NextItem", "collaborative_vectors", "content_of"]

_VERSION = 1  # raise when the same samples and settings would give other vectors


class NextItem(Objective):
    """Cross-entropy of the next item over the whole catalogue."""

    name = "collaborative"

    def __init__(self, model: Matcher) -> None:
        self.model = model

    def losses(self, batch: Batch) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        yield matching_loss(self.model, batch), {}


def content_of(samples: Samples) -> str:
    """A hash of training samples, for caches of what follows from them."""
    return content_hash(samples.histories.to_dense().cpu().numpy(), samples.targets.cpu().numpy())


def collaborative_vectors(
    samples: Samples,
    n_items: int,
    size: int,
    *,
    epochs: int = 20,
    seed: int,
    cache_dir: str | Path | None = None,
    device: str = "cpu",
    show_progress: bool = True,
) -> np.ndarray:
    """Item embeddings float32 [n_items, size], row i of item i + 1; cached by the samples. The random state is kept.

    Args:
        samples: the training split.
        n_items: without the padding item.
        size: of a vector; a multiple of 4, the heads of the encoder.
        epochs: passes over the samples.
        seed: of every random choice.
        cache_dir: folder of the cache; None stores nothing.
        device: where to train.
        show_progress: progress bars.
    """

    def compute() -> tuple[dict[str, np.ndarray], dict]:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            sizes = BackboneConfig(size, 4 * size, 4, size // 4, encoder_layers=2, dropout=0.3)
            one_token = torch.zeros(n_items + 1, 1, dtype=torch.long)  # which tells no item from another
            model = Matcher(sizes, one_token, 1, None).to(device)
            schedule = Schedule(epochs, 2e-3, weight_decay=0.01, warmup_steps=200, eval_step=epochs, seed=seed)
            last = StageContext(lambda: {"epochs": epochs}, "epochs", show_progress=show_progress)
            train_stage(model, NextItem(model), schedule, samples.to(device), last)
        return {"vectors": model.own.weight[1:].detach().cpu().numpy()}, {}

    key = content_hash(_VERSION, content_of(samples), [n_items, size, epochs, seed])
    return cached_arrays(cache_dir, "collaborative", key, compute)[0]["vectors"]
