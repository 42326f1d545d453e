"""Training of the pointer, on the prefixes of training sequences that the memory does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from recbole_stream.data.samples import Samples, sequence_ends
from recbole_stream.model.deliberation import VIEWS, Deliberation
from recbole_stream.model.lookup import Transitions
from recbole_stream.model.pointer import FEATURES, Pairs, Pointer
from recbole_stream.model.verifier import Scorer
from recbole_stream.seeds import mix
from recbole_stream.training.fit_verifier import fit_scorer
from recbole_stream.training.processes import broadcast

__all__ = ["Memory", "fit_pointer", "unknown_parts"]

_FOLDS = 10
_PREFIXES = 100_000  # from which the pointer learns, at most
_ROWS = 128  # of which candidates are found at once


@dataclass
class Memory:
    """What is remembered of training sequences.

    Attributes:
        transitions: see there.
        pairs: more of the same pairs.
        popularity: training events of every item [n_items + 1].
    """

    transitions: Transitions
    pairs: Pairs
    popularity: Tensor


def unknown_parts(samples: Samples, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of the sequences, each with all others: rows to remember, and rows to learn from, which these do not know.

    There are ten parts, and each sequence is as a whole in one of them. Parts end where they have enough prefixes together,
    so that a large log is counted again once, not ten times.

    Args:
        samples: the prefixes of sequences, one after another.
        seed: of which sequence is where.
    """
    ends = sequence_ends(samples)
    sequence = ends.unique(return_inverse=True)[1]
    draws = torch.Generator().manual_seed(seed)
    part = torch.randperm(int(sequence.max()) + 1, generator=draws).remainder(_FOLDS)[sequence]
    left = _PREFIXES
    for fold in range(min(_FOLDS, int(part.max()) + 1)):
        rows = (part == fold).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=draws)[:left]]
        if len(rows):
            yield (part != fold).nonzero()[:, 0], rows
        left -= len(rows)


def fit_pointer(
    slow: Deliberation,
    samples: Samples,
    remember: Callable[[Samples], Memory],
    candidates: int,
    seed: int,
    show_progress: bool = False,
) -> str:
    """Train the pointer of a deliberation to find the next item among the candidates that the memory brings.

    Each prefix is looked up in a memory of other sequences, without the matching tower, which knows what comes next in
    all of them.

    Args:
        slow: with a pointer; it keeps its memory.
        samples: the training split, on the device of ``slow``.
        remember: makes the memory of some samples.
        candidates: how many a prefix has.
        seed: of the parts, and of the network and its training.
        show_progress: progress bar.

    Returns:
        what to log.
    """
    found: list[tuple[Tensor, Tensor]] = []
    counted = samples.to("cpu")
    parts = unknown_parts(samples, mix(seed, "pointer"))
    for known, rows in tqdm(parts, desc="point", ncols=100, total=_FOLDS, disable=not show_progress, leave=False):
        found += _lists(_reader(slow, remember(counted.take(known))), samples, rows, candidates)
    features, targets = (torch.cat(lists) for lists in zip(*found))
    if not len(targets):
        return "no training prefix has its item among the candidates; the pointer has learnt nothing"

    def learnt() -> dict[str, Tensor]:
        present = torch.ones(features.shape[:2], dtype=torch.bool)
        network = Scorer(FEATURES, slow.pointer.size)
        fit_scorer(network, features, targets, present, mix(seed, "pointer"))
        return network.state_dict()

    slow.pointer.load_state_dict(broadcast(learnt))
    return f"{len(targets)} training prefixes have their item among the candidates"


def _reader(slow: Deliberation, memory: Memory) -> Deliberation:
    """A deliberation that reads another memory, and no matching tower."""
    off = [view for view, used in zip(VIEWS, slow.used) if not used]
    pointer = Pointer(slow.pointer.size, memory.pairs, memory.popularity)
    reader = Deliberation(
        slow.matcher, memory.transitions, slow.content, (*off, "likelihood", "matching"), None, pointer
    )
    return reader.to(slow.weights.device)


@torch.no_grad()
def _lists(reader: Deliberation, samples: Samples, rows: Tensor, candidates: int) -> Iterator[tuple[Tensor, Tensor]]:
    """What the pointer reads of the candidates of those samples whose target is among them, and the target's place."""
    for batch in samples.ordered(_ROWS, rows):
        seen = reader.views_of(batch.histories)
        items = seen.candidates(candidates, reader.weights[1:].tolist())
        hits = items == batch.targets[:, None]
        some = hits.any(1)
        blank = torch.zeros(*items.shape, 1, device=items.device)
        features = reader.pointed(seen, items, torch.cat([blank, seen.of(items)], -1))
        yield features[some].cpu(), hits[some].float().argmax(1).cpu()
