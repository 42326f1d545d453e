"""Rankings of a small catalogue, by cosines and words worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recbole_stream.llm.retrieval import BM25, Cosine, places_of, rank_items, tie_order

ORDER, NO = np.arange(4), -np.inf


def test_the_cosine_leaves_lengths_out():
    vectors = {"east": [2.0, 0.0], "north-east": [1.0, 1.0]}
    retrieval = Cosine(
        np.array([[3.0, 0], [0, 5], [1, 1], [-1, 0]]), lambda texts: np.array([vectors[t] for t in texts])
    )
    half = 1 / math.sqrt(2)
    expected = [[1, 0, half, -1], [half, half, 1, -half]]
    np.testing.assert_allclose(retrieval.scores(["east", "north-east"]), expected, atol=1e-12)
    assert places_of(["east"], retrieval, ORDER).tolist() == [1, 3, 2, 4]


def test_bm25_by_hand():
    retrieval = BM25(["red lamp", "red chair", "blue blue lamp lamp", "a"], k1=1.0, b=0.5)
    # lengths 2, 2, 4, 1, mean 2.25; held back: .5 + .5 * length / 2.25
    two, four = 0.5 + 1 / 2.25, 0.5 + 2 / 2.25
    shared, rare = math.log(1 + 2.5 / 2.5), math.log(1 + 3.5 / 1.5)  # in 2 of 4 texts, in 1 of 4
    red, lamp = shared / (1 + two), shared * 2 / (2 + four)
    blue = rare * 2 / (2 + four)
    np.testing.assert_allclose(retrieval.scores(["Red!", "blue"]), [[red, red, NO, NO], [NO, NO, blue, NO]], atol=1e-12)
    np.testing.assert_allclose(retrieval.scores(["red lamp"]), [[2 * red, red, lamp, NO]], atol=1e-12)
    assert retrieval.scores(["unknown words"]).tolist() == [[NO] * 4]


def test_equals_stand_in_the_order_of_ties():
    scores = np.array([[0.5, 0.9, 0.5, 0.5]])
    assert rank_items(scores, ORDER).tolist() == [1, 0, 2, 3]
    assert rank_items(scores, np.array([3, 1, 2, 0])).tolist() == [1, 3, 2, 0]
    assert sorted(tie_order(50)) == list(range(50)) and tie_order(50).tolist() == tie_order(50).tolist()


def test_each_title_names_its_best_item_and_the_others_follow():
    scores = np.array([[0.1, 0.2, 0.9, 0.3], [0.4, 0.3, 0.8, 0.1], [0.0, 0.6, 0.5, 0.2]])
    # named: 2, 2 again, 1; the rest by their best: item 0 has .4, item 3 has .3
    assert rank_items(scores, ORDER).tolist() == [2, 1, 0, 3]
    # a title that matches nothing names nothing, and what no title matches is not ranked
    assert rank_items(np.array([[NO, NO, NO, NO], [1, 2, NO, 3]]), ORDER).tolist() == [3, 1, 0]


def test_no_query_and_no_match_rank_nothing():
    retrieval = BM25(["red lamp", "red chair", "blue lamp", "desk"])
    assert places_of([], retrieval, ORDER).tolist() == [0, 0, 0, 0]
    assert places_of(["piano"], retrieval, ORDER).tolist() == [0, 0, 0, 0]
    assert places_of(["desk"], retrieval, ORDER).tolist() == [0, 0, 0, 1]
    assert places_of(["lamp of the red sort"], retrieval, ORDER).tolist() == [1, 2, 3, 0]


SCORES = st.sampled_from([NO, -1, 0, 0.5, 1])


@settings(max_examples=40, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=SCORES))
def test_every_item_that_matches_is_ranked_once(scores):
    ranking = rank_items(scores, tie_order(scores.shape[1]))
    assert sorted(ranking) == np.flatnonzero(scores.max(0) > NO).tolist()
    if len(scores) == 1:
        assert (np.diff(scores[0][ranking]) <= 0).all()


def test_a_vector_of_zeros_is_as_far_from_everything():
    retrieval = Cosine(np.zeros((4, 2)), lambda texts: np.ones((len(texts), 2)))
    assert retrieval.scores(["x"]).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("text", ["", "  "])
def test_bm25_takes_items_without_text(text):
    assert places_of(["red"], BM25(["red", text]), np.arange(2)).tolist() == [1, 0]
