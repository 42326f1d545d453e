"""Why items are recommended, as columns of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow

from recbole_stream.serving.contributions import NAMES

__all__ = ["REASONS", "flat"]

_NUMBER, _NAME, _COUNT = pyarrow.float64(), pyarrow.string(), pyarrow.int32()

REASONS = pyarrow.schema(
    [
        ("words", _NAME),  # a sentence
        # the score is the sum of these: 0 where a view does not count
        ("base", _NUMBER),
        *((f"by_{view}", _NUMBER) for view in NAMES),
        ("by_verifier", _NUMBER),
        # the strongest evidence of each kind; empty where there is none
        ("followed", _NAME),  # an item of the history
        ("followed_times", _NUMBER),
        ("followed_share", _NUMBER),
        ("reads_like", _NAME),  # an item of the history
        ("similarity", _NUMBER),
        ("match_rank", _COUNT),
        ("match_probability", _NUMBER),
        ("log_probability", _NUMBER),  # of the item's tokens together
        ("had", pyarrow.bool_()),
    ]
)


def flat(whys: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The columns of :data:`REASONS`, one cell for each item.

    Args:
        whys: of :meth:`recbole_stream.serving.explain.Explainer.why`, one for each item.
    """
    columns: dict[str, list[Any]] = {name: [] for name in REASONS.names}
    for why in whys:
        for name, cell in _row(why).items():
            columns[name].append(cell)
    return columns


def _row(why: Mapping[str, Any]) -> dict[str, Any]:
    followed, reads_like = (next(iter(why[key]), {}) for key in ("followed", "reads_like"))
    match, tokens = why["match"] or {}, why["tokens"]
    return {
        "words": why["words"],
        "base": why["base"],
        **{f"by_{view}": why["views"].get(view, 0.0) for view in NAMES},
        "by_verifier": why["verifier"],
        "followed": followed.get("item"),
        "followed_times": followed.get("times"),
        "followed_share": followed.get("share"),
        "reads_like": reads_like.get("item"),
        "similarity": reads_like.get("similarity"),
        "match_rank": match.get("rank"),
        "match_probability": match.get("probability"),
        "log_probability": sum(token["log_probability"] for token in tokens) if tokens else None,
        "had": why["had"],
    }
