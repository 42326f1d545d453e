"""Unique IDs: properties on arbitrary codes, optimality by brute force, Sinkhorn's marginals."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_stream.errors import InputError
from recbole_stream.tokenizer.collisions import append_counter, group_ids, reassign, sinkhorn


def residual_distances(points, codebooks):
    """Squared distances of one-dimensional residuals, as a plain loop over levels."""

    def distances(level, rows, codes):
        residual = points[rows].copy()
        for before in range(level):
            residual = residual - codebooks[before][codes[:, before]]
        return (residual[:, None] - codebooks[level][None, :]) ** 2

    return distances


def quantise(points, codebooks):
    residual, codes = points.copy(), []
    for codebook in codebooks:
        code = np.abs(residual[:, None] - codebook).argmin(axis=1)
        codes.append(code)
        residual = residual - codebook[code]
    return np.stack(codes, axis=1)


def keepers(codes):
    """Rows that share their ID with nobody."""
    ids = group_ids(codes)
    return np.bincount(ids)[ids] == 1


@st.composite
def crowded_codes(draw):
    sizes = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    n = draw(st.integers(0, min(40, math.prod(sizes))))
    rows = [[draw(st.integers(0, size - 1)) for size in sizes] for _ in range(n)]
    return np.array(rows, dtype=np.int64).reshape(n, len(sizes)), sizes


def check_unique(codes, sizes, result):
    n = len(codes)
    assert result.codes.shape == codes.shape
    assert len({tuple(row) for row in result.codes}) == n
    assert (result.codes >= 0).all() and (result.codes < np.array(sizes)).all()
    # One item of each ID stays where it is, the others must move, and no more than they.
    distinct = len({tuple(row) for row in codes})
    changed = (result.codes != codes).any(axis=1)
    assert result.moved == changed.sum() == n - distinct
    assert not changed[keepers(codes)].any()
    assert {tuple(row) for row in codes} <= {tuple(row) for row in result.codes}
    # A prefix that holds no more items than it has last codes keeps them all.
    groups = group_ids(codes[:, :-1])
    fits = np.bincount(groups, minlength=1)[groups] <= sizes[-1]
    assert (result.moved_prefix > 0) == (result.codes[:, :-1] != codes[:, :-1]).any()
    assert (result.codes[fits, :-1] == codes[fits, :-1]).all()


@settings(max_examples=200, deadline=None)
@given(crowded_codes())
def test_reassign_without_distances(case):
    codes, sizes = case
    result = reassign(codes, sizes)
    check_unique(codes, sizes, result)
    np.testing.assert_array_equal(result.codes, reassign(codes, sizes).codes)


@settings(max_examples=200, deadline=None)
@given(crowded_codes(), st.integers(0, 2**32 - 1))
def test_reassign_with_distances(case, seed):
    codes, sizes = case
    rng = np.random.default_rng(seed)
    codebooks = [rng.normal(size=size) for size in sizes]
    check_unique(codes, sizes, reassign(codes, sizes, residual_distances(rng.normal(size=len(codes)), codebooks)))


@pytest.mark.parametrize("n, sizes", [(64, (4, 4, 4)), (27, (3, 3, 3)), (16, (16,)), (9, (1, 3, 3)), (8, (2, 2, 2))])
def test_identical_items_fill_the_whole_space(n, sizes):
    codes = np.zeros((n, len(sizes)), dtype=np.int64)
    codebooks = [np.arange(size, dtype=float) for size in sizes]
    result = reassign(codes, sizes, residual_distances(np.zeros(n), codebooks))
    assert len({tuple(row) for row in result.codes}) == n == math.prod(sizes)
    assert result.moved == n - 1


def test_one_item_too_many_is_an_input_error():
    with pytest.raises(InputError, match="5 items do not fit 2 levels"):
        reassign(np.zeros((5, 2), dtype=np.int64), (2, 2))


def test_nearest_item_stays_and_the_rest_take_the_free_codes_by_hand():
    # Codewords 0, 1, 2, 3 at 0, 10, 20, -5. Items at 1, 0.5, 4 all have code 0; an item at 10 holds code 1.
    # Item 0.5 is nearest and stays; codes 2 and 3 are free. Cost of the items at 1 and 4:
    # codes (2, 3): 19² + 9² = 442; codes (3, 2): 6² + 16² = 292. So 1 -> 3, 4 -> 2.
    points = np.array([1.0, 0.5, 4.0, 10.0])
    codebook = np.array([0.0, 10.0, 20.0, -5.0])
    codes = np.array([[0], [0], [0], [1]])
    result = reassign(codes, (4,), residual_distances(points, [codebook]))
    assert result.codes.ravel().tolist() == [3, 0, 2, 1]
    assert (result.moved, result.moved_prefix) == (2, 0)


def test_greedy_choice_would_cost_more():
    # Movers at 8 and 9 (the item at 0 stays); free codewords at 10 and -20.
    # Row by row: 8 -> 10 (2² = 4), then 9 -> -20 (29² = 841), in all 845. The other way: 28² + 1² = 785.
    codebook = np.array([0.0, 10.0, -20.0])
    points = np.array([0.0, 8.0, 9.0])
    result = reassign(np.zeros((3, 1), dtype=np.int64), (3,), residual_distances(points, [codebook]))
    assert result.codes.ravel().tolist() == [0, 2, 1]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_last_level_is_optimal_by_brute_force(seed, n):
    rng = np.random.default_rng(seed)
    codebook, points = rng.normal(size=6), rng.normal(size=n)
    distances = residual_distances(points, [codebook])
    codes = np.full((n, 1), 2)
    result = reassign(codes, (6,), distances)
    costs = (points[:, None] - codebook) ** 2
    stays = int(costs[:, 2].argmin())
    others = [row for row in range(n) if row != stays]
    best = min(
        sum(costs[row, code] for row, code in zip(others, chosen, strict=True))
        for chosen in itertools.permutations([0, 1, 3, 4, 5], n - 1)
    )
    assert result.codes[stays, 0] == 2
    assert sum(costs[row, result.codes[row, 0]] for row in others) == pytest.approx(best)


def test_overflow_sends_the_farthest_items_to_the_nearest_prefix_with_room():
    # Level 1 at 0, 100, 10; level 2 at 0 and 1: two items fit below a prefix. Items 0, 0.2, 0.4, 0.6 quantise to
    # (0,0) (0,0) (0,0) (0,1). 0 keeps (0,0), 0.6 keeps (0,1): prefix 0 is full, 0.2 and 0.4 must leave.
    # The nearest prefix is 2 (at 10), with room for two; residuals -9.8 and -9.6 both want code 0 there, and
    # (0.2 -> 0, 0.4 -> 1) costs 9.8² + 10.6² = 208.4, the other way 10.8² + 9.6² = 208.8.
    codebooks = [np.array([0.0, 100.0, 10.0]), np.array([0.0, 1.0])]
    points = np.array([0.0, 0.2, 0.4, 0.6])
    codes = quantise(points, codebooks)
    assert codes.tolist() == [[0, 0], [0, 0], [0, 0], [0, 1]]
    result = reassign(codes, (3, 2), residual_distances(points, codebooks))
    assert result.codes.tolist() == [[0, 0], [2, 0], [2, 1], [0, 1]]
    assert (result.moved, result.moved_prefix) == (2, 2)


def test_overflow_keeps_the_items_that_cost_least():
    # As before without 0.6, so code 1 of prefix 0 (at 1) is free for one of the movers 0.2 and 0.4:
    # 0.8² = .64 against 0.6² = .36, so 0.4 stays and 0.2 leaves for prefix 2.
    codebooks = [np.array([0.0, 100.0, 10.0]), np.array([0.0, 1.0])]
    points = np.array([0.0, 0.2, 0.4])
    result = reassign(quantise(points, codebooks), (3, 2), residual_distances(points, codebooks))
    assert result.codes.tolist() == [[0, 0], [2, 0], [0, 1]]


def test_overflow_climbs_as_many_levels_as_it_must():
    # Two codes a level, codewords 0 and 1 everywhere. Five items at 0: four fill prefix 0, the fifth changes level 1.
    codebooks = [np.array([0.0, 1.0])] * 3
    result = reassign(np.zeros((5, 3), dtype=np.int64), (2, 2, 2), residual_distances(np.zeros(5), codebooks))
    assert sorted(map(tuple, result.codes[:, :2])) == [(0, 0), (0, 0), (0, 1), (0, 1), (1, 0)]
    assert (result.moved, result.moved_prefix) == (4, 3)


def test_without_distances_the_smallest_free_code_is_taken():
    codes = np.array([[3, 1], [3, 1], [3, 0], [3, 1], [0, 1]])
    assert sorted(reassign(codes, (4, 5)).codes[[1, 3], 1].tolist()) == [2, 3]
    assert reassign(codes, (4, 5)).codes[[0, 2, 4]].tolist() == [[3, 1], [3, 0], [0, 1]]


@settings(max_examples=100, deadline=None)
@given(crowded_codes())
def test_group_ids_agree_with_tuples(case):
    codes, _ = case
    order = {row: number for number, row in enumerate(sorted({tuple(row) for row in codes}))}
    assert group_ids(codes).tolist() == [order[tuple(row)] for row in codes]


def test_group_ids_of_more_ids_than_64_bits():
    # 10 levels of 1,024 codes are 2^100 IDs; these two differ in the first level only.
    codes = np.full((3, 10), 1023)
    codes[1, 0] = 0
    assert group_ids(codes).tolist() == [1, 0, 1]


def test_counter_counts_in_row_order():
    codes = np.array([[5, 5], [1, 2], [5, 5], [5, 5], [1, 3]])
    counted, size = append_counter(codes)
    assert counted.tolist() == [[5, 5, 0], [1, 2, 0], [5, 5, 1], [5, 5, 2], [1, 3, 0]]
    assert size == 3


@settings(max_examples=50, deadline=None)
@given(crowded_codes())
def test_counter_makes_unique(case):
    codes, _ = case
    if len(codes):
        counted, size = append_counter(codes)
        assert len({tuple(row) for row in counted}) == len(codes)
        assert counted[:, -1].max() == size - 1
        np.testing.assert_array_equal(counted[:, :-1], codes)


def test_sinkhorn_marginals():
    distances = np.random.default_rng(0).uniform(size=(12, 4))
    plan = sinkhorn(distances, epsilon=0.1, iterations=200)
    np.testing.assert_allclose(plan.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(plan.sum(axis=0), 12 / 4, atol=1e-6)


def test_sinkhorn_one_step_by_hand():
    # Distances 0 and 1 scale to -1 and 1; with epsilon = 2 / ln 3 the kernel is sqrt(3) and 1/sqrt(3), in
    # proportion 3 to 1: [[3, 1], [3, 1]]. Columns to n/K = 1: [[.5, .5], [.5, .5]]; rows already sum to 1.
    plan = sinkhorn(np.array([[0.0, 1.0], [0.0, 1.0]]), epsilon=2 / math.log(3), iterations=1)
    np.testing.assert_allclose(plan, [[0.5, 0.5], [0.5, 0.5]], atol=1e-12)
    # With [[3, 1], [1, 3]]: columns sum to 4, so [[.75, .25], [.25, .75]].
    plan = sinkhorn(np.array([[0.0, 1.0], [1.0, 0.0]]), epsilon=2 / math.log(3), iterations=1)
    np.testing.assert_allclose(plan, [[0.75, 0.25], [0.25, 0.75]], atol=1e-12)


def test_sinkhorn_uses_codes_evenly_where_nearest_would_not():
    # All six points lie nearest to the first codeword; in a converged plan each codeword gets two of them.
    points, codebook = np.linspace(0, 0.5, 6), np.array([0.0, 1.0, 2.0])
    distances = (points[:, None] - codebook) ** 2
    assert (distances.argmin(axis=1) == 0).sum() >= 5
    codes = sinkhorn(distances, epsilon=0.02, iterations=2000).argmax(axis=1)
    assert np.bincount(codes, minlength=3).tolist() == [2, 2, 2]


def test_sinkhorn_of_equal_distances_is_finite():
    np.testing.assert_allclose(sinkhorn(np.ones((3, 2))), 0.5)
