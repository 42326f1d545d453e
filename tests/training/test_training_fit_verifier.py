"""The verifier's features by hand, its training on planted choices, and when it is trusted."""

import numpy as np
import pytest
import torch

from recbole_stream.model.verifier import Verifier
from recbole_stream.training.fit_verifier import fit_scorer, folds, list_loss, verify

TEXT = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])


def test_features_by_hand():
    verifier = Verifier(2, 4, torch.tensor([0, 3, 0, 1]))
    histories, items = torch.tensor([[1, 2, 0], [3, 0, 0]]), torch.tensor([[3, 0], [1, 2]])
    views = torch.arange(8.0).view(2, 2, 2)
    cosines = TEXT[items] @ TEXT[histories].transpose(1, 2)
    features = verifier.features(histories, items, views, cosines)
    assert torch.equal(features[..., :2], views)
    # item 3 is .6 from item 1 and .8 from item 2; no item and padding are 0
    assert torch.allclose(features[..., 2], torch.tensor([[0.8, 0.0], [0.6, 0.8]]))
    assert torch.allclose(features[..., 3], torch.tensor([[2.0, 1.0], [4.0, 1.0]]).log())
    assert torch.allclose(features[..., 4], torch.tensor([[2.0, 2.0], [1.0, 1.0]]).log())


def test_without_text_nothing_is_close():
    features = Verifier(1, 4, torch.ones(4)).features(
        torch.tensor([[1, 2]]), torch.tensor([[1, 3]]), torch.ones(1, 2, 1), None
    )
    assert (features[..., 1] == 0).all()


def test_what_the_pointer_says_comes_after_the_views():
    verifier, items = Verifier(1, 4, torch.ones(4), pointed=True), torch.tensor([[1, 3]])
    features = verifier.features(torch.tensor([[1, 2]]), items, torch.ones(1, 2, 1), None, torch.tensor([[5.0, 7.0]]))
    assert features.shape[-1] == len(verifier.mean) == 5 and features[0, :, 1].tolist() == [5.0, 7.0]


def test_its_making_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    Verifier(5, 32, torch.ones(4))
    assert torch.rand(1) == expected


def test_list_loss_by_hand():
    scores = torch.tensor([[1.0, 1.0, 9.0], [0.0, 2.0, 0.0]])
    present = torch.tensor([[True, True, False], [True, True, True]])
    expected = [np.log(2), np.log(2 + np.exp(2)) - 2]
    assert list_loss(scores, torch.tensor([0, 1]), present).tolist() == pytest.approx(expected)


def choices(users, crossed, seed=0):
    """Two views; with ``crossed`` the second speaks for an item only where the first is high. Targets by the softmax."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(users, 10, 5, generator=generator)
    truth = 2 * features[..., 0] + (4 * features[..., 1] * (features[..., 0] > 0) if crossed else features[..., 1])
    noise = -torch.rand(users, 10, generator=generator).log().neg().log()
    return features, (truth + noise).argmax(1), torch.ones(users, 10, dtype=torch.bool)


@pytest.mark.parametrize("crossed", [True, False])
def test_it_is_trusted_where_a_weighed_sum_is_not_enough(crossed):
    features, targets, present = choices(800, crossed)
    verifier = Verifier(2, 16, torch.ones(3))
    weighed = 2 * features[..., 0] + features[..., 1] * (2 if crossed else 1)
    errors, held_out = verify(verifier, features, targets, present, weighed, seed=1)
    assert bool(verifier.trusted) == crossed and (errors > 2) == crossed
    if not crossed:
        assert torch.equal(held_out, weighed)
    fresh, answers, everyone = choices(2000, crossed, seed=9)
    if crossed:  # and on users of whom it knows nothing it keeps its word
        base = 2 * fresh[..., 0] + 2 * fresh[..., 1]
        better = list_loss(base, answers, everyone) - list_loss(verifier(fresh), answers, everyone)
        assert better.mean() > 2 * better.std() / len(better) ** 0.5


def _refuse(seed):
    raise AssertionError("the generators of the GPUs are seeded")


def test_training_repeats_itself_and_leaves_the_random_numbers_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", _refuse)  # which no one would restore
    features, targets, present = choices(100, True)
    scores = []
    for seed in (1, 1, 2):
        verifier = Verifier(2, 8, torch.ones(3))
        torch.default_generator.manual_seed(5)
        fit_scorer(verifier, features, targets, present, seed)
        scores.append(verifier(features))
        assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(5))
    assert torch.equal(scores[0], scores[1]) and not torch.equal(scores[0], scores[2])


def test_places_without_a_candidate_change_nothing():
    features, targets, present = choices(100, True)
    wider = torch.cat([features, torch.full((100, 3, 5), 50.0)], 1)
    holes = torch.cat([present, torch.zeros(100, 3, dtype=torch.bool)], 1)
    plain, padded = Verifier(2, 8, torch.ones(3)), Verifier(2, 8, torch.ones(3))
    plain.network[2].p = padded.network[2].p = 0  # or they drop other units
    fit_scorer(plain, features, targets, present, 1)
    fit_scorer(padded, wider, targets, holes, 1)
    # the bias, the same for all, has no gradient but rounding
    centred = [scores - scores.mean(1, keepdim=True) for scores in (plain(features), padded(features))]
    assert torch.allclose(*centred, atol=1e-2)


def test_fewer_users_than_folds_are_no_reason_to_trust_it():
    features, targets, present = choices(3, True)
    verifier = Verifier(2, 8, torch.ones(3))
    errors, held_out = verify(verifier, features, targets, present, features[..., 0], 1)
    assert errors == 0 and not verifier.trusted and torch.equal(held_out, features[..., 0])


def test_a_users_held_out_scores_do_not_know_his_item():
    features, targets, present = choices(400, True)
    weighed = 2 * features[..., 0]
    _, before = verify(Verifier(2, 8, torch.ones(3)), features, targets, present, weighed, seed=1)
    (others, fold), *_ = folds(400, seed=1)
    assert sorted([*others.tolist(), *fold.tolist()]) == list(range(400))
    changed = targets.clone()
    changed[fold] = (changed[fold] + 1) % 10
    _, after = verify(Verifier(2, 8, torch.ones(3)), features, changed, present, weighed, seed=1)
    assert torch.equal(before[fold], after[fold]) and not torch.equal(before[others], after[others])


def test_every_user_is_held_out_once():
    held_out = torch.cat([fold for _, fold in folds(11, seed=3)])
    assert held_out.sort().values.tolist() == list(range(11)) and not list(folds(3, seed=3))
