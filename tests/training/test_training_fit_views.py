"""The training of the matching tower, and what deliberation learns from validation users."""

import numpy as np
import pytest
import torch

from recbole_stream.data.samples import Batch
from recbole_stream.data.seen import Seen
from recbole_stream.decoding.rank_by_views import deliberate
from recbole_stream.decoding.trie import Trie
from recbole_stream.model.deliberation import VIEWS, Deliberation
from recbole_stream.model.lookup import Transitions
from recbole_stream.model.matching import Matcher
from recbole_stream.training.fit_views import Match, collect_views, learn_to_deliberate
from tests.helpers import backbone, catalogue, make_samples, random_histories, streamrec


def tower():
    codes = catalogue(20, (4, 4, 4))
    model = streamrec(codes, (4, 4, 4))
    histories = random_histories(20, [3] * 30)
    memory = Transitions(histories[:, :2], torch.full((30,), 2), histories[:, 2], 21, 2, 0.5, 0.0, 0.7)
    matcher = Matcher(backbone(), model.tokens.table, model.tokens.vocabulary, None)
    model.deliberation = Deliberation(matcher, memory, None)
    return model, Batch(histories[:, :2], histories[:, 2], torch.arange(30))


def test_only_the_tower_is_trained_and_it_learns():
    model, batch = tower()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    objective = Match(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    losses = []
    for _ in range(20):
        loss, _ = next(objective.losses(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("deliberation.") for name in changed)


@pytest.mark.parametrize("at_once", [0, 1 << 24])
def test_the_loss_is_the_cross_entropy_over_all_items(at_once, monkeypatch):
    monkeypatch.setattr("recbole_stream.training.losses._KEPT", at_once)
    model, batch = tower()
    model.eval()
    loss, _ = next(Match(model).losses(batch))
    with torch.no_grad():
        logits = model.deliberation.matcher(batch.histories)[:, 1:]
        by_hand = logits.logsumexp(1) - logits.gather(1, batch.targets[:, None] - 1)[:, 0]
    assert loss.item() == pytest.approx(by_hand.mean().item(), rel=1e-5)


@pytest.mark.parametrize("unseen_only", [False, True])
def test_its_ranks_are_those_of_its_ranking_where_users_are_too_few_to_hold_some_out(unseen_only):
    model, batch = tower()
    model.eval()
    trie = Trie(catalogue(20, (4, 4, 4)))
    histories = random_histories(20, (2, 1, 2), seed=1)
    samples = make_samples(histories, torch.tensor([4, histories[1, 0], 9]))  # the second user buys the same again
    had = [histories[0].tolist(), histories[1, :1].tolist(), [7, *histories[2].tolist()]]  # 7 is too old to be read
    if unseen_only:
        samples.seen = Seen(torch.tensor(sum(had, [])), torch.tensor([0, 2, 3]), torch.tensor([2, 1, 3]))
    learnt = learn_to_deliberate(model, samples, torch.tensor([2, 0, 1]), trie, 4, 20, 0)
    assert learnt.rows.tolist() == [1, 2, 0]  # short histories first
    for row, rank in zip(learnt.rows, learnt.ranks):
        history, target = samples.histories[row], samples.targets[row]
        items, scores = deliberate(model, history[None], trie, 4, 20, 20)
        ranked = {item: score for item, score in zip(items[0].tolist(), scores[0].tolist()) if score > -np.inf}
        if unseen_only:
            ranked = {item: score for item, score in ranked.items() if item not in had[row]}
        own = ranked.get(target.item())
        expected = np.inf if own is None else sum(score > own - 1e-5 for score in ranked.values())  # ties count against
        assert rank == expected


def test_users_whose_items_are_no_candidates_leave_everything_as_it_was():
    model, batch = tower()
    model.eval()
    before = model.deliberation.weights.clone()
    samples = make_samples(batch.histories[:5], torch.full((5,), 20))
    model.deliberation.matcher.requires_grad_(False)
    trie = Trie(catalogue(20, (4, 4, 4)))
    (best, *_), _ = deliberate(model, samples.histories[:1], trie, 1, 1, 1)
    samples.targets[:] = 1 + best.item() % 20  # not the one candidate of the first user
    learnt = learn_to_deliberate(model, samples, torch.arange(1), trie, 1, 1, 0)
    assert torch.equal(model.deliberation.weights, before) and learnt.ranks.tolist() == [np.inf]
    assert "no validation user" in learnt.message


def test_weights_know_what_else_they_would_find():
    model, batch = tower()
    model.eval()
    slow, trie = model.deliberation, Trie(catalogue(20, (4, 4, 4)))
    slow.switch_off(["likelihood", "matching", "text"])
    slow.weights.copy_(torch.tensor([0.0, 0.0, 1.0, 0.0, -99.0]))  # transitions alone, and never what a user has
    histories = random_histories(20, [4] * 200, seed=5)
    shares = slow.transitions(histories).scatter(1, histories, 0.0)
    likeliest = shares.argmax(1)  # what transitions find of the rest: nobody buys again
    samples = make_samples(histories, likeliest)
    items, views, _ = collect_views(model, samples, torch.arange(200), trie, 1, 4)
    assert not views[..., VIEWS.index("repeats")].any()  # on these candidates, `repeats` could weigh anything
    learn_to_deliberate(model, samples, torch.arange(200), trie, 1, 4, 0)
    assert slow.weights[VIEWS.index("repeats")] < -1
    best, _ = deliberate(model, histories, trie, 1, 4, 1)
    assert (best[:, 0] == likeliest).float().mean() > 0.9
