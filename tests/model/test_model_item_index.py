"""Ranking by an index: what looks into all lists ranks as the whole catalogue does."""

import pytest
import torch

from recbole_stream.decoding.rank_by_views import deliberate, rank_by_states
from recbole_stream.decoding.trie import Trie
from recbole_stream.errors import InputError
from recbole_stream.model import item_index, views
from recbole_stream.model.item_index import ItemIndex, check_faiss, learn_lists
from recbole_stream.model.views import indexed
from tests.helpers import catalogue, deliberating, random_histories

pytest.importorskip("faiss", reason='faiss is not installed (the extra "index")')

ITEMS, SIZES, LISTS = 400, (8, 8, 8), 16
HISTORIES = random_histories(ITEMS, [1, 3, 6, 2, 5])


def model_of(probes, scales, off=(), text=True, repeats=-3.0):
    """A random model that generates nothing, with an index or, for no probes, without."""
    model = deliberating(catalogue(ITEMS, SIZES), SIZES, off, text)
    slow = model.deliberation
    slow.weights.copy_(torch.tensor([0.0, 0.7, 0.4, 0.9, repeats]) * torch.tensor(slow.used))
    if probes:
        vectors = indexed(slow, scales)
        slow.index = ItemIndex(vectors, learn_lists(vectors, LISTS), None, probes, scales)
    return model


@torch.no_grad()
@pytest.mark.parametrize("repeats", [-3.0, 2.0])
@pytest.mark.parametrize(
    "off, text, scales",
    [
        ((), True, (0.5, 2.0)),
        ((), False, (1.0, 0.0)),
        (("matching",), True, (0.0, 1.0)),
        (("transitions",), True, (1.0, 1.0)),
    ],
)
def test_all_lists_give_the_same_as_no_index(off, text, scales, repeats, monkeypatch):
    monkeypatch.setattr(views, "_MARGIN", 1)
    monkeypatch.setattr(views, "_CELLS", 50)
    trie = Trie(catalogue(ITEMS, SIZES))
    plain, fast = (model_of(probes, scales, off, text, repeats) for probes in (0, LISTS))
    monkeypatch.setattr(views.BatchViews, "_chunks", None)  # the whole catalogue is not gone through
    found = deliberate(fast, HISTORIES, trie, 1, 20, 10)
    monkeypatch.undo()
    wanted = deliberate(plain, HISTORIES, trie, 1, 20, 10)
    assert torch.equal(found[0], wanted[0])
    assert torch.allclose(found[1], wanted[1], atol=1e-3)


@torch.no_grad()
def test_states_alone(monkeypatch):
    monkeypatch.setattr(views, "_MARGIN", 1)
    plain, fast = (model_of(probes, (1.0, 0.0)) for probes in (0, LISTS))
    (items, scores), wanted = rank_by_states(fast, HISTORIES, 10), rank_by_states(plain, HISTORIES, 10)
    assert torch.equal(items, wanted[0]) and torch.allclose(scores, wanted[1], atol=1e-4)


@torch.no_grad()
def test_what_is_found_in_few_lists_has_its_exact_score(monkeypatch):
    monkeypatch.setattr(views, "_MARGIN", 1)
    trie = Trie(catalogue(ITEMS, SIZES))
    plain, fast = (model_of(probes, (1.0, 1.0)) for probes in (0, 2))
    items, scores = deliberate(fast, HISTORIES, trie, 1, 20, 10)
    every, exact = deliberate(plain, HISTORIES, trie, 1, ITEMS, ITEMS)
    place = (every[:, None] == items[:, :, None]).int().argmax(-1)
    assert torch.allclose(exact.gather(1, place), scores, atol=1e-3)
    assert 0.3 < (every[:, None, :10] == items[:, :, None]).any(-1).float().mean() < 1


@torch.no_grad()
def test_a_sample_of_the_items_estimates_the_normaliser(monkeypatch):
    monkeypatch.setattr(views, "_MARGIN", 1)
    monkeypatch.setattr(views, "_SAMPLE", 100)
    fast = model_of(4, (1.0, 1.0)).deliberation
    fast.matcher.own.weight.mul_(0.2)
    found, exact = fast.views_of(HISTORIES), fast.views_of(HISTORIES).normaliser
    found.candidates(20, fast.weights[1:].tolist())
    assert not torch.equal(found.normaliser, exact)
    assert torch.allclose(found.normaliser, exact, atol=0.15)


@torch.no_grad()
def test_where_few_items_are_compared_all_are_gone_through():
    plain, fast = (model_of(probes, (1.0, 1.0)) for probes in (0, 1))  # 25 items, of which 8 times 20 are no part
    weights = plain.deliberation.weights[1:].tolist()
    items = [model.deliberation.views_of(HISTORIES).candidates(20, weights) for model in (plain, fast)]
    assert torch.equal(*items)


def test_items_that_came_later_go_to_their_nearest_centre():
    vectors = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    centres = learn_lists(vectors, 5)
    whole = ItemIndex(vectors, centres, None, 5, (1.0, 0.0))
    assert torch.equal(whole.lists, (vectors @ centres.T).argmax(1))
    grown = ItemIndex(vectors, centres, whole.lists[:50].int(), 5, (1.0, 0.0))
    assert torch.equal(grown.lists, whole.lists)
    queries = torch.randn(3, 4)
    items, products = grown.nearest(queries, 60)
    wanted, order = (queries @ vectors.T).sort(1, descending=True)
    assert torch.equal(items, order + 1) and torch.allclose(products, wanted, atol=1e-5)


def test_without_faiss_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(item_index.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "recbole-stream\[index\]"'):
        check_faiss()
