"""Why an item is recommended, as one sentence that a shop could show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["chance", "name_of", "ordinal", "percent", "sentence"]

_HAD = "it is in the history already"
_LONG, _END = 56, 18  # letters of a title, and of its end where it is cut
_RAREST = math.log(1e12)  # beyond, 1 in so many says no more
_OFTEN, _ALIKE = 3.0, 0.5  # weighted count from which on "often" is true, and cosine from which on texts read alike


def name_of(item: Mapping[str, Any]) -> str:
    """Its title in quotation marks, or its name where it has none.

    Long titles lose their middle: those of one product in many colours differ at their end.
    """
    title = item["title"]
    if len(title) > _LONG:
        title = f"{title[: _LONG - _END - 1].rstrip()}…{title[-_END:].lstrip()}"
    return f"“{title}”" if title else str(item["item"])


def sentence(why: Mapping[str, Any], n_items: int) -> str:
    """The two strongest reasons for an item in plain words.

    A view gives a reason where it adds to the score and has something to show; where none adds anything, the one that
    takes least away. That an item is in the history is said in any case.

    Args:
        why: of :meth:`recbole_stream.serving.explain.Explainer.why`, without ``words``.
        n_items: in the catalogue.
    """
    order = sorted(why["views"], key=lambda view: -why["views"][view])
    reasons: dict[str, float] = {}  # transitions and the pointer may give the same one
    for view in order:
        if words := _reason(view, why, n_items):
            reasons.setdefault(words, why["views"][view])
    said = [words for words, added in reasons.items() if added > 0][:2] or list(reasons)[:1]
    if why["had"] and _HAD not in said:
        said.append(_HAD)
    if not said:
        return "Nothing in the history speaks for it in particular."
    text = ", and ".join(said)
    return text[0].upper() + text[1:] + "."


def _reason(view: str, why: Mapping[str, Any], n_items: int) -> str:
    if view in ("transitions", "pointer") and why["followed"]:
        often = "often " if sum(one["times"] for one in why["followed"]) >= _OFTEN else ""
        return f"it {often}followed " + " and ".join(map(name_of, why["followed"][:2]))
    if view in ("text", "pointer") and why["reads_like"] and why["reads_like"][0]["similarity"] >= _ALIKE:
        return f"it reads like {name_of(why['reads_like'][0])}"
    if view == "matching" and why["match"]:
        rank = why["match"]["rank"]
        best = "best" if rank == 1 else f"{ordinal(rank)} best"
        return f"it matches the history {best} of {n_items:,} items"
    if view == "repeats" and why["had"]:
        return _HAD
    if view == "likelihood" and why["tokens"]:
        return f"the model writes its tokens with a chance of {chance(why['values'][view])}"
    return ""


def chance(log_probability: float) -> str:
    """A probability as it is said: 24%, or 1 in 2,600."""
    if log_probability >= math.log(0.01):
        return percent(math.exp(log_probability))
    return f"1 in {float(f'{math.exp(min(-log_probability, _RAREST)):.2g}'):,.0f}"


def percent(share: float) -> str:
    """A share with two digits."""
    return f"{100 * share:.2g}%" if share < 0.995 else f"{100 * share:.1f}%"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, .."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number:,}{ending}"
