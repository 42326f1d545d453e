"""The reward of a completion: where the retrieval puts the target, and whether the completion has the form asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from recbole_stream.llm.prompt import well_formed

__all__ = ["ndcg", "rec_r1_reward", "reward_function"]


def ndcg(place: int, depth: int) -> float:
    """NDCG@depth with one target: 1 / log2(1 + place).

    Args:
        place: of the target, from 1; 0 where it was not ranked.
        depth: places that count.
    """
    return 1 / math.log2(1 + place) if 1 <= place <= depth else 0.0


def rec_r1_reward(completion: str, place: int, depth: int, format_weight: float) -> float:
    """NDCG of the target plus ``format_weight`` for a completion that is :func:`well_formed`.

    Rec-R1's published code adds 0.1 for the form, too, but only to an NDCG above 0, and gives a malformed completion -2
    and no ranking. Here that has what it finds: a small model that does not close a tag still stands in the table.
    """
    return ndcg(place, depth) + format_weight * well_formed(completion)


def reward_function(
    places: Callable[[str], np.ndarray], depth: int, format_weight: float
) -> Callable[..., list[float]]:
    """:func:`rec_r1_reward` as TRL calls it.

    Args:
        places: completion -> the place of every item, from 1 [n]; see :func:`places_of`.
        depth, format_weight: of :func:`rec_r1_reward`.

    Returns:
        a function of ``completions`` (texts, or the messages of a chat) and ``target`` (items from 0), which gives a
        reward for each.
    """

    def rec_r1(completions: Sequence[Any], target: Sequence[int], **_: Any) -> list[float]:
        texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
        return [rec_r1_reward(text, int(places(text)[item]), depth, format_weight) for text, item in zip(texts, target)]

    return rec_r1
