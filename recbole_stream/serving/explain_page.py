"""A page that shows what a model thinks of some histories; it stands alone and needs no script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from recbole_stream.reporting.page import heading, note, page
from recbole_stream.serving.words import chance, name_of, ordinal, percent

__all__ = ["Case", "explanation_page"]

_HISTORY = 40  # the latest items that are listed

_UNREAD, _TRUE = ' class="unread"', ' class="true"'

_STYLE = """
:root { --likelihood: #1f7fb5; --matching: #0b3c8c; --transitions: #c27300; --text-view: #00755a; --repeats: #a3407c;
  --pointer: #8a5a00; --verifier: #6f6f6f; --mark: #fff3c4 }
@media screen and (prefers-color-scheme: dark) {
  :root { --likelihood: #7cc6f0; --matching: #5b8def; --transitions: #f0a940; --text-view: #35c19a; --repeats: #e08cc0;
    --pointer: #c9a227; --verifier: #a8a8a8; --mark: #4a3f10 }
}
.likelihood { fill: var(--likelihood); background: var(--likelihood) }
.matching { fill: var(--matching); background: var(--matching) }
.transitions { fill: var(--transitions); background: var(--transitions) }
.text { fill: var(--text-view); background: var(--text-view) }
.repeats { fill: var(--repeats); background: var(--repeats) }
.pointer { fill: var(--pointer); background: var(--pointer) }
.verifier { fill: var(--verifier); background: var(--verifier) }
.rank-bar { fill: var(--faint) }
.axis { stroke: var(--text) }
ol.history { columns: 22rem; column-gap: 2rem; margin: 0; padding-left: 2.25rem; font-size: .875rem }
ol.history li { break-inside: avoid }
ol.history .unread { color: var(--faint) }
.items { width: 100%; font-size: .875rem }
.items td { padding: .5rem }
.items .place { text-align: right; width: 2.5rem }
.items .bar { width: 36% }
.items svg { display: block; width: 100%; height: 1.1rem; margin: .15rem 0 .35rem }
.items small { display: block; color: var(--faint); overflow-wrap: anywhere }
.items tr.true td { background: var(--mark) }
.badge { border: 1px solid; border-radius: .25rem; padding: 0 .35rem; font-size: .75rem; white-space: nowrap }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .5rem 0; padding: 0; list-style: none; font-size: .8125rem }
.legend span { display: inline-block; width: .8rem; height: .8rem; margin-right: .35rem; border-radius: .15rem;
  vertical-align: -.05rem; print-color-adjust: exact; -webkit-print-color-adjust: exact }
.standing td, .thinking td { padding: .25rem .75rem .25rem 0 }
.standing .number { text-align: right }
.standing svg { display: block; width: 14rem; height: .9rem; margin-top: .15rem }
@media (max-width: 45rem) { .standing svg { width: 8rem } .items .bar { width: 45% } .items td { padding: .35rem .25rem } }
"""


@dataclass
class Case:
    """One history and what the model makes of it.

    Attributes:
        name: of the user or the history; the heading.
        history: items in time, ``item`` and ``title`` each.
        read: how many of them, the latest, the model reads.
        items: recommended, best first: ``item``, ``title``, ``score``, ``why``.
        thinking: of :meth:`recbole_stream.serving.explain.Explainer.thinking`.
        truth: the item that came next, where it is known.
        standing: of :func:`recbole_stream.serving.held_out.standing`.
    """

    name: str
    history: Sequence[Mapping[str, Any]]
    read: int
    items: Sequence[Mapping[str, Any]]
    thinking: Sequence[Mapping[str, Any]] = ()
    truth: Mapping[str, Any] | None = None
    standing: Sequence[tuple[str, float]] = field(default_factory=tuple)


def explanation_page(title: str, summary: str, cases: Sequence[Case], n_items: int) -> str:
    """The whole file.

    Args:
        title, summary: of the page.
        cases: one section each.
        n_items: in the catalogue.
    """
    sections = [("How to read this page", _guide(cases))]
    sections += [(f"{number}. {case.name}", _case(case, n_items)) for number, case in enumerate(cases, 1)]
    return page(title, summary, sections, _STYLE)


def _guide(cases: Sequence[Case]) -> str:
    first = next(item["why"] for case in cases for item in case.items)
    verified = any(item["why"]["verifier"] for case in cases for item in case.items)
    if verified:
        start = (
            "an average candidate: the verifier, a small network, scores the candidates, and each view's bar is its exact "
            "Shapley value. The bar “verifier” is what it adds by popularity and by the most similar item of the history"
        )
    else:
        start = "an item for which nothing speaks"
    text = (
        f"A bar shows what each view adds to an item's score or takes away from it, to the right and to the left of "
        f"{start}. Base and bars sum to the score. How often an item followed another is a weighted count: directly after "
        "it counts 1, further away less, before it less as well."
    )
    if not verified and _only_likelihood_against(cases):
        text += (
            " Bars to the left, even of the best items, say that each is less probable than if all items were alike: the "
            "model gives much of its probability to tokens that are no item."
        )
    if not any(case.thinking for case in cases):
        text += " This model writes no reasoning tokens before it recommends."
    legend = "".join(
        f'<li><span class="{escape(view)}"></span>{escape(view)}</li>'
        for view in [*first["views"], *(["verifier"] if verified else [])]
    )
    return note(text) + f'<ul class="legend">{legend}</ul>\n'


def _only_likelihood_against(cases: Sequence[Case]) -> bool:
    """Whether items are ranked by the likelihood alone, and some case's best item has a bar to the left."""
    return any(case.items[0]["why"]["views"].get("likelihood", 0.0) < 0 for case in cases if case.items) and all(
        list(item["why"]["views"]) == ["likelihood"] for case in cases for item in case.items
    )


def _case(case: Case, n_items: int) -> str:
    parts = [heading("History, the latest item last"), _history(case)]
    if case.truth is not None:
        parts += [heading("What really came next"), _standing(case, n_items)]
    if case.thinking:
        parts += [heading("Steps of thinking"), _thinking(case.thinking)]
    parts += [heading("Recommended"), _items(case, n_items)]
    return "".join(parts)


def _history(case: Case) -> str:
    listed = case.history[-_HISTORY:]
    first, unread = len(case.history) - len(listed), len(case.history) - case.read
    lines = "".join(
        f"<li{_UNREAD if place < unread else ''}>{escape(_title(item))}</li>\n"
        for place, item in enumerate(listed, first)
    )
    words = f"The first {first:,} are not listed. " if first else ""
    if unread > 0:
        words += f"The model reads the latest {case.read:,}; the others are paler."
    return f'<ol class="history" start="{first + 1}">\n{lines}</ol>\n' + (note(words.strip()) if words else "")


def _standing(case: Case, n_items: int) -> str:
    assert case.truth is not None
    lines = "".join(
        f'<tr><td>{escape(name)}</td><td class="number">{_rank(rank)}</td><td>{_rank_bar(rank, n_items)}</td></tr>\n'
        for name, rank in case.standing
    )
    words = (
        f"Its rank among {n_items:,} items, by each part alone and last by what the model ranks by. A longer bar is a better "
        "rank, on a logarithmic scale; items of equal scores share the middle of their places."
    )
    return (
        f"<p><b>{escape(_title(case.truth))}</b></p>\n{note(words)}"
        f'<div class="scroll"><table class="standing"><tbody>\n{lines}</tbody></table></div>\n'
    )


def _rank(rank: float) -> str:
    return f"{rank:,.0f}" if rank == int(rank) else f"{rank:,.1f}"


def _rank_bar(rank: float, n_items: int) -> str:
    width = 100 * (1 - math.log(max(rank, 1)) / math.log(max(n_items, 2)))
    return (
        '<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="rank-bar" width="{max(width, 0.5):.1f}" height="10"/></svg>'
    )


def _thinking(steps: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for number, step in enumerate(steps):
        token = step["token"]
        written = "before the first token"
        if token is not None:
            written = f"token {number}: level {token['level']}, code {token['code']} ({percent(token['probability'])})"
        near = "; ".join(f"{_title(item)} ({item['similarity']:.2f})" for item in step["nearest"])
        lines.append(f"<tr><td>{escape(written)}</td><td>{escape(near)}</td></tr>\n")
    words = (
        "Each token with its probability, and the items whose representations are nearest to the state that is reached, "
        "by their cosine."
    )
    return (
        note(words) + f'<div class="scroll"><table class="thinking"><tbody>\n{"".join(lines)}</tbody></table></div>\n'
    )


def _items(case: Case, n_items: int) -> str:
    added = [_added(item["why"]) for item in case.items]
    low = max((-sum(value for _, value in own if value < 0) for own in added), default=0.0)
    high = max((sum(value for _, value in own if value > 0) for own in added), default=0.0)
    lines = []
    for place, (item, own) in enumerate(zip(case.items, added), 1):
        true = case.truth is not None and item["item"] == case.truth["item"]
        badge = ' <span class="badge">came next</span>' if true else ""
        numbers = " · ".join(f"{name} {value + 0.0:+.2f}" for name, value in [("base", item["why"]["base"]), *own])
        evidence = _evidence(item["why"], n_items)
        lines.append(
            f'<tr{_TRUE if true else ""}><td class="place">{place}</td><td><b>{escape(_title(item))}</b>{badge}'
            f"<div>{escape(item['why']['words'])}</div><small>{escape(evidence)}</small></td>"
            f'<td class="bar">{_bar(own, low, high)}<small>{escape(numbers)} = {item["score"]:.2f}</small></td></tr>\n'
        )
    return f'<table class="items"><tbody>\n{"".join(lines)}</tbody></table>\n'


def _added(why: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [*why["views"].items(), *([("verifier", why["verifier"])] if why["verifier"] else [])]


def _bar(added: Sequence[tuple[str, float]], low: float, high: float) -> str:
    """What adds to the right of the base and what takes away to its left, on the scale of all the case's items."""
    scale = 1000 / max(low + high, 1e-9)
    left = right = low * scale
    parts = []
    for view, value in added:
        width = abs(value) * scale
        if value < 0:
            left -= width
        start = left if value < 0 else right
        if value > 0:
            right += width
        parts.append(
            f'<rect class="{escape(view)}" x="{start:.1f}" width="{width:.1f}" height="20">'
            f"<title>{escape(view)} {value:+.2f}</title></rect>"
        )
    zero = f'<path class="axis" d="M{low * scale:.1f} 0V20" vector-effect="non-scaling-stroke"/>'
    said = ", ".join(f"{view} {value:+.2f}" for view, value in added)
    return (
        f'<svg viewBox="0 0 1000 20" preserveAspectRatio="none" role="img" aria-label="{escape(said)}">'
        f"{''.join(parts)}{zero}</svg>"
    )


def _evidence(why: Mapping[str, Any], n_items: int) -> str:
    said = []
    if why["followed"]:
        after = ", ".join(
            f"{name_of(one)} {one['times']:.3g} times ({percent(one['share'])})" for one in why["followed"]
        )
        said.append(f"Followed {after}")
    if why["reads_like"]:
        said.append(
            "Cosine of texts: " + ", ".join(f"{name_of(one)} {one['similarity']:.2f}" for one in why["reads_like"])
        )
    if why["match"]:
        said.append(f"State: {ordinal(why['match']['rank'])} of {n_items:,}, {percent(why['match']['probability'])}")
    if why["tokens"]:
        said.append("Tokens: " + ", ".join(chance(token["log_probability"]) for token in why["tokens"]))
    return ". ".join(said) + "." if said else ""


def _title(item: Mapping[str, Any]) -> str:
    return item["title"] or item["item"]
