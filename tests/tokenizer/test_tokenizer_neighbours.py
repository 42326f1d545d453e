"""Nearest items against plain full sorts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_stream.errors import InputError
from recbole_stream.tokenizer import neighbours
from recbole_stream.tokenizer.neighbours import nearest_by_ids, nearest_items


def test_nearest_items_by_hand():
    # Directions 0°, 10°, 90°, 180° with different lengths: cosine does not see the length.
    angles = np.radians([0, 10, 90, 180])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array([[1], [50], [2], [3]])
    assert nearest_items(points, 3).tolist() == [[1, 2, 3], [0, 2, 3], [1, 0, 3], [2, 1, 0]]


def test_ties_go_to_the_lower_row():
    points = np.array([[1.0, 0], [0, 1], [2, 0], [3, 0], [0, 0]])
    # Rows 0, 2, 3 point the same way (cosine 1); row 4 is zero: cosine 0 with all.
    assert nearest_items(points, 2).tolist() == [[2, 3], [0, 2], [0, 3], [0, 2], [0, 1]]


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 30), st.integers(1, 29), st.integers(0, 2**32 - 1), st.integers(1, 200))
def test_nearest_items_agree_with_a_full_sort_in_any_chunks(n, k, seed, held):
    k = min(k, n - 1)
    # Small whole numbers: many exact ties, and copies of rows.
    points = np.random.default_rng(seed).integers(-1, 2, size=(n, 3)).astype(float)
    unit = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    cosines = np.round(unit @ unit.T, 5)
    expected = [sorted((j for j in range(n) if j != i), key=lambda j: (-cosines[i, j], j))[:k] for i in range(n)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "_SCORES", held)
        assert nearest_items(points, k).tolist() == expected


def test_nearest_by_ids_by_hand():
    codes = np.array([[1, 2, 3], [1, 2, 9], [1, 8, 3], [7, 2, 3], [7, 7, 7]])
    # From row 0: row 1 shares two leading codes; row 2 one leading (and one elsewhere); row 3 none leading but two
    # elsewhere; row 4 nothing.
    assert nearest_by_ids(codes, 4)[0].tolist() == [1, 2, 3, 4]
    # From row 4: row 3 shares the first code; the others nothing, in row order.
    assert nearest_by_ids(codes, 4)[4].tolist() == [3, 0, 1, 2]


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 40), st.integers(1, 10), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_nearest_by_ids_agree_with_a_full_sort(n, k, levels, seed):
    k = min(k, n - 1)
    codes = np.random.default_rng(seed).integers(0, 3, size=(n, levels))

    def rank(i, j):
        same = codes[i] == codes[j]
        leading = levels if same.all() else int(same.argmin())
        return (-leading, -int(same.sum()), j)

    expected = [sorted((j for j in range(n) if j != i), key=lambda j: rank(i, j))[:k] for i in range(n)]
    assert nearest_by_ids(codes, k).tolist() == expected


@pytest.mark.parametrize("k", [0, 3])
def test_more_neighbours_than_items_is_an_input_error(k):
    for nearest in (nearest_items, nearest_by_ids):
        with pytest.raises(InputError, match=f"{k} similar items cannot be found among 3 items"):
            nearest(np.eye(3), k)
