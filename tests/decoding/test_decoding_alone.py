"""A user's ranking does not depend on who is ranked at the same time, nor on how far the history is padded."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from helpers import catalogue, deliberating, pad, random_verifier, streamrec, tiger
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_stream.decoding.exact import rank_items_exactly, score_catalogue
from recbole_stream.decoding.rank import rank_items, thought
from recbole_stream.decoding.rank_by_views import all_view_scores, deliberate, rank_by_states
from recbole_stream.decoding.trie import Trie

ITEMS, SIZES, TOP = 40, (4, 4, 4), 8
ROUNDING = 1e-4


@cache
def ranking(name):
    """A function from histories [B, L] to items and scores [B, TOP] by a random model."""
    codes = catalogue(ITEMS, SIZES)
    trie = Trie(codes)
    if name in ("TIGER", "PT", "SFT", "exact"):
        model = tiger(codes, SIZES, "item") if name == "TIGER" else streamrec(codes, SIZES)
        if name in ("SFT", "exact"):
            model.steps.fill_(3)
        if name == "exact":
            return lambda histories: rank_items_exactly(model, histories, trie, TOP, 4)[:2]
        if name == "PT":
            return lambda histories: score_catalogue(thought(model, histories), trie).sort(descending=True)[::-1]
        return lambda histories: rank_items(model, histories, trie, 10, TOP)
    pointed = "pointer" in name
    verifier = random_verifier(codes, pointed) if pointed or "verifier" in name else None
    off = ("likelihood",) if "without" in name else ()
    model = deliberating(codes, SIZES, off, verifier=verifier, pointed=pointed)
    if name == "States":
        return lambda histories: rank_by_states(model, histories, TOP)
    if name == "all by the verifier":
        return lambda histories: all_view_scores(model, histories, trie, 4, 4).sort(descending=True)[::-1]
    return lambda histories: deliberate(model, histories, trie, 4, 8, TOP)


@pytest.mark.parametrize(
    "name",
    [
        "TIGER",
        "PT",
        "SFT",
        "exact",
        "States",
        "Deliberation",
        "Deliberation without likelihood",
        "Deliberation with verifier",
        "Deliberation with pointer",
        "all by the verifier",
    ],
)
@given(st.data())
@settings(deadline=None, max_examples=12)
@torch.no_grad()
def test_alone_and_in_any_company(name, data):
    rank = ranking(name)
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    users = [torch.randint(1, ITEMS + 1, (length,), generator=generator).tolist() for length in lengths]
    company = data.draw(st.lists(st.integers(0, len(users) - 1), min_size=1, max_size=8))
    histories = F.pad(pad([users[user] for user in company]), (0, data.draw(st.integers(0, 7))))
    for user, items, scores in zip(company, *rank(histories)):
        (alone,), (own,) = rank(torch.tensor([users[user]]))
        assert torch.allclose(scores, own, atol=ROUNDING)
        for place in (items != alone).nonzero()[:, 0]:  # equal but for rounding
            (there,) = (alone == items[place]).nonzero()[:, 0].tolist() or [-1]
            assert (own[there] - scores[place]).abs() < ROUNDING
