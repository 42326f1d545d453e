"""Candidates of all views, weighed: against a plain pass over the whole catalogue."""

import pytest
import torch

from recbole_stream.decoding.rank import item_log_probs
from recbole_stream.decoding.rank_by_views import (
    all_state_scores,
    all_view_scores,
    candidate_views,
    deliberate,
    rank_by_states,
    view_scores,
)
from recbole_stream.decoding.trie import Trie
from recbole_stream.model.deliberation import VIEWS
from recbole_stream.model.verifier import Verifier
from tests.helpers import catalogue, deliberating, random_histories, random_verifier

ITEMS, SIZES = 40, (4, 4, 4)
HISTORIES = random_histories(ITEMS, [1, 3, 6, 2, 5])


@pytest.fixture
def make():
    def made(off=(), text=True, verifier=None):
        codes = catalogue(ITEMS, SIZES)
        model = deliberating(codes, SIZES, off, text, verifier)
        return model, Trie(codes)

    return made


def every_view(model):
    """All five views of all items, one history and one view at a time: [B, ITEMS, 5]."""
    slow, items, rows = model.deliberation, torch.arange(1, ITEMS + 1), []
    for history in HISTORIES:
        history = history[history > 0][None]
        views = [
            item_log_probs(model, history, items[None])[0],
            slow.matcher(history).log_softmax(-1)[0, 1:],
            (slow.transitions(history)[0, 1:] + 1e-3).log(),
            slow.content(history)[0, 1:] if slow.content else torch.zeros(ITEMS),
            torch.isin(items, history).float(),
        ]
        rows.append(torch.stack(views, -1))
    return torch.stack(rows)


@torch.no_grad()
def test_with_every_item_a_candidate_the_ranking_is_that_of_a_plain_pass(make):
    model, trie = make()
    plain = (every_view(model) * model.deliberation.weights).sum(-1)
    scores, order = plain.sort(descending=True)
    items, found = deliberate(model, HISTORIES, trie, beams=5, candidates=ITEMS, top=10)
    assert torch.equal(items, order[:, :10] + 1)
    assert torch.allclose(found, scores[:, :10], atol=1e-4)


@torch.no_grad()
def test_candidates_are_the_best_of_the_other_views_and_the_beams_without_repeats(make):
    model, trie = make()
    items, views, _ = candidate_views(model, HISTORIES, trie, beams=8, candidates=6)
    plain = every_view(model)
    others = (plain[..., 1:] * model.deliberation.weights[1:]).sum(-1).topk(6).indices + 1
    likely = plain[..., 0].topk(3).indices + 1  # the first beams; the width of 8 makes them exact here
    for row in range(len(HISTORIES)):
        present = items[row][items[row] > 0].tolist()
        assert len(set(present)) == len(present)
        assert set(others[row].tolist()) | set(likely[row].tolist()) <= set(present)
        for place, item in enumerate(items[row].tolist()):
            if item:
                assert torch.allclose(views[row, place], plain[row, item - 1], atol=1e-4)


@torch.no_grad()
def test_given_items_get_the_score_they_are_ranked_by(make):
    model, trie = make()
    items, scores = deliberate(model, HISTORIES, trie, beams=5, candidates=20, top=8)
    assert torch.allclose(view_scores(model, HISTORIES, items), scores, atol=1e-4)


@torch.no_grad()
def test_views_that_are_off_weigh_nothing(make):
    model, trie = make(off=("likelihood", "text"))
    assert [view for view, weight in zip(VIEWS, model.deliberation.weights) if weight == 0] == ["likelihood", "text"]
    items, views, _ = candidate_views(model, HISTORIES, trie, beams=8, candidates=6)
    assert items.shape[1] == 6 and (items > 0).all()  # the search brings no candidates
    assert (views[..., VIEWS.index("likelihood")] == 0).all()


@torch.no_grad()
@pytest.mark.parametrize("switch", ["off", "weight"])
def test_nothing_is_generated_where_generation_weighs_nothing(make, switch, monkeypatch):
    model, trie = make(off=("likelihood",) if switch == "off" else ())
    if switch == "weight":
        expected = every_view(model)
        model.deliberation.weights[0] = 0
    monkeypatch.setattr(model.decoder, "begin", None)  # whoever generates fails
    items, scores = deliberate(model, HISTORIES, trie, beams=5, candidates=40, top=8)
    assert torch.allclose(view_scores(model, HISTORIES, items), scores, atol=1e-4)
    if switch == "weight":
        best = (expected * model.deliberation.weights).sum(-1).topk(8)
        assert torch.equal(items, best.indices + 1) and torch.allclose(scores, best.values, atol=1e-4)


