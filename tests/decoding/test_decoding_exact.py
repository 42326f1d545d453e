import pytest
import torch
from helpers import catalogue, random_histories, streamrec, tiger
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_stream.decoding import exact
from recbole_stream.decoding.beam import beam_search, score_items
from recbole_stream.decoding.exact import exact_search, rank_items_exactly, score_catalogue
from recbole_stream.decoding.rank import item_log_probs
from recbole_stream.decoding.trie import Trie

SIZES = (6, 4, 5)
CODES = catalogue(60, SIZES)
HISTORIES = random_histories(60, (7, 1, 4, 3, 2))
EVERY = torch.arange(1, 61)


def every_score(model, histories):
    """Exact scores of the whole catalogue, [B, n_items]."""
    every = torch.arange(1, model.tokens.n_items).expand(len(histories), -1)
    return score_items(model.begin(histories), every)


@st.composite
def settings_of_a_search(draw):
    sizes = draw(st.lists(st.integers(1, 5), min_size=2, max_size=4).filter(lambda s: torch.tensor(s).prod() > 1))
    n_items = draw(st.integers(1, min(40, int(torch.tensor(sizes).prod()))))
    seed = draw(st.integers(0, 1000))
    codes = catalogue(n_items, sizes, seed)
    # from nearly even (4) to nearly certain (.2) tokens
    model = tiger(codes, sizes, temperature=draw(st.sampled_from([0.2, 1.0, 4.0])), seed=seed)
    histories = random_histories(n_items, draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)), seed)
    return model, Trie(codes), histories


@given(settings_of_a_search(), st.integers(1, 12), st.integers(1, 12))
@settings(deadline=None, max_examples=40)
@torch.no_grad()
def test_equals_scoring_the_whole_catalogue(search, top, beams):
    model, trie, histories = search
    items, scores, _ = exact_search(model.begin(histories), trie, top, beams)
    plain = every_score(model, histories)
    best = plain.topk(min(top, plain.shape[1]), 1).values
    assert items.shape == best.shape
    assert torch.allclose(scores, best, atol=1e-4)
    assert torch.allclose(plain.gather(1, items - 1), best, atol=1e-4)
    assert all(len(set(row)) == len(row) for row in items.tolist())


@torch.no_grad()
def test_says_for_whom_the_beams_were_enough():
    model = tiger(CODES, SIZES, temperature=0.5)
    trie = Trie(CODES)
    told = []
    for beams in (1, 2, 3, 5, 60):
        items, _, enough = exact_search(model.begin(HISTORIES), trie, 3, beams)
        if beams >= 3:
            beam_items, _ = beam_search(model.begin(HISTORIES), trie, beams)
            assert enough.tolist() == (beam_items[:, :3] == items).all(1).tolist()
        told.append(int(enough.sum()))
    # one beam reaches at most the 5 items below one prefix; with 60 it is the whole catalogue
    assert told[0] < 5 and told[-1] == 5


@torch.no_grad()
def test_the_result_does_not_depend_on_beams_or_batch(monkeypatch):
    model, trie = tiger(CODES, SIZES), Trie(CODES)
    items, scores, _ = exact_search(model.begin(HISTORIES), trie, 8, 60)
    monkeypatch.setattr(exact, "_TOKENS", 1)  # histories one by one, and halves of what is too large
    for beams in (1, 4):
        again, again_scores, _ = exact_search(model.begin(HISTORIES), trie, 8, beams)
        assert torch.equal(again, items)
        assert torch.allclose(again_scores, scores, atol=1e-5)


@torch.no_grad()
def test_too_large_a_depth_is_read_in_halves(monkeypatch):
    # one beam leaves out 19 first tokens and 14 second ones: 19 * 5 histories fit 95 at once;
    # the 19 * 15 second tokens that follow from them, times 5, do not fit 8 * 95
    codes = catalogue(600, (20, 15, 2))
    model, trie = tiger(codes, (20, 15, 2), temperature=50.0), Trie(codes)
    histories = random_histories(600, (7, 1, 4, 3, 2))
    expected = exact_search(model.begin(histories), trie, 600, 600)[1]
    sizes = []
    complete = exact._Search.complete

    def recorded(self, rows, *rest):
        sizes.append(len(rows))
        return complete(self, rows, *rest)

    monkeypatch.setattr(exact._Search, "complete", recorded)
    monkeypatch.setattr(exact, "_TOKENS", 95)
    items, scores, _ = exact_search(model.begin(histories), trie, 600, 1)
    assert torch.allclose(scores, expected, atol=1e-4)
    assert sorted(items[0].tolist()) == list(range(1, 601))
    assert sizes[:2] == [5, 3]  # all, then the first half of them


@torch.no_grad()
def test_after_reasoning():
    model = streamrec(CODES, SIZES)
    model.steps.fill_(2)
    items, scores, _ = rank_items_exactly(model, HISTORIES, Trie(CODES), 10, 2)
    plain = item_log_probs(model, HISTORIES, EVERY.expand(5, -1))
    best = plain.topk(10, 1)
    assert torch.equal(items, best.indices + 1)
    assert torch.allclose(scores, best.values, atol=1e-4)


@given(settings_of_a_search(), st.integers(1, 50))
@settings(deadline=None, max_examples=30)
@torch.no_grad()
def test_scores_of_the_catalogue_are_those_of_each_item(search, at_once):
    model, trie, histories = search
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "_ITEMS", at_once)
        scores = score_catalogue(model.begin(histories), trie)
    assert torch.allclose(scores[:, 1:], every_score(model, histories), atol=1e-4)
    assert (scores[:, 0] == -torch.inf).all()
