"""Views in chunks of the catalogue against all views of all items at once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_stream.model import views
from recbole_stream.model.deliberation import VIEWS
from tests.helpers import catalogue, deliberating, random_histories

ITEMS, SIZES = 200, (8, 8, 8)
HISTORIES = random_histories(ITEMS, [1, 3, 6, 2, 5])


def slow_of(off=(), text=True, seed=2):
    model = deliberating(catalogue(ITEMS, SIZES), SIZES, off, text)
    generator = torch.Generator().manual_seed(seed)
    model.deliberation.weights.copy_(
        torch.rand(len(VIEWS), generator=generator) * torch.tensor(model.deliberation.used)
    )
    return model.deliberation


@torch.no_grad()
@pytest.mark.parametrize("cells", [1, 400, 1 << 22])
@pytest.mark.parametrize(
    "off, text", [((), True), (("matching",), True), (("transitions", "repeats"), True), ((), False)]
)
@pytest.mark.parametrize("repeats", [-3.0, 2.0])
def test_the_best_items_and_their_views_are_those_of_the_whole_catalogue(off, text, cells, repeats, monkeypatch):
    monkeypatch.setattr(views, "_CELLS", cells)
    slow = slow_of(off, text)
    slow.weights[4] = repeats * slow.used[4]
    dense = slow.catalogue(HISTORIES)
    scores = (dense * slow.weights[1:]).sum(-1)
    scores[:, 0] = -torch.inf
    best = scores.topk(12, 1)
    chunked = slow.views_of(HISTORIES)
    items = chunked.candidates(12, slow.weights[1:].tolist())
    assert torch.equal(items, best.indices)
    found = chunked.of(items)
    assert torch.allclose(found, dense.gather(1, items[..., None].expand(-1, -1, 4)), atol=1e-4)
    assert torch.allclose((found * slow.weights[1:]).sum(-1), best.values, atol=1e-4)


@torch.no_grad()
def test_views_of_given_items_need_no_search():
    slow = slow_of()
    items = torch.tensor([[1, 200, 7], [3, 3, 9], [4, 5, 6], [100, 2, 8], [50, 60, 70]])
    expected = slow.catalogue(HISTORIES).gather(1, items[..., None].expand(-1, -1, 4))
    assert torch.allclose(slow.views_of(HISTORIES).of(items), expected, atol=1e-4)


@torch.no_grad()
def test_more_items_than_there_are_is_all_of_them():
    slow = slow_of()
    items = slow.views_of(HISTORIES).candidates(1000, slow.weights[1:].tolist())
    assert torch.equal(items.sort(1).values, torch.arange(1, ITEMS + 1).expand(len(HISTORIES), -1))


@torch.no_grad()
def test_states_rank_also_where_matching_is_switched_off():
    on, off = slow_of(), slow_of(("matching",))
    expected = on.matcher(HISTORIES).log_softmax(-1).topk(5, 1)
    found = off.states_of(HISTORIES)
    items = found.candidates(5, (1.0, 0.0, 0.0, 0.0))
    assert torch.equal(items, expected.indices)
    assert torch.allclose(found.of(items)[..., 0], expected.values, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 900), st.integers(1, 6), st.integers(0, 99))
def test_best_is_topk(rows, n, count, seed):
    scores = torch.randperm(rows * n, generator=torch.Generator().manual_seed(seed)).float().view(rows, n)
    values, places = views.best(scores, count)
    expected = scores.topk(min(count, n), 1)
    assert torch.equal(values, expected.values) and torch.equal(places, expected.indices)
