"""The weights of the views, those of held-out users, and ranks among candidates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_stream.model.deliberation import LEAST
from recbole_stream.training.fit_verifier import folds
from recbole_stream.training.view_weights import choose_weights, fit_weights, ranks_among, weigh_held_out

ALL, FREE = (True, True, True), (None, None, None)


def choices(weights, users, seed):
    """Candidates with random views, and targets drawn with the softmax of the weighted views."""
    rng = np.random.default_rng(seed)
    views = rng.normal(size=(users, 12, len(weights)))
    noisy = views @ np.asarray(weights) + rng.gumbel(size=(users, 12))
    return views, noisy.argmax(1), np.ones((users, 12), dtype=bool)


def test_planted_weights_come_back():
    # the standard error of a weight with 20,000 users is about .01
    fitted = fit_weights(*choices([1.0, -2.0, 0.0], 20_000, 0), ALL, FREE, ridge=0.0)
    assert np.allclose(fitted, [1.0, -2.0, 0.0], atol=0.05)


def test_one_user_two_candidates_by_hand():
    # the target's one view is 1, the other's 0: the loss is log(1 + e^-w) + r w^2, least where 2 r w = 1 / (1 + e^w),
    # which r = 1 / (2 (1 + e)) puts at w = 1
    ridge = 1 / (2 * (1 + np.e))
    fitted = fit_weights(np.array([[[1.0], [0.0]]]), np.array([0]), np.ones((1, 2), bool), (True,), (None,), ridge)
    assert fitted[0] == pytest.approx(1.0, abs=1e-4)


def test_places_without_a_candidate_change_nothing():
    views, targets, present = choices([1.0, 0.5, -1.0], 300, 1)
    rng = np.random.default_rng(2)
    more = np.concatenate([views, rng.normal(size=(300, 4, 3)) * 50], 1)
    padded = np.concatenate([present, np.zeros((300, 4), bool)], 1)
    assert np.allclose(
        fit_weights(more, targets, padded, ALL, FREE), fit_weights(views, targets, present, ALL, FREE), atol=1e-4
    )


@settings(max_examples=20, deadline=None)
@given(st.lists(st.booleans(), min_size=3, max_size=3).filter(any), st.integers(0, 5))
def test_views_that_are_not_used_weigh_exactly_0_and_no_other_weights_are_likelier(used, seed):
    views, targets, present = choices([1.0, -1.0, 0.5], 200, seed)
    fitted = fit_weights(views, targets, present, tuple(used), FREE)
    assert all(weight == 0 for weight, use in zip(fitted, used) if not use)

    def loss(weights):
        scores = views @ weights
        likelihood = scores[np.arange(200), targets] - np.log(np.exp(scores).sum(1))
        return -likelihood.mean() + 1e-3 * weights @ weights

    for column in np.flatnonzero(used):
        for step in (-0.05, 0.05):
            moved = fitted.copy()
            moved[column] += step
            assert loss(moved) > loss(fitted)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([None, 0.0]), min_size=3, max_size=3), st.integers(0, 5))
def test_bounded_weights_are_the_likeliest_within_their_bounds(least, seed):
    views, targets, present = choices([1.0, -1.0, 0.0], 200, seed)
    fitted = fit_weights(views, targets, present, ALL, tuple(least))
    free = fit_weights(views, targets, present, ALL, FREE)
    assert all(bound is None or weight >= bound for weight, bound in zip(fitted, least))
    assert fitted[0] > 0.5 and (fitted[1] == 0 if least[1] == 0 else fitted[1] < -0.5)
    if all(bound is None or weight >= bound for weight, bound in zip(free, least)):
        assert np.allclose(fitted, free, atol=1e-4)


def test_a_generative_view_that_says_nothing_is_dropped_and_the_others_are_as_without_it():
    views, targets, present = choices([0.0, -1.0, 0.0], 2000, 3)
    chosen = choose_weights(views, targets, present, ALL, FREE)
    assert np.array_equal(chosen, fit_weights(views, targets, present, (False, True, True), FREE))
    assert chosen[0] == 0 and chosen[2] != 0  # others may say nothing: they cost nothing
    views, targets, present = choices([0.2, 0.0, 0.0], 2000, 4)  # weak, but told from 0 by 2,000 users
    assert np.array_equal(
        choose_weights(views, targets, present, ALL, FREE), fit_weights(views, targets, present, ALL, FREE)
    )


def test_noise_is_kept_as_seldom_as_the_level_says():
    kept = 0
    for seed in range(60):
        views, targets, present = choices([0.0, 1.0], 150, seed)
        kept += choose_weights(views, targets, present, (True, True), (None, None), level=0.2)[0] != 0
    assert 3 <= kept <= 22  # 12 expected, 3 standard deviations of 3.1 to either side


@pytest.mark.parametrize("used", [(True, False, False), (False, True, True)])
def test_alone_it_stays_and_switched_off_it_is_not_asked(used):
    views, targets, present = choices([0.01, 0.5, 0.5], 50, 5)
    chosen = choose_weights(views, targets, present, used, FREE)
    assert np.array_equal(chosen, fit_weights(views, targets, present, used, FREE)) and (chosen[0] != 0) == used[0]


def test_held_out_users_are_weighed_by_what_the_others_chose():
    views, targets, present = choices([0.5, 1.0, 0.0, 0.0, -1.0], 200, 6)
    used = (True, True, False, True, True)
    weights = fit_weights(views, targets, present, used, LEAST)
    scores = weigh_held_out(views, targets, present, used, weights, seed=4)
    for others, fold in folds(200, seed=4):
        some = others.numpy()
        expected = fit_weights(views[some], targets[some], present[some], used, LEAST)
        assert np.allclose(scores[fold.numpy()], views[fold.numpy()] @ expected)
    assert not np.allclose(scores, views @ weights) and np.allclose(scores, views @ weights, atol=2)
    few = weigh_held_out(views[:3], targets[:3], present[:3], used, weights, seed=4)
    assert np.allclose(few, views[:3] @ weights)


def test_ties_count_against_the_target_and_one_that_was_not_found_is_infinite():
    scores = np.array([[3.0, 2.0, 2.0, -np.inf], [1.0, 0.0, -1.0, -2.0], [1.0, 2.0, 3.0, 4.0]])
    hits = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
    assert ranks_among(scores, hits).tolist() == [3, 1, np.inf]
