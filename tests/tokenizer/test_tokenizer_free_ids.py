"""IDs of items that come later: by the means of those that bear a code, and free."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_stream.errors import InputError
from recbole_stream.tokenizer.free_ids import FreeIDs, mean_codebooks
from recbole_stream.tokenizer.rq_kmeans import rq_kmeans

# two clusters, around (0, 0) and (10, 0); within each, one item above and one below
POINTS = np.array([[0, 1], [0, -1], [10, 1], [10, -1]], np.float32)
CODES = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])


def test_a_word_is_the_mean_of_what_is_left():
    first, second = mean_codebooks(POINTS, CODES, (3, 2))
    assert first[:2].tolist() == [[0, 0], [10, 0]]
    assert np.isnan(first[2]).all()  # nobody bears it
    assert second.tolist() == [[0, 1], [0, -1]]


def test_the_means_are_the_words_of_k_means():
    embeddings = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    quantised = rq_kmeans(embeddings, 2, 8, seed=1, show_progress=False)
    for own, theirs in zip(mean_codebooks(embeddings, quantised.codes, (8, 8)), quantised.codebooks):
        assert np.allclose(own, theirs, atol=1e-4)


def test_the_nearest_free_code_of_the_last_level():
    free = FreeIDs(POINTS[[0, 1, 2]], CODES[[0, 1, 2]], (2, 2))
    assert free.take(np.array([9.0, -3.0], np.float32)) == (1, 1)
    # cluster 1 is full by now, and so is the other
    with pytest.raises(InputError, match="All 4 semantic IDs"):
        free.take(np.array([9.0, -3.0], np.float32))


def test_a_full_prefix_sends_it_to_the_next_one():
    free = FreeIDs(POINTS[[0, 2, 3]], CODES[[0, 2, 3]], (2, 2))
    assert free.take(np.array([10.0, 1.0], np.float32)) == (0, 1)


def test_codes_that_nobody_bears_come_last():
    # code 2 of level 1 has no word; an item nearer to its zeros than to cluster 1 gets an ID of cluster 1 all the same
    free, item = FreeIDs(POINTS[:3], CODES[:3], (3, 2)), np.array([-50.0, -1.0], np.float32)
    assert free.take(item) == (1, 1)  # cluster 0 is full
    assert free.take(item) == (2, 1)
    assert free.take(item) == (2, 0)


def test_a_counter_counts_on():
    # the last level holds no word: the next number behind the nearest codes
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    free = FreeIDs(POINTS, codes, (2, 4), counter=True)
    near_one = np.array([9.0, 0.0], np.float32)
    assert [free.take(near_one) for _ in range(3)] == [(1, 2), (1, 3), (0, 2)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20), st.booleans())
def test_new_ids_are_free_and_in_range(seed, new, counter):
    rng, sizes = np.random.default_rng(seed), (3, 4, 3)
    every = np.stack(np.unravel_index(rng.permutation(36)[: 36 - new], sizes), 1)
    free = FreeIDs(rng.normal(size=(len(every), 5)).astype(np.float32), every, sizes, counter)
    given_ids = [free.take(vector) for vector in rng.normal(size=(new, 5)).astype(np.float32)]
    assert len({*map(tuple, every.tolist()), *given_ids}) == 36  # all there are: each different from all others
    assert all(0 <= code < size for codes in given_ids for code, size in zip(codes, sizes))
