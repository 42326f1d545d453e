"""Filters on interactions: against a brute-force implementation and by hand."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recbole_stream.data.amazon_core import factorise, first_of_pairs, frequent, iterated_k_core

PAIRS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=80)


def columns(pairs):
    table = np.array(pairs, dtype=np.int32).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def k_core_one_by_one(pairs, k):
    """Removes single rows of too rare users or items until none is left, in no clever order."""
    rows = list(range(len(pairs)))
    while True:
        users = Counter(pairs[row][0] for row in rows)
        items = Counter(pairs[row][1] for row in rows)
        rare = [row for row in rows if users[pairs[row][0]] < k or items[pairs[row][1]] < k]
        if not rare:
            return rows
        rows.remove(rare[0])


@given(PAIRS, st.integers(1, 5))
def test_k_core_equals_brute_force(pairs, k):
    assert iterated_k_core(*columns(pairs), k).tolist() == k_core_one_by_one(pairs, k)


@given(PAIRS, st.integers(1, 5))
def test_k_core_leaves_nobody_below_k(pairs, k):
    users, items = columns(pairs)
    rows = iterated_k_core(users, items, k)
    for column in (users[rows], items[rows]):
        assert all(count >= k for count in Counter(column.tolist()).values())


def test_k_core_follows_the_chain():
    # k = 2. Item 3 has one row, so it goes; that leaves user 2 one row (on item 1), so user 2 goes;
    # users 0 and 1 with items 0 and 1 keep two rows each.
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 3), (2, 1)]
    assert iterated_k_core(*columns(pairs), 2).tolist() == [0, 1, 2, 3]


def test_k_core_can_be_empty():
    # Every user has two rows, every item one: nothing holds at k = 2.
    assert iterated_k_core(*columns([(0, 0), (0, 1), (1, 2), (1, 3)]), 2).tolist() == []


@given(st.lists(st.integers(-4, 4), max_size=60), st.integers(1, 4))
def test_frequent_counts_rows(ids, least):
    counts = Counter(ids)
    expected = [counts[value] >= least for value in ids]
    assert frequent(np.array(ids, dtype=np.int64), least).tolist() == expected


def test_frequent_works_in_parts(monkeypatch):
    monkeypatch.setattr("recbole_stream.data.amazon_core._CHUNK", 2)
    # 7 occurs three times, -2^63 twice, 5 once; parts of two rows must see the counts of the whole.
    ids = np.array([7, -(2**63), 5, 7, 7, -(2**63)])
    assert frequent(ids, 2).tolist() == [True, True, False, True, True, True]


def test_codes_follow_first_appearance():
    assert factorise(np.array([40, -7, 40, 2**62, -7])).tolist() == [0, 1, 0, 2, 1]


@given(PAIRS)
def test_first_of_pairs(pairs):
    expected = [row for row, pair in enumerate(pairs) if pair not in pairs[:row]]
    assert first_of_pairs(*columns(pairs)).tolist() == expected
