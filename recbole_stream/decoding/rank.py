"""From histories to ranked items, for both models."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_stream.data.samples import trim
from recbole_stream.decoding.beam import beam_search, score_items
from recbole_stream.decoding.trie import Trie
from recbole_stream.model.allocator import keep_freed_memory
from recbole_stream.model.prefix import Prefix
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.model.tiger import TIGERModel

__all__ = ["item_log_probs", "rank_items", "thought"]

# prefixes that are read at once on a CPU: the activations of more do not fit into its caches
_PREFIXES = 4096


def thought(model: TIGERModel | STREAMRecModel, histories: Tensor) -> Prefix:
    """The prefix right before the item's first token: after the reasoning where the model reasons."""
    prefix = model.begin(histories)
    return model.think(prefix)[1] if isinstance(model, STREAMRecModel) else prefix


@torch.no_grad()
def rank_items(
    model: TIGERModel | STREAMRecModel, histories: Tensor, trie: Trie, beams: int, top: int | None = None
) -> tuple[Tensor, Tensor]:
    """The most likely next items (2.4), by beam search.

    Args:
        histories: item ids [B, L], 0 as padding on the right.
        trie: of the catalogue.
        beams: width of the search; it is as wide as ``top`` where that is more.
        top: items wanted, by default as many as beams.

    Returns:
        items [B, W] best first and log P(item | history, reasoning) [B, W]; see :func:`beam_search`.
    """
    keep_freed_memory()
    beams = max(beams, top or 0)
    if not histories.is_cpu:
        return beam_search(thought(model, histories), trie, beams, top)
    found = []
    for part in histories.split(max(1, _PREFIXES // beams)):
        found.append(beam_search(thought(model, trim(part)), trie, beams, top))
    items, scores = zip(*found)
    return torch.cat(items), torch.cat(scores)


@torch.no_grad()
def item_log_probs(model: TIGERModel | STREAMRecModel, histories: Tensor, items: Tensor) -> Tensor:
    """Exact log P(item | history, reasoning) for items [B, C], without any search."""
    return score_items(thought(model, histories), items)
