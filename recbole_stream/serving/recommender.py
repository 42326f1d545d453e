"""Histories of raw item names in, a table of recommendations out."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recbole_stream.data.histories import padded
from recbole_stream.data.seen import Seen
from recbole_stream.decoding.ranker import Ranker
from recbole_stream.errors import InputError
from recbole_stream.serving.explain import Explainer
from recbole_stream.serving.folder import Parts, is_model, read_model
from recbole_stream.serving.networks import build_ranker

__all__ = ["OPENERS", "Recommender", "Scorer"]

History = str | Sequence[str]

_ROWS = 256  # histories ranked at once

# what only RecBole can open: "run" -> a run's folder to the folder of its exported best row, a model's kind -> its scorer;
# filled by the room that knows RecBole, where it is installed
OPENERS: dict[str, Callable[..., Any]] = {}


class Scorer(Protocol):
    """What a recommender asks of a model; see :class:`recbole_stream.decoding.ranker.Ranker`."""

    def rank(self, histories: Tensor, top: int, seen: Seen | None = None) -> tuple[Tensor, Tensor]: ...

    def scores(self, histories: Tensor, items: Tensor) -> Tensor: ...


class Recommender:
    """A trained model that speaks the names of items and users.

    Attributes:
        parts: the folder's content; ``parts.config`` says what the model is.
        items: names of the items; number i of the model is ``items[i - 1]``.
        titles: of the items, empty strings where there are none.
        scorer: the model proper.
        device: where it computes.
    """

    def __init__(self, parts: Parts, device: str | torch.device = "cpu") -> None:
        self.parts, self.device = parts, torch.device(device)
        self.items = parts.items["item"].astype(str).tolist()
        self.titles = parts.items["title"].fillna("").astype(str).tolist()
        self._number = {item: number for number, item in enumerate(self.items, 1)}
        self._user = {user: row for row, user in enumerate(parts.users["user"].astype(str))}
        kind = parts.config.get("kind")
        if kind is None:
            self.scorer: Scorer = build_ranker(parts.config, parts.tensors, self.device)
        elif kind in OPENERS:
            self.scorer = OPENERS[kind](parts, self.device)
        else:
            raise InputError(
                f"The model is {parts.config.get('model')}, which is RecBole's own: `pip install --no-deps "
                "recbole==1.2.1`."
            )

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device | None = None) -> Recommender:
        """Open a model's folder; or a run's, whose best row is exported into it first.

        Args:
            path: the folder.
            device: where to compute; by default on a GPU where there is one.

        Raises:
            InputError: there is no model, or a damaged one, or no such device.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        _check_device(device)
        if not Path(path).is_dir():
            raise InputError(f"There is no folder {path}: name a model that was exported, or the folder of a run.")
        if not is_model(path) and (Path(path) / "results.json").is_file():
            if "run" not in OPENERS:
                raise InputError(
                    f"{path} is the folder of a run: export it where RecBole is installed, by `python -m recbole_stream "
                    "export`."
                )
            path = OPENERS["run"](path)
        return cls(read_model(path), device)

    @property
    def leave_out_seen(self) -> bool:
        """Whether the run's own evaluation left out what users had before."""
        return bool(self.parts.config.get("leave_out_seen"))

    def recommend(
        self,
        histories: Sequence[History],
        k: int = 10,
        exclude_seen: bool = True,
        candidates: Sequence[str] | Sequence[Sequence[str]] | None = None,
        explain: bool = False,
    ) -> pd.DataFrame:
        """The best next items of each history.

        Args:
            histories: lists of item names, in time, of any length; or names of users of the training data, each a string,
                for all that is known of them. Unknown items are left out, counted in ``attrs["unknown_items"]`` and
                logged.
            k: how many items a history, at most; there may be fewer, of ``candidates`` or where all else was seen.
            exclude_seen: leave out what the history holds, or all that the user had.
            candidates: names of the items to rank, for all histories, or a list for each; None for all items.
            explain: say why, which takes several times as long.

        Returns:
            a row for each history and place: ``row`` (of the history, from 0), ``rank`` (1 is best), ``item``, ``title``
            and ``score``; with ``explain`` also ``why``, a dictionary, see
            :meth:`recbole_stream.serving.explain.Explainer.why`.

        Raises:
            InputError: no histories, one without a known item, an unknown user or candidate, an impossible k, or
                ``explain`` of a model of RecBole.
        """
        self._check(histories, k)
        explainer = self.explainer if explain else None
        numbers, unknown = self.numbers(histories)
        pools = None if candidates is None else self._pools(candidates, len(histories))
        order = np.argsort([len(history) for history in numbers], kind="stable")  # little padding
        found: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0))] * len(numbers)
        for start in range(0, len(order), _ROWS):
            rows = order[start : start + _ROWS]
            some = [numbers[row] for row in rows]
            if pools is None:
                items, scores = self._rank(some, k, exclude_seen)
            else:
                items, scores = self._rerank(some, [pools[row] for row in rows], k, exclude_seen)
            for row, own_items, own_scores in zip(rows, items.cpu().numpy(), scores.cpu().numpy()):
                kept = np.isfinite(own_scores) & (own_items > 0)
                found[row] = own_items[kept], own_scores[kept]
        table = self._table(found)
        if explainer is not None:
            reasons = explainer.why(numbers, [items.astype(int).tolist() for items, _ in found])
            table["why"] = [why for own in reasons for why in own]
        table.attrs["unknown_items"] = unknown
        return table

    @functools.cached_property
    def explainer(self) -> Explainer:
        """What says why.

        Raises:
            InputError: the model is RecBole's own.
        """
        if not isinstance(self.scorer, Ranker):
            raise InputError(
                f"{self.parts.config.get('model')} is RecBole's own model, which gives scores without reasons: explain "
                "STREAMRec or TIGER."
            )
        text, centre = (self.parts.tensors.get(name) for name in ("text", "text_centre"))
        return Explainer(self.scorer, self.items, self.titles, text, centre)

    def numbers(self, histories: Sequence[History]) -> tuple[list[list[int]], int]:
        """Histories as item numbers, and how many unknown items were left out of them.

        Raises:
            InputError: a history has no known item, or a user is unknown.
        """
        result, unknown = [], 0
        for row, history in enumerate(histories):
            if isinstance(history, str):
                result.append(self.history_of(history))
                continue
            items = [self._number.get(str(item), 0) for item in history]
            known = [item for item in items if item]
            unknown += len(items) - len(known)
            if not known:
                what = f"holds only unknown items, such as {history[0]!r}" if len(history) else "is empty"
                raise InputError(f"History {row} {what}: give at least one of the model's {len(self.items):,} items.")
            result.append(known)
        if unknown:
            logging.getLogger(__name__).warning(
                f"{unknown:,} events with items that the model does not know are left out."
            )
        return result, unknown

    def history_of(self, user: str) -> list[int]:
        """Numbers of all items that a user of the training data had, in time.

        Raises:
            InputError: there is no such user.
        """
        if user not in self._user:
            raise InputError(
                f"The model knows no user {user!r}: name one of the {len(self._user):,} of its training, or give a list "
                f"of items, [{user!r}] if that is an item."
            )
        return [int(item) for item in self.parts.users["items"].iloc[self._user[user]]]

    def __contains__(self, item: str) -> bool:
        """Whether the model knows an item."""
        return item in self._number

    @functools.cached_property
    def fingerprint(self) -> str:
        """Another one for another model."""
        digest = hashlib.sha256("\n".join(self.items).encode())
        for name in sorted(self.parts.tensors):
            digest.update(self.parts.tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def check_top(self, k: int) -> None:
        """Whether so many items can be asked for.

        Raises:
            InputError: they cannot.
        """
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= len(self.items):
            raise InputError(f"k is {k!r}, but must be a whole number from 1 to the {len(self.items)} items there are.")

    def _check(self, histories: Sequence[History], k: int) -> None:
        if isinstance(histories, str):
            raise InputError(f"histories is {histories!r}, but must be a list of histories: write [{histories!r}].")
        if not len(histories):
            raise InputError("There are no histories: give at least one.")
        self.check_top(k)

    def _pools(self, candidates: Sequence, rows: int) -> list[list[int]]:
        lists = [candidates] * rows if len(candidates) and isinstance(candidates[0], str) else candidates
        if len(lists) != rows or not all(len(own) for own in lists):
            raise InputError(
                f"candidates must be a list of items, or one list for each of the {rows} histories, none of them empty."
            )
        unknown = [item for own in lists for item in own if str(item) not in self._number]
        if unknown:
            raise InputError(f"The model knows no item {unknown[0]!r}, which is among candidates: leave it out.")
        return [[self._number[str(item)] for item in dict.fromkeys(own)] for own in lists]

    def _rank(self, histories: list[list[int]], k: int, exclude_seen: bool) -> tuple[Tensor, Tensor]:
        seen = self._seen(histories) if exclude_seen else None
        return self.scorer.rank(padded(histories, self.device), k, seen)

    def _rerank(
        self, histories: list[list[int]], pools: list[list[int]], k: int, exclude_seen: bool
    ) -> tuple[Tensor, Tensor]:
        items = padded(pools, self.device)
        scores = self.scorer.scores(padded(histories, self.device), items).masked_fill(items == 0, -torch.inf)
        if exclude_seen:
            scores = scores.masked_fill(self._seen(histories).contains(items), -torch.inf)
        best, order = scores.topk(min(k, items.shape[1]), 1)
        return items.gather(1, order), best

    def _seen(self, histories: list[list[int]]) -> Seen:
        counts = torch.tensor([len(history) for history in histories])
        events = torch.tensor([item for history in histories for item in history])
        return Seen(events, counts.cumsum(0) - counts, counts).to(self.device)

    def _table(self, found: list[tuple[np.ndarray, np.ndarray]]) -> pd.DataFrame:
        counts = [len(items) for items, _ in found]
        numbers = np.concatenate([items for items, _ in found]).astype(int)
        return pd.DataFrame(
            {
                "row": np.repeat(np.arange(len(found)), counts),
                "rank": np.concatenate([np.arange(1, count + 1) for count in counts]),
                "item": [self.items[number - 1] for number in numbers],
                "title": [self.titles[number - 1] for number in numbers],
                "score": np.concatenate([scores for _, scores in found]).astype(float),
            }
        )


def _check_device(device: str | torch.device) -> None:
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError):  # the latter where PyTorch was built without CUDA
        raise InputError(f"There is no device {str(device)!r} here: name cpu, or cuda where there is a GPU.") from None
