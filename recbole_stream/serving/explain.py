"""Why items are recommended: what each view adds, what of the history speaks for them, and the reasoning written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_stream.data.histories import padded, right_padded
from recbole_stream.decoding.beam import token_log_probs
from recbole_stream.decoding.rank import thought
from recbole_stream.decoding.ranker import Ranker
from recbole_stream.model.lookup import Content, recency_weights
from recbole_stream.serving.contributions import contributions
from recbole_stream.serving.evidence import Evidence, followed, mid_ranks
from recbole_stream.serving.thinking import Thinking, think
from recbole_stream.serving.words import sentence

__all__ = ["Explainer"]

_NAMED = 3  # items of the history that are named as evidence
_ROWS, _CATALOGUE = 64, 1 << 22  # limits of what is explained at once: histories, and their scores of all items


class Explainer:
    """A ranker that says why.

    Args:
        ranker: of a STREAM-Rec or TIGER.
        items: names of items 1 .. n_items.
        titles: of the items, empty where there are none.
        text: embeddings of the items' texts [n_items, D]; None without text.
        centre: what is taken off each [D]; their mean by default.
    """

    def __init__(
        self,
        ranker: Ranker,
        items: Sequence[str],
        titles: Sequence[str],
        text: Tensor | None = None,
        centre: Tensor | None = None,
    ) -> None:
        self.ranker, self.items, self.titles = ranker, items, titles
        self.slow = getattr(ranker.network, "deliberation", None)
        self.device = ranker.network.tokens.table.device
        self.unit: Tensor | None = None  # [n_items + 1, D]
        if text is not None:
            centre = None if centre is None else centre.to(self.device)
            self.unit = Content(F.pad(text.to(self.device), (0, 0, 1, 0)), 1.0, centre).unit

    def named(self, item: int) -> dict[str, Any]:
        """``item`` and ``title`` of an item's number."""
        return {"item": self.items[item - 1], "title": self.titles[item - 1]}

    def why(self, histories: Sequence[Sequence[int]], items: Sequence[Sequence[int]]) -> list[list[dict[str, Any]]]:
        """What speaks for items, each a dictionary in the types of JSON.

        * ``views``: view -> what it adds to the score; ``verifier``: what its own features add; ``base``: the score of
          an item for which nothing speaks. They sum to the score; see :mod:`recbole_stream.serving.contributions`.
        * ``values``: view -> its value.
        * ``followed``: items of the history after which this one came in other sequences, by what they add to the view
          ``transitions``: ``item``, ``title``, ``times`` (weighted count) and ``share`` (of all that came after).
        * ``reads_like``: items of the history by the cosine of the texts: ``item``, ``title``, ``similarity``.
        * ``match``: by the state alone, ``rank`` among all items and ``probability``; None where no state is trained.
        * ``tokens``: the item's tokens with ``level``, ``code`` and ``log_probability``; None where nothing is written.
        * ``had``: whether it is in the history.
        * ``words``: a sentence.

        Args:
            histories: item numbers, in time, of any length.
            items: numbers of the items to explain, for each history.
        """
        rows = max(1, min(_ROWS, _CATALOGUE // len(self.items)))
        found: list[list[dict[str, Any]]] = []
        for start in range(0, len(histories), rows):
            found += self._why(histories[start : start + rows], items[start : start + rows])
        return found

    def thinking(self, histories: Sequence[Sequence[int]]) -> list[list[dict[str, Any]]]:
        """The reasoning written after each history, step by step, in the types of JSON; empty where none is written.

        The first step is before any token. ``token`` has ``level``, ``code`` and ``probability`` (None in the first),
        ``nearest`` the items nearest to the state that is reached: ``item``, ``title`` and ``similarity``; see
        :class:`recbole_stream.serving.thinking.Thinking`.
        """
        found: list[list[dict[str, Any]]] = []
        for history in histories:
            thinking = think(self.ranker.network, right_padded(padded([history], self.device), self.ranker.longest))
            found.append([] if thinking is None else self._steps(thinking))
        return found

    def _steps(self, thinking: Thinking) -> list[dict[str, Any]]:
        offsets = self.ranker.network.tokens.offsets
        steps, written = [], zip(thinking.tokens[0], thinking.probabilities[0])
        for near in thinking.similarities[0]:
            token, probability = next(written) if steps else (None, None)
            spoken = None
            if token is not None:
                level = int((offsets <= token).sum())
                spoken = {"level": level, "code": int(token - offsets[level - 1]), "probability": float(probability)}
            best = near.topk(min(_NAMED, len(near) - 1))
            nearest = [
                self.named(int(item)) | {"similarity": float(cosine)} for cosine, item in zip(best.values, best.indices)
            ]
            steps.append({"token": spoken, "nearest": nearest})
        return steps

    @torch.no_grad()
    def _why(self, histories: Sequence[Sequence[int]], items: Sequence[Sequence[int]]) -> list[list[dict[str, Any]]]:
        read = right_padded(padded(histories, self.device), self.ranker.longest)
        wanted = padded(items, self.device).clamp(min=1)  # a shorter list goes on with item 1, which is cut off below
        parts = contributions(self.ranker, read, wanted)
        evidence = self._evidence(read, wanted, parts.names)
        result = []
        for row, own in enumerate(items):
            latest = {int(item): place for place, item in enumerate(read[row]) if item}
            had, every = set(histories[row]), []
            for place, item in enumerate(own):
                why: dict[str, Any] = {
                    "views": dict(zip(parts.names, parts.views[row, place].tolist())),
                    "verifier": float(parts.verifier[row, place]),
                    "base": float(parts.base[row, place]),
                    "values": dict(zip(parts.names, parts.values[row, place].tolist())),
                    **self._spoken(evidence, row, place, latest),
                    "had": int(item) in had,
                }
                every.append(why | {"words": sentence(why, len(self.items))})
            result.append(every)
        return result

    def _evidence(self, read: Tensor, items: Tensor, views: Sequence[str]) -> Evidence:
        """Of histories [B, L] and items [B, C], where these views count."""
        found, network = Evidence(), self.ranker.network
        if self.slow is not None:
            found.times, found.shares = followed(self.slow.transitions, read, items)
            found.weights = recency_weights(read, self.slow.transitions.recency)
            if "matching" in views:
                chances = self.slow.matcher(read).softmax(-1)
                found.ranks, found.chances = mid_ranks(chances, items), chances.gather(1, items)
        if self.unit is not None:
            found.cosines = self.unit[read] @ self.unit[items].transpose(1, 2)
        if "likelihood" in views:
            found.codes = network.tokens.codes(network.tokens.table[items])
            found.log_probs = token_log_probs(thought(network, read), items)
        return found

    def _spoken(self, evidence: Evidence, row: int, place: int, latest: Mapping[int, int]) -> dict[str, Any]:
        """The evidence for one item as JSON; ``latest`` are the history's items with their (last) places in it."""
        spoken: dict[str, Any] = {"followed": [], "reads_like": [], "match": None, "tokens": None}
        if evidence.times is not None:
            times, shares = evidence.times[row, :, place], evidence.shares[row, :, place]
            added = (shares * evidence.weights[row]).tolist()
            for item in sorted(latest, key=lambda item: -added[latest[item]])[:_NAMED]:
                if added[latest[item]] > 0:
                    numbers = {"times": float(times[latest[item]]), "share": float(shares[latest[item]])}
                    spoken["followed"].append(self.named(item) | numbers)
        if evidence.cosines is not None:
            cosines = evidence.cosines[row, :, place].tolist()
            for item in sorted(latest, key=lambda item: -cosines[latest[item]])[:_NAMED]:
                if cosines[latest[item]] > 0:
                    spoken["reads_like"].append(self.named(item) | {"similarity": cosines[latest[item]]})
        if evidence.ranks is not None:
            probability = float(evidence.chances[row, place])
            spoken["match"] = {"rank": int(evidence.ranks[row, place]), "probability": probability}
        if evidence.log_probs is not None:
            pairs = zip(evidence.codes[row, place].tolist(), evidence.log_probs[row, place].tolist())
            spoken["tokens"] = [
                {"level": level, "code": code, "log_probability": value} for level, (code, value) in enumerate(pairs, 1)
            ]
        return spoken