@torch.no_grad()
def test_as_many_items_as_asked_for_though_there_are_fewer_candidates(make):
    model, trie = make(off=("likelihood",))
    items, scores = deliberate(model, HISTORIES, trie, beams=5, candidates=3, top=12)
    best = (every_view(model) * model.deliberation.weights).sum(-1).topk(12)
    assert torch.equal(items, best.indices + 1) and torch.allclose(scores, best.values, atol=1e-4)


@torch.no_grad()
def test_items_without_text_have_no_content_view(make):
    model, trie = make(text=False)
    assert model.deliberation.used == (True, True, True, False, True)
    _, views, _ = candidate_views(model, HISTORIES, trie, beams=5, candidates=5)
    assert (views[..., VIEWS.index("text")] == 0).all()


@torch.no_grad()
def test_a_trusted_verifier_ranks_the_candidates_and_one_that_is_not_changes_nothing(make):
    verifier = Verifier(5, 4, torch.arange(ITEMS + 1))
    torch.nn.init.normal_(verifier.linear.weight)
    model, trie = make(text=False, verifier=verifier)
    weighed, _ = deliberate(model, HISTORIES, trie, beams=5, candidates=ITEMS, top=10)
    assert torch.equal(weighed, deliberate(make(text=False)[0], HISTORIES, trie, beams=5, candidates=ITEMS, top=10)[0])
    verifier.trusted.fill_(True)
    items, scores = deliberate(model, HISTORIES, trie, beams=5, candidates=ITEMS, top=10)
    plain = every_view(model)
    length = (HISTORIES > 0).sum(1).float().log()
    extra = [
        torch.zeros(5, ITEMS),
        torch.arange(1, ITEMS + 1).expand(5, -1).add(1.0).log(),
        length[:, None].expand(-1, ITEMS),
    ]
    every = torch.cat([plain, torch.stack(extra, -1)], -1)
    expected = (every.clamp(-5, 5) @ verifier.linear.weight[0]).topk(10)
    assert torch.allclose(scores, expected.values, atol=1e-3) and not torch.equal(items, weighed)
    assert (items == expected.indices + 1).float().mean() > 0.9  # but for ties at the clamp
    assert torch.allclose(view_scores(model, HISTORIES, items), scores, atol=1e-3)


@torch.no_grad()
def test_the_verifier_reads_no_view_that_is_switched_off(make):
    model, _ = make(off=("matching", "text"))
    catalogue = model.deliberation.catalogue(HISTORIES)
    assert (catalogue[..., [0, 2]] == 0).all() and (catalogue[..., 1] != 0).any()


@torch.no_grad()
def test_ranking_by_states_is_the_towers_order(make):
    model, _ = make()
    items, scores = rank_by_states(model, HISTORIES, 7)
    expected = every_view(model)[..., 1].topk(7)
    assert torch.equal(items, expected.indices + 1) and torch.allclose(scores, expected.values, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("off", [(), ["likelihood"]])
def test_scores_of_all_items_are_those_of_a_plain_pass(make, off):
    model, trie = make(off)
    views = every_view(model)
    views[..., [view in off for view in VIEWS]] = 0
    scores = all_view_scores(model, HISTORIES, trie, beams=3, candidates=3)
    assert torch.allclose(scores[:, 1:], (views * model.deliberation.weights).sum(-1), atol=1e-4)
    assert (scores[:, 0] == -torch.inf).all()
    if "likelihood" in off:
        assert torch.allclose(all_state_scores(model, HISTORIES)[:, 1:], views[..., 1], atol=1e-4)


@torch.no_grad()
def test_what_the_verifier_does_not_look_at_comes_after_what_it_ranks(make):
    model, trie = make(verifier=random_verifier(catalogue(ITEMS, SIZES)))
    scores = all_view_scores(model, HISTORIES, trie, beams=5, candidates=5)
    items, found = deliberate(model, HISTORIES, trie, beams=5, candidates=5, top=5)
    best, order = scores.topk(5)
    assert torch.equal(order, items) and torch.allclose(best, found, atol=1e-4)
    candidates, *_ = candidate_views(model, HISTORIES, trie, 5, 5)
    plain = (every_view(model) * model.deliberation.weights).sum(-1)
    for row in range(len(HISTORIES)):
        rest = [item for item in range(1, ITEMS + 1) if item not in candidates[row]]
        looked_at = candidates[row][candidates[row] > 0]
        assert scores[row, rest].max() < scores[row, looked_at].min()
        by_sum = sorted(rest, key=lambda item: -plain[row, item - 1].item())
        assert sorted(rest, key=lambda item: -scores[row, item].item()) == by_sum


@torch.no_grad()
def test_more_items_than_beams_and_candidates_are_all_ranked(make):
    model, trie = make()
    items, scores = deliberate(model, HISTORIES, trie, beams=3, candidates=3, top=ITEMS)
    plain, order = (every_view(model) * model.deliberation.weights).sum(-1).sort(descending=True)
    assert torch.equal(items, order + 1) and torch.allclose(scores, plain, atol=1e-4)
